"""Predictions made elsewhere: any order of rows and labels, the same proofs."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldblend.errors import UserError
from foldblend.ledger.dropped import load_dropped
from foldblend.ledger.runs import load_run

NAMES = ("joy", "anger", "fear")


def frame_of(ids):
    values = np.arange(3 * len(ids)).reshape(-1, 3) / (3 * len(ids))
    return pd.DataFrame(values, columns=NAMES).assign(id=ids)[["id", *NAMES]]


@pytest.fixture
def drop_in(paths, tables):
    """Writes a run `mine`; either file can be changed on its way."""

    def write(oof=lambda frame: frame, test=lambda frame: frame):
        folder = paths.oof("toy") / "mine"
        folder.mkdir(parents=True, exist_ok=True)
        for name, ids, change in (("oof", tables.train_ids, oof), ("test", tables.test_ids, test)):
            changed = change(frame_of(ids))
            text = changed if isinstance(changed, str) else changed.to_csv(index=False)
            (folder / f"{name}.csv").write_text(text, newline="", encoding="utf-8")
        return folder

    return write


def test_rows_and_columns_in_any_order_and_ids_as_text(paths, folds, tables, drop_in):
    folder = drop_in(lambda f: f[["id", "fear", "joy", "anger"]].sample(frac=1, random_state=0), lambda f: f[::-1])
    loaded = load_run(paths, "toy", "mine", folds, tables)
    np.testing.assert_array_equal(loaded.oof, frame_of(tables.train_ids)[list(NAMES)].to_numpy(np.float32))
    np.testing.assert_array_equal(loaded.test_folds[0], frame_of(tables.test_ids)[list(NAMES)].to_numpy(np.float32))
    assert (loaded.kind, loaded.records, np.shape(loaded.test_folds)) == ("probs", [], (1, 4, 3))
    assert set(loaded.files) == {"oof/toy/mine/oof.csv", "oof/toy/mine/test.csv"}
    (folder / "oof.csv").write_bytes(b"\xef\xbb\xbf" + (folder / "oof.csv").read_bytes())
    np.testing.assert_array_equal(load_run(paths, "toy", "mine", folds, tables).oof, loaded.oof)


def put(value, column="joy", row=2):
    def change(frame):
        frame = frame.astype({column: object})
        frame.loc[row, column] = value
        return frame

    return change


def widened(frame):
    """One value more than the header, in every row: pandas alone shifts all labels by one."""
    lines = frame.to_csv(index=False).splitlines()
    return "\n".join([lines[0], *(f"{line},0.5" for line in lines[1:]), ""])


BAD = {
    "missing id": (lambda f: f[1:], "1 ids of the training file are not in it, first 'r0'"),
    "doubled id": (lambda f: pd.concat([f, f[:1]]), "1 ids twice, first 'r0'"),
    "foreign id": (put("zz", "id"), "1 ids are not of the training file, first 'zz'"),
    "missing label": (lambda f: f.drop(columns="joy"), r"Missing: \['joy'\]"),
    "unknown label": (lambda f: f.assign(awe=0), r"unknown: \['awe'\]"),
    "label twice": (lambda f: f.to_csv(index=False).replace("anger", "joy", 1), r"Missing: \['anger'\]"),
    "no id": (lambda f: f[["joy", "id", "anger", "fear"]], r"Missing: \['joy'\], unknown: \['id'\]"),
    "nan": (put("nan"), "column joy, row 4: 'nan' is not a number"),
    "empty cell": (put(""), "column joy, row 4: '' is not a number"),
    "word": (put("high"), "column joy, row 4: 'high' is not a number; expected a probability"),
    "formula": (put("=1+1"), "column joy, row 4: '=1[+]1' is not a number"),
    "infinity": (put("inf"), "1 values are NaN or infinite, the first in row 2, column 0"),
    "overflow": (put("1e400"), "NaN or infinite"),
    "above one": (put(1.01), r"outside \[0, 1\] \(logits\?\)"),
    "negative": (put(-0.01), r"outside \[0, 1\]"),
    "empty file": (lambda f: "", "0 columns; expected an id and then the 3 labels"),
    "only a header": (lambda f: f[:0], "12 ids of the training file are not in it"),
    "other separator": (lambda f: f.to_csv(index=False, sep=";"), "1 columns; expected an id"),
    "too many cells": (lambda f: f.to_csv(index=False) + "r0,1,1,1,1\n", r"row 14 .the header is row 1. has 5 values"),
    "every row one cell wider": (widened, r"row 2 .the header is row 1. has 5 values, the header has 4"),
    "too few cells": (lambda f: f.to_csv(index=False).replace("\nr1,", "\nr1,0.5\nr1,", 1), "row 3 .* has 2 values"),
    "quote": (lambda f: f.to_csv(index=False) + '"r0,1,1,1\n', "oof.csv"),
}


@pytest.mark.parametrize("change, message", BAD.values(), ids=BAD)
def test_bad_tables_are_refused(paths, folds, tables, drop_in, change, message):
    drop_in(change)
    with pytest.raises(ValueError, match=message) as caught:
        load_run(paths, "toy", "mine", folds, tables)
    assert "oof.csv" in str(caught.value)


def test_another_encoding_is_refused(paths, folds, tables, drop_in):
    folder = drop_in()
    (folder / "test.csv").write_bytes("id,joy,anger,fear\nsüß,0,0,0\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"test.csv: .*codec can't decode"):
        load_run(paths, "toy", "mine", folds, tables)


def test_half_a_run_and_two_kinds_in_one_folder(paths, folds, tables, run, drop_in):
    folder = drop_in()
    (folder / "fold0.npz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds both oof.csv and fold0.npz; move one kind"):
        load_run(paths, "toy", "mine", folds, tables)
    (folder / "fold0.npz").unlink()
    (folder / "oof.csv").unlink()
    with pytest.raises(ValueError, match=r"test.csv is there, oof.csv is not"):
        load_run(paths, "toy", "mine", folds, tables)


ids_strategy = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6),
    min_size=1,
    max_size=6,
    unique=True,
)


@settings(deadline=None)
@given(ids_strategy, st.randoms())
def test_any_ids_in_any_order(tmp_path_factory, ids, random):
    path = tmp_path_factory.mktemp("dropped") / "oof.csv"
    frame = frame_of(ids)
    order = random.sample(range(len(ids)), len(ids))
    quoted = [name.replace('"', '""') for name in ids]
    lines = [f'"{quoted[i]}",{",".join(map(str, frame.loc[i, list(NAMES)]))}' for i in order]
    path.write_text("\n".join(["id,joy,anger,fear", *lines, ""]), encoding="utf-8", newline="")
    loaded = load_dropped(path, np.array(ids), NAMES, "the training file")
    np.testing.assert_array_equal(loaded, frame[list(NAMES)].to_numpy(np.float32))


@pytest.mark.parametrize("said", ["mean_of_folds", "one_fold"])
def test_a_run_made_elsewhere_says_what_its_test_predictions_are(paths, folds, tables, drop_in, said):
    folder = drop_in()
    assert load_run(paths, "toy", "mine", folds, tables).test_is == ""
    (folder / "run.yaml").write_text(f"test_is: {said}\n", encoding="utf-8")
    loaded = load_run(paths, "toy", "mine", folds, tables)
    assert loaded.test_is == said
    assert set(loaded.files) == {"oof/toy/mine/oof.csv", "oof/toy/mine/test.csv"}  # it changes no answer


@pytest.mark.parametrize(
    "text", ["test_is: mean\n", "test: one_fold\n", "one_fold\n", "", "test_is: [\n", "test_is:\n"]
)
def test_another_word_for_what_they_are_is_refused_with_the_right_ones(paths, folds, tables, drop_in, text):
    (drop_in() / "run.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"run.yaml: .*`test_is: mean_of_folds` or `test_is: one_fold`"):
        load_run(paths, "toy", "mine", folds, tables)


def test_what_pandas_only_warns_of_is_refused(tmp_path, monkeypatch):
    import warnings

    path = tmp_path / "oof.csv"
    path.write_text("id,joy\na,0.5\n")
    read_csv = pd.read_csv

    def warn(*given, **options):
        warnings.warn("Length of header or names does not match length of data", pd.errors.ParserWarning, stacklevel=2)
        return read_csv(*given, **options)

    monkeypatch.setattr(pd, "read_csv", warn)
    with pytest.raises(ValueError, match=r"oof.csv: Length of header"):
        load_dropped(path, np.array(["a"]), ("joy",), "the training file")
