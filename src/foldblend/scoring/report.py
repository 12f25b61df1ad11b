"""The report of a blend: what it is worth, in numbers, in the record of a submission, and in words for 80 columns."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from foldblend.cores import single_threaded_products
from foldblend.predictions import TextComparison
from foldblend.scoring.blending import Blend
from foldblend.scoring.ensembling.predictors import used_runs
from foldblend.scoring.ensembling.strategies import Given, fit_strategies
from foldblend.scoring.inputs import Partition, Scores, Task
from foldblend.scoring.thresholds.rules import Rule
from foldblend.scoring.validation.bootstrap import Additive, Buckets, Difference, compare, make_additive
from foldblend.scoring.validation.choice import Candidate, cross_fit, mean_measured
from foldblend.scoring.validation.expected import ExpectedScore, estimate_score, gain_of_averaging, soften
from foldblend.scoring.validation.shift import Correction, compare_means, find_shifted, simulate_correction

# ---------- Numbers


CONTRIBUTION_ROWS = 8_000
"""Rows on which the blend is refitted without each run."""
STAND_INS = {"mean_of_blends": "shrunk_stack"}
"""What is refitted in its place: the same stack without the search, which would take longer than all the rest."""
FEWEST_TEST_ROWS = 30
"""A test file with fewer rows, as a code competition shows, says nothing about the test set."""


@dataclass(frozen=True)
class TestFacts:
    """What is known of the test rows beside the blend's probabilities of them."""

    __test__ = False  # not a test of pytest
    run_means: tuple[np.ndarray, np.ndarray] | None = None
    """`mean_run_probs` and `mean_test_probs`, on which label shift is judged; None takes the blend's own."""
    hidden_rows: int = 0
    """Rows of the test set that is scored, if the test file here is only a part of it; 0 if it is the whole."""
    texts: TextComparison | None = None
    """None if test texts were not compared with training texts."""
    brought: Mapping[str, str] = field(default_factory=dict)
    """Runs whose test predictions were made elsewhere: `mean_of_folds`, `one_fold`, or empty if nobody said."""
    metric_groups: np.ndarray | None = None
    """int64 (n,): as in `Task.groups`, of the test rows; None if they are not known."""
    has_full: bool = False
    """Whether the last model that is averaged learned from all rows."""
    training: tuple[np.ndarray, np.ndarray] | None = None
    """Labels bool (N, L) and duplicate groups int64 (N,) of all training rows, of which `run_means` are; None if all
    of them are scored."""


@dataclass(frozen=True)
class Shift:
    """A label's mean probability on the OOF rows against the test rows, float64 (L,) each."""

    oof_mean: np.ndarray
    test_mean: np.ndarray
    p: np.ndarray
    """p-values of no shift."""
    shifted: np.ndarray
    """int64: labels whose shift is more than chance and large enough to matter."""
    correction: Correction | None
    """What re-estimated rates would change; None if no label is shifted, or too few rows know those that are."""


@dataclass(frozen=True)
class BlendReport:
    """What is printed and stored beside the table of candidates; scores as the task compares them, more is better."""

    honest: float
    """Cross-fitted score of the whole procedure, its choice included."""
    one_fold: ExpectedScore
    """Of one fold's models on the test rows."""
    gain: float
    """What averaging the fold models should add."""
    n_folds: int
    """Fold models that are averaged."""
    best_single: str
    lead: Difference
    """Of the chosen line of the table over the best single run's, within what luck makes of the largest lead."""
    contributions: dict[str, Difference]
    """What is lost without each run; empty if a single run is chosen."""
    shift: Shift | None
    """None without test rows, and if they are too few."""
    n_visible: int | None
    """Test rows here; None without a test file."""
    n_expected: int
    """Rows of the test set that the expected score is for."""
    hidden_rows: int
    """As in `TestFacts`."""
    texts: TextComparison | None
    brought: dict[str, str]
    """As in `TestFacts`, of the runs that the blend needs."""
    has_full: bool = False
    """As in `TestFacts`."""

    @property
    def has_few_rows(self) -> bool:
        """Whether the test file here is too small to measure anything on."""
        return self.n_visible is not None and self.n_visible < FEWEST_TEST_ROWS


NO_FACTS = TestFacts()


@single_threaded_products()
def describe_blend(
    task: Task,
    blend: Blend,
    fold_probs: np.ndarray | None,
    seed: int,
    facts: TestFacts = NO_FACTS,
    weighs_runs: bool = True,
) -> BlendReport:
    """What a blend is worth.

    Args: fold_probs: float32 (K, n, L), the test rows by each fold's models; None if there are no test rows: then the
          expected score is for as many new rows as the blend was made from.   facts: of the test rows.
          weighs_runs: whether to say what is lost without each run, which refits the blend once per run.
    """
    labels, task = blend.compared.labels, blend.compared.of(task)
    buckets = Buckets(blend.compared.fold, seed, blend.compared.group)
    honest = [make_additive(task, labels, answer, buckets) for answer in blend.honest]
    best = max((each for each in blend.candidates if each.is_single), key=lambda candidate: candidate.score)
    gain, needed = measure_lead(blend.choice, best, blend.why.leads.critical)
    n_visible = None if fold_probs is None else fold_probs.shape[1]
    measured = fold_probs is not None and fold_probs.shape[1] >= FEWEST_TEST_ROWS
    n_expected = facts.hidden_rows or (n_visible if n_visible and measured else len(blend.oof_probs))
    softened = soften_answers(task, blend, buckets)
    error = float((labels - blend.honest[0]).std()) if task.scale is not None else 0.0
    return BlendReport(
        honest=float(np.mean([task.score(labels, answer) for answer in blend.honest])),
        one_fold=estimate_score(honest, softened, len(labels), n_expected, seed),
        gain=gain_of_averaging(
            replace(task, groups=facts.metric_groups, known=None), blend.rule, fold_probs, seed, error
        )
        if fold_probs is not None and measured
        else 0.0,
        n_folds=1 if fold_probs is None else len(fold_probs),
        best_single=best.name,
        lead=Difference(gain, gain - needed, gain + needed),
        contributions=measure_contributions(task, blend, seed) if weighs_runs else {},
        shift=find_shift(task, blend, fold_probs, facts, seed) if fold_probs is not None and measured else None,
        n_visible=n_visible,
        n_expected=n_expected,
        hidden_rows=facts.hidden_rows,
        texts=facts.texts,
        has_full=facts.has_full,
        brought={
            blend.compared.names[run]: facts.brought[blend.compared.names[run]]
            for run in used_runs(blend.predictor, len(blend.compared.names))
            if blend.compared.names[run] in facts.brought
        },
    )


def soften_answers(task: Task, blend: Blend, buckets: Buckets) -> list[Additive]:
    """The metric of the honest answers, against softened labels for macro-F1: what the score is.

    Of the honest answers alone: the chosen line's own score is the best of many, so any share of it is too good.
    """
    labels = blend.compared.labels
    truth = soften(labels, blend.compared_probs, blend.compared.group) if task.metric == "macro_f1" else labels
    return [make_additive(task, truth, answer, buckets) for answer in blend.honest]


def measure_lead(line: Candidate, other: Candidate, critical: float) -> tuple[float, float]:
    """What one line of the table scores above another one, and how much of it luck explains.

    Args: critical: standard errors, as `Leads.critical`.
    """
    ours, theirs = mean_measured(line.measured), mean_measured(other.measured)
    error = float(np.sqrt(((ours.moves - theirs.moves) ** 2).sum()))
    return line.score - other.score, critical * error


def measure_contributions(task: Task, blend: Blend, seed: int) -> dict[str, Difference]:
    """What is lost, cross-fitted, if the strategy is refitted without each run in turn."""
    choice = blend.choice
    if choice.is_single:
        return {}
    strategy = STAND_INS.get(choice.strategy, choice.strategy)
    few = blend.compared.sample(CONTRIBUTION_ROWS, seed)
    task = few.of(task)
    given = Given(task, few.scores, few.labels, Partition(few.fold), seed)

    def answer(scores: Scores) -> np.ndarray:
        without = replace(given, scores=scores)
        fitted = fit_strategies(without, [strategy])[strategy]
        return cross_fit(choice.strategy, fitted, without, (choice.tuning,))[0].answer

    whole, buckets = answer(few.scores), Buckets(few.fold, seed, few.group)
    return {
        name: compare(task, few.labels, whole, answer(few.scores.without(run)), buckets)
        for run, name in enumerate(few.names)
    }


def find_shift(task: Task, blend: Blend, fold_probs: np.ndarray, facts: TestFacts, seed: int) -> Shift:
    """Each label's mean probability here and there, and if one moved, what a correction does."""
    here, there = facts.run_means or (blend.oof_probs, fold_probs)
    all_labels, group = facts.training or (blend.all_labels, blend.all_groups)
    p = compare_means(here, there, group)
    shifted = find_shifted(p, here, there)
    correction = None
    if len(shifted) and task.scale is None:  # a mean of values has no rate to correct
        labels, probs, test_probs = blend.compared.labels, blend.compared_probs, fold_probs.mean(axis=0)
        if blend.compared.known is not None:  # rows whose rate nobody knows would lower it
            rows = np.flatnonzero(blend.compared.known[:, shifted].all(axis=1))
            task, labels, probs = task.at(rows), labels[rows], probs[rows]
        if len(labels) >= FEWEST_TEST_ROWS:
            correction = simulate_correction(
                task, blend.rule, labels, probs, test_probs, shifted, facts.texts, all_labels, seed
            )
    return Shift(here.mean(axis=0), there.mean(axis=(0, 1)), p, shifted, correction)


# ---------- The record beside a submission


def report_record(task: Task, blend: Blend, report: BlendReport, label_names: Sequence[str]) -> dict:
    """Plain values that JSON holds; scores on the metric's own scale."""
    sign = task.entry.sign
    return {
        "metric": task.metric,
        "chosen": blend.choice.name,
        "row_rule": row_rule_words(blend.rule, label_names),
        "rows_compared": len(blend.compared.labels),
        "in_sample": sign * blend.choice.in_sample,
        "cross_fitted": sign * report.honest,
        "expected_one_fold": _expected_record(report.one_fold, 0.0, task),
        "expected_fold_mean": _expected_record(report.one_fold, report.gain, task),
        "expected_for_rows": report.n_expected,
        "test_rows_here": report.n_visible,
        "choice": choice_record(task, blend),
        "best_single": report.best_single,
        "above_best_single": vars(report.lead),
        "lost_without": {name: vars(lost) for name, lost in report.contributions.items()},
        "label_shift": _shift_record(report.shift, label_names) if report.shift else {},
        "correction": _correction_record(report.shift),
        "test_texts": _texts_record(report.texts),
        "test_is": report.brought,
        "table": table_record(task, blend),
    }


def choice_record(task: Task, blend: Blend) -> dict:
    """The numbers that decided: the line that was trusted, the nearest other one, its lead and the one it needed."""
    why, nearest = blend.why, nearest_rival(blend)
    rival = {} if nearest is None else {
        "nearest": blend.candidates[nearest].name,
        "lead": float(why.leads.gains[nearest]),
        "needed": float(why.leads.needed[nearest]),
    }  # fmt: skip
    return {
        "trusted": blend.candidates[why.trusted].name,
        "forced": why.is_forced,
        "critical_value": why.leads.critical,
        "compared": why.leads.n_compared,
        **rival,
        "row_rule_lead": why.row_rule_lead,
        "row_rule_needed": why.row_rule_needed,
    }


def nearest_rival(blend: Blend) -> int | None:
    """The line that replaced the trusted one, or came nearest to it; None if there is no other one that has a score."""
    sure = blend.why.leads.sure.copy()
    sure[blend.why.trusted] = -np.inf
    return int(np.argmax(sure)) if np.isfinite(sure).any() else None


def table_record(task: Task, blend: Blend) -> list[dict]:
    """The score table as one dictionary per candidate; scores on the metric's own scale."""
    return [
        {
            "name": candidate.name,
            "in_sample": task.entry.sign * candidate.in_sample,
            "cross_fitted": task.entry.sign * candidate.score,
            "spread": candidate.spread,
            "repeats": len(candidate.fits),
        }
        for candidate in blend.candidates
    ]


def _expected_record(expected: ExpectedScore, gain: float, task: Task) -> dict[str, float]:
    score, low, high = expected.on_scale(gain, task.entry)
    return {"score": score, "low": low, "high": high}


def _shift_record(shift: Shift, label_names: Sequence[str]) -> dict[str, dict[str, float]]:
    rows = zip(label_names, shift.oof_mean, shift.test_mean, shift.p, strict=True)
    return {name: {"oof_mean": float(here), "test_mean": float(there), "p": float(p)} for name, here, there, p in rows}


def _correction_record(shift: Shift | None) -> dict:
    found = shift.correction if shift else None
    return {**vars(found), "is_offered": found.is_offered} if found else {}


def _texts_record(texts: TextComparison | None) -> dict:
    if texts is None:
        return {}
    return {"auc": texts.auc, "error": texts.error, "repeats": texts.n_repeats, "rows": texts.n_test}


# ---------- Words


COLUMNS = 80
"""Width of a line."""
NAME_COLUMNS = 20
"""Longer names get a line of their own."""
TUNING_WORDS = {"robust": "robust thresholds", "exact": "exact thresholds", "offsets": "tuned offsets"}
TUNING_WORDS["adaptive"] = "adaptive thresholds"
TUNING_WORDS["steps"] = "thresholds on the expected class"
"""What follows a strategy's name; nothing if there is nothing to tune."""


def table_lines(task: Task, blend: Blend, notes: Mapping[str, str]) -> list[str]:
    """The candidates: in-sample, cross-fitted, and how far the latter moves over resamples of rows and over repeats.

    Args: notes: a remark by run name, shown below its lines.
    """
    better = "higher" if task.entry.greater_is_better else "lower"
    lines = [
        f"Score table: {task.metric}, {better} is better",
        "  in-sample     tuned and scored on the same rows: too good",
        "  cross-fitted  tuned on the other folds: what new rows should get",
        "  +- rows       standard deviation if other rows had been drawn",
        "  +- repeats    standard deviation over other splits into folds",
        "",
        f"  {'run or strategy':{NAME_COLUMNS}}  thresholds  in-sample  cross-fitted  +- rows  +- repeats",
    ]
    for position, candidate in enumerate(blend.candidates):
        is_first = not position or candidate.strategy != blend.candidates[position - 1].strategy
        lines += _candidate_lines(task, blend, position, is_first)
        is_last = candidate.strategy not in {each.strategy for each in blend.candidates[position + 1 :]}
        if is_last and candidate.strategy in notes:
            lines.append(f"    {candidate.strategy}: {notes[candidate.strategy]}")
    return lines


def _candidate_lines(task: Task, blend: Blend, position: int, is_first: bool) -> list[str]:
    """One candidate, `>` before the chosen one. A long name gets a line of its own above its first candidate."""
    candidate, sign = blend.candidates[position], task.entry.sign
    repeats = [fit.score for fit in candidate.fits]
    between = f"{np.std(repeats):.4f}" if len(repeats) > 1 else ""
    numbers = (
        f"{candidate.tuning:10}  {sign * candidate.in_sample:9.4f}  {sign * candidate.score:12.4f}"
        f"  {candidate.spread:7.4f}  {between:>10}"
    ).rstrip()
    mark = ">" if position == blend.chosen else " "
    if len(candidate.strategy) > NAME_COLUMNS:
        head = [f"  {candidate.strategy}"] if is_first else []
        return [*head, f"{mark} {'':{NAME_COLUMNS}}  {numbers}"]
    return [f"{mark} {candidate.strategy:{NAME_COLUMNS}}  {numbers}"]


def seed_lines(task: Task, blend: Blend, groups: Iterable[list[str]]) -> list[str]:
    """Mean and standard deviation of cross-fitted scores over runs that differ in their seed alone.

    Args: groups: names of such runs, one list per group. A gain of one setting over another counts beyond this spread.
    """
    lines, sign = [], task.entry.sign
    for names in groups:
        scores: dict[str, list[float]] = {}
        for candidate in blend.candidates:
            if candidate.strategy in names:
                scores.setdefault(candidate.tuning, []).append(sign * candidate.score)
        lines += [
            f"  {len(of)} seeds of {names[0]}, {tuning}: mean {np.mean(of):.4f}, sd {np.std(of, ddof=1):.4f}"
            for tuning, of in scores.items()
        ]
    return lines


def report_lines(task: Task, blend: Blend, report: BlendReport, label_names: Sequence[str]) -> list[str]:
    """The chosen blend in words: its honest score, what to expect on the test rows, what each run is worth."""
    sign, n_compared, n_rows = task.entry.sign, len(blend.compared.labels), len(blend.oof_probs)
    row_rule = row_rule_words(blend.rule, label_names)
    lines = [f"Chosen: {candidate_words(blend.choice.name)}" + (f", {row_rule}" if row_rule else "")]
    lines += choice_lines(blend)
    if n_compared < n_rows:
        lines.append(f"Strategies were compared on {n_compared:,} of {n_rows:,} rows, drawn in whole groups")
    lines += _fit(
        f"Honest CV score, choice included: {sign * report.honest:.4f}",
        f"(tuned and scored on the same rows: {sign * blend.choice.in_sample:.4f})",
    )
    lines += expected_lines(task, report)
    if report.best_single != blend.choice.name:
        best = candidate_words(report.best_single)
        explained = (report.lead.high - report.lead.low) / 2
        lines += _fit(
            f"Above the best single run ({best}):",
            f"{report.lead.gain:+.4f} in the table; luck explains {explained:.4f}",
        )
    if report.contributions:
        lines.append("Score lost if a run is removed (refitted on up to 8,000 rows):")
        width = min(max(map(len, report.contributions)), COLUMNS - 46)
        lines += [f"  {name:{width}}  {_span(lost)}" for name, lost in report.contributions.items()]
    return wrap(lines)


def choice_lines(blend: Blend) -> list[str]:
    """Why this line and this row rule: the lead that decided, and how large it had to be."""
    why, nearest = blend.why, nearest_rival(blend)
    trusted = candidate_words(blend.candidates[why.trusted].name)
    lines = []
    if why.is_forced:
        lines.append("  as --strategy asks, whatever the others score")
    elif nearest is not None:
        rival, gain = candidate_words(blend.candidates[nearest].name), why.leads.gains[nearest]
        numbers = f"lead {gain:+.4f}, needed {why.leads.needed[nearest]:.4f}"
        if blend.chosen != why.trusted:
            lines.append(f"  It replaces {trusted}: {numbers}")
        else:
            lines.append(f"  No run or strategy is surely better. Nearest to that is {rival}: {numbers}")
    if why.row_rule_needed:
        lines.append(f"  Row rule: lead {why.row_rule_lead:+.4f}, needed {why.row_rule_needed:.4f}")
    if lines and not why.is_forced:
        lines.append(f"  Needed: what luck explains in 9 of 10 cases, of {why.leads.n_compared} lines and row rules")
    return lines


def expected_lines(task: Task, report: BlendReport) -> list[str]:
    """The score to expect on the test set, how many rows that is for, and what the interval does not cover."""
    lines = []
    if report.has_few_rows:
        lines.append(
            f"warning: the test file here has {report.n_visible} row{'s' * (report.n_visible != 1)}, too few to say "
            "anything about the test set"
        )
    if report.hidden_rows:
        lines.append(f"Expected scores are for the {report.n_expected:,} test rows of files.hidden_test_rows")
    elif report.has_few_rows:
        lines.append(
            f"Expected scores are for {report.n_expected:,} test rows, as many as the training file has; set "
            "files.hidden_test_rows to the size of the hidden test"
        )
    lines += _fit("Expected on the test set, a single fold:", _interval(report.one_fold, 0.0, task))
    if report.n_folds > 1:
        n_folds = report.n_folds - report.has_full
        average = f"{n_folds}-fold average" + " with the model of all rows" * report.has_full
        if report.has_few_rows:
            lines.append(f"What the {average} adds cannot be measured on so few test rows")
        else:
            lines += _fit(f"Expected on the test set, {average}:", _interval(report.one_fold, report.gain, task))
        if not task.takes_probs:
            tuned = "Thresholds" if task.kind == "multilabel" else "Offsets"
            lines += _fit(f"{tuned} were tuned on single-fold predictions", f"and are applied to the {average}")
    return lines + brought_lines(report.brought) + text_lines(report.texts)


def brought_lines(brought: Mapping[str, str]) -> list[str]:
    """What the expected score is of, if test predictions were made elsewhere."""
    runs = {said: ", ".join(name for name in brought if brought[name] == said) for said in brought.values()}
    lines = []
    if "mean_of_folds" in runs:
        lines.append(
            f"The test predictions of {runs['mean_of_folds']} are a mean of folds, which scores a little more than a "
            "single fold; how much a mean alone does not show, so the expected score leaves it out"
        )
    if "one_fold" in runs:
        lines.append(
            f"The test predictions of {runs['one_fold']} are those of one fold, and the expected score is, too"
        )
    if "" in runs:
        lines.append(
            f"The test predictions of {runs['']} may be a mean of folds or those of one fold, for which the expected "
            "score is. Say which by test_is (docs/training.md)"
        )
    return lines


REPEATS_MATTER = 0.01
"""A share of test rows with a training text from which on the interval is said not to cover them."""


def text_lines(texts: TextComparison | None) -> list[str]:
    """What the interval does not cover: test rows that repeat training texts, and texts of another kind."""
    if texts is None:
        return []
    lines = []
    if texts.n_repeats:
        share = texts.n_repeats / texts.n_test
        lines.append(
            f"{'warning: ' * (share >= REPEATS_MATTER)}{texts.n_repeats:,} of {texts.n_test:,} test rows ({share:.1%}) "
            "repeat a training text, which most fold models have learned. The interval is for new texts only"
        )
    found = f"a classifier tells test texts from training texts with AUC {texts.auc:.2f} (0.50: not at all)"
    if texts.auc - 2 * texts.error > 0.5 + DIFFERENT_TEXTS:
        lines.append(
            f"warning: the test texts are of another kind: {found}. The interval is for texts like the training texts "
            "and does not cover this"
        )
    else:
        lines.append(f"The interval is for texts like the training texts, as the test texts are: {found}")
    return lines


DIFFERENT_TEXTS = 0.05
"""An AUC surely more than this above 0.5 is a warning."""


def shift_lines(task: Task, report: BlendReport, label_names: Sequence[str]) -> list[str]:
    """A warning that names the labels whose rate on the test rows the models see differently, and whether correcting
    for it would help; nothing without any."""
    shift = report.shift
    if shift is None or not len(shift.shifted) or task.scale is not None:
        return []
    too_few = ["Too few rows know these labels to say whether --reestimate_priors would help"]
    width = max(len(label_names[label]) for label in shift.shifted)
    head = "warning: label rates differ on the test rows. The runs' mean probability changes from OOF to test:"
    return [
        *wrap([head]),
        *(
            f"  {label_names[label]:{width}}  {shift.oof_mean[label]:.4f} -> {shift.test_mean[label]:.4f}"
            f"  p {shift.p[label]:.1e}"
            for label in shift.shifted
        ),
        *wrap(correction_lines(task, shift.correction) if shift.correction else too_few),
    ]


def correction_lines(task: Task, found: Correction) -> list[str]:
    """What `--reestimate_priors` would change, and whether anything speaks against it."""
    sign = task.entry.sign
    said = (
        f"Simulated on OOF rows, --reestimate_priors changes the score by {sign * found.gain_if_rates:+.4f} "
        f"(+- {found.error:.4f}) if only the rates changed, and by {sign * found.gain_if_texts:+.4f} if the texts did, "
        "whose probabilities follow them anyway."
    )
    if found.auc is None:
        why = "The texts were not compared, so it is not offered"
    elif not found.texts_are_the_same:
        why = (
            "The texts changed: with training rows weighted to the new rates, a classifier still tells them apart "
            f"with AUC {found.auc:.2f}. So it is not offered"
        )
    elif found.is_offered:
        why = (
            "Test texts cannot tell the two apart. Use it only if you know that the rates alone changed, as when "
            "training rows were picked by their labels"
        )
    else:
        why = "It gains too little to be offered"
    return [f"{said} {why}"]


def candidate_words(name: str) -> str:
    """A candidate's name as a reader says it. Example: "shrunk_stack + robust" -> "shrunk_stack, robust thresholds"."""
    strategy, _, tuning = name.rpartition(" + ")
    return f"{strategy}, {TUNING_WORDS[tuning]}" if tuning in TUNING_WORDS else strategy


def row_rule_words(rule: Rule, label_names: Sequence[str]) -> str:
    """The row rule in words; empty without one. Example: Rule(at_most=3) -> "at most 3 labels per row"."""
    words = []
    if rule.exclusive is not None:
        words.append(f"{label_names[rule.exclusive]} only alone")
    if rule.at_most is not None:
        words.append(f"at most {rule.at_most} label{'s' if rule.at_most > 1 else ''} per row")
    if rule.at_least_one:
        words.append("at least one label per row")
    return ", ".join(words)


def wrap(lines: Iterable[str]) -> list[str]:
    """Lines of at most 80 columns; what is cut goes on indented. Names are never broken."""
    wrapper = textwrap.TextWrapper(COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return [part for line in lines for part in wrapper.wrap(line)]


def _fit(head: str, tail: str) -> list[str]:
    """Both on one line if 80 columns hold them, else the tail indented below."""
    line = f"{head} {tail}"
    return [line] if len(line) <= COLUMNS else [head, f"  {tail}"]


def _interval(expected: ExpectedScore, gain: float, task: Task) -> str:
    score, low, high = expected.on_scale(gain, task.entry)
    return f"{score:.4f}, 90 % interval {low:.4f} to {high:.4f}"


def _span(difference: Difference) -> str:
    return f"{difference.gain:+.4f}, 90 % interval {difference.low:+.4f} to {difference.high:+.4f}"
