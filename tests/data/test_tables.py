"""load_tables: what good files become, and what each bad file is told."""

import pytest
from tiny_competition import as_csv, settings

from foldblend.data.tables import load_tables


def test_good_files_become_tables(files):
    tables = files.load(settings())
    assert tables.label_names == ("joy", "fear")
    assert tables.train_ids.tolist() == [f"r{k}" for k in range(12)]
    assert tables.labels.dtype == bool
    assert tables.labels.tolist() == [[k % 2 == 1, k % 3 % 2 == 1] for k in range(12)]
    assert tables.test_texts == [f"other {k}" for k in range(4)]
    assert tables.sample_columns == ("id", "joy", "fear")
    assert tables.sample_rows[0] == ("t0", "0", "0")


def test_ids_stay_text_and_the_samples_order_is_its_own(files):
    files.test = [["id", "text"], ["007", "a"], ["7", "b"], ["1e3", "c"]]
    files.sample = [["id", "joy", "fear"], ["1e3", "0", "0"], ["007", "0", "0"], ["7", "0", "0"]]
    tables = files.load(settings())
    assert tables.test_ids.tolist() == ["007", "7", "1e3"]
    assert tables.sample_ids.tolist() == ["1e3", "007", "7"]


def test_given_names_may_stand_in_another_order_than_the_sample(files):
    tables = files.load(settings(labels={"names": ("fear", "joy")}))
    assert tables.label_names == ("fear", "joy")
    assert tables.labels[:, 1].tolist() == [k % 2 == 1 for k in range(12)]


def cell(row, column, value):
    def change(files):
        files.train[row][files.train[0].index(column)] = value

    return change


def rename(which, old, new):
    def change(files):
        header = getattr(files, which)[0]
        header[header.index(old)] = new

    return change


def replace_rows(which, rows):
    return lambda files: setattr(files, which, [getattr(files, which)[0], *rows])


@pytest.mark.parametrize(
    "change, messages",
    [
        (rename("train", "text", "Text"), ["train.csv", "column 'text' is missing; did you mean 'Text'?"]),
        (rename("train", "id", "number"), ["column 'id' is missing", "'number'"]),
        (rename("train", "joy", "joyy"), ["column 'joy' is missing; did you mean 'joyy'?"]),
        (rename("train", "fear", "joy"), ["column 'joy' appears 2 times", "column 'fear' is missing"]),
        (rename("test", "text", "tweet"), ["test.csv", "column 'text' is missing"]),
        (cell(3, "id", "r1"), ["row 3 (line 4): 'id' 'r1' is also in row 2; ids must differ"]),
        (cell(3, "id", " "), ["row 3 (line 4): 'id' is empty"]),
        (cell(3, "id", "x" * 300), ["row 3 (line 4): 'id' is 'xxx", "over 256 characters"]),
        (cell(3, "id", "a\0"), ["row 3 (line 4): 'id' is 'a\\x00'", "NUL"]),
        (cell(4, "text", ""), ["row 4 (line 5): 'text' is empty"]),
        (cell(4, "text", " \t\n "), ["row 4 (line 5): 'text' is empty"]),
        (cell(5, "joy", "2"), ["row 5 (line 6): 'joy' is '2'; expected 0 or 1"]),
        (cell(5, "joy", ""), ["row 5 (line 6): 'joy' is ''; expected 0 or 1"]),
        (cell(5, "joy", "NONE"), ["row 5 (line 6): 'joy' is 'NONE'"]),
        (replace_rows("train", []), ["train.csv: 1 problem", "a header and no rows"]),
        (rename("sample", "fear", "anger"), ["train.csv", "column 'anger' is missing"]),
        (
            replace_rows("sample", [["t0", "0", "0"], ["x1", "0", "0"]]),
            ["3 ids of test.csv are missing: 't1', 't2', 't3'", "set files.answer_rows: test"],
        ),
        (
            replace_rows("sample", [[f"t{k}", "0", "0"] for k in range(5)]),
            ["sample_submission.csv: 1 problem", "row 5 (line 6): id 't4' is not in test.csv"],
        ),
        (
            replace_rows("sample", [["t0", "0", "0"]] * 2),
            ["row 2 (line 3): 'id' 't0' is also in row 1; ids must differ"],
        ),
        (replace_rows("sample", [["t0", "0.5", "0"]]), ["'joy' is '0.5'; expected 0 or 1 as submission.form"]),
        (
            replace_rows("test", [["t0", "a", "NONE"], ["t1", "b", "", ""]]),
            ["row 1 (line 2): 3 fields, the"],
        ),
    ],
)
def test_a_bad_file_is_told_what_and_where(files, change, messages):
    change(files)
    with pytest.raises(ValueError) as error:
        files.load(settings())
    for message in messages:
        assert message in str(error.value)


def test_multiclass_columns_hold_exactly_one(files):
    files.train = [["id", "text", "joy", "fear"]] + [[f"r{k}", "x", str(k % 2), str((k + 1) % 2)] for k in range(6)]
    assert files.load(settings(task="multiclass")).labels.sum() == 6
    files.train[2][2:], files.train[4][2:] = ["0", "0"], ["1", "1"]
    with pytest.raises(ValueError) as error:
        files.load(settings(task="multiclass"))
    assert "row 2 (line 3): 0 labels; task multiclass expects one" in str(error.value)
    assert "row 4 (line 5): 2 labels" in str(error.value)


def test_a_label_with_fewer_rows_than_folds_is_learned(files):
    tables = files.load(settings(n_folds=5))
    assert tables.labels.sum(0).tolist() == [6, 4] and tables.constants == ()


@pytest.mark.parametrize("rows, answer", [([], False), ([3], False), (range(12), True)])
def test_a_label_without_anything_to_learn_is_a_constant(files, rows, answer):
    for k, row in enumerate(files.train[1:]):
        row[2] = str(int(k in rows))
    tables = files.load(settings())
    assert tables.label_names == ("fear",) and tables.labels.shape == (12, 1)
    assert tables.answer_names == ("joy", "fear") and tables.constants[0].is_positive == answer
    assert "'joy': " + ("yes" if answer else "no") in "\n".join(tables.label_lines)


def test_nothing_to_learn_at_all(files):
    for row in files.train[1:]:
        row[2:] = ["0", "1"]
    with pytest.raises(ValueError, match="nothing to learn: expected a label that some rows have and some have not"):
        files.load(settings())


def test_a_class_without_rows_is_a_constant_and_one_class_is_nothing_to_learn(files):
    labels = {"form": "class", "column": "kind", "names": ("joy", "fear", "awe")}
    files.sample = [["id", "joy", "fear", "awe"], *([f"t{k}", "1", "0", "0"] for k in range(4))]
    files.train = [["id", "text", "kind"], *([f"r{k}", f"text {k}", ("joy", "fear")[k % 2]] for k in range(6))]
    tables = files.load(settings(task="multiclass", labels=labels))
    assert tables.label_names == ("joy", "fear") and tables.constants[0].name == "awe"
    files.train[1:] = [[f"r{k}", f"text {k}", "joy"] for k in range(6)]
    with pytest.raises(ValueError, match="nothing to learn: expected two classes"):
        files.load(settings(task="multiclass", labels=labels))


def add_to_sample(files, name):
    for k, row in enumerate(files.sample):
        row.append("0" if k else name)


def test_a_label_of_the_sample_alone_is_a_constant(files):
    add_to_sample(files, "awe")
    tables = files.load(settings())
    assert tables.answer_names == ("joy", "fear", "awe") and tables.label_names == ("joy", "fear")
    assert "'awe': no, as the training file has no column of it" in "\n".join(tables.label_lines)
    tables = files.load(settings(labels={"constants": {"awe": 1.0}}))
    assert tables.constants[0].is_positive


def test_a_label_of_the_sample_that_may_have_another_name_is_refused(files):
    add_to_sample(files, "Anger")
    files.train[0].append("anger")
    for row in files.train[1:]:
        row.append(row[2])
    with pytest.raises(
        ValueError, match=r"column 'Anger' is missing; did you mean 'anger'\? Set labels.rename: {anger: A"
    ):
        files.load(settings())
    tables = files.load(settings(labels={"rename": {"anger": "Anger"}}))
    assert tables.label_names == ("joy", "fear", "Anger") and (tables.labels[:, 0] == tables.labels[:, 2]).all()
    files.train[0][4] = "zorn"  # not near, but a column of 0 and 1 that no label is read from
    with pytest.raises(ValueError, match=r"column 'Anger' is missing.*labels.constants: {Anger: 0}"):
        files.load(settings())


@pytest.mark.parametrize(
    "labels, message",
    [
        (
            {"constants": {"ave": 0}},
            "labels.constants: 'ave' is not a label of the submission; expected one of 'joy', '",
        ),
        ({"rename": {"joy": "joi"}}, r"labels.rename: 'joi' is not a label of the submission; did you mean 'joy'\?"),
    ],
)
def test_settings_name_labels_of_the_sample(files, labels, message):
    with pytest.raises(ValueError, match=message):
        files.load(settings(labels=labels))


def test_a_decomposed_name_is_told_with_the_line_that_renames_it(files):
    files.sample[0][1], files.train[0][2] = "gaiet\u00e9", "gaiete\u0301"
    with pytest.raises(ValueError) as error:
        files.load(settings())
    assert r'Set labels.rename: {"gaiete\u0301": "gaiet\u00e9"}' in str(error.value)
    tables = files.load(settings(labels={"rename": {"gaiete\u0301": "gaiet\u00e9"}}))
    assert tables.label_names == ("gaiet\u00e9", "fear")


def test_every_problem_of_every_file_at_once(files):
    cell(1, "text", "")(files)
    cell(2, "joy", "perhaps")(files)
    cell(4, "id", "r0")(files)
    files.test[2][1] = ""
    files.sample[1][0] = files.sample[2][0]
    with pytest.raises(ValueError) as error:
        files.load(settings())
    text = str(error.value)
    assert [line for line in text.split("\n") if not line.startswith("  ")] == [
        f"{files.folder}/train.csv: 3 problems",
        f"{files.folder}/sample_submission.csv: 1 problem",
    ]


def test_a_long_list_is_shortened_and_no_kind_is_lost(files):
    files.train += [[f"more{k}", "", "0", "0"] for k in range(40)]
    cell(2, "joy", "7")(files)
    with pytest.raises(ValueError) as error:
        files.load(settings())
    text = str(error.value)
    assert "train.csv: 41 problems" in text
    assert "... and 37 more rows, empty 'text': 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, ..." in text
    assert "row 2 (line 3): 'joy' is '7'" in text
    assert "set text.empty: drop to leave the 40 rows without text out" in text
    assert len(text.split("\n")) == 8


def test_problems_are_named_by_line_behind_a_text_of_many_lines(files):
    cell(1, "text", "one\ntwo\r\nthree")(files)
    cell(2, "joy", "7")(files)
    with pytest.raises(ValueError, match=r"row 2 \(line 5\): 'joy' is '7'"):
        files.load(settings())


@pytest.mark.parametrize("name", ["train.csv", "test.csv", "sample_submission.csv"])
def test_a_missing_file_says_how_to_get_it(files, name):
    files.write()
    (files.folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name}: 1 problem\n  missing. Put it into data/tiny/"):
        load_tables(settings(), files.folder)
    slug = settings(files={"source": "kaggle", "kaggle": "emotions"})
    with pytest.raises(ValueError, match="kaggle competitions download -c emotions -p data/tiny"):
        load_tables(slug, files.folder)


def test_sample_columns_that_are_no_labels(files):
    for row in files.sample:
        row.append("Usage" if row[0] == "id" else "Public")
    with pytest.raises(ValueError, match=r"column 'Usage': expected only 'id' and a label of labels.names"):
        files.load(settings(labels={"names": ("joy", "fear")}))


def test_answer_column_of_a_delimited_submission(files):
    competition = settings(labels={"names": ("joy", "fear")}, submission={"form": "delimited", "column": "labels"})
    with pytest.raises(ValueError) as error:
        files.load(competition)
    assert "column 'labels' is missing" in str(error.value)
    assert "column 'joy', 'fear': expected only 'id' and the answer column 'labels'" in str(error.value)
    files.sample = [["id", "labels"]] + [[f"t{k}", "joy fear"] for k in range(4)]
    assert files.load(competition).sample_columns == ("id", "labels")


def test_a_sample_without_label_columns(files):
    files.sample = [["id"], *[[f"t{k}"] for k in range(4)]]
    with pytest.raises(ValueError, match="only column 'id'; expected one column per label"):
        files.load(settings())


def test_separators_of_data_and_answer_are_their_own(files):
    folder = files.write()
    for name, rows in (("train", files.train), ("test", files.test)):
        (folder / f"{name}.csv").write_bytes(as_csv(rows, "\t"))
    tables = load_tables(settings(files={"separator": "\t"}), folder)
    assert tables.labels.shape == (12, 2)
    (folder / "sample_submission.csv").write_bytes(as_csv(files.sample, ";"))
    with pytest.raises(ValueError, match=r"set submission\.separator: ';'"):
        load_tables(settings(files={"separator": "\t"}), folder)
