"""Competitions drawn from a seed: three tables and the YAML that describes them, all of them right."""

import csv
import io
import random
from collections.abc import Callable
from dataclasses import dataclass, field

NAMES = ["joy", "fear", "anger", "sadness", "trust", "calm and well", "día", "喜び", "x_5", "neutral"]
SAID = "happy glad afraid furious gloomy today it was the end é 😀 שלום plain <b> & \\ %s {x} $1 'so' # - +".split(" ")


@dataclass
class Made:
    """One competition as it is written to disk."""

    settings: dict
    """What its YAML holds."""
    tables: dict[str, list[list[str]]]
    """File name -> header and rows."""
    label_names: list[str] = field(default_factory=list)
    forms: dict[str, tuple[str, Callable[[list[list[str]]], bytes]]] = field(default_factory=dict)
    """Table -> the name of its file and how its rows are written, if that is not a CSV of the table's name."""
    files: dict[str, bytes] = field(default_factory=dict)
    """File name -> what takes the place of the written table."""

    @property
    def is_in_columns(self) -> bool:
        """Whether a submission has a column per label."""
        return self.settings.get("submission", {}).get("form", "columns") in ("columns", "probabilities")

    def encode(self) -> dict[str, bytes]:
        """Every file's bytes."""
        written = {}
        for table, rows in self.tables.items():
            name, write = self.forms.get(table, (table, None))
            written[name] = write(rows) if write else as_csv(rows, self.separator(table), self.encoding(table))
        return written | self.files

    def separator(self, name: str) -> str:
        group = "submission" if name.startswith("sample") else "files"
        settings = self.settings.get(group) or {}
        separator = (settings.get("separators") or {}).get(name) or settings.get("separator", ",")
        return separator if isinstance(separator, str) and len(separator) == 1 and separator not in '"\r\n' else ","

    def encoding(self, name: str) -> str:
        settings = self.settings.get("files") or {}
        encoding = (settings.get("encodings") or {}).get(name) or settings.get("encoding", "utf-8")
        return encoding if encoding in ("utf-8-sig", "utf-16", "utf-32", "cp1252") else "utf-8"


def as_csv(rows: list[list[str]], separator: str = ",", encoding: str = "utf-8") -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator, lineterminator="\n").writerows(rows)
    return text.getvalue().encode(encoding, "replace")


def make_competition(rng: random.Random) -> Made:
    """A small competition of any of the forms that the settings know."""
    form = rng.choice(["columns", "columns", "columns", "delimited", "class", "probabilities", "one a row"])
    names = rng.sample(NAMES, rng.randint(2, 4)) if form != "delimited" else rng.sample(NAMES[:5], rng.randint(2, 4))
    n_train, n_test = rng.randint(4 * len(names), 30), rng.randint(1, 8)
    settings = {"id_column": "id", "n_folds": 2, "near_duplicates": rng.choice([0.8, 1.0]), **FORMS[form](names)}
    for group, key, value in (
        ("files", "separator", rng.choice([",", ",", ",", ";", "\t"])),
        ("files", "encoding", rng.choice(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16"])),
    ):
        settings.setdefault(group, {})[key] = value
    one_a_row = settings.get("task") == "multiclass"
    labels = [draw_labels(rng, row, len(names), one_a_row) for row in range(n_train)]
    columns = rng.choice([["text"], ["text"], ["title", "body"]])
    settings["text"] = {"columns": columns}
    return Made(settings, tables_of(rng, form, names, labels, n_test, columns), names)


FORMS = {
    "columns": lambda names: {},
    "delimited": lambda names: {
        "labels": {"form": "delimited", "column": "labels", "names": names},
        "submission": {"form": "delimited", "column": "labels"},
    },
    "class": lambda names: {
        "task": "multiclass",
        "labels": {"form": "class", "column": "label", "names": names},
        "submission": {"form": "class", "column": "label"},
    },
    "probabilities": lambda names: {"metric": "macro_auc", "submission": {"form": "probabilities"}},
    "one a row": lambda names: {"task": "multiclass", "metric": "accuracy"},
}


def draw_labels(rng: random.Random, row: int, n_labels: int, one_a_row: bool) -> list[int]:
    """0/1 a label; the first rows carry each label a few times, so that it can be learned."""
    given = [int(k == row % n_labels) for k in range(n_labels)]
    return given if one_a_row or row < 3 * n_labels else [int(rng.random() < 0.4) for _ in given]


def tables_of(rng, form, names, labels, n_test, columns) -> dict[str, list[list[str]]]:
    texts = [[draw_text(rng) for _ in columns] for _ in range(len(labels) + n_test)]
    ids = [f"{rng.choice('rst')}{k:03}" for k in range(len(texts))]
    header, cells = written_labels(form, names, labels)
    sample_header, sample_cells = (header, cells[0]) if form in ("delimited", "class") else (names, ["0"] * len(names))
    rows = zip(ids, texts, cells)
    in_test = [[name, *words] for name, words in zip(ids[len(labels) :], texts[len(labels) :])]
    in_sample = [[row[0], *sample_cells] for row in in_test]
    rng.shuffle(in_sample)
    return {
        "train.csv": [["id", *columns, *header], *([name, *words, *said] for name, words, said in rows)],
        "test.csv": [["id", *columns], *in_test],
        "sample_submission.csv": [["id", *sample_header], *in_sample],
    }


def written_labels(form: str, names: list[str], labels: list[list[int]]) -> tuple[list[str], list[list[str]]]:
    """The label columns of train.csv: header and cells."""
    said = [[name for name, given in zip(names, row) if given] for row in labels]
    if form == "delimited":
        return ["labels"], [[",".join(row)] for row in said]
    if form == "class":
        return ["label"], [[row[0]] for row in said]
    return names, [[str(cell) for cell in row] for row in labels]


def draw_text(rng: random.Random) -> str:
    return " ".join([rng.choice("abcdefgh") * 3, *(rng.choice(SAID) for _ in range(rng.randint(2, 8)))])
