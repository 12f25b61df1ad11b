"""Files of every kind become the same table; damaged ones and those of another kind are named as what they are."""

import bz2
import gzip
import io
import json
import lzma
import sys
import types
import zipfile

import pytest
from tiny_competition import as_csv

from foldblend.data import formats
from foldblend.data.formats import as_cell, parse_file
from foldblend.data.reading import FileForm, Problems

ROWS = [["id", "text"], ["r0", 'a "quoted", text'], ["r1", "é 😀\nzwei"], ["r2", ""]]
OBJECTS = [dict(zip(ROWS[0], row, strict=True)) for row in ROWS[1:]]
NOT_STATED = FileForm(separator_is_stated=False)


def parse(data, name, form=NOT_STATED):
    problems = Problems(name)
    return parse_file(data, name, form, problems), problems


def complaint(data, name, form=NOT_STATED):
    table, problems = parse(data, name, form)
    assert problems and not (table and table.rows and not problems)
    return str(problems)


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "."), data)
    return file.getvalue()


LINES = "".join(json.dumps(one) + "\n" for one in OBJECTS).encode()
COLUMNS = {name: {str(k): one[name] for k, one in enumerate(OBJECTS)} for name in ROWS[0]}
LAYOUTS = {
    "train.csv": as_csv(ROWS),
    "train.tsv": as_csv(ROWS, "\t"),
    "TRAIN.TSV": as_csv(ROWS, "\t"),
    "commas.tsv": as_csv(ROWS),
    "train.csv.gz": gzip.compress(as_csv(ROWS)),
    "train.csv.bz2": bz2.compress(as_csv(ROWS)),
    "train.csv.xz": lzma.compress(as_csv(ROWS)),
    "train.tsv.gz": gzip.compress(as_csv(ROWS, "\t")),
    "train.csv.zip": zipped(train__csv=as_csv(ROWS), other__csv=b"a\n1\n"),
    "data.zip": zipped(train__csv=as_csv(ROWS)),
    "train.jsonl": LINES,
    "train.ndjson": LINES + b"\n\n",
    "marked.jsonl": b"\xef\xbb\xbf" + LINES,
    "train.jsonl.gz": gzip.compress(LINES),
    "lines.json": LINES,
    "train.json": json.dumps(OBJECTS, indent=1).encode(),
    "columns.json": json.dumps(COLUMNS).encode(),
    "lists.json": json.dumps({name: list(column.values()) for name, column in COLUMNS.items()}).encode(),
    "split.json": json.dumps({"columns": ROWS[0], "index": [0, 1, 2], "data": ROWS[1:]}).encode(),
    "nested.json": json.dumps({"data": OBJECTS}).encode(),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_the_same_table(name):
    table, problems = parse(LAYOUTS[name], name)
    assert not problems, problems
    assert (table.header, table.rows) == (("id", "text"), ROWS[1:])


def test_a_stated_separator_counts_for_tsv():
    assert parse(as_csv(ROWS, ";"), "train.tsv", FileForm(separator=";"))[0].rows == ROWS[1:]
    assert parse(b"id,te\txt\n1,a\n", "train.tsv", FileForm(separator=","))[0].header == ("id", "te\txt")


def test_cells_are_what_a_csv_would_say():
    values = [None, float("nan"), True, 3, 0.5, 1e-7, "a", ["joy", "é"], {"joy": 1}, b"x"]
    assert [as_cell(value) for value in values] == [
        "",
        "",
        "True",
        "3",
        "0.5",
        "1e-07",
        "a",
        '["joy", "é"]',
        '{"joy": 1}',
        "x",
    ]
    table, problems = parse(b'{"id": 7, "joy": true}\n{"joy": null, "more": [1]}\n', "train.jsonl")
    assert not problems and table.header == ("id", "joy", "more")
    assert table.rows == [["7", "True", ""], ["", "", "[1]"]]


@pytest.mark.parametrize(
    "data, name, messages",
    [
        (b"", "a.jsonl", ["the file is empty"]),
        (b"[]", "a.json", ["no rows; expected one or more"]),
        (b'{"id": 1}\nid\n\n{"id": 2}\n', "a.jsonl", ["row 2 (line 2): no JSON", "row 3 (line 3): an empty line"]),
        (b'{"id": 1, "id": 2}\n', "a.jsonl", ["row 1 (line 1): no JSON (a key is there twice"]),
        (b"[1, 2]\n", "a.jsonl", ["row 1 (line 1): '[1, 2]'; expected an object per line"]),
        (b"[1, 2]", "a.json", ["JSON of another shape, '[1, 2]'; expected a list of objects"]),
        (b'{"a": {"b": {"c": 1}}, "d": 3}', "a.json", ["JSON of another shape"]),
        (b'{"a": ', "a.json", ["no JSON"]),
        (b"[" * 100_000, "a.json", ["no JSON"]),
        (b'{"text": "\\ud800"}\n', "a.jsonl", ["row 1 (line 1): a cell has half a surrogate pair"]),
        (b'{"text": "caf\xe9"}\n', "a.jsonl", ["0xe9 is not utf-8"]),
        (gzip.compress(LINES), "a.jsonl", ["the file is a gzip archive, not JSON; rename it to a.jsonl.gz"]),
        (as_csv(ROWS), "a.csv.gz", ["cannot be unpacked as .gz"]),
        (gzip.compress(as_csv(ROWS))[:-9], "a.csv.gz", ["cannot be unpacked as .gz"]),
        (zipped(a=b"x")[:40], "a.zip", ["cannot be unpacked as .zip", "a damaged zip archive"]),
        (zipped(one__csv=b"", two__csv=b""), "a.zip", ["the archive holds 'one.csv', 'two.csv'; expected one file"]),
        (zipped(), "a.zip", ["the archive holds no file"]),
        (gzip.compress(gzip.compress(as_csv(ROWS))), "a.csv.gz", ["the file is a gzip archive"]),
        (as_csv(ROWS), "a.parquet", ["a .parquet file needs the package pyarrow. Run: pip install pyarrow"]),
        (as_csv(ROWS), "a.xlsx", ["an .xlsx file needs the package openpyxl. Run: pip install openpyxl"]),
    ],
)
def test_a_damaged_file_is_told_what_it_is(data, name, messages, monkeypatch):
    for library in ("pyarrow", "openpyxl"):
        monkeypatch.setitem(sys.modules, library, None)
    said = complaint(data, name)
    for message in messages:
        assert message in said, said


def test_a_bomb_is_not_unpacked(monkeypatch):
    monkeypatch.setattr(formats, "SUSPICIOUS_BYTES", 1 << 20)
    monkeypatch.setattr(formats, "CHUNK", 1 << 16)
    big = bytes(2 << 20)
    assert "no table does. Unpack it by hand" in complaint(gzip.compress(big), "a.csv.gz")
    assert "no table does" in complaint(zipped(a__csv=big), "a.zip")


def test_what_macos_adds_is_not_a_second_file():
    table, problems = parse(zipped(train__csv=as_csv(ROWS), **{"__MACOSX/__._train__csv": b"x"}), "data.zip")
    assert not problems and table.rows == ROWS[1:]


# ---------- Parquet and Excel, through stand-ins for their libraries; through the real ones if they are installed.


def test_excel_through_a_stand_in(monkeypatch):
    sheet = types.SimpleNamespace(
        iter_rows=lambda values_only: [("id", "n", None), (1.0, 0.5, None), (2.0, None, None), (None, None, None)]
    )

    class Book(dict):
        sheetnames = ("Sheet1", "notes")

    book = types.SimpleNamespace(load_workbook=lambda *_, **__: Book(Sheet1=sheet))
    monkeypatch.setitem(sys.modules, "openpyxl", book)
    assert "the workbook has the sheets 'Sheet1', 'notes': set files.sheet" in complaint(b"x", "a.xlsx")
    table, problems = parse(b"x", "a.xlsx", FileForm(sheet="Sheet1"))
    assert not problems
    assert (table.header, table.rows) == (("id", "n"), [["1", "0.5"], ["2", ""]])
    named, _ = parse(b"x", "a.xlsx", FileForm(sheet="Sheet1", columns=("a", "b")))
    assert named.header == ("a", "b") and named.rows[0] == ["id", "n"]


def test_a_real_workbook(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in ROWS:
        book.active.append(row)
    book.save(tmp_path / "train.xlsx")
    table, problems = parse((tmp_path / "train.xlsx").read_bytes(), "train.xlsx")
    assert not problems and table.rows == ROWS[1:]
    assert "no readable Excel workbook" in complaint(as_csv(ROWS), "a.xlsx")


def test_a_real_parquet_file(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"id": [1, 2, None], "labels": [["joy"], [], None], "share": [0.5, None, 1.0], "text": ["a", "é", ""]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    table, problems = parse((tmp_path / "a.parquet").read_bytes(), "a.parquet")
    assert not problems
    assert table.rows == [["1", '["joy"]', "0.5", "a"], ["2", "[]", "", "é"], ["", "", "1.0", ""]]
    assert "no readable Parquet" in complaint(gzip.compress(b"x"), "a.parquet")
