"""Right competitions whose files are of another layout than train.csv, test.csv and sample_submission.csv with ids."""

import bz2
import gzip
import io
import json
import random
import zipfile
from collections.abc import Callable

from made_up_files import Made, as_csv

DATA = ("train.csv", "test.csv")


def files_of(made: Made) -> dict:
    return made.settings.setdefault("files", {})


def packed(rng, made):
    """A training or test file, or the sample, in an archive."""
    name = rng.choice([*DATA, "sample_submission.csv"])
    suffix, pack = rng.choice([(".gz", gzip.compress), (".bz2", bz2.compress), (".zip", as_zip)])
    separator, encoding = made.separator(name), made.encoding(name)
    made.forms[name] = (name + suffix, lambda rows: pack(as_csv(rows, separator, encoding)))
    files_of(made)[{"train.csv": "train", "test.csv": "test"}.get(name, "sample_submission")] = name + suffix


def as_zip(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("inside.csv", data)
    return file.getvalue()


def json_lines(rng, made):
    name = rng.choice(DATA)
    kind = rng.choice(["jsonl", "json"])
    new = name.replace("csv", kind)
    made.forms[name] = (new, as_json_lines if kind == "jsonl" else as_json)
    files_of(made)["train" if name == "train.csv" else "test"] = new
    files_of(made)["encoding"] = "utf-8"


def as_objects(rows):
    return [dict(zip(rows[0], row)) for row in rows[1:]] if rows else []


def as_json_lines(rows) -> bytes:
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in as_objects(rows)).encode()


def as_json(rows) -> bytes:
    return json.dumps(as_objects(rows), indent=1).encode()


def json_in_object(rng, made):
    """The rows under one key, beside a version."""
    name = rng.choice(DATA)
    new = name.replace("csv", "json")
    made.forms[name] = (new, lambda rows: json.dumps({"version": "1.0", "data": as_objects(rows)}).encode())
    files_of(made)["train" if name == "train.csv" else "test"] = new
    files_of(made)["encoding"] = "utf-8"


def index_in_sample(rng, made):
    first = rng.choice([0, 1])
    for number, row in enumerate(made.tables["sample_submission.csv"]):
        row.insert(0, rng.choice(["", "Unnamed: 0"]) if not number else str(number - 1 + first))


def tsv(rng, made):
    name = rng.choice(DATA)
    new, encoding = name.replace("csv", "tsv"), made.encoding(name)
    made.forms[name] = (new, lambda rows: as_csv(rows, "\t", encoding))
    files_of(made)["train" if name == "train.csv" else "test"] = new
    if made.separator(name) != ",":
        files_of(made)["separators"] = {new: "\t"}


def own_encoding(rng, made):
    name, encoding = rng.choice(DATA), rng.choice(["utf-16", "utf-8", "utf-32"])
    files_of(made)["encodings"] = {name: encoding}


def own_separator(rng, made):
    files_of(made)["separators"] = {rng.choice(DATA): rng.choice([";", "|", ","])}


def no_header(rng, made):
    name = rng.choice(DATA)
    files_of(made)["columns"] = {name: made.tables[name].pop(0)}


def renamed(rng, made):
    name = rng.choice(DATA)
    old = rng.choice(made.tables[name][0])
    new = rng.choice([old.upper() + "_", f"{old}\u200b", "", "喜び!", "yes"])
    made.tables[name][0] = [new if column == old else column for column in made.tables[name][0]]
    files_of(made)["rename"] = {name: {new: old}}


def other_id_in_sample(rng, made):
    made.tables["sample_submission.csv"][0][0] = rng.choice(["Id", "row", "", "ID "])


def index(rng, made):
    for name in DATA:
        made.tables[name][0][0] = rng.choice(["", "Unnamed: 0"])


def row_numbers(rng, made):
    first = rng.choice([0, 1])
    how = ("row_number", "row_number_from_1")[first]
    sample, test = made.tables["sample_submission.csv"], made.tables["test.csv"]
    number = {row[0]: str(k) for k, row in enumerate(test[1:], start=first)}
    for row in sample[1:]:
        row[0] = number[row[0]]
    for name in DATA:
        made.tables[name] = [row[1:] for row in made.tables[name]]
    files_of(made)["ids"] = dict.fromkeys(DATA, how)


def sample_order(rng, made):
    sample, test = made.tables["sample_submission.csv"], made.tables["test.csv"]
    order = {row[0]: k for k, row in enumerate(test)}
    sample[1:] = sorted(sample[1:], key=lambda row: order[row[0]])
    made.tables["test.csv"] = [row[1:] for row in test]
    files_of(made)["ids"] = {"test.csv": "sample_order"}


def two_train_files(rng, made):
    train = made.tables["train.csv"]
    order = list(range(len(train[0])))
    rng.shuffle(order)
    cut = rng.randint(2, len(train) - 1)
    made.tables["train.csv"], rest = train[:cut], [train[0], *train[cut:]]
    made.tables["dev.csv"] = [[row[k] for k in order] for row in rest]
    files_of(made)["train"] = ["train.csv", "dev.csv"]


def split_column(rng, made):
    """Test rows, with whatever stands in their labels, among the training rows."""
    train, test = made.tables["train.csv"], made.tables.pop("test.csv")
    width = len(train[0])
    rows = [[*row, rng.choice(["train", "dev"])] for row in train[1:]]
    rows += [[*row[:width], *[rng.choice(["", "?", "1"])] * (width - len(row)), "test"] for row in test[1:]]
    rng.shuffle(rows)
    made.tables["train.csv"] = [[*train[0], "split"], *rows]
    files_of(made).update(split_column="split", test_values=["test"])
    in_files = {"labels": {"names": made.label_names}} if made.settings.get("labels", {}).get("form") is None else {}
    for group, values in in_files.items():
        made.settings.setdefault(group, {}).update(values)


def no_sample(rng, made):
    made.tables.pop("sample_submission.csv")
    files_of(made)["sample_submission"] = "none"
    made.settings.setdefault("labels", {}).setdefault("names", made.label_names)


def old_sample(rng, made):
    for row in made.tables["sample_submission.csv"][1:]:
        row[0] = f"old{row[0]}"
    files_of(made)["answer_rows"] = "test"


def short_sample(rng, made):
    sample = made.tables["sample_submission.csv"]
    del sample[max(2, len(sample) - rng.randint(1, 3)) :]


def blank_sample(rng, made):
    if made.is_in_columns:
        for row in made.tables["sample_submission.csv"][1:]:
            row[1:] = [""] * len(row[1:])


def long_sample(rng, made):
    if not made.is_in_columns:
        return
    sample = made.tables["sample_submission.csv"]
    pairs = [(row[0], name) for row in sample[1:] for name in made.label_names]
    if rng.random() < 0.5:
        pairs.sort(key=lambda pair: made.label_names.index(pair[1]))
    answer = made.settings.setdefault("submission", {})
    if rng.random() < 0.5:
        rows, answer["row_id"] = [["row", "p"], *([f"{row}_{name}", "0"] for row, name in pairs)], "{id}_{label}"
    else:
        rows, answer["label_column"] = [["id", "what", "p"], *([row, name, "0"] for row, name in pairs)], "what"
    answer["column"] = "p"
    made.tables["sample_submission.csv"] = rows
    made.settings.setdefault("labels", {}).setdefault("names", made.label_names)


def empty_texts(rng, made):
    rows = made.tables[rng.choice(DATA)]
    for row in rng.sample(rows[1:], min(2, len(rows) - 1)):
        row[1] = ""
    made.settings["text"]["empty"] = rng.choice(["allow", "drop", "drop"])


LAYOUTS: list[Callable[[random.Random, Made], None]] = [
    json_in_object, index_in_sample,
    packed, json_lines, tsv, own_encoding, own_separator, no_header, renamed, other_id_in_sample, index, row_numbers,
    sample_order, two_train_files, split_column, no_sample, old_sample, short_sample, blank_sample, long_sample,
    empty_texts,
]  # fmt: skip


def choose_layout(rng: random.Random, made: Made) -> str:
    """Give the competition another layout, or leave it; its name."""
    if rng.random() < 0.4:
        return ""
    layout = rng.choice(LAYOUTS)
    layout(rng, made)
    return layout.__name__
