"""Files whose columns, ids and rows are not as expected: what is taken as it is, what is asked for, what is advised."""

import zipfile

import numpy as np
import pytest
import yaml
from tiny_competition import as_csv, settings

from foldblend.data.layout import yaml_word
from foldblend.data.tables import load_tables
from foldblend.errors import UserError
from foldblend.settings.data_files import FilesSettings
from foldblend.submission.answers import build_submission, lint_submission, submission_bytes

TRAIN = [["id", "text", "joy", "fear"], *([f"r{k}", f"text {k}", str(k % 2), str(k // 2 % 2)] for k in range(8))]
TEST = [["id", "text"], *([f"t{k}", f"other {k}"] for k in range(4))]
SAMPLE = [["id", "joy", "fear"], *([f"t{k}", "0", "0"] for k in range(4))]
NAMES = {"names": ("joy", "fear")}


@pytest.fixture
def load(tmp_path):
    """Tables of train, test and sample (rows, bytes or None for no file) under settings by group."""

    def loaded(train=TRAIN, test=TEST, sample=SAMPLE, more=(), **groups):
        for name, data in (("train.csv", train), ("test.csv", test), ("sample_submission.csv", sample), *more):
            if data is not None:
                (tmp_path / name).write_bytes(data if isinstance(data, bytes) else as_csv(data))
        return load_tables(settings(**groups), tmp_path)

    return loaded


@pytest.fixture
def refused(load):
    """What is said of the files, on one line."""

    def said(*arguments, **groups):
        with pytest.raises(UserError) as error:
            load(*arguments, **groups)
        return " ".join(str(error.value).split())

    return said


def followed(said, setting):
    """The value that a message advises for a setting, read as YAML."""
    start = said.index(f"{setting}: ") + len(setting) + 2
    depth, end = 0, start
    while end < len(said) and (depth or end == start):
        depth += (said[end] in "{[") - (said[end] in "}]")
        end += 1
    return yaml.safe_load(said[start:end])


def written(tables, competition):
    """The lines of a submission of all joy, built and checked."""
    decisions = np.zeros((len(tables.test_ids), len(tables.label_names)), bool)
    decisions[:, 0] = True
    frame = build_submission(competition, tables, decisions, decisions.astype(np.float32))
    lint_submission(frame, competition, tables)
    return submission_bytes(frame, competition.submission.separator).decode().splitlines()


def without(rows, *names):
    kept = [k for k, name in enumerate(rows[0]) if name not in names]
    return [[row[k] for k in kept] for row in rows]


def renamed(rows, **names):
    return [[names.get(name, name) for name in rows[0]], *rows[1:]]


# ---------- names of columns.


def test_case_names_differ_id(load):
    tables = load(sample=renamed(SAMPLE, id="Id"))
    assert tables.sample_columns == ("id", "joy", "fear") and tables.written_columns == ("Id", "joy", "fear")
    assert tables.notes == ("sample_submission.csv: its ids are called 'Id', and so they are in submissions",)
    assert written(tables, settings())[:2] == ["Id,joy,fear", "t0,1,0"]


def test_the_only_column_that_is_no_answer_is_the_id_of_a_stale_sample(load):
    sample = [["row", "joy", "fear"], ["x", "0", "0"]]
    tables = load(sample=sample, labels=NAMES, files={"answer_rows": "test"})
    assert tables.written_columns == ("row", "joy", "fear") and tables.sample_ids.tolist() == ["t0", "t1", "t2", "t3"]


@pytest.mark.parametrize("which", ["train", "test"])
@pytest.mark.parametrize("name", ["Text", "te\u200bxt", "text ", "tеxt", "ｔext"])  # the fourth has a Cyrillic letter
def test_a_near_name_of_a_column_is_advised_and_the_advice_works(load, refused, which, name):
    rows = {which: renamed({"train": TRAIN, "test": TEST}[which], text=name)}
    said = refused(**rows)
    assert "did you mean" in said
    rename = followed(said, "files.rename")
    assert rename == {f"{which}.csv": {name: "text"}}
    assert load(files={"rename": rename}, **rows).train_texts[0] == "text 0"


def test_a_renamed_sample_keeps_its_own_names(load):
    sample = renamed(SAMPLE, id="Id", joy="Joy!")
    rename = {"sample_submission.csv": {"Id": "id", "Joy!": "joy"}}
    tables = load(sample=sample, files={"rename": rename})
    assert tables.label_names == ("joy", "fear")
    assert written(tables, settings())[:2] == ["Id,Joy!,fear", "t0,1,0"]


def test_a_wrong_rename_is_told(refused):
    said = refused(files={"rename": {"train.csv": {"Txt": "text", "joy": "fear"}}})
    assert "column 'Txt' is missing; did you mean 'text'?" in said
    assert "'joy' cannot become 'fear', as the file has a column of that name" in said


def test_case_index_column_as_id(load):
    rows = [renamed(TRAIN, id=""), renamed(TEST, id="Unnamed: 0")]
    tables = load(*rows)
    assert tables.train_ids[0] == "r0" and tables.test_ids.tolist() == ["t0", "t1", "t2", "t3"]
    assert "train.csv: its first column has no name (an index) and is read as 'id'" in tables.notes
    assert any("test.csv: its first column is called 'Unnamed: 0'" in note for note in tables.notes)


def test_an_index_of_the_sample_stays_nameless_in_submissions(load):
    for sample in (renamed(SAMPLE, id=""), [["", "joy", "fear"], ["x", "0", "0"]]):
        tables = load(sample=sample, files={"answer_rows": "test"})
        assert tables.label_names == ("joy", "fear") and written(tables, settings())[:2] == [",joy,fear", "t0,1,0"]


def test_an_index_beside_ids_is_not_read(load):
    train = [["", *TRAIN[0]], *([str(k), *row] for k, row in enumerate(TRAIN[1:]))]
    assert load(train).train_ids[0] == "r0"


def test_an_index_beside_a_near_id_is_no_id(refused):
    train = [["", "ID", *TRAIN[0][1:]], *([str(k), *row] for k, row in enumerate(TRAIN[1:]))]
    assert "did you mean 'ID'?" in refused(train)


@pytest.mark.parametrize(
    "word", ["Id", "yes", "1", "", "a b", "a: b", "te\u200bxt", 'a"b\\c', "é", "喜び", "😀", " x", "#x", "No"]
)
def test_words_are_advised_as_yaml_reads_them(word):
    assert yaml.safe_load(f"{{{yaml_word(word)}: {yaml_word(word)}}}") == {word: word}


# ---------- no header, no ids.


def test_case_no_header(load, refused):
    said = refused(TRAIN[1:], TEST[1:])
    assert "train.csv: 1 problem line 1 looks like a row" in said and "test.csv: 1 problem" in said
    columns = followed(said, "files.columns") | {"test.csv": ["id", "text"]}
    assert columns["train.csv"] == ["id", "text", "joy", "fear"]
    tables = load(TRAIN[1:], TEST[1:], files={"columns": {name: tuple(given) for name, given in columns.items()}})
    assert tables.train_ids[0] == "r0" and len(tables.train_ids) == 8


def test_columns_of_another_number_than_stated(refused):
    said = refused(TRAIN[1:], files={"columns": {"train.csv": ("id", "text", "joy")}})
    assert "row 1 (line 1): 4 fields, files.columns lists 3" in said


def test_case_no_ids_in_test(load, refused):
    test = without(TEST, "id")
    ids = followed(refused(test=test), "files.ids")
    assert ids == {"test.csv": "sample_order"}
    assert load(test=test, files={"ids": ids}).test_ids.tolist() == ["t0", "t1", "t2", "t3"]
    said = refused(test=test[:-1], files={"ids": ids})
    assert "the file has 3 rows, and sample_submission.csv has 4; expected as many" in said


@pytest.mark.parametrize("first, how", [(0, "row_number"), (1, "row_number_from_1")])
def test_row_numbers_as_ids(load, refused, first, how):
    sample = [SAMPLE[0], *([str(k + first), "0", "0"] for k in range(4))]
    files = without(TRAIN, "id"), without(TEST, "id"), sample
    said = refused(*files)
    assert followed(said[said.index("test.csv: 1") :], "files.ids") == {"test.csv": how}
    tables = load(*files, files={"ids": {"train.csv": how, "test.csv": how}})
    assert tables.test_ids.tolist() == [str(k + first) for k in range(4)] and tables.train_ids[0] == str(first)


# ---------- several training files, test rows among them.


def test_train_in_two_files(load):
    dev = [["text", "id", "fear", "joy", "note"], ["dev", "d0", "1", "0", "x"]]
    tables = load(more=[("dev.csv", dev)], files={"train": ("train.csv", "dev.csv")})
    assert len(tables.train_ids) == 9 and tables.train_ids[-1] == "d0" and tables.labels[-1].tolist() == [False, True]
    assert any("'note' is not in every file" in note for note in tables.notes)


def test_problems_of_two_files_name_the_file(refused):
    dev = [TRAIN[0], ["r3", "dev", "7", "0"], ["d1", "dev"]]
    said = refused(more=[("dev.csv", dev)], files={"train": ("train.csv", "dev.csv")})
    assert "dev.csv: 1 problem row 2 (line 3): 2 fields" in said
    assert "row 1 of dev.csv (line 2): 'id' 'r3' is also in row 4 of train.csv" in said
    assert "row 1 of dev.csv (line 2): 'joy' is '7'" in said


def test_ids_that_two_files_share_are_counted_on_request(load, refused):
    more = [("dev.csv", TRAIN[:3])]
    said = refused(more=more, files={"train": ("train.csv", "dev.csv")})
    ids = followed(said, "files.ids")
    tables = load(more=more, files={"train": ("train.csv", "dev.csv"), "ids": ids})
    assert tables.train_ids.tolist() == [str(k) for k in range(10)]


def test_a_file_of_another_kind_among_the_training_files(load):
    lines = b'{"id": "d0", "text": "dev", "joy": 1, "fear": 0}\n'
    assert len(load(more=[("dev.jsonl", lines)], files={"train": ("train.csv", "dev.jsonl")}).train_ids) == 9


def test_a_missing_column_in_one_of_the_files(refused):
    said = refused(more=[("dev.csv", without(TRAIN, "text"))], files={"train": ("train.csv", "dev.csv")}, labels=NAMES)
    assert "train.csv: 1 problem column 'text' is not in every file of files.train" in said


SPLIT = [[*TRAIN[0], "split"], *([*row, ("train", "train", "val", "test")[k % 4]] for k, row in enumerate(TRAIN[1:]))]


def test_test_rows_in_the_training_file(load):
    files = {"split_column": "split", "test_values": ("test",), "train_values": ("train",)}
    sample = [SAMPLE[0], ["r3", "0", "0"], ["r7", "0", "0"]]
    tables = load(SPLIT, None, sample, files=files)
    assert tables.test_ids.tolist() == ["r3", "r7"] and tables.train_ids.tolist() == ["r0", "r1", "r4", "r5"]
    assert any("2 rows are neither test nor training rows by 'split': row 3, row 7" in note for note in tables.notes)
    assert len(load(SPLIT, None, sample, files={**files, "train_values": ()}).train_ids) == 6


def test_the_truth_of_test_rows_is_never_read(load):
    """Whatever stands there, even what would be refused in a training row."""
    files = {"split_column": "split", "test_values": ("test",), "sample_submission": "none"}
    odd = [SPLIT[0], *([*row[:2], "?", "secret", "test"] if row[-1] == "test" else row for row in SPLIT[1:])]
    told, hidden = load(SPLIT, None, None, files=files, labels=NAMES), load(odd, None, None, files=files, labels=NAMES)
    assert told.test_texts == hidden.test_texts and np.array_equal(told.labels, hidden.labels)
    assert "secret" not in repr(hidden)


def test_test_rows_told_by_a_label(load):
    rows = [TRAIN[0], *([*row[:2], "-1", "-1"] if k > 5 else row for k, row in enumerate(TRAIN[1:]))]
    files = {"split_column": "joy", "test_values": ("-1",), "sample_submission": "none"}
    tables = load(rows, None, None, files=files, labels=NAMES)
    assert tables.test_ids.tolist() == ["r6", "r7"] and len(tables.labels) == 6


@pytest.mark.parametrize(
    "files, message",
    [
        ({"split_column": "splits", "test_values": ("test",)}, "column 'splits' is missing; did you mean 'split'?"),
        ({"split_column": "split", "test_values": ("tset",)}, "no row has 'tset' in 'split'; did you mean 'test'?"),
        ({"split_column": "split", "test_values": ("train", "val", "test")}, "every row is a test row"),
    ],
)
def test_a_wrong_split_is_told(refused, files, message):
    assert message in refused(SPLIT, None, [SAMPLE[0], ["r3", "0", "0"], ["r7", "0", "0"]], files=files)


# ---------- samples that are old, longer, blank or absent.


def test_case_sample_blank_answers(load):
    tables = load(sample=[SAMPLE[0], *([row[0], "", ""] for row in SAMPLE[1:])])
    assert any("the answers in 'joy', 'fear' are blank" in note for note in tables.notes)
    assert written(tables, settings())[:2] == ["id,joy,fear", "t0,1,0"]


def test_a_sample_that_only_shows_the_form(load):
    tables = load(sample=SAMPLE[:3])
    assert tables.sample_ids.tolist() == ["t0", "t1", "t2", "t3"] and len(written(tables, settings())) == 5
    assert "2 ids of test.csv are missing: 't2', 't3'. Submissions have the 4 rows of test.csv" in tables.notes[0]


def test_an_old_sample_and_a_longer_one(load, refused):
    for rows in ([["x0", "0", "0"], ["x1", "0", "0"]], [*SAMPLE[1:], ["t9", "0", "0"]]):
        said = refused(sample=[SAMPLE[0], *rows])
        assert "is not in test.csv" in said and "set files.answer_rows: test" in said
        tables = load(sample=[SAMPLE[0], *rows], files={"answer_rows": "test"})
        assert [line.split(",")[0] for line in written(tables, settings())[1:]] == ["t0", "t1", "t2", "t3"]


@pytest.mark.parametrize(
    "submission, lines",
    [
        ({}, ["id,joy,fear", "t0,1,0"]),
        ({"form": "delimited", "column": "labels"}, ["id,labels", "t0,joy"]),
        ({"form": "probabilities"}, ["id,joy,fear", "t0,1.0,0.0"]),
        ({"form": "columns", "row_id": "{id}_{label}", "column": "p"}, ["id,p", "t0_joy,1", "t0_fear,0"]),
        ({"form": "columns", "label_column": "label", "column": "p"}, ["id,label,p", "t0,joy,1", "t0,fear,0"]),
    ],
)
def test_no_sample_submission(load, submission, lines):
    groups = {"files": {"sample_submission": "none"}, "labels": NAMES, "submission": submission}
    tables = load(sample=None, **groups)
    assert written(tables, settings(**groups))[: len(lines)] == lines
    assert any(note.startswith("no sample submission: one is built of 'id'") for note in tables.notes)


def test_names_of_labels_without_a_sample_are_advised(load, refused):
    files = {"sample_submission": "none"}
    said = refused(sample=None, files=files)
    assert "there is no sample submission to take them from. Set labels.names: [joy, fear]" in said
    classes = [["id", "text", "kind"], *([f"r{k}", "x", ("joy", "no")[k % 2]] for k in range(8))]
    said = refused(classes, sample=None, files=files, task="multiclass", labels={"form": "class", "column": "kind"})
    assert 'Set labels.names: [joy, "no"]' in said


def test_a_missing_sample_says_that_there_may_be_none(refused):
    assert "If the competition has none, set files.sample_submission: none" in refused(sample=None)


LONG = [["id_label", "p"], *([f"t{k}_{name}", "0.5"] for k in range(4) for name in ("joy", "fear"))]


def test_case_sample_long(load, refused):
    groups = {"labels": NAMES, "submission": {"form": "probabilities"}, "metric": "log_loss"}
    said = refused(sample=LONG, **groups)
    assert 'Set submission: {row_id: "{id}_{label}", column: p}' in said
    groups["submission"] |= {"row_id": "{id}_{label}", "column": "p"}
    tables = load(sample=LONG, **groups)
    assert written(tables, settings(**groups))[:4] == ["id_label,p", "t0_joy,1.0", "t0_fear,0.0", "t1_joy,1.0"]


# ---------- texts.


def test_case_empty_text_in_test(load):
    tables = load(test=[*TEST[:2], ["t1", ""], *TEST[3:]])
    assert tables.test_texts[1] == "" and tables.notes == (
        "test.csv: rows without text (1 of 4) are answered as they are: row 2",
    )


@pytest.mark.parametrize("empty, rows", [("allow", 8), ("drop", 7)])
def test_a_training_row_without_text(load, refused, empty, rows):
    train = [*TRAIN[:3], ["r2", " ", "0", "1"], *TRAIN[4:]]
    said = refused(train)
    assert "row 3 (line 4): 'text' is empty; expected a text" in said and "set text.empty: drop" in said
    tables = load(train, text={"empty": empty})
    assert len(tables.train_ids) == len(tables.labels) == len(tables.train_texts) == rows
    assert ("r2" in tables.train_ids.tolist()) == (empty == "allow") and "row 3" in tables.notes[0]


def test_problems_behind_a_dropped_row_keep_their_numbers(refused):
    train = [*TRAIN[:2], ["r1", "", "0", "1"], ["r2", "x", "7", "1"], *TRAIN[4:]]
    assert "row 3 (line 4): 'joy' is '7'" in refused(train, text={"empty": "drop"})


def test_one_of_several_text_columns_may_be_empty(load, refused):
    train = [["id", "title", "body", "joy", "fear"], *([row[0], "", *row[1:]] for row in TRAIN[1:])]
    test = [["id", "title", "body"], ["t0", "a", ""], ["t1", "", "b"], ["t2", "", ""], ["t3", "c", "d"]]
    text = {"columns": ("title", "body")}
    tables = load(train, test, text=text)
    assert tables.train_texts[0] == " text 0" and tables.test_texts == ["a ", " b", " ", "c d"]
    assert any("rows with a text in some of the text columns only (8 of 8)" in note for note in tables.notes)
    train[1][2] = ""
    assert "row 1 (line 2): 'title' and 'body' is empty" in refused(train, test, text=text)


# ---------- all at once, and what the settings refuse.


def test_problems_of_all_files_at_once(refused):
    train = [TRAIN[0], ["r0", "", "7", "0"], ["r0", "b"], *TRAIN[3:]]
    test = [TEST[0], ["t0", "a"], ["t0", "b"]]
    said = refused(train, test, [["id", "joy", "fear"], ["t9", "x", "0"]])
    for message in (
        "2 fields, the header has 4", "'text' is empty", "'joy' is '7'", "'id' 't0' is also in row 1", "'joy' is 'x'",
        "id 't9' is not in test.csv",
    ):  # fmt: skip
        assert message in said, message


def test_a_missing_file_does_not_hide_the_others(refused):
    said = refused([TRAIN[0], ["r0", "", "7", "0"], *TRAIN[2:]], None)
    assert "test.csv: 1 problem missing" in said and "'joy' is '7'" in said and "'text' is empty" in said


def test_a_code_competition_with_three_rows(load):
    tables = load(test=TEST[:4], sample=SAMPLE[:4], files={"hidden_test_rows": 15_000})
    assert len(tables.test_ids) == 3


@pytest.mark.parametrize(
    "files, message",
    [
        (
            {"encodings": {"tset.csv": "cp1252"}},
            "files.encodings has 'tset.csv', which is not a file of this competition; did you mean 'test.csv'?",
        ),
        ({"encodings": {"test.csv": "cp12520"}}, "files.encodings: test.csv is 'cp12520'; expected a text encoding"),
        ({"separators": {"test.csv": "ab"}}, "files.separators: test.csv is 'ab'; expected one character"),
        ({"ids": {"test.csv": "rows"}}, "files.ids: test.csv is 'rows'; expected row_number, row_number_from_1"),
        ({"ids": {"train.csv": "sample_order"}}, "sample_order, which is for a test file"),
        ({"ids": {"sample_submission.csv": "row_number"}}, "must have ids of its own"),
        ({"columns": {"train.csv": ("a", "a")}}, "expected each column's name once"),
        ({"rename": {"train.csv": {"a": "text", "b": "text"}}}, "gives two columns the same name"),
        ({"split_column": "split"}, "files.test_values must list its values"),
        ({"test_values": ("test",)}, "files.split_column is not; set it, or remove files.test_values"),
        ({"split_column": "id", "test_values": ("t",)}, "files.split_column is the id column"),
        ({"split_column": "s", "test_values": ("t",), "train_values": ("t",)}, "both have 't'"),
        ({"train": ()}, "files.train is empty"),
        ({"train": ("train.csv", "train.csv")}, "files names one file twice"),
        ({"train": ("train.csv", "../dev.csv")}, "files.train is '../dev.csv'; expected the name of a file inside"),
        ({"sample_submission": "none", "answer_rows": "test"}, "remove files.answer_rows"),
        ({"hidden_test_rows": -1}, "files.hidden_test_rows is -1; expected 0 or more"),
    ],
)
def test_settings_that_cannot_work(files, message):
    with pytest.raises(UserError) as error:
        settings(files=files)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "submission, message",
    [
        ({"row_id": "{id}", "column": "p"}, "expected {id} and {label} once each"),
        ({"row_id": "{id}_{label}"}, "submission.column must name the column of the answers"),
        ({"row_id": "{id}_{label}", "label_column": "l", "column": "p"}, "are both set; remove one"),
        ({"form": "delimited", "row_id": "{id}_{label}", "column": "p"}, "expected columns or probabilities"),
    ],
)
def test_long_submissions_that_cannot_work(submission, message):
    with pytest.raises(UserError) as error:
        settings(labels=NAMES, submission=submission)
    assert message in str(error.value)


def test_what_older_competition_files_state_is_what_it_was():
    files = FilesSettings()
    assert files.stated == ("train.csv", "test.csv", "sample_submission.csv") and files.train == "train.csv"


def test_files_inside_an_archive(load, refused, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name, rows in (("csv/train.csv", TRAIN), ("test.csv", TEST), ("sample_submission.csv", SAMPLE)):
            archive.writestr(name, as_csv(rows))
    files = {"train": "all.zip/csv/train.csv", "test": "all.zip/test.csv"}
    files["sample_submission"] = "all.zip/sample_submission.csv"
    tables = load(None, None, None, files=files)
    assert tables.train_texts == [row[1] for row in TRAIN[1:]] and len(tables.test_ids) == 4
    said = refused(None, None, None, files={**files, "train": "all.zip/train.csv"})
    assert "all.zip holds no 'train.csv'; did you mean 'csv/train.csv'" in said
    assert "sub.zip/train.csv: 1 problem missing." in refused(
        None, None, None, files={**files, "train": "sub.zip/train.csv"}
    )


# ---------- columns beside the text.


BESIDE = {"features": {"numbers": ("age",), "categories": ("country",)}}


def with_beside(rows, ages):
    """Rows with an age and a country at their end."""
    return [[*row, *(("age", "country") if not k else (ages[k - 1], "it "))] for k, row in enumerate(rows)]


def test_columns_beside_the_text(load):
    train, test = with_beside(TRAIN, ["1", "", *"345678"]), with_beside(TEST, ["0.5", "nan", "3", "4"])
    tables = load(train, test, **BESIDE)
    ages = tables.train_features.numbers[:, 0]
    assert np.isnan(ages[1]) and ages[2:].tolist() == [3, 4, 5, 6, 7, 8]
    assert tables.train_features.categories[:, 0].tolist() == ["it"] * 8
    assert tables.test_features.numbers[0, 0] == 0.5 and np.isnan(tables.test_features.numbers[1, 0])
    assert load(train, test).train_features is None
    assert load(train, test).label_names == ("joy", "fear")  # they are no labels either


def test_a_number_that_is_none_is_named_in_each_file(refused):
    said = refused(with_beside(TRAIN, ["1", "2", "3,5", *"45678"]), with_beside(TEST, ["x", "1", "2", "3"]), **BESIDE)
    assert "row 3 (line 4): 'age' is '3,5'; expected a number or an empty cell" in said
    assert "row 1 (line 2): 'age' is 'x'; expected a number" in said
    assert "if 'age' holds words, put it into features.categories" in said


def test_a_test_file_without_the_columns_is_refused(refused):
    said = refused(with_beside(TRAIN, [*"12345678"]), TEST, **BESIDE)
    assert "test.csv: 2 problems column 'age' is missing" in said


@pytest.mark.parametrize(
    "features, message",
    [
        ({"numbers": ("id",)}, "features has 'id', which is the id column"),
        ({"numbers": ("joy",)}, "features has 'joy', which is a label"),
        ({"numbers": ("age",), "categories": ("age",)}, "features has column 'age' twice"),
        ({"numbers": ("",)}, "features has '', which is no name;"),
        ({"min_rows": 0}, "features.min_rows"),
    ],
)
def test_features_that_are_taken_are_refused(features, message):
    with pytest.raises(UserError) as error:
        settings(features=features, labels=NAMES)
    assert message in str(error.value)


@pytest.mark.parametrize("more", [["note"], ["p"]])
def test_a_long_sample_with_more_columns_is_refused(refused, more):
    sample = [["id", "p", *more], *([f"t{k}_{name}", "0", "1"] for k in range(4) for name in ("joy", "fear"))]
    submission = {"row_id": "{id}_{label}", "column": "p"}
    said = refused(TRAIN, TEST, sample, submission=submission, labels=NAMES)
    assert "expected only 'id', 'p'" in said or "column 'p' appears 2 times" in said


def test_annotators_of_a_file_without_its_text_column(refused):
    train = [[row[0], *row[2:]] for row in TRAIN]
    assert "column 'text' is missing" in refused(train, labels={"aggregate": "majority"})
