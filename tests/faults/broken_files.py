"""What may be wrong with a competition's tables, in cells, rows, columns and bytes."""

import random
from collections.abc import Callable

from made_up_files import Made

TABLES = ("train.csv", "test.csv", "sample_submission.csv")
ODD_TEXTS = [
    "", " ", "\0", "a\0b", "\x1b[31mred\x1b[0m", "\u202eright to left\u202c", "שלום עולם", "👩‍👩‍👧‍👦" * 50,
    "\ufeff", "\u2028", "\u200b",
    "=cmd|' /C calc'!A0", "@SUM(1+1)", "+1", "-1", "line\nbreak", "car\rriage", "tab\ttab", '"', '""', "''", ",", ";",
    "NA", "None", "null", "nan", "0", "\x7f\x80\x9f", "\ud7ff\ue000", "é", "e\u0301", "a" * 200_000, "{id}",
    "%s%n", "\\", "../../x",
]  # fmt: skip
ODD_IDS = [*ODD_TEXTS, "007", "7", "1e5", "1_000", " t1", "t1 ", "İ", "i̇", "a" * 300, "../../etc/passwd", "t,1", "0x10"]
ODD_LABELS = ["", " ", "2", "-1", "yes", "True", "1.0", "0.0", "1.00", " 1", "1 ", "١", "nan", "1e0", "0.5",
              "01", "joy",
              "joy,joy", "joy,", ",", "JOY", "=1", "\0", "fear joy"]  # fmt: skip


def pick(rng: random.Random, made: Made) -> list[list[str]]:
    return made.tables[pick_table(rng, made, TABLES)]


def pick_table(rng: random.Random, made: Made, names) -> str:
    """One of the named tables that the competition has."""
    return rng.choice([name for name in names if name in made.tables])


def odd_text(rng, made):
    rows = made.tables[pick_table(rng, made, TABLES[:2])]
    if len(rows) > 1 and len(rows[0]) > 1:
        rng.choice(rows[1:])[1] = rng.choice(ODD_TEXTS)


def same_texts(rng, made):
    rows = made.tables["train.csv"]
    for row in rows[1:] if rng.random() < 0.5 else rng.sample(rows[1:], min(4, len(rows) - 1)):
        row[1:2] = [rows[-1][1]] if len(rows[-1]) > 1 else []


def odd_id(rng, made):
    name, rows = rng.choice(ODD_IDS), pick(rng, made)
    replaced = rng.choice(rows)[:1]
    for file in TABLES[1:] if rng.random() < 0.5 else TABLES:  # test file and sample agree, or all three do
        for row in made.tables.get(file, []):
            row[:1] = [name] if row[:1] == replaced else row[:1]


def doubled_id(rng, made):
    rows = pick(rng, made)
    rng.choice(rows)[:1] = rng.choice(rows)[:1]


def odd_label(rng, made):
    rows = made.tables[pick_table(rng, made, ["train.csv", "train.csv", "sample_submission.csv"])]
    rng.choice(rows[1:] or rows)[-1:] = [rng.choice(ODD_LABELS)]


def one_column_alike(rng, made):
    rows, cell = made.tables["train.csv"], rng.choice(["0", "1", "1.0", "", "joy"])
    for row in rows[1:]:
        row[-1:] = [cell]


def lose_column(rng, made):
    rows = pick(rng, made)
    position = rng.randrange(len(rows[0]))
    for row in rows:
        del row[position : position + 1]


def rename_column(rng, made):
    header = pick(rng, made)[0]
    position = rng.randrange(len(header) or 1)
    odd = ["", "id", "text", "Text", " id", "joy ", "ID", "a,b", 'a"b', "x" * 5000, "=1", "a\nb", "喜び", "index"]
    header[position : position + 1] = [rng.choice(odd)]


def add_column(rng, made):
    rows = pick(rng, made)
    for number, row in enumerate(rows):
        row.append(rng.choice(["extra", "joy", "", "NONE"]) if not number else "1")


def swap_columns(rng, made):
    rows = pick(rng, made)
    order = list(range(len(rows[0])))
    rng.shuffle(order)
    for row in rows:
        row[:] = [row[k] for k in order if k < len(row)]


def lose_cell(rng, made):
    row = rng.choice(pick(rng, made))
    if row:
        del row[rng.randrange(len(row))]


def add_cell(rng, made):
    rng.choice(pick(rng, made)).append(rng.choice(["", "x", "0"]))


def lose_rows(rng, made):
    rows = pick(rng, made)
    del rows[rng.choice([0, 1, 2, 3, max(1, len(rows) - 1)]) :]


def double_rows(rng, made):
    rows = pick(rng, made)
    rows.extend([row[:] for row in rng.sample(rows, min(3, len(rows)))])


def mix_files(rng, made):
    one, other = rng.sample([name for name in TABLES if name in made.tables], 2)
    made.tables[one] = [row[:] for row in made.tables[other]]


def many_labels(rng, made):
    """Hundreds of labels on a few rows: most of them have too few positives."""
    more = [f"label{k}" for k in range(rng.choice([50, 500]))]
    for name, cell in (("train.csv", "0"), ("sample_submission.csv", "0")):
        for number, row in enumerate(made.tables.get(name, [])):
            row += more if not number else [str(int(rng.random() < 0.5)) if name == "train.csv" else cell for _ in more]


def edit_bytes(rng, made):
    name = rng.choice(sorted(made.encode()))
    data = bytearray(made.encode()[name] or b"")
    at = rng.randrange(len(data) + 1)
    for _ in range(rng.choice([1, 1, 3])):
        noise = rng.choice(
            [b'"', b"\0", b"\r", b"\n", b",", b"\xff", b"\xef\xbb\xbf", b"\x1a", b"\x80", b"\n\n", rng.randbytes(4)]
        )
        data[at : at + rng.choice([0, 0, 1, 7])] = noise
        at = rng.randrange(len(data) + 1)
    made.files[name] = bytes(data)


def replace_bytes(rng, made):
    name = rng.choice(sorted(made.encode()))
    data = made.encode()[name] or b""
    made.files[name] = rng.choice([
        b"", b"\n", b"\0" * 50, rng.randbytes(300), data[: rng.randrange(len(data) + 1)], data * 2,
        data.replace(b"\n", b"\r\n"),
        data.replace(b"\n", b"\r"), b"\xef\xbb\xbf" + data, data.decode("utf-8", "ignore").encode("utf-16"),
        data.decode("utf-8", "ignore").encode("cp1252", "replace"), b"\x1f\x8b" + data, b"PK\x03\x04" + data,
        data.replace(b",", b";"),
        data.replace(b'"', b""), data + b'"', data + b"\x1a", b"\xff\xfe" + data, data.upper(), b"<html>404</html>\n",
    ])  # fmt: skip


def lose_file(rng, made):
    made.files[rng.choice(sorted(made.encode()))] = None


BREAKS: list[Callable[[random.Random, Made], None]] = [
    odd_text, odd_text, same_texts, odd_id, odd_id, doubled_id, odd_label, odd_label, one_column_alike, lose_column,
    rename_column, add_column, swap_columns, lose_cell, add_cell, lose_rows, double_rows, mix_files, many_labels,
    edit_bytes, edit_bytes, replace_bytes, lose_file,
]  # fmt: skip


def break_files(rng: random.Random, made: Made, times: int) -> list[str]:
    """Break the tables so often; the names of what was done. A break that finds nothing left to break does nothing."""
    done = []
    for _ in range(times):
        one = rng.choice(BREAKS)
        if all(rows and rows[0] for rows in made.tables.values()):
            one(rng, made)
            done.append(one.__name__)
    return done
