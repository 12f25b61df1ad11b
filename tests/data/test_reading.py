"""Bytes to rows: nothing is guessed, skipped or changed, and every defect has its line."""

import csv
import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_competition import as_csv

from foldblend.data.reading import FileForm, Problems, parse_table, table_bytes, without_empty_end

PLAIN = FileForm(quoting="none", separator="\t")
TEXTS = st.text(st.characters(exclude_categories=("Cs",)))


def parse(data: bytes, form=FileForm(), path="x.csv"):  # noqa: B008, frozen
    problems = Problems(path)
    return parse_table(data, form, problems), problems


def complaint(data: bytes, form=FileForm()) -> str:  # noqa: B008, frozen
    problems = parse(data, form)[1]
    assert problems
    return str(problems)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8), st.sampled_from(",;\t|"))
@example([("NA", "None"), ("null", "nan"), ("007", " 1.0 ")], ",")
@example([('"', '""'), (",", "\n"), ("\r", "\r\n"), ("\0", "\x1a"), ("שלום", "👩‍👩‍👧 é e\u0301")], ",")
@example([("a\u2028b", "c\x85d\x0b\x0c\x1c")], ",")
def test_any_text_survives_what_a_csv_writer_wrote(rows, separator):
    table, problems = parse(as_csv([("id", "text"), *rows], separator), FileForm(separator=separator))
    assert not problems
    assert [tuple(row) for row in table.rows] == rows


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8), st.sampled_from(",;\t|"))
@example([("a\rb", "\r"), ("=1+1", "'")], ",")
def test_our_own_bytes_are_read_back(rows, separator):
    data = table_bytes(("id", "text"), rows, separator)
    table, problems = parse(data, FileForm(separator=separator))
    assert not problems
    assert [tuple(row) for row in table.rows] == rows


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_a_stated_encoding_is_used(encoding):
    table, problems = parse("id,text\n1,é😀\n".encode(encoding), FileForm(encoding))
    assert not problems
    assert table.header == ("id", "text")
    assert table.rows == [["1", "é😀"]]


def test_one_byte_encodings():
    assert parse("id,text\n1,caf\xe9 \u20ac\n".encode("cp1252"), FileForm("cp1252"))[0].rows == [["1", "café €"]]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("tail", ["", "\n", "\n\n\n"])
def test_line_ends_and_empty_lines_at_the_end(ending, tail):
    data = f"id,text\n1,a\n2,b{tail}".replace("\n", ending).encode()
    table, problems = parse(data)
    assert not problems
    assert table.rows == [["1", "a"], ["2", "b"]]


def test_quotes_are_text_where_quoting_is_none():
    data = b'id\ttext\n1\t"he said\n2\tit\'s 5" \r\n3\ta\rb\n'
    table, problems = parse(data, PLAIN)
    assert not problems
    assert table.rows == [["1", '"he said'], ["2", "it's 5\" \r"], ["3", "a\rb"]]
    table, _ = parse(b"id\ttext\r\n1\ta\rb\r\n", PLAIN)
    assert table.rows == [["1", "a\rb"]]


def test_a_text_longer_than_the_csv_modules_limit():
    before = csv.field_size_limit()
    table, problems = parse(as_csv([("id", "text"), ("1", "x" * 500_000)]))
    assert not problems
    assert len(table.rows[0][1]) == 500_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    "data, form, messages",
    [
        (b"", FileForm(), ["the file is empty"]),
        (b" \n\n", FileForm(), ["the file is empty"]),
        (b"id,text\n", FileForm(), ["a header and no rows"]),
        (b"\nid,text\n1,a\n", FileForm(), ["line 1: expected a header with column names, found an empty line"]),
        (b'"id,text\n1,a\n', FileForm(), ["line 1: expected a header", "a quote that opens here never closes"]),
        (b"id,text\n1,a\n2\n3,c,d\n", FileForm(), ["row 2 (line 3): 1 fields, the header has 2", "row 3 (line 4): 3"]),
        (b"id,text\n1,a\n\n2,b\n", FileForm(), ["row 2 (line 3): an empty line"]),
        (b'id,text\n1,a\n2,"b\n3,c\n', FileForm(), ["row 2 (line 3): a quote that opens here never closes"]),
        (b'id,text\n1,"a" b\n2,c\n', FileForm(), ["row 1 (line 2): text after a closing quote"]),
        (b'id,text\n1,"a\nb" c\n2,c\n', FileForm(), ["row 1 (line 2): text after a closing quote at line 3"]),
        (b"id,text\n1,a\rb\n2,c\n", FileForm(), ["row 1 (line 2): a carriage return without a newline"]),
        (b"id\ttext\n1\ta\n2\n", PLAIN, ["row 2 (line 3): 1 fields, the header has 2"]),
        (
            b"id;text;joy\n1;a;0\n",
            FileForm(),
            ["only one column, 'id;text;joy', when split at ','", "set files.separators: {x.csv: ';'}"],
        ),
        (b"id\ttext\n1\ta\n", FileForm(), ['it looks split at "\\t": set files.separators: {x.csv: "\\t"}']),
        (b"id,text\n1,a\n", FileForm(separator="|"), ["when split at '|'", "set files.separators: {x.csv: ','}"]),
        ("id,text\n1,a".encode("utf-8-sig"), FileForm(), ["byte order mark: set files.encodings: {x.csv: utf-8-sig}"]),
        (
            "id,text\n1,a".encode("utf-16"),
            FileForm(),
            ["byte order mark of utf-16: set files.encodings: {x.csv: utf-16}"],
        ),
        ("id,text\n1,a".encode("utf-32"), FileForm(), ["set files.encodings: {x.csv: utf-32}"]),
        ("id,text\n1,a".encode("utf-16-le"), FileForm(), ["holds NUL characters", "is the file utf-16?"]),
        ("id,text\n1,a".encode("utf-16"), FileForm("utf-16-le"), ["set files.encodings: {x.csv: utf-16}"]),
        (b"id,text\n1,a\n2,b", FileForm("utf-16"), ["is not utf-16", "files.encoding says"]),
        (
            "id,text\n1,a\n2,caf\xe9\n3,b\n4,\xe8\n".encode("cp1252"),
            FileForm(),
            [
                "line 3, byte 17 of the file: 0xe9 is not utf-8",
                "(invalid continuation byte), and in lines 5;",
                "(probably cp1252)",
            ],
        ),
        ("id,text\n1,a\n2,é".encode()[:-1], FileForm(), ["line 3", "cut off inside a character"]),
        (
            "id,text\n1,é\n".encode(),
            FileForm("cp1252"),
            ["all of it is valid utf-8: set files.encodings: {x.csv: utf-8}"],
        ),
        ("id,text\n1,é\n".encode(), FileForm("ascii"), ["0xc3 is not ascii", "(probably utf-8)"]),
    ],
)
def test_a_broken_file_is_told_where_and_what_to_do(data, form, messages):
    text = complaint(data, form)
    for message in messages:
        assert message in text, text


def test_rows_behind_a_broken_one_keep_their_numbers():
    table, problems = parse(b'id,text\n1,"a\nb"\n2\n3,c\n')
    assert table.rows == [["1", "a\nb"], ["3", "c"]]
    assert (problems.row_numbers, problems.line_numbers) == ([1, 3], [2, 5])


@given(st.data())
def test_a_file_cut_anywhere_is_refused_or_holds_only_whole_rows(data):
    """A cut inside the last text cannot be seen here; the ids of the sample submission tell it."""
    rows = data.draw(st.lists(st.tuples(st.sampled_from(["1", "2"]), TEXTS, st.just("end")), min_size=1, max_size=4))
    whole = as_csv([("id", "text", "last"), *rows])
    cut = data.draw(st.integers(1, len(whole) - 1))
    table, problems = parse(whole[:cut])
    if not problems:
        assert [tuple(row) for row in table.rows[:-1]] == rows[: len(table.rows) - 1]
        assert tuple(table.rows[-1])[:2] == rows[len(table.rows) - 1][:2]


def test_numbers_of_problems_in_the_heading():
    assert re.match(r"x.csv: 1 problem\n  row 1", complaint(b"id,text\n1\n2,b\n"))


def test_a_text_of_many_line_ends_is_read_in_time_by_its_length():
    started = time.monotonic()
    for end in ("\n", "\r\n"):
        text = end * 200_000
        table = parse_table(f'id,text\n1,"a{text}b"\n{end * 100_000}'.encode(), FileForm(), Problems("x.csv"))
        assert table.rows == [["1", f"a{text}b"]]
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n\r\n", "\n\r\r\n", "\r\r\n\n", "\r", "\n\r\n\n", "\n\n\r"])
def test_empty_lines_at_the_end_are_what_the_pattern_said(end):
    expected = re.sub(r"\n(\r?\n)+\Z", "\n", f"a,b{end}")
    assert without_empty_end(f"a,b{end}") == expected
