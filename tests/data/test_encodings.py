"""Advice on bytes never makes a file worse: utf-8 with wrong bytes, other scripts, archives and spreadsheets."""

import gzip
import io
import re
import zipfile

import pytest
from tiny_competition import as_csv, settings

from foldblend.data.encodings import count_utf8, decode, is_mixed_utf8, name_kind, repair_cell
from foldblend.data.tables import load_tables

FRENCH = "Le café est fermé, l'été à Nîmes — « déjà » dit-elle ; œuvre, où ça ? "
RUSSIAN = "Сегодня хорошая погода, и мы идём гулять. "


def csv_of(texts, encoding="utf-8"):
    return ("id,text\n" + "".join(f"{k},{t}\n" for k, t in enumerate(texts))).encode(encoding)


def complaints(data, encoding="utf-8", is_own=False):
    return " ".join(decode(data, encoding, "train.csv", is_own).complaints)


def test_one_wrong_byte_among_right_ones_is_no_reason_for_another_encoding():
    data = csv_of([FRENCH] * 20) + b"21,caf\xe9\n"
    found = decode(data, "utf-8", "train.csv")
    assert found.is_mixed and not found.complaints
    assert repair_cell(found.text.splitlines()[-1]) == "21,café"


def test_advice_is_followed_without_a_circle():
    """Whatever file, obeying the advised setting reads it right or asks for no setting that was tried."""
    for text, encoding in ((FRENCH, "cp1252"), (FRENCH, "utf-8-sig"), (FRENCH, "utf-16"), (FRENCH, "utf-8")):
        data, tried = csv_of([text] * 5, encoding), "utf-8"
        for _ in range(3):
            found = decode(data, tried, "train.csv")
            if not found.complaints and not found.is_mixed:
                break
            tried = re.search(r"set files\.encodings: \{train\.csv: ([\w-]+)\}", found.complaints[0])[1]
        assert found.text == csv_of([text] * 5).decode(), (encoding, tried)


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r"])
def test_another_script_is_not_called_cp1252(encoding):
    said = complaints(csv_of([RUSSIAN] * 5, encoding))
    assert "cp1252" not in said and "of another script than Latin: ask for its encoding" in said


def test_chinese_bytes_are_not_called_cp1252():
    assert "cp1252" not in complaints(csv_of(["今天天气很好，我们去散步吧"] * 5, "gb18030"))


def test_cp1252_for_a_file_of_utf8_is_refused_even_if_a_few_bytes_are_wrong():
    data = csv_of([FRENCH] * 5) + b"6,caf\xe9\n"
    said = complaints(data, "cp1252")
    assert "read as cp1252 it is garbled" in said and "{train.csv: utf-8} and files.invalid_bytes: cp1252" in said
    assert not complaints(data, "cp1252", is_own=True)  # whoever names the file's own encoding has looked at it
    assert "all of it is valid utf-8" in complaints(csv_of([FRENCH]), "cp1252", is_own=True)


@pytest.mark.parametrize("text", [FRENCH, "UN CAFÉ” DÉJÀ’S, É…", "NÃO “É” ÇA", "ÜBER ß Ø–Å"])
def test_a_real_cp1252_file_is_read(text):
    found = decode(csv_of([text] * 3, "cp1252"), "cp1252", "train.csv")
    assert found.complaints == [] and text in found.text


def test_counts_of_stretches():
    assert count_utf8("é\u0301x".encode() + b" \xe9 \xe8\xe9") == (1, 2)
    assert count_utf8("CAFÉ”".encode("cp1252")) == (0, 0)
    assert is_mixed_utf8(1, 20) and not is_mixed_utf8(1, 21) and not is_mixed_utf8(0, 0)


# ---------- the same in files.


def write(folder, train, test=b"id,text\nt0,a\nt1,b\n", sample=b"id,joy,fear\nt0,0,0\nt1,0,0\n"):
    for name, data in (("train.csv", train), ("test.csv", test), ("sample_submission.csv", sample)):
        (folder / name).write_bytes(data)
    return folder


def labelled(texts, encoding="utf-8"):
    rows = "".join(f"r{k},{text},{k % 2},{k // 2 % 2}\n" for k, text in enumerate(texts))
    return f"id,text,joy,fear\n{rows}".encode(encoding)


MIXED = labelled(["caf\xe9 noir", "plain", "x", "y"]).replace(b"r1,plain", b"r1,caf\xe9 \x93au lait\x94")


def test_case_encoding_mixed(tmp_path):
    folder = write(tmp_path, MIXED)
    with pytest.raises(ValueError) as error:
        load_tables(settings(), folder)
    said = str(error.value)
    assert "set files.invalid_bytes: cp1252" in said.replace("\n", " ")
    assert "row 2 (line 3): 0xe9 is not utf-8; as cp1252 it reads 'café “au lait”'" in said
    tables = load_tables(settings(files={"invalid_bytes": "cp1252"}), folder)
    assert tables.train_texts[:2] == ["café noir", "café “au lait”"]
    assert tables.notes == ("train.csv: bytes that are not utf-8 were read as cp1252: row 2",)


def test_case_encoding_mixed_as_advised(tmp_path):
    folder = write(tmp_path, MIXED)
    with pytest.raises(ValueError, match="read as cp1252 it is garbled"):
        load_tables(settings(files={"encoding": "cp1252"}), folder)
    followed = {"encoding": "cp1252", "encodings": {"train.csv": "utf-8"}, "invalid_bytes": "cp1252"}
    assert load_tables(settings(files=followed), folder).train_texts[1] == "café “au lait”"


def test_other_problems_of_a_mixed_file_are_named_at_once(tmp_path):
    folder = write(tmp_path, MIXED.replace(b"r3,y,1,1", b"r3,y,7,1"))
    with pytest.raises(ValueError) as error:
        load_tables(settings(), folder)
    assert "0xe9 is not utf-8" in str(error.value) and "'joy' is '7'" in str(error.value)


def test_utf8_train_and_cp1252_test(tmp_path):
    folder = write(tmp_path, labelled([FRENCH.replace(",", "")] * 8), "id,text\nt0,été\nt1,b\n".encode("cp1252"))
    with pytest.raises(ValueError, match=r"set files\.encodings: \{test\.csv: cp1252\}") as error:
        load_tables(settings(), folder)
    assert "train.csv" not in str(error.value)
    tables = load_tables(settings(files={"encodings": {"test.csv": "cp1252"}}), folder)
    assert tables.test_texts[0] == "été" and tables.train_texts[0].startswith("Le café")


def zipped(name, data):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, data)
    return file.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_case_zip_named_csv(tmp_path, encoding):
    data = labelled(["a", "b", "c", "d"])
    folder = write(tmp_path, zipped("train.csv", data))
    with pytest.raises(ValueError) as error:
        load_tables(settings(files={"encoding": encoding}), folder)
    said = str(error.value).partition("\n")[2]
    assert "a zip archive with train.csv, not delimited text; rename it to train.csv.zip" in said
    assert "cp1252" not in said and "utf-8" not in said
    (folder / "train.csv").rename(folder / "train.csv.zip")
    assert load_tables(settings(files={"train": "train.csv.zip"}), folder).labels.shape == (4, 2)


@pytest.mark.parametrize(
    "data, kind",
    [
        (gzip.compress(b"id,text\n"), "a gzip archive, not delimited text; rename it to train.csv.gz"),
        (zipped("xl/workbook.xml", b""), "an Excel workbook, not delimited text; rename it to train.xlsx"),
        (zipped("word/document.xml", b""), "an Office document"),
        (b"PK\x03\x04" + b"id,text\n" * 9, "a damaged zip archive"),
        (b"PAR1" + bytes(20), "a Parquet file, not delimited text; rename it to train.parquet"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(20), "an old Excel file (.xls), not delimited text; convert it"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(20), "a 7z archive"),
        (b"\n<!DOCTYPE html><html>", "a web page, not delimited text: a login or an error page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer in place of the file"),
        (b'{"id": 1, "text": "a"}\n{"id": 2, "text": "b"}\n', "JSON, not delimited text; rename it to train.jsonl"),
        (b'[\n{"id": 1}\n]\n', "JSON, not delimited text"),
        (b'"{""a"": 1}",text\n', ""),
        (b"[1] note,text\n1,a\n", ""),
        (b"id,text\n1,a\n", ""),
    ],
)
def test_what_a_file_is(data, kind):
    found = name_kind(data, "train.csv")
    assert found.startswith(kind) and bool(found) == bool(kind)


def test_a_table_that_a_spreadsheet_saved_is_read(tmp_path):
    rows = [["id", "text", "joy", "fear"], *([f"r{k}", "x", str(k % 2), str(k // 2 % 2)] for k in range(4))]
    folder = write(tmp_path, b"\xef\xbb\xbf" + as_csv(rows, ";"))
    with pytest.raises(ValueError, match=r"byte order mark: set files\.encodings: \{train\.csv: utf-8-sig\}") as error:
        load_tables(settings(), folder)
    assert "set files.separators: {train.csv: ';'}" in str(error.value)
    form = {"encodings": {"train.csv": "utf-8-sig"}, "separators": {"train.csv": ";"}}
    assert load_tables(settings(files=form), folder).labels.shape == (4, 2)
