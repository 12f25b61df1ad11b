"""The data before any training: sizes, lengths, labels, duplicates, and how far test rows are like training rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from foldblend.predictions import TextComparison
from foldblend.reports.marks import Marks
from foldblend.reports.page import Chart, Column, Section, Series, Table, shortened, write_share

TEXT_LENGTH = 300
"""Characters of a text that a table shows."""
MOST_HEAT = 30
"""Labels in the table of labels that come together."""
MOST_LABELS = 300
"""Labels in a table; rarer ones are left out, and it says so."""
MOST_ROWS = 100
"""Rows in a table of texts."""


@dataclass(frozen=True)
class TokenLengths:
    """How long the texts are in tokens of one run's tokenizer."""

    run: str
    train: np.ndarray
    """int64 (N,), special tokens included."""
    test: np.ndarray
    most: int
    """Tokens that the run reads of a text."""


@dataclass(frozen=True)
class DataFacts:
    """What is known of a competition's files; N training rows, n test rows, L labels."""

    words: Sequence[str]
    """What the competition's file says, as sentences."""
    ids: Sequence[str]
    texts: Sequence[str]
    labels: np.ndarray
    """bool (N, L)."""
    label_names: Sequence[str]
    test_ids: Sequence[str]
    test_texts: Sequence[str]
    marks: Marks
    test_marks: Marks
    group: np.ndarray
    """int64 (N,): rows that say the same."""
    fold: np.ndarray | None
    """int64 (N,); None if the folds are not drawn yet."""
    conflicts: Sequence[np.ndarray]
    """Rows of each text that comes with different labels."""
    repeats: Sequence[tuple[int, int]]
    """Test row and training row of the same text, one pair per test row."""
    comparison: TextComparison
    telling: Sequence[tuple[str, float, float]]
    """Words that tell test texts from training texts: word, share of training texts, share of test texts with it."""
    one_label: bool = False
    """Whether each row has one label."""
    values: np.ndarray | None = None
    """float64 (N, L), of a regression, whose columns are `label_names`; None for labels."""
    tokens: TokenLengths | None = None
    notes: Sequence[str] = field(default_factory=tuple)


def data_sections(facts: DataFacts) -> list[Section]:
    """Every section of the data page."""
    what = _values_section(facts) if facts.values is not None else _labels_section(facts)
    return [_sizes_section(facts), what, _repeats_section(facts), _drift_section(facts)]


# ---------- Sizes and lengths


def _sizes_section(facts: DataFacts) -> Section:
    lengths, blocks = [("words", facts.marks.words, facts.test_marks.words)], []
    lengths.append(("characters", facts.marks.characters, facts.test_marks.characters))
    findings = [*facts.words, *facts.notes]
    if facts.tokens:
        lengths.append((f"tokens of {facts.tokens.run}", facts.tokens.train, facts.tokens.test))
        findings.append(_cut_words(facts.tokens))
    rows = [
        (what, name, len(of), *_quantiles(of))
        for what, train, test in lengths
        for name, of in (("train", train), ("test", test))
        if len(of)
    ]
    heads = [Column(name, "int") for name in ("texts", "least", "median", "95 %", "most")]
    blocks.append(Table("lengths", "Lengths of the texts", [Column("in"), Column("file"), *heads], rows, in_terminal=6))
    for k, (what, train, test) in enumerate(lengths):
        if what != "characters":
            at = [(float(facts.tokens.most), "max_length_tokens")] if k == 2 and facts.tokens else []
            blocks.append(_length_chart(f"length{k}", what, train, test, at))
    return Section("data", "The data", findings, blocks)


def _quantiles(of: np.ndarray) -> list[int]:
    return [int(value) for value in np.quantile(of, [0, 0.5, 0.95, 1])]


def _cut_words(tokens: TokenLengths) -> str:
    whole = np.concatenate([tokens.train, tokens.test])
    cut, lost = float((whole > tokens.most).mean()), float(1 - np.minimum(whole, tokens.most).sum() / whole.sum())
    said = f"max_length_tokens {tokens.most} of run {tokens.run}"
    if not cut:
        return f"{said} reads every text whole; the longest has {whole.max():,} tokens."
    return f"{said} cuts {write_share(cut)} of the texts, and {write_share(lost)} of all tokens are not read."


def _length_chart(key: str, what: str, train: np.ndarray, test: np.ndarray, at: list[tuple[float, str]]) -> Chart:
    """Shares of texts by length, up to the 99.5 % quantile."""
    top = max(int(np.quantile(np.concatenate([train, test]), 0.995)), 1)
    step = -(-(top + 1) // 30)  # whole numbers, or a bin would hold more lengths than its neighbour
    edges = np.arange(0, top + step + 1, step)
    series = []
    for name, of in (("train", train), ("test", test)):
        if len(of):
            counts = np.histogram(np.minimum(of, top), edges)[0] / len(of)
            middles = (edges[:-1] + edges[1:] - 1) / 2
            series.append(Series(name, middles.tolist(), counts.tolist()))
    note = "The longest 0.5 % are in the last bin."
    return Chart(key, f"Length in {what}", "lines", what, "share of texts", series, note, at=at)


# ---------- Labels


def _labels_section(facts: DataFacts) -> Section:
    counts = facts.labels.sum(axis=0)
    order = np.argsort(-counts, kind="stable")
    names, n = facts.label_names, len(facts.labels)
    folds = [] if facts.fold is None else range(int(facts.fold.max()) + 1)
    heads = [Column("label"), Column("rows", "int"), Column("share", "share")]
    heads += [Column(f"fold {k}", "int", f"rows with the label in fold {k}") for k in folds]
    inside = [np.bincount(facts.fold[facts.labels[:, label]], minlength=len(folds)) for label in order] if folds else []
    rows = [
        (names[label], int(counts[label]), float(counts[label] / n), *(inside[position].tolist() if folds else ()))
        for position, label in enumerate(order[:MOST_LABELS])
    ]
    note = "" if len(names) <= MOST_LABELS else f"The {MOST_LABELS} most frequent of {len(names):,} labels."
    what = "Labels" if facts.fold is None else "Labels, and rows with each in every fold"
    blocks: list = [Table("label_counts", what, heads, rows, note, in_terminal=12)]
    shown = order[:40]
    blocks.append(
        Chart(
            "label_shares",
            "Rows per label",
            "bars",
            "rows",
            "label",
            [Series("rows", [names[k] for k in shown], counts[shown].tolist())],
        )
    )
    findings = [_balance_words(facts, counts)]
    if facts.fold is None:
        findings.append("The folds are not drawn yet: python src/make_folds.py draws them.")
    if not facts.one_label:
        blocks += _together_blocks(facts, counts, order)
        per_row = np.bincount(facts.labels.sum(axis=1))
        findings.append(
            f"A row has {facts.labels.sum(axis=1).mean():.2f} labels on average, {len(per_row) - 1} at most; "
            f"{per_row[0]:,} rows ({write_share(float(per_row[0] / n))}) have none."
        )
        chart = Series("rows", [str(k) for k in range(len(per_row))], per_row.tolist())
        blocks.insert(2, Chart("per_row", "Labels per row", "bars", "rows", "labels", [chart]))
    return Section("data-labels", "Labels of the training rows", findings, blocks)


def _balance_words(facts: DataFacts, counts: np.ndarray) -> str:
    most, least = int(counts.argmax()), int(counts.argmin())
    n, names = len(facts.labels), facts.label_names
    said = f"{len(names):,} labels: {names[most]} is in {write_share(float(counts[most] / n))} of the rows"
    rare = int((counts < 50).sum())
    more = f"; {rare} label{'s' * (rare != 1)} with fewer than 50 rows" if rare else ""
    return f"{said}, {names[least]} in {counts[least]:,} rows{more}."


def _together_blocks(facts: DataFacts, counts: np.ndarray, order: np.ndarray) -> list:
    """How often labels come together: a matrix of shares, and the pairs that are most above chance."""
    kept = order[:MOST_HEAT]
    some = facts.labels[:, kept].astype(np.float32)
    both = (some.T @ some).astype(np.int64)
    names = [facts.label_names[label] for label in kept]
    share = both / np.maximum(counts[kept], 1)[:, None]
    series = [Series(name, names, row.tolist()) for name, row in zip(names, share, strict=True)]
    note = "Of the rows with the label on the left, the percentage that has the label above, too."
    blocks: list = []
    if len(kept) > 1:
        blocks.append(
            Chart(
                "together",
                "Labels that come together",
                "heat",
                "label above: has it, too",
                "label on the left: % of its rows",
                series,
                note,
                share=True,
            )
        )
    n, upper = len(facts.labels), np.triu(both, 1)
    pairs = [(i, j) for i, j in np.argwhere(upper > 0)]
    rows = sorted(
        (
            (names[i], names[j], int(both[i, j]), float(both[i, j] * n / (counts[kept[i]] * counts[kept[j]])))
            for i, j in pairs
        ),
        key=lambda row: -row[2],
    )
    heads = [
        Column("label"),
        Column("with"),
        Column("rows", "int"),
        Column("times chance", "number", "1 is as often as two labels that have nothing to do with each other"),
    ]
    if rows:
        blocks.append(Table("pairs", "Pairs of labels in one row", heads, rows[:200]))
    return blocks


def _values_section(facts: DataFacts) -> Section:
    """A regression: each column's distribution."""
    rows, blocks, values = [], [], facts.values
    assert values is not None
    for k, name in enumerate(facts.label_names):
        own = values[:, k][~np.isnan(values[:, k])]
        rows.append(
            (name, len(own), *(float(v) for v in (own.min(), np.median(own), own.mean(), own.std(), own.max())))
        )
        counts, edges = np.histogram(own, bins=min(30, max(len(np.unique(own)), 2)))
        middles = ((edges[:-1] + edges[1:]) / 2).tolist()
        if k < 12:
            blocks.append(
                Chart(
                    f"values{k}", f"Values of {name}", "lines", name, "rows", [Series("rows", middles, counts.tolist())]
                )
            )
    heads = [Column(name, "number") for name in ("least", "median", "mean", "sd", "most")]
    table = Table(
        "values", "What is predicted", [Column("column"), Column("known", "int"), *heads], rows, in_terminal=12
    )
    said = (
        f"A regression of {len(rows)} column{'s' * (len(rows) != 1)}: there are no labels, thresholds or label errors."
    )
    return Section("data-labels", "Values of the training rows", [said], [table, *blocks])


# ---------- Texts that come more than once


def _repeats_section(facts: DataFacts) -> Section:
    sizes = np.bincount(facts.group)
    n_again = int(sizes[sizes > 1].sum())
    findings = [
        f"{len(facts.texts):,} training rows are {len(sizes):,} groups of distinct texts; "
        f"{n_again:,} rows share theirs, {sizes.max():,} at most.",
    ]
    blocks = []
    if facts.values is None:
        n_rows = sum(map(len, facts.conflicts))
        findings.append(
            f"{len(facts.conflicts):,} texts come with different labels, in {n_rows:,} rows: "
            "no model can be right in all of them."
            if facts.conflicts
            else "No text comes with different labels."
        )
        rows = [
            (
                shortened(facts.texts[rows[0]], TEXT_LENGTH),
                len(rows),
                "\n".join(f"{facts.ids[row]}: {name_labels(facts, row)}" for row in rows[:8]),
            )
            for rows in facts.conflicts[:MOST_ROWS]
        ]
        heads = [Column("text", "long"), Column("rows", "int"), Column("labels of each", "long")]
        if rows:
            note = _first_of(len(rows), len(facts.conflicts), "texts")
            blocks.append(Table("conflicts", "One text, different labels", heads, rows, note))
    n_test = len(facts.test_texts)
    if n_test:
        repeated = facts.comparison.n_repeats
        findings.append(f"{repeated:,} of {n_test:,} test texts ({write_share(repeated / n_test)}) are training texts.")
        rows = [
            (facts.test_ids[test], facts.ids[row], name_labels(facts, row), shortened(facts.texts[row], TEXT_LENGTH))
            for test, row in facts.repeats[:MOST_ROWS]
        ]
        heads = [Column("test id"), Column("training id"), Column("its labels", "long"), Column("text", "long")]
        if rows:
            note = _first_of(len(rows), len(facts.repeats), "test rows")
            blocks.append(Table("repeats", "Test texts that are training texts", heads, rows, note))
    return Section("data-repeats", "Texts that repeat", findings, blocks)


def _first_of(shown: int, total: int, what: str) -> str:
    return f"The first {shown:,} of {total:,} {what}." if shown < total else ""


def name_labels(facts: DataFacts, row: int) -> str:
    """A row's labels by name, or its values."""
    if facts.values is not None:
        return ", ".join(
            f"{name} {value:.4g}" for name, value in zip(facts.label_names, facts.values[row], strict=True)
        )
    return ", ".join(facts.label_names[label] for label in np.flatnonzero(facts.labels[row])) or "no label"


# ---------- Test rows against training rows


FEWEST_TEST = 30


def _drift_section(facts: DataFacts) -> Section:
    n_test = len(facts.test_texts)
    if n_test < FEWEST_TEST:
        said = f"The test file has {n_test:,} rows, too few to compare with the training file."
        return Section("data-drift", "Test rows against training rows", [said])
    found = facts.comparison
    low, high = found.auc - 1.645 * found.error, found.auc + 1.645 * found.error
    is_apart = low > 0.5 and found.auc >= 0.55
    meaning = (
        "test texts are of another kind, so the cross-fitted score may not hold for them"
        if is_apart
        else "it can barely tell them apart, so the cross-fitted score should hold for them"
    )
    findings = [
        f"Adversarial validation: a classifier tells test texts from training texts with AUC {found.auc:.3f} "
        f"(90 % interval {low:.3f} to {high:.3f}; 0.5 is chance): {meaning}.",
    ]
    shares = [(f"texts with {name}", facts.marks.has[name], facts.test_marks.has[name]) for name in facts.marks.has]
    scripts = sorted({*facts.marks.script.tolist(), *facts.test_marks.script.tolist()} - {"Latin"})
    shares += [(f"script {name}", facts.marks.script == name, facts.test_marks.script == name) for name in scripts[:10]]
    rows = [(what, *_compare_shares(ours, theirs)) for what, ours, theirs in shares]
    heads = [
        Column("what"),
        Column("train", "share"),
        Column("test", "share"),
        Column("standard errors", "number", "the difference over its standard error; beyond 3 is hardly chance"),
    ]
    blocks: list = [Table("drift_shares", "What the texts have", heads, rows, in_terminal=8)]
    moved = [row[0] for row in rows if abs(row[3]) > 3 and abs(row[2] - row[1]) > 0.01]
    words = facts.marks.words, facts.test_marks.words
    error = np.sqrt(sum(each.var() / len(each) for each in words))
    if abs(words[1].mean() - words[0].mean()) > 3 * error:
        moved.append(f"words per text ({words[0].mean():.1f} in train, {words[1].mean():.1f} in test)")
    if moved:
        findings.append(f"Differs beyond chance: {', '.join(moved)}.")
    if facts.telling:
        heads = [
            Column("word"),
            Column("train", "share", "share of training texts that have it"),
            Column("test", "share"),
        ]
        note = "Words with the largest weights in the classifier."
        blocks.append(
            Table(
                "telling",
                "Words that tell test texts from training texts",
                heads,
                facts.telling,
                note,
                in_terminal=8 if is_apart else 0,
            )
        )
    return Section("data-drift", "Test rows against training rows", findings, blocks)


def _compare_shares(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    """Two shares, and their difference in standard errors under a common share."""
    one, other = float(ours.mean()), float(theirs.mean())
    common = (ours.sum() + theirs.sum()) / (len(ours) + len(theirs))
    error = np.sqrt(common * (1 - common) * (1 / len(ours) + 1 / len(theirs)))
    return one, other, float((other - one) / error) if error > 0 else 0.0


def competition_words(name: str, settings: Mapping, n_rows: int, n_test: int, better: str) -> list[str]:
    """What a competition's file says, as sentences.

    Args: settings: the competition's settings as plain values.   better: `higher` or `lower`.
    """
    text, answer, files = settings["text"], settings["submission"], settings["files"]
    train = files["train"] if isinstance(files["train"], str) else ", ".join(files["train"])
    columns = " and ".join(text["columns"])
    lines = [
        f"{n_rows:,} training rows ({train}) and {n_test:,} test rows; the text is in column {columns}, the id in "
        f"{settings['id_column']}.",
        f"The answer is {_answer_words(settings)}, scored by {settings['metric']} ({better} is better), "
        f"and written in the form `{answer['form']}`.",
    ]
    if files["hidden_test_rows"]:
        lines.append(f"The test file is a part: {files['hidden_test_rows']:,} hidden rows are scored.")
    if files["kaggle"]:
        lines.append(f"On Kaggle it is called {files['kaggle']}.")
    return lines


def _answer_words(settings: Mapping) -> str:
    form = settings["submission"]["form"]
    if form == "values":
        return "a number in each column"
    if form == "ranked":
        return "a list of labels per row, the likeliest first"
    return "one label per row" if settings["task"] == "multiclass" else "any number of labels per row"
