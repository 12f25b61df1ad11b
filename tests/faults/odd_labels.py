"""Right competitions whose labels, texts or answers are written in another way than one 0/1 column per label."""

import json
import random
from collections.abc import Callable

from made_up_files import Made


class Written:
    """The label columns of train.csv, to be read and rewritten."""

    def __init__(self, made: Made):
        self.made, self.names = made, made.label_names
        self.labels = made.settings.setdefault("labels", {})
        self.answer = made.settings.setdefault("submission", {})
        self.train = made.tables["train.csv"]
        self.form = self.labels.get("form", "columns")
        self.one_a_row = made.settings.get("task") == "multiclass"
        self.start = 1 + len(made.settings["text"]["columns"])
        """Position of the first label column; none of them is followed by another column."""

    @property
    def said(self) -> list[list[str]]:
        """Names of each row's labels."""
        if self.form == "columns":
            return [
                [name for name, cell in zip(self.names, row[self.start :]) if cell == "1"] for row in self.train[1:]
            ]
        return [list(filter(None, row[self.start].split(","))) for row in self.train[1:]]

    def write(self, header: list[str], cells) -> None:
        self.train[:] = [[*row[: self.start], *new] for row, new in zip(self.train, [header, *cells], strict=True)]

    def to_cells(self, cells, **labels) -> None:
        """One column of cells instead of what there is."""
        self.write(["labels"], [[cell] for cell in cells])
        self.labels.update(form="delimited", column="labels", names=self.names, **labels)


def lists(rng, written):
    """['joy', 'fear'], ["joy"], ('joy',), joy,fear, and [joy fear]."""
    write = rng.choice([str, json.dumps, lambda row: str(tuple(row)), lambda row: ",".join([*row, ""]),
                        lambda row: "{" + ",".join(row) + "}"])  # fmt: skip
    written.to_cells([write(row) for row in written.said])


def multi_hot(rng, written):
    write = rng.choice([str, lambda row: " ".join(map(str, row)).join("[]"), lambda row: ",".join(map(str, row))])
    cells = [write([int(name in row) for name in written.names]) for row in written.said]
    written.to_cells(cells, values="multi_hot")


def objects(rng, written):
    written.to_cells([json.dumps({name: int(name in row) for name in written.names}) for row in written.said])


def numbers(rng, written):
    first = rng.choice([0, 0, 1, 5])
    write = rng.choice([str, lambda row: ",".join(map(str, row)), lambda row: ", ".join(f"{k}.0" for k in row)])
    cells = [write([written.names.index(name) + first for name in row]) for row in written.said]
    written.to_cells(cells, values="numbers", first_number=first)


def class_numbers(rng, written):
    first = rng.choice([0, 1])
    cells = [f"{written.names.index(row[0]) + first}{rng.choice(['', '.0'])}" for row in written.said]
    written.write(["labels"], [[cell] for cell in cells])
    written.labels.update(form="class", column="labels", names=written.names, values="numbers", first_number=first)


def several_columns(rng, written):
    width, word = max(map(len, written.said)) + 1, rng.choice(["", "none"])
    columns = [f"emotion {k}" for k in range(width)]
    cells = [row + [word] * bool(not row) for row in written.said]
    written.write(columns, [row + [""] * (width - len(row)) for row in cells])
    written.labels.update(form="delimited", columns=columns, names=written.names, **({"empty": word} if word else {}))
    written.labels.pop("column", None)


def word_for_none(rng, written):
    written.to_cells([", ".join(row) or "none" for row in written.said], empty="none")
    if written.answer.get("form") == "delimited":
        written.answer["empty"] = "none"
        for row in written.made.tables["sample_submission.csv"][1:]:
            row[-1] = "none"


def words_for_yes(rng, written):
    yes, no = rng.choice([("True", "False"), ("yes", "no"), ("1.0", "0.0"), ("TRUE", "0"), ("y", "N")])
    written.write(written.names, [[(no, yes)[name in row] for name in written.names] for row in written.said])


def mapped(rng, written):
    cells = [[str(rng.choice([2, 3]) if name in row else rng.choice([0, 1])) for name in written.names]
             for row in written.said]  # fmt: skip
    written.write(written.names, cells)
    written.labels["map"] = {"1": 0, "2": 1, "3": 1}


def mapped_names(rng, written):
    own = {name: f"w{k}" for k, name in enumerate(written.names)}
    written.to_cells([",".join(own[name] for name in row) or "nothing" for row in written.said],
                     map={**{new: name for name, new in own.items()}, "nothing": ""})  # fmt: skip


def renamed_labels(rng, written):
    new = rng.choice([str.upper, lambda name: f"{name}_1", lambda name: f"is {name}"])
    changed = [name for name in written.names if new(name) not in written.names]
    written.labels["rename"] = {new(name): name for name in changed}
    write = [new(name) if name in changed else name for name in written.names]
    if written.form == "columns":
        written.train[0][written.start :] = write
    else:
        own = dict(zip(written.names, write))
        for row in written.train[1:]:
            row[written.start] = ",".join(own[name] for name in filter(None, row[written.start].split(",")))


def shares(rng, written):
    high, low = ["0.5", "0.75", "1", "1.0"], ["0", "0.0", "0.25", "0.49"]
    written.write(written.names, [[rng.choice(high if name in row else low) for name in written.names]
                                  for row in written.said])  # fmt: skip
    written.labels["positive_from"] = 0.5


def shares_of_classes(rng, written):
    n = len(written.names)
    cells = []
    for row in written.said:
        rest = rng.choice([0.0, 0.1, 0.3])
        cells.append([f"{1 - rest:.3f}" if name in row else f"{rest / (n - 1):.3f}" for name in written.names])
    written.write(written.names, cells)
    written.labels["positive_from"] = 0.5


def unknown(rng, written):
    """Some cells of the rows that are not the first ones, which carry each label, are unknown."""
    words = rng.choice([["-1"], [""], ["nan", -1], ["?"]])
    for row in written.train[2 + 3 * len(written.names) :]:
        for k in range(written.start, len(row)):
            row[k] = str(rng.choice(words)) if rng.random() < 0.3 else row[k]
    written.labels["unknown"] = words


def annotators(rng, written):
    """Each text one to three times under its id; they agree, or one of three does not."""
    how = rng.choice(["majority", "any", "mean"] if not written.one_a_row else ["majority"])
    rows, others = [], [row[written.start :] for row in written.train[1:]]
    for row in written.train[1:]:
        rows += [list(row) for _ in range(rng.choice([1, 3]))]
        if len(rows) > 2 and rows[-1][0] == rows[-3][0] and how != "any":
            rows[-1][written.start :] = rng.choice(others)
    rng.shuffle(rows)
    written.train[1:] = rows
    written.labels["aggregate"] = how
    if how == "mean":
        written.labels["positive_from"] = 0.5


def constant(rng, written):
    """A label of the sample that is not learned, with a column in the training file or without."""
    name, value = "awe", rng.choice([0, 1, 0.25])
    written.labels["constants"] = {name: value}
    sample = written.made.tables["sample_submission.csv"]
    for number, row in enumerate(sample):
        row.append(name if not number else "0")
    if rng.random() < 0.5:
        for number, row in enumerate(written.train):
            row.append(name if not number else rng.choice(["0", "1"]))
    if "names" in written.labels:
        written.labels["names"] = [*written.names, name]


def rare(rng, written):
    """One more label that no row, one row, two rows or every row has."""
    count = rng.choice([0, 1, 2, len(written.train) - 1])
    chosen = rng.sample(range(1, len(written.train)), count)
    for number, row in enumerate(written.train):
        row.append("rare" if not number else str(int(number in chosen)))
    for number, row in enumerate(written.made.tables["sample_submission.csv"]):
        row.append("rare" if not number else "0")
    written.made.label_names = [*written.names, "rare"]


def grouped(rng, written):
    half = len(written.names) // 2
    written.labels["groups"] = {"good": written.names[:half], "bad": written.names[half:]}
    written.labels["names"] = written.names
    sample = written.made.tables["sample_submission.csv"]
    sample[:] = [[row[0], *(["good", "bad"] if not k else ["0", "0"])] for k, row in enumerate(sample)]
    written.made.label_names = ["good", "bad"]


def ordinal(rng, written):
    written.made.settings.update(task="ordinal", metric="quadratic_weighted_kappa")


def answered_in_lists(rng, written):
    how, write = rng.choice([("python", str), ("json", json.dumps)])
    written.answer["list"] = how
    for row in written.made.tables["sample_submission.csv"][1:]:
        row[-1] = write(rng.sample(written.names, rng.choice([0, 1, 2])))


def answered_in_numbers(rng, written):
    first = rng.choice([0, 1])
    written.answer.update(values="numbers", first_number=first)
    for row in written.made.tables["sample_submission.csv"][1:]:
        row[-1] = str(first)


def pair(rng, written):
    """Two texts that are compared; the second one may be empty in places."""
    columns = ["first", "second"]
    was = written.made.settings["text"]["columns"]
    for name in ("train.csv", "test.csv"):
        for number, row in enumerate(written.made.tables[name]):
            cells = columns if not number else [row[1], rng.choice(["", "so it is", row[1]])]
            row[1 : 1 + len(was)] = cells
    written.made.settings["text"] = {"pair": columns}


def template(rng, written):
    columns = written.made.settings["text"]["columns"]
    words = "Read this letter and say which of the feelings it has: "
    written.made.settings["text"]["template"] = words + " | ".join(f"{{{name}}}" for name in columns)


def author(rng, written):
    for number, row in enumerate(written.train):
        row.insert(1, "author" if not number else rng.choice(["", f"a{number // 2}"]))
    written.made.settings["groups"] = "author"


def own_folds(rng, written):
    names = rng.choice([["0", "1"], ["1", "2"], ["a", "b"]])
    rows = [[row[0], names[k // len(written.names) % 2]] for k, row in enumerate(written.train[1:])]
    written.made.tables["folds.csv"] = [["id", "kfold"], *rows]
    written.made.settings["folds"] = {"file": "folds.csv", "column": "kfold"}


def rare_metric(rng, written):
    takes = {"probabilities": ["macro_auc", "macro_ap", "log_loss"]}
    several = ["micro_f1", "weighted_f1", "samples_f1", "jaccard", "subset_accuracy", "macro_f2", "micro_f05"]
    one = ["accuracy", "matthews", "weighted_f1", "micro_f1"]
    chosen = takes.get(written.answer.get("form"), one if written.one_a_row else several)
    written.made.settings["metric"] = rng.choice(chosen)


def ranked(rng, written):
    """The likeliest labels of a row, of a class or of a cell of labels."""
    k = rng.choice([1, 2, 3])
    settings, sample = written.made.settings, written.made.tables["sample_submission.csv"]
    settings.update(task="ranked", metric=rng.choice([f"map_at_{k}", "map_at_k"]))
    if settings["metric"] == "map_at_k":
        settings["k"] = k
    written.answer.pop("form", None)
    how = rng.choice(["words", "words", "python"])
    written.answer.update({"delimiter": ";"} if how == "words" else {"list": how})
    for row in sample[1:]:
        said = rng.sample(written.names, min(k, len(written.names)))
        row[-1] = ";".join(said) if how == "words" else str(said)
    if rng.random() < 0.5:  # the training file has the names
        written.labels.pop("names")


def left_out(rng, written):
    """Rows whose class nobody knows, behind those that carry each class."""
    words = rng.choice([[""], ["?", ""], ["other"]])
    for row in written.train[2 + 3 * len(written.names) :]:
        row[written.start] = rng.choice(words) if rng.random() < 0.3 else row[written.start]
    written.labels["unknown"] = words


def bits(rng, written):
    cells = ["".join(str(int(name in row)) for name in written.names) for row in written.said]
    written.to_cells(cells, values="multi_hot")


def percents(rng, written):
    written.write(written.names, [[rng.choice(["50%", "66.7%", "1"] if name in row else ["0%", "0", "33.3 %"[:4] + "%"])
                                   for name in written.names] for row in written.said])  # fmt: skip
    written.labels["positive_from"] = 0.5


def values(rng, written):
    """A number instead of each label."""
    settings, sample = written.made.settings, written.made.tables["sample_submission.csv"]
    settings.update(task="regression", metric=rng.choice(["rmse", "mae", "pearson", "spearman"]))
    written.answer.pop("form", None)
    scale = rng.choice([1, 10, -3])
    cells = [[f"{scale * ((name in row) + rng.random()):.3f}" for name in written.names] for row in written.said]
    if rng.random() < 0.3:
        written.labels["unknown"] = ["NA"]
        for row in cells[3 * len(written.names) :]:
            row[:] = [rng.choice([cell, cell, "NA"]) for cell in row]
    written.write(written.names, cells)
    for row in sample[1:]:
        row[1:] = [rng.choice(["0", "0.5", "-1.25"])] * len(row[1:])


def candidates(rng, written):
    """A column of the labels that a row can have; not always the row's own one."""
    written.labels["candidates"] = "may be"
    own = [None, *written.said]
    for name in ("train.csv", "test.csv"):
        for number, row in enumerate(written.made.tables[name]):
            said = own[number] if name == "train.csv" and number else []
            more = rng.sample(written.names, rng.randint(1, len(written.names)))
            cell = ",".join(dict.fromkeys([*said, *more])) if rng.random() < 0.9 else ""
            row.insert(1, "may be" if not number else cell)


def beside(rng, written):
    """Numbers and words beside the text."""
    for name in ("train.csv", "test.csv"):
        for number, row in enumerate(written.made.tables[name]):
            cells = [rng.choice(["", "3", "-2.5", "1e3"]), rng.choice(["", "it", "fr", "xx"])]
            row[1:1] = ["age", "country"] if not number else cells
    written.made.settings["features"] = {"numbers": ["age"], "categories": ["country"], "min_rows": 1}


def by_group(rng, written):
    written.made.settings.update(metric="group_auc", metric_by="rule")
    for name in ("train.csv", "test.csv")[: rng.choice([1, 2])]:
        for number, row in enumerate(written.made.tables[name]):
            row.insert(1, "rule" if not number else rng.choice(["", "no spam", "be kind"]))


def only_in(forms, layout):
    """A layout that is for submissions of some forms."""

    def chosen(rng, written):
        if written.answer.get("form", "columns") in forms:
            layout(rng, written)

    chosen.__name__ = layout.__name__
    return chosen


LABEL_LAYOUTS: dict[str, list[Callable[[random.Random, Written], None]]] = {
    "columns": [lists, multi_hot, objects, numbers, several_columns, word_for_none, words_for_yes, mapped, mapped_names,
                renamed_labels, shares, unknown, annotators, constant, rare, grouped, bits, percents, values,
                candidates, only_in(["probabilities"], by_group)],
    "delimited": [lists, multi_hot, objects, numbers, several_columns, word_for_none, mapped_names, renamed_labels,
                  annotators, answered_in_lists, answered_in_numbers, ranked, bits, candidates],
    "class": [class_numbers, renamed_labels, annotators, ordinal, answered_in_numbers, ranked, left_out, candidates],
    "one a row": [words_for_yes, renamed_labels, annotators, shares_of_classes],
    "any": [pair, template, author, own_folds, rare_metric, beside],
}  # fmt: skip
"""Form of the labels -> what else it may be."""


def choose_label_layout(rng: random.Random, made: Made) -> str:
    """Write the labels in another way, or leave them; the name of the way."""
    if rng.random() < 0.4:
        return ""
    written = Written(made)
    own = "one a row" if written.one_a_row and written.form == "columns" else written.form
    layout = rng.choice(LABEL_LAYOUTS["any"] if rng.random() < 0.25 else LABEL_LAYOUTS[own])
    layout(rng, written)
    for group in ("labels", "submission"):
        if not made.settings[group]:
            del made.settings[group]
    return layout.__name__
