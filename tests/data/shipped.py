"""A few made-up rows in the very form of a competition's files, by what its YAML says of them."""

import csv
import io
from pathlib import Path

import numpy as np

from foldblend.settings.competition import CompetitionSettings

N_TEST = 40
FILLERS = "today it was a plain long dull day and then some".split()


def write_tiny(competition: CompetitionSettings, folder: Path, n_train: int = 240) -> np.ndarray:
    """Write the three files; each text says its labels. Returns the test rows' labels, bool (N_TEST, L).

    A label's name stands in a text as one made-up word, with a number that keeps near-duplicate texts apart.
    """
    rng = np.random.default_rng(0)
    names, task = competition.labels.names, competition.task
    n = n_train + N_TEST
    labels = rng.random((n, len(names))) < max(0.1, 2 / len(names))
    if task == "multiclass":
        labels = np.eye(len(names), dtype=bool)[rng.integers(0, len(names), n)]
    texts = [_say(rng, row, names) for row in labels]
    rows = [
        {competition.id_column: f"id{k}"} | _text_cells(competition, texts[k]) | _label_cells(competition, labels[k])
        for k in range(n)
    ]
    test = [row | dict.fromkeys(_label_cells(competition, labels[0]), "NONE") for row in rows[n_train:]]
    folder.mkdir(parents=True)
    _write(folder / competition.files.train, rows[:n_train], competition.files.separator)
    _write(folder / competition.files.test, test, competition.files.separator)
    answer, ids = competition.submission, [row[competition.id_column] for row in test]
    in_columns = answer.form in ("columns", "probabilities")
    zero = {"probabilities": "0.5", "columns": "0"}.get(answer.form, "0" if answer.values == "numbers" else names[0])
    columns = competition.labels.submitted if in_columns else (answer.column,)
    sample = [{competition.id_column: name} | dict.fromkeys(columns, zero) for name in ids]
    _write(folder / competition.files.sample_submission, sample, answer.separator)
    return labels[n_train:]


def _say(rng, row, names) -> str:
    words = [f"{names[k].lower().replace('_', '')}ish" for k in np.flatnonzero(row)]
    return " ".join(rng.permutation([*words, *words, *rng.choice(FILLERS, 4), *map(str, rng.integers(0, 10**9, 3))]))


def _text_cells(competition, text) -> dict:
    """The text in the last column, a word of nothing in the others."""
    columns = competition.text.columns
    return dict.fromkeys(columns, "plain") | {columns[-1]: text}


def _label_cells(competition, row) -> dict:
    labels = competition.labels
    if labels.form == "columns":
        return {name: str(int(there)) for name, there in zip(labels.names, row, strict=True)}
    said = [str(k) if labels.values == "numbers" else labels.names[k] for k in np.flatnonzero(row)]
    return {labels.column: labels.delimiter.join(said)}


def _write(path, rows, separator) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(text.getvalue().encode("utf-8"))
