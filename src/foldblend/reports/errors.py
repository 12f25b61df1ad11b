"""What goes wrong: the worst rows, labels that are confused, groups of rows that are harder, words that mislead."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from foldblend.reports.marks import Marks, slice_rows
from foldblend.reports.page import Block, Browser, Column, Marked, MarkedText, Section, Table, shortened
from foldblend.scoring.inputs import Task
from foldblend.scoring.metrics.formulas import row_f1
from foldblend.scoring.metrics.table import to_values
from foldblend.scoring.validation.decided import Decided, find_suspects, row_losses

Z90 = 1.645
WORST_ROWS, WORST_OF_LABEL, MOST_ROWS = 200, 8, 900
"""Rows in the browser: the worst of all, the worst missed and invented of each label, and at most so many."""
TEXT_LENGTH = 500
"""Characters of a text that are shown."""
FEWEST_IN_SLICE = 20
MOST_OF_ALL = 0.9
"""A slice of more than this share is not said to be hard: it is nearly all there is."""
MOST_WORDS = 8
"""Words per label."""


@dataclass(frozen=True)
class Texts:
    """What rows are, of all N training rows."""

    ids: Sequence[str]
    texts: Sequence[str]
    label_names: Sequence[str]
    marks: Marks
    columns: Mapping[str, Sequence[str]]
    """The user's columns to slice by."""
    terms: Mapping[str, np.ndarray]
    """The user's lists of words -> bool (N,)."""


def errors_section(task: Task, run: Decided, of: Texts) -> Section:
    """Args: run: whose errors are shown."""
    if run.decisions is None:
        return _values_section(task, run, of)
    labels, decided = run.labels.astype(bool), run.decisions
    losses = row_losses(run)
    missed, invented = labels & ~decided, decided & ~labels
    wrong = (missed | invented).any(axis=1)
    findings = [
        f"Of {run.name}, cross-fitted: {wrong.mean():.0%} of the rows have an error; {int(missed.sum()):,} labels are "
        f"missed and {int(invented.sum()):,} invented.".replace("%", " %")
    ]
    blocks: list[Block] = [_browser(run, of, losses, missed, invented)]
    if task.kind == "multiclass":
        blocks += _class_confusions(of.label_names, labels, decided)
    else:
        blocks += _label_confusions(of.label_names, labels, missed, invented)
    finding, table = _suspects_table(run, of)
    findings.append(finding)
    blocks.append(table)
    finding, table = _slices_table(task, run, of, _row_f1(labels, decided), missed, invented)
    findings += finding
    blocks.append(table)
    words = _words_table(of, run, invented, labels)
    blocks += words
    return Section("errors", f"Errors of {run.name}", findings, blocks)


def _row_f1(labels: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """F1 of each row's labels, float64 (n,); 1 if it has none and was given none."""
    return np.where(labels.any(axis=1) | decided.any(axis=1), row_f1(labels, decided), 1.0)


# ---------- Worst rows


def _browser(run: Decided, of: Texts, losses: np.ndarray, missed: np.ndarray, invented: np.ndarray) -> Browser:
    worst = np.argsort(-losses, kind="stable")
    picked = dict.fromkeys(worst[:WORST_ROWS].tolist())
    for wrong in (missed, invented):
        for label in range(wrong.shape[1]):
            rows = np.flatnonzero(wrong[:, label])
            picked |= dict.fromkeys(rows[np.argsort(-losses[rows], kind="stable")[:WORST_OF_LABEL]].tolist())
    positions = sorted(list(picked)[:MOST_ROWS], key=lambda row: -losses[row])
    labels, decided = run.labels.astype(bool), run.decisions
    assert decided is not None
    rows = []
    for k in positions:
        truth, said = np.flatnonzero(labels[k]).tolist(), np.flatnonzero(decided[k]).tolist()
        rows.append({
            "id": str(of.ids[run.rows[k]]),
            "text": shortened(of.texts[run.rows[k]], TEXT_LENGTH),
            "fold": int(run.fold[k]),
            "loss": float(losses[k]),
            "truth": truth,
            "decided": said,
            "probs": {str(label): float(run.probs[k, label]) for label in {*truth, *said}},
        })  # fmt: skip
    data = {"labels": list(of.label_names), "kinds": ["every error or row", "missed", "invented"], "rows": rows}
    note = (
        f"The {WORST_ROWS} rows with the largest loss, and the worst {WORST_OF_LABEL} missed and invented of each "
        "label. Percentages are the model's probabilities."
    )
    return Browser("worst", "Worst rows", "rows", data, note)


# ---------- Words that spoke for a label


@dataclass(frozen=True)
class ExplainedText:
    """What the tokens of a row said of labels, by the model of the fold that held the row out; T tokens, A labels."""

    row: int
    """In the run that is explained."""
    labels: Sequence[int]
    pieces: Sequence[str]
    shares: np.ndarray
    """float64 (T, A), parts of each label's logit."""
    logits: np.ndarray
    """float64 (A,)."""
    neutral: np.ndarray
    """float64 (A,), without any word."""


MOST_EXPLAINED = 12
"""The worst rows that `--attributions worst` explains."""


def rows_to_explain(run: Decided, wanted: Sequence[int] | None) -> list[tuple[int, list[int]]]:
    """Rows of a run and the labels whose words are of interest: true or decided ones, the likeliest if there is none.

    Args: wanted: rows of the run; None are those with the largest loss.
    """
    rows = np.argsort(-row_losses(run), kind="stable")[:MOST_EXPLAINED].tolist() if wanted is None else list(wanted)
    found = []
    for row in rows:
        shown = run.labels[row].astype(bool)
        if run.decisions is not None:
            shown = shown | run.decisions[row]
        found.append((row, np.flatnonzero(shown).tolist() or [int(run.probs[row].argmax())]))
    return found


def attribution_blocks(run: Decided, of: Texts, explained: Sequence[ExplainedText]) -> list[Block]:
    """The texts with their tokens shaded, and the same numbers as a table."""
    marked, rows = [], []
    for text in explained:
        for k, label in enumerate(text.labels):
            name, id_ = of.label_names[label], str(of.ids[run.rows[text.row]])
            title = f"{id_}, {_verdict(run, text.row, label)} {name}: logit {text.logits[k]:+.2f}, without words "
            marked.append(MarkedText(f"{title}{text.neutral[k]:+.2f}", text.pieces, text.shares[:, k].tolist()))
            rows += [(id_, name, piece, float(share)) for piece, share in zip(text.pieces, text.shares[:, k])]
    columns = [Column("id"), Column("label"), Column("token"), Column("share", "signed", "of the label's logit")]
    note = (
        "Integrated gradients by the model of the fold that held the row out: blue tokens raised the label's logit, "
        "orange and underlined ones lowered it. The shares of a text add up to its logit minus that of no words."
    )
    return [
        Marked("attributions", "Words that spoke for a label", marked, note),
        Table("token-shares", "The same as numbers", columns, rows),
    ]


def _verdict(run: Decided, row: int, label: int) -> str:
    if run.decisions is None:
        return "true" if run.labels[row, label] else "not true"
    if run.labels[row, label]:
        return "found" if run.decisions[row, label] else "missed"
    return "invented" if run.decisions[row, label] else "likeliest"


# ---------- Confusions


def _class_confusions(names: Sequence[str], labels: np.ndarray, decided: np.ndarray) -> list[Block]:
    truth, said = labels.argmax(axis=1), decided.argmax(axis=1)
    counts: dict[tuple[int, int], int] = {}
    for pair in zip(truth[truth != said].tolist(), said[truth != said].tolist(), strict=True):
        counts[pair] = counts.get(pair, 0) + 1
    sizes = labels.sum(axis=0)
    rows = [
        (names[i], names[j], count, float(count / sizes[i]))
        for (i, j), count in sorted(counts.items(), key=lambda item: -item[1])
    ]
    columns = [Column("true"), Column("predicted"), Column("rows", "int"), Column("of its rows", "share")]
    return [Table("confusions", "Most frequent confusions", columns, rows[:200], in_terminal=8)] if rows else []


def _label_confusions(
    names: Sequence[str], labels: np.ndarray, missed: np.ndarray, invented: np.ndarray
) -> list[Block]:
    """Pairs of a missed and an invented label in one row, and pairs of true labels of which one was missed."""
    lost, made = missed.astype(np.float32), invented.astype(np.float32)
    swapped = (lost.T @ made).astype(int)
    kept = (labels & ~missed).astype(np.float32)
    omitted = (kept.T @ lost).astype(int)
    both = (labels.T.astype(np.float32) @ labels.astype(np.float32)).astype(int)
    sizes, blocks = labels.sum(axis=0), []
    rows = [(names[i], names[j], int(swapped[i, j]), float(swapped[i, j] / sizes[i])) for i, j in _largest(swapped)]
    columns = [
        Column("true, missed"),
        Column("invented"),
        Column("rows", "int"),
        Column("of its rows", "share", "of the rows with the missed label"),
    ]
    if rows:
        blocks.append(Table("confusions", "Most frequent confusions", columns, rows, in_terminal=8))
    rows = [(names[i], names[j], int(omitted[i, j]), float(omitted[i, j] / both[i, j])) for i, j in _largest(omitted)]
    columns = [
        Column("true, found"),
        Column("true, missed"),
        Column("rows", "int"),
        Column("of rows with both", "share"),
    ]
    if rows:
        blocks.append(Table("omitted", "One of two labels is missed", columns, rows))
    return blocks


def _largest(counts: np.ndarray, most: int = 100) -> list[tuple[int, int]]:
    order = np.argsort(-counts, axis=None, kind="stable")[:most]
    return [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, counts.shape), strict=True) if counts[i, j]]


# ---------- Labels that are probably wrong


SURE = 0.99
"""From this doubt on a label is counted in the findings."""


def _suspects_table(run: Decided, of: Texts) -> tuple[str, Table]:
    labels, is_one = run.labels.astype(bool), run.task.kind == "multiclass"
    found = find_suspects(labels, run.probs, run.task.kind)
    rows = []
    for k in found.order[:150]:
        label = of.label_names[int(found.label[k])]
        act = f"{'remove' if labels[k, found.label[k]] else 'add'} {label}"
        if is_one:
            act = f"{label}, rather {of.label_names[int(run.probs[k].argmax())]}"
        rows.append((
            shortened(of.texts[run.rows[k]], 300),
            ", ".join(of.label_names[given] for given in np.flatnonzero(labels[k])) or "none",
            act,
            float(run.probs[k, found.label[k]]),
            str(of.ids[run.rows[k]]),
        ))  # fmt: skip
    columns = [Column("text", "long"), Column("labels given"), Column("doubted")]
    columns += [Column("its probability", "share", "out-of-fold"), Column("id")]
    count = int((found.doubt >= SURE).sum())
    said = (
        f"Probable label errors: rows in which {run.name} is {SURE:.0%} sure that a label is wrong or missing: "
        f"{count:,}. Read the first of them before you train longer."
    ).replace("%", " %")
    note = "The labels that a model which never saw the row finds least likely; a hard row can be among them."
    return said, Table("suspects", "Probable label errors", columns, rows, note, in_terminal=5)


# ---------- Groups of rows


def _slices_table(
    task: Task, run: Decided, of: Texts, f1: np.ndarray, missed: np.ndarray, invented: np.ndarray
) -> tuple[list[str], Table]:
    rows, weak = [], []
    mean, n = float(f1.mean()), len(f1)
    for what, which, inside in _slices(task, run, of):
        count = int(inside.sum())
        if count < FEWEST_IN_SLICE:
            continue
        own, rest = f1[inside], f1[~inside]
        error = Z90 * own.std() / np.sqrt(count)
        apart = np.sqrt(own.var() / count + rest.var() / max(n - count, 1))
        difference = float(own.mean() - rest.mean())
        if difference < -3 * apart and difference < -0.03 and count < MOST_OF_ALL * n:
            weak.append((difference, f"{what} {which} ({own.mean():.2f})"))
        rows.append((
            what, which, count, float(own.mean()), float(max(own.mean() - error, 0)), float(min(own.mean() + error, 1)),
            difference, float(missed[inside].sum() / count), float(invented[inside].sum() / count),
        ))  # fmt: skip
    columns = [
        Column("by"),
        Column("slice"),
        Column("rows", "int"),
        Column("row F1", "score", "mean over its rows of the F1 of one row's labels"),
    ]
    columns += [Column("low", "score", "90 % interval"), Column("high", "score"), Column("vs the rest", "signed")]
    columns += [Column("missed per row", "number"), Column("invented per row", "number")]
    hard = ", ".join(name for _, name in sorted(weak)[:6])
    said = [f"Harder than the rest, beyond chance: {hard}; row F1 is {mean:.2f} over all."] if weak else []
    return said, Table(
        "slices",
        "Groups of rows",
        columns,
        rows,
        "Row F1 compares what a row has with what it was given.",
        in_terminal=0,
    )


def _slices(task: Task, run: Decided, of: Texts) -> list[tuple[str, str, np.ndarray]]:
    rows = run.rows
    marks = Marks(
        of.marks.words[rows], of.marks.characters[rows], {name: has[rows] for name, has in of.marks.has.items()},
        of.marks.script[rows],
    )  # fmt: skip
    per_row = run.labels.sum(axis=1).astype(int) if task.kind == "multilabel" and task.scale is None else None
    columns = {name: [cells[row] for row in rows] for name, cells in of.columns.items()}
    return slice_rows(marks, per_row, columns, {name: has[rows] for name, has in of.terms.items()})


# ---------- Words that mislead


def _words_table(of: Texts, run: Decided, invented: np.ndarray, labels: np.ndarray) -> list[Block]:
    """Words that are more frequent in false alarms of a label than in the other rows without it.

    Source: Monroe, Colaresi and Quinn 2008, "Fightin' Words": log-odds with a prior from all texts, in standard errors.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    try:
        vectorizer = CountVectorizer(token_pattern=r"(?u)\b\w[\w']+\b", binary=True, min_df=5, dtype=np.float32)
        there = vectorizer.fit_transform([of.texts[row] for row in run.rows]).tocsr()
    except ValueError:  # no word is in five texts
        return []
    words, total = vectorizer.get_feature_names_out(), np.asarray(there.sum(axis=0)).ravel() + 0.5
    prior = total / total.sum() * 500
    false = np.asarray(there.T @ invented.astype(np.float32))
    quiet = np.asarray(there.T @ (~labels & ~invented).astype(np.float32))
    right = np.asarray(there.T @ (labels & (run.decisions if run.decisions is not None else labels)).astype(np.float32))
    rows = []
    for label in np.argsort(-invented.sum(axis=0), kind="stable")[:60]:
        ours, others = false[:, label] + prior, quiet[:, label] + prior
        odds = _log_odds(ours) - _log_odds(others)
        z = odds / np.sqrt(1 / ours + 1 / others)
        rows += [
            (
                of.label_names[label],
                str(words[w]),
                int(false[w, label]),
                int(right[w, label]),
                int(quiet[w, label]),
                float(z[w]),
            )
            for w in np.argsort(-z, kind="stable")[:MOST_WORDS]
            if z[w] > 2 and false[w, label] >= 3
        ]
    columns = [
        Column("label"),
        Column("word"),
        Column("false alarms", "int", "rows with the word in which the label was invented"),
    ]
    columns += [
        Column("right", "int", "rows with the word in which the label was rightly found"),
        Column("neither", "int", "rows with the word that have no such label, and none was decided"),
    ]
    columns += [Column("standard errors", "number", "how far the word is more frequent in false alarms")]
    return [Table("words", "Words most tied to false alarms", columns, rows)] if rows else []


def _log_odds(counts: np.ndarray) -> np.ndarray:
    return np.log(counts / np.maximum(counts.sum() - counts, 1e-9))  # 0: there is one word alone


# ---------- Regression


def _values_section(task: Task, run: Decided, of: Texts) -> Section:
    scale = task.scale
    assert scale is not None
    losses, truth, said = row_losses(run), to_values(run.labels, scale), to_values(run.probs, scale)
    order = np.argsort(-losses, kind="stable")[:WORST_ROWS]

    def written(values: np.ndarray) -> str:
        return ", ".join(f"{name} {value:.4g}" for name, value in zip(of.label_names, values, strict=True))

    columns = [
        Column("text", "long"),
        Column("true"),
        Column("predicted"),
        Column("distance", "number", "in standard deviations of the column, mean over columns"),
        Column("id"),
    ]
    rows = [
        (
            shortened(of.texts[run.rows[k]], TEXT_LENGTH),
            written(truth[k]),
            written(said[k]),
            float(losses[k]),
            str(of.ids[run.rows[k]]),
        )
        for k in order
    ]
    blocks: list[Block] = [Table("worst", "Worst rows", columns, rows, in_terminal=5)]
    slices = []
    for what, which, inside in _slices(task, run, of):
        count = int(inside.sum())
        if count >= FEWEST_IN_SLICE:
            own = losses[inside]
            error = Z90 * own.std() / np.sqrt(count)
            slices.append((what, which, count, float(own.mean()), float(own.mean() - error), float(own.mean() + error)))
    columns = [
        Column("by"),
        Column("slice"),
        Column("rows", "int"),
        Column("distance", "score"),
        Column("low", "score"),
        Column("high", "score"),
    ]
    blocks.append(
        Table("slices", "Groups of rows", columns, slices, "Mean distance from the truth, with 90 % intervals.")
    )
    findings = ["A regression: label errors, confusions and words of false alarms do not apply."]
    return Section("errors", f"Errors of {run.name}", findings, blocks)
