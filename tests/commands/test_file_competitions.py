"""Public competitions with unusual files, as small made-up files of the same form: first YAML to checked CSV."""

import gzip
import json
import sys
import types

import numpy as np
import pytest
import yaml
from made_competition import f1, made_text, to_submission, write_made, write_table

from foldblend.commands import blend, guard, predict

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
NAMES = ("joy", "sadness", "anger")


def drawn(seed=0, n_rows=150):
    """bool (n_rows, 3) labels and texts that say them."""
    rng = np.random.default_rng(seed)
    labels = rng.random((n_rows, 3)) < (0.4, 0.3, 0.3)
    return labels, [made_text(rng, [f"{NAMES[k]}word" for k in np.flatnonzero(row)]) for row in labels]


def rows_of(labels, texts, first, last, letter):
    return [[f"{letter}{k}", texts[k], *map(int, labels[k])] for k in range(first, last)]


def replace_file(paths, old, new, data):
    (paths.data("made") / old).unlink()
    (paths.data("made") / new).write_bytes(data)


def test_a_parquet_set_with_lists_of_labels_and_no_sample_submission(paths, capsys, monkeypatch):
    """Most sets of the Hugging Face hub: .parquet files, an integer id, a list of label numbers, no sample."""
    labels, texts = drawn()

    def read_table(file):
        columns = json.loads(file.read())
        parts = [types.SimpleNamespace(to_pylist=lambda values=values: values) for values in columns.values()]
        return types.SimpleNamespace(columns=parts, column_names=list(columns), num_rows=len(columns["text"]))

    library = types.ModuleType("pyarrow")  # a stand-in: the real one is not needed by anything else
    library.ArrowException, library.parquet = OSError, types.SimpleNamespace(read_table=read_table)
    library.__getattr__ = lambda name: type(name, (), {})  # types that scikit-learn compares with
    monkeypatch.setitem(sys.modules, "pyarrow", library)
    settings = {
        "id_column": "id",
        "n_folds": 3,
        "files": {"train": "train.parquet", "test": "test.parquet", "sample_submission": "none"},
        "labels": {"form": "delimited", "column": "labels", "values": "numbers", "names": list(NAMES)},
    }
    write_made(paths, settings, [["x"]], [["x"]], [["x"]])
    for which, first, last in (("train", 0, 110), ("test", 110, 150)):
        said = [np.flatnonzero(labels[k]).tolist() for k in range(first, last)]
        columns = {"id": list(range(first, last)), "text": texts[first:last], "labels": said}
        replace_file(paths, f"{which}.csv", f"{which}.parquet", json.dumps(columns).encode())
    answers, rows, printed = to_submission(paths, capsys)
    assert "no sample submission: one is built of 'id', 'joy', 'sadness', 'anger'" in " ".join(printed.split())
    assert rows[0] == ["id", *NAMES] and rows[1][0] == "110" and f1(labels[110:], answers) > 0.8


def test_train_and_dev_packed_and_a_sample_with_other_names(paths, capsys):
    """Shared tasks: train.tsv.gz and dev.jsonl, ids that start anew in each, `Id` in the sample submission."""
    labels, texts = drawn(1)
    settings = {
        "id_column": "id",
        "n_folds": 3,
        "files": {
            "train": ["train.tsv.gz", "dev.jsonl"],
            "ids": {"train.tsv.gz": "row_number", "dev.jsonl": "row_number"},
            "rename": {"dev.jsonl": {"Tweet": "text"}},
        },
    }
    test = [["id", "text"], *(row[:2] for row in rows_of(labels, texts, 110, 150, "t"))]
    sample = [["Id", *NAMES], *([row[0], "", "", ""] for row in test[1:])]
    write_made(paths, settings, [["x"]], test, sample)
    lines = [["id", "text", *NAMES], *rows_of(labels, texts, 0, 80, "")]
    data = "".join("\t".join(map(str, row)) + "\n" for row in lines).encode()
    replace_file(paths, "train.csv", "train.tsv.gz", gzip.compress(data))
    dev = [dict(zip(("id", "Tweet", *NAMES), row, strict=True)) for row in rows_of(labels, texts, 80, 110, "")]
    (paths.data("made") / "dev.jsonl").write_text("".join(json.dumps(one) + "\n" for one in dev))
    answers, rows, printed = to_submission(paths, capsys)
    assert rows[0] == ["Id", *NAMES] and f1(labels[110:], answers) > 0.8
    assert "its ids are called 'Id'" in printed


def test_one_answer_per_pair_of_row_and_label(paths, capsys):
    """ACRC-like: `id_label,p`, judged by log loss."""
    labels, texts = drawn(2)
    settings = {
        "id_column": "id",
        "n_folds": 3,
        "metric": "log_loss",
        "labels": {"names": list(NAMES)},
        "submission": {"form": "probabilities", "row_id": "{id}-{label}", "column": "p"},
    }
    train = [["id", "text", *NAMES], *rows_of(labels, texts, 0, 110, "r")]
    test = [["id", "text"], *(row[:2] for row in rows_of(labels, texts, 110, 150, "t"))]
    sample = [["id_label", "p"], *([f"{row[0]}-{name}", "0.5"] for row in test[1:] for name in reversed(NAMES))]
    write_made(paths, settings, train, test, sample)
    _, rows, _ = to_submission(paths, capsys)
    assert [row[0] for row in rows] == [row[0] for row in sample]
    p = np.array([float(row[1]) for row in rows[1:]]).reshape(40, 3)[:, ::-1]  # (n_test, L)
    assert p[labels[110:]].mean() > p[~labels[110:]].mean() + 0.2


def test_a_code_competition_shows_three_rows_and_a_test_row_is_added_later(paths, capsys):
    labels, texts = drawn(3)
    settings = {"id_column": "id", "n_folds": 3, "files": {"hidden_test_rows": 15_000, "test": "dummy_test.csv"}}
    train = [["id", "text", *NAMES], *rows_of(labels, texts, 0, 110, "r")]
    test = [["id", "text"], *(row[:2] for row in rows_of(labels, texts, 110, 114, "t"))]
    sample = [["id", *NAMES], *([row[0], 0, 0, 0] for row in test[1:])]
    write_made(paths, settings, train, [], sample[:4])
    write_table(paths.data("made") / "dummy_test.csv", test[:4])
    _, rows, _ = to_submission(paths, capsys)
    assert len(rows) == 4
    write_table(paths.data("made") / "dummy_test.csv", test)
    write_table(paths.data("made") / "sample_submission.csv", sample)
    assert guard(lambda: blend.main(["--competition", "made"])) == 2
    said = capsys.readouterr().err
    assert "the test ids, test texts differ" in said and "answer the new test file without training. Run:" in said
    command = said[said.index("src/predict.py") :].split()[1:7]
    assert command == ["--competition", "made", "--input", "data/made/dummy_test.csv", "--answer", "submission.csv"]
    answer = paths.root / "submission.csv"
    command[3], command[5] = str(paths.root / command[3]), str(answer)
    assert guard(lambda: predict.main(command)) == 0, capsys.readouterr().err
    assert [line.split(",")[0] for line in answer.read_text().splitlines()] == ["id", "t110", "t111", "t112", "t113"]


def test_test_rows_in_the_training_file_and_texts_that_are_missing(paths, capsys):
    """A set that its authors split by a column; titles or bodies are missing, one row has neither."""
    labels, texts = drawn(4)
    half = [text.split(" ", 2) for text in texts]
    settings = {
        "id_column": "id",
        "n_folds": 3,
        "files": {"split_column": "split", "test_values": ["test"], "sample_submission": "none"},
        "text": {"columns": ["title", "body"], "empty": "drop"},
        "labels": {"names": list(NAMES)},
    }
    rows = [
        [f"r{k}", " ".join(words[:2]), words[2], *map(int, labels[k]), "test" if k >= 110 else "train"]
        for k, words in enumerate(half)
    ]
    rows[5][1], rows[6][1:3], rows[120][1:3] = "", ["", ""], ["", ""]
    write_made(paths, settings, [["id", "title", "body", *NAMES, "split"], *rows], [["x"]], [["x"]])
    (paths.data("made") / "test.csv").unlink()
    (paths.data("made") / "sample_submission.csv").unlink()
    answers, written, printed = to_submission(paths, capsys, again=False)
    assert len(written) == 41 and f1(labels[110:], answers) > 0.7
    said = " ".join(printed.split())
    assert "rows without text (1 of 110) are left out: row 7" in said
    assert "rows without text (1 of 40) are answered as they are: row 121" in said
    assert said.count("rows without text (1 of 40)") == 3  # make_folds.py, train.py, blend.py
    assert yaml.safe_load((paths.configs / "competitions" / "made.yaml").read_text()) == settings
