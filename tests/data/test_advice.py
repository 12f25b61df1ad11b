"""A setting that names a wrong column, and cells that another setting would read: one message with what to set."""

from pathlib import Path

import pytest
import yaml
from tiny_competition import SAMPLE, TEST, TRAIN, as_csv

from foldblend.data.advice import advise_cells, find_other_form
from foldblend.data.labels import LabelForm
from foldblend.data.tables import load_tables
from foldblend.errors import UserError
from foldblend.settings.loading import load_competition
from foldblend.settings.paths import Paths

TEXTS = [["id", "text"]] + [[f"t{k}", f"other words {k}"] for k in range(4)]
LONG = [["id", "text", "joy", "fear"]] + [[f"r{k}", f"some longer text {k}", k % 2, k % 3 % 2] for k in range(12)]
CLASSES = [["id", "text", "kind"]] + [[f"r{k}", f"some longer text {k}", ("a", "b")[k % 2]] for k in range(12)]
ANSWERS = [["id", "kind"]] + [[f"t{k}", "a"] for k in range(4)]
DELIMITED = "labels: {form: delimited, column: kind, names: [a, b]}\nsubmission: {form: delimited, column: kind}\n"
CLASS = (
    "task: multiclass\nlabels: {form: class, column: kind, names: [a, b]%s}\nsubmission: {form: class, column: kind}\n"
)


@pytest.fixture
def load(tmp_path):
    """Tables of a YAML and of files (rows, or bytes)."""
    paths = Paths(tmp_path)

    def loaded(text, train=LONG, test=TEXTS, sample=SAMPLE, **more):
        files = {"train.csv": train, "test.csv": test, "sample_submission.csv": sample, **more}
        folder = Path(paths.data("mine"))
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in files.items():
            (folder / name).write_bytes(rows if isinstance(rows, bytes) else as_csv(rows))
        (paths.configs / "competitions").mkdir(parents=True, exist_ok=True)
        (paths.configs / "competitions" / "mine.yaml").write_text(text)
        return load_tables(load_competition(paths, "mine"), folder)

    return loaded


@pytest.fixture
def refused(load):
    def said(*arguments, **files):
        with pytest.raises(UserError) as error:
            load(*arguments, **files)
        return str(error.value)

    return said


def column(rows, position, change):
    return [rows[0], *([*row[:position], change(row[position]), *row[position + 1 :]] for row in rows[1:])]


@pytest.mark.parametrize("named", ["idd", "row_key", "joy"])
def test_a_wrong_id_column_is_the_only_problem(refused, named):
    said = refused(f"id_column: {named}\n")
    assert said.count("Set id_column: id") == 3 and said.count("1 problem") == 3
    assert "expected 0 or 1" not in said and "row_number" not in said


def test_ids_under_another_name_in_each_file_are_still_renamed(refused):
    said = refused("id_column: id\n", train=[["ID", *LONG[0][1:]], *LONG[1:]])
    assert "set files.rename: {train.csv: {ID: id}}" in said and "train.csv: 1 problem" in said


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("id_column: text\n", "text.columns"),
        ("id_column: id\ntext: {columns: [id]}\n", "text.columns"),
        ("id_column: kind\n" + DELIMITED, "labels.column"),
        ("id_column: id\n" + DELIMITED.replace("n: kind}", "n: id}"), "submission.column"),
    ],
)
def test_ids_that_are_read_as_something_else_are_refused(refused, text, names):
    assert f"and so is {names}; set one of them to another column" in refused(text, CLASSES, sample=ANSWERS)


def test_a_label_as_text_is_answered_by_the_column_of_texts(refused):
    said = refused("id_column: id\ntext: {columns: [joy]}\n")
    assert "'text' has the longest cells. Set text: {columns: [text]}" in said


def test_the_columns_of_labels_and_of_answers_are_named(refused):
    text = "id_column: id\n" + DELIMITED
    said = refused(text.replace("column: kind, names", "column: kin, names"), CLASSES, sample=ANSWERS)
    assert "column 'kin' is missing; 'kind' holds them. Set labels.column: kind" in said and "unknown label" not in said
    said = refused(text.replace("d, column: kind}", "d, column: answer}"), CLASSES, sample=ANSWERS)
    assert "'kind' is there in its place. Set submission.column: kind" in said and said.count("problem") == 1
    said = refused(
        "id_column: id\ntext: {columns: [kind]}\n" + DELIMITED.replace("n: kind, n", "n: text, n"),
        CLASSES,
        sample=ANSWERS,
    )
    assert "'text' holds no label of labels.names; 'kind' holds them. Set labels.column: kind" in said


def test_swapped_files_are_named(refused):
    assert "files.train and files.test may be swapped" in refused(
        "id_column: id\nfiles: {train: test.csv, test: train.csv}\n"
    )
    assert "files.test and files.sample_submission may be swapped" in refused(
        "id_column: id\nfiles: {test: sample_submission.csv, sample_submission: test.csv}\n"
    )


def test_a_file_of_another_name_is_found(refused):
    assert "missing; did you mean 'train.csv'?" in refused("id_column: id\nfiles: {train: trian.csv}\n")
    assert "set files.split_column" in refused("id_column: id\nfiles: {test: elsewhere.csv}\n")


def test_columns_of_a_sample_that_hold_no_answers(refused, load):
    used = [[*row, ("Usage", "Public")[k > 0]] for k, row in enumerate(SAMPLE)]
    assert "column 'Usage' holds no answers ('Usage' says 'Public')" in refused("id_column: id\n", sample=used)
    counted = [["" if k == 0 else k - 1, *row] for k, row in enumerate(SAMPLE)]
    tables = load("id_column: id\n", sample=counted)
    assert tables.written_columns == ("id", "joy", "fear") and tables.label_names == ("joy", "fear")
    assert any("numbers its rows and is left out" in note for note in tables.notes)


def test_the_same_numbers_as_ids_in_another_spelling(refused):
    test, sample = column(TEXTS, 0, lambda cell: f"{cell[1:]}.0"), column(SAMPLE, 0, lambda cell: cell[1:])
    assert "both have the same numbers, written as '0' and '0.0'" in refused(
        "id_column: id\n", test=test, sample=sample
    )


@pytest.mark.parametrize(
    ("write", "advised"),
    [
        (lambda cell: f"{cell} | a" if cell == "b" else cell, 'Set labels.delimiter: "|"'),
        (lambda cell: {"a": "1 0", "b": "0 1"}[cell], 'Set labels.delimiter: " "'),
        (str.upper, "set labels.rename: {A: a, B: b}"),
        (lambda cell: "nothing of it" if cell == "b" else cell, 'set labels.empty: "nothing of it"'),
    ],
)
def test_cells_that_another_setting_reads(refused, load, write, advised):
    text, train = "id_column: id\n" + DELIMITED, column(CLASSES, 2, write)
    assert advised in refused(text, train, sample=ANSWERS)
    setting = advised[advised.index("labels.") + 7 :]  # and if that is set, they are read
    assert load(text.replace("names: [a, b]", f"names: [a, b], {setting}"), train, sample=ANSWERS).labels.any()


def test_multi_hot_without_separators_and_a_word_for_none_in_a_list(load):
    text = "id_column: id\n" + DELIMITED.replace("names:", "values: multi_hot, names:")
    tables = load(text, column(CLASSES, 2, lambda cell: {"a": "10", "b": "01"}[cell]), sample=ANSWERS)
    assert tables.labels.tolist() == [[k % 2 == 0, k % 2 == 1] for k in range(12)]
    text = "id_column: id\n" + DELIMITED.replace("[a, b]", "[a, b], empty: none, map: {c: ''}")
    cells = iter(["['none']", "['a', 'c']", "['b']"] * 4)
    tables = load(text, column(CLASSES, 2, lambda cell: next(cells)), sample=ANSWERS)
    assert tables.labels[:3].tolist() == [[False, False], [True, False], [False, True]]


def test_rows_without_a_class_are_left_out_if_asked(load, refused):
    train = [*CLASSES, ["r12", "more", ""], ["r13", "more", "other"]]
    said = refused("id_column: id\n" + CLASS % "", train, sample=ANSWERS)
    assert 'labels.unknown: [""] leaves out' in said and "labels.unknown: [other] leaves" in said
    tables = load("id_column: id\n" + CLASS % ', unknown: ["", other]', train, sample=ANSWERS)
    assert len(tables.train_ids) == len(tables.labels) == 12 and tables.known is None
    assert "train.csv: rows without a known class (2 of 14) are left out: row 13, row 14" in tables.notes


def test_names_of_classes_are_read_to_be_written(refused):
    said = refused("id_column: id\n" + CLASS.replace("names: [a, b]", "first_number: 0") % "", CLASSES, sample=ANSWERS)
    assert "Set labels.names: [a, b]" in said


@pytest.mark.parametrize(
    ("cells", "form", "advised"),
    [
        (["positive", "negative"], {}, "labels.map: {positive: 1, negative: 0}"),
        (["", "x"], {}, 'labels.unknown: [""]; if a no, labels.map: {x: 1, "": 0}'),
        (["1", "2"], {}, "labels.map: {1: 0, 2: 1}"),
        (["0", "1", "3"], {}, "labels.map: {3: 1}"),
        (["0", "20", "80"], {}, "labels.map: {20: 0.2, 80: 0.8} and labels.positive_from: 0.5"),
        (["0", "1", "2", "3"], {}, "votes of 3 annotators, set labels.map: {1: 0.333, 2: 0.667, 3: 1}"),
        (["3,5", "2,25"], {"any_number": True}, "a decimal comma: write the numbers with a point, as 3.5"),
    ],
)
def test_what_cells_may_mean(cells, form, advised):
    form = LabelForm("columns", ("joy",), **form)
    strange = [cell for cell in cells if cell not in ("0", "1")]
    lines = advise_cells(cells, strange, form)
    assert advised in " ".join(lines)
    for line in (line for line in lines if "labels.map: " in line):
        meanings = yaml.safe_load(line[line.index("{") : line.index("}") + 1])
        says_no = "0" in cells or "unknown" in line or 0 in meanings.values()
        assert says_no, "an advice by which every row has the label"


def test_percents_are_shares(load):
    train = column(LONG, 2, lambda cell: f"{cell * 75}%")
    tables = load("id_column: id\nlabels: {positive_from: 0.5}\n", train)
    assert tables.soft[:2, 0].tolist() == [0, 0.75] and tables.labels[:2, 0].tolist() == [False, True]


def test_a_form_is_found_only_if_it_reads_the_cells():
    form = LabelForm("delimited", ("joy", "fear"))
    assert find_other_form(["joy;fear", "fear"], form).delimiter == ";"
    assert find_other_form(["hope", "despair"], form) is None and find_other_form(["joy,fear"], form) is None


def test_even_annotators_are_counted(load):
    train = [CLASSES[0], *(row for row in CLASSES[1:] for _ in range(2))]
    train[2] = [*train[2][:2], "b"]
    tables = load("id_column: id\n" + CLASS % ", aggregate: majority", train, sample=ANSWERS)
    assert any("in 1 of 12 ids, and the first class by labels.names counts: row 1" in note for note in tables.notes)


@pytest.mark.parametrize("names", ["[3, 1, 2]", '["10", "9", "8.5", "9.5"]'])
def test_classes_in_an_order_are_listed_in_it(refused, names):
    text = "id_column: id\ntask: ordinal\nmetric: quadratic_weighted_kappa\nsubmission: {form: class, column: kind}\n"
    said = refused(text + f"labels: {{form: class, column: kind, names: {names}}}\n", CLASSES, sample=ANSWERS)
    assert "takes the order of labels.names for that of the classes; set labels.names: [" in said


def test_the_tiny_competition_itself_is_right(load):
    assert load("id_column: id\n", TRAIN, TEST).notes == ()


def test_what_a_cell_is_mapped_to_is_a_label(refused, load):
    text = "id_column: id\n" + DELIMITED.replace("[a, b]", "[a, b], map: {X: %s}")
    assert "labels.map: 'X' means 'aa', which is no label; did you mean 'a'?" in refused(text % "aa", CLASSES)
    train = column(CLASSES, 2, lambda cell: "X")
    for meaning in ("a,b", "[a, b]"):
        assert "nothing to learn" in refused(text % f'"{meaning}"', train, sample=ANSWERS)


@pytest.mark.parametrize("change", [str.upper, lambda name: f"{name} "])
def test_ids_that_differ_in_case_or_blanks_are_named(refused, change):
    said = refused("id_column: id\n", sample=column(SAMPLE, 0, change))
    assert f"the same but for blanks or case, as {change('t0')!r}" in said and "answer_rows" not in said


def test_a_class_is_no_constant_yes(refused, load):
    text = "id_column: id\n" + CLASS % ", constants: {b: %s}"
    assert "labels.constants: 'b' is 1, but a row has one class" in refused(text % 1, CLASSES, sample=ANSWERS)
    three = text.replace("[a, b]", "[a, b, c]") % 0
    train = [*CLASSES, *([f"r{k}", f"more text {k}", "c"] for k in range(20, 24))]
    lines = load(three, train, sample=ANSWERS).label_lines
    assert "  'b': no, as labels.constants says so; 6 rows have it, whose answers count as wrong" in lines
