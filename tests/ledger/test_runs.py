"""Whole runs only: every fold there, of these folds, labels, data and one recipe; every problem said at once."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from ledger_settings import SETTINGS

from foldblend.files import sha256_file
from foldblend.ledger.oof import set_folds_aside, write_fold
from foldblend.ledger.records import read_record, write_record
from foldblend.ledger.runs import find_runs, find_stale_runs, load_run, load_runs
from foldblend.npz import write_npz


def test_a_run_comes_back_in_the_order_of_the_tables(paths, folds, tables, run):
    loaded = load_run(paths, "toy", "r", folds, tables)
    np.testing.assert_array_equal(loaded.oof, np.float32(np.arange(12)[:, None] + np.arange(3) / 10))
    np.testing.assert_array_equal(loaded.test_folds, np.ones((3, 4, 3)) * np.arange(3)[:, None, None])
    assert loaded.oof.dtype == loaded.test_folds[0].dtype == np.float32
    assert (loaded.name, loaded.kind) == ("r", "logits")
    assert [record["fold"] for record in loaded.records] == [0, 1, 2]
    assert loaded.records[0]["score"] == {"macro_f1": 0.5}
    assert len(loaded.files) == 6
    for path, sha256 in loaded.files.items():
        assert sha256_file(paths.root / path) == sha256


def test_all_runs_in_the_order_of_their_names(paths, folds, tables, run):
    shutil.copytree(run, run.with_name("a"))
    run.with_name(".ipynb_checkpoints").mkdir()
    assert find_runs(paths, "toy") == ["a", "r"]
    assert [loaded.name for loaded in load_runs(paths, "toy", None, folds, tables)] == ["a", "r"]
    assert [loaded.name for loaded in load_runs(paths, "toy", ["r", "a"], folds, tables)] == ["r", "a"]


def test_a_missing_fold_names_the_command(paths, folds, tables, run):
    set_folds_aside(paths, "toy", "r", [1])
    command = "accelerate launch src/train.py --competition toy --run r --fold"
    with pytest.raises(ValueError, match=f"^oof/toy/r: fold 1 of 3 missing. Run: {command} 1$"):
        load_run(paths, "toy", "r", folds, tables)
    (run / "fold2.json").unlink()
    with pytest.raises(ValueError, match=rf"folds \[1, 2\] of 3 missing. Run: {command} 1 2$"):
        load_run(paths, "toy", "r", folds, tables)


def test_every_problem_of_every_run_at_once(paths, folds, tables, run):
    shutil.copytree(run, run.with_name("cut"))
    (run.with_name("cut") / "fold0.npz").unlink()
    (run.with_name("empty")).mkdir()
    with pytest.raises(ValueError) as caught:
        load_runs(paths, "toy", ["r", "cut", "empty", "none", "r", "../r"], folds, tables)
    message = str(caught.value)
    for words in ("toy/cut: fold 0 of 3", "toy/empty: folds [0, 1, 2]", "no such run. The runs are: cut, empty, r"):
        assert words in message
    assert "run r is named twice" in message and "run is '../r'" in message


def test_no_run_at_all(paths, folds, tables):
    with pytest.raises(ValueError, match=r"holds no run yet. Run: accelerate launch src/train.py --competition toy"):
        load_runs(paths, "toy", None, folds, tables)


OTHERS = {
    "folds": (lambda f, t: (replace(f, sha256="0" * 64), t), "trained on other folds"),
    "label order": (lambda f, t: (f, replace(t, label_names=("anger", "joy", "fear"))), "its labels are .*expected"),
    "train ids": (lambda f, t: (f, replace(t, train_ids=t.train_ids[::-1])), "the training ids differ"),
    "train texts": (lambda f, t: (f, replace(t, train_texts=["x"] * 12)), "the training texts differ"),
    "labels": (lambda f, t: (f, replace(t, labels=~t.labels)), "the training labels differ"),
    "test ids": (lambda f, t: (f, replace(t, test_ids=t.test_ids[::-1])), "the test ids differ"),
    "test texts": (lambda f, t: (f, replace(t, test_texts=["x"] * 4)), "the test texts differ"),
}


@pytest.mark.parametrize("change, message", OTHERS.values(), ids=OTHERS)
def test_predictions_of_something_else_are_refused(paths, folds, tables, run, change, message):
    with pytest.raises(ValueError, match=message):
        load_run(paths, "toy", "r", *change(folds, tables))


def forge(folder, k, **changes):
    """fold<k>.npz with other arrays, under a record that has its hash: what is left is what the arrays say."""
    path = folder / f"fold{k}.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays |= {name: change(arrays[name]) for name, change in changes.items()}
    with open(path, "wb") as file:
        write_npz(file, arrays)
    record = path.with_suffix(".json")
    write_record(record, read_record(record) | {"npz_sha256": sha256_file(path)})


def swap(array):
    return array[[1, 0, *range(2, len(array))]]


def poison(array):
    array = array.copy()
    array[2, 1] = np.nan
    return array


FORGERIES = {
    "swapped ids": ({"ids": swap}, "ids in another order than the fold's held-out rows"),
    "swapped rows": ({"rows": swap}, "ids in another order than the fold's held-out rows"),
    "swapped test ids": ({"test_ids": swap}, "ids in another order than the test file: row 0 is 't1', not 't0'"),
    "id twice": ({"test_ids": lambda a: a[[0, 0, 2, 3]]}, "1 ids twice, first 't0'"),
    "foreign id": (
        {"ids": lambda a: np.array([*a[:3], "zz"])},
        "1 ids are not of the fold's held-out rows, first 'zz'",
    ),
    "doubled row": ({"rows": lambda a: a[[0, 0, 2, 3]]}, "1 twice, 1 missing"),
    "taught rows": ({"rows": lambda a: a - 1}, "4 of other folds"),
    "row beyond": ({"rows": lambda a: a + 10**12}, "4 of other folds"),
    "labels": ({"label_names": lambda a: a[::-1]}, "its labels are .'fear', 'anger', 'joy'."),
    "fold": ({"fold": lambda a: np.array(0)}, "holds fold 0; its .json says 1|fold 0"),
    "nan": ({"oof": poison}, "oof: 1 values are NaN or infinite, the first in row 2, column 1"),
    "nan in test": ({"test": poison}, "test: 1 values are NaN or infinite, the first in row 2, column 1"),
    "shape": ({"test": lambda a: a[:3]}, r"test has shape \(3, 3\); expected \(4, 3\)"),
    "float64": ({"oof": lambda a: a.astype(np.float64)}, "oof is of type float64"),
    "pickle": ({"ids": lambda a: a.astype("U99")[:2]}, r"ids has shape \(2,\)"),
}


@pytest.mark.parametrize("changes, message", FORGERIES.values(), ids=FORGERIES)
def test_arrays_are_proven_even_when_the_hash_is_right(paths, folds, tables, run, changes, message):
    forge(run, 1, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        load_run(paths, "toy", "r", folds, tables)
    assert "fold1.npz" in str(caught.value)


def test_every_changed_byte_is_refused(paths, folds, tables, run):
    path = run / "fold1.npz"
    whole = path.read_bytes()
    for position in range(0, len(whole), 37):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with pytest.raises(ValueError, match=r"fold1.npz: not the file its .json describes"):
            load_run(paths, "toy", "r", folds, tables)


def test_folds_swapped_with_their_records_are_refused(paths, folds, tables, run):
    for suffix in ("npz", "json"):
        one, two = run / f"fold1.{suffix}", run / f"fold2.{suffix}"
        one.rename(run / "x"), two.rename(one), (run / "x").rename(two)
    with pytest.raises(ValueError, match="damaged, swapped or edited"):
        load_run(paths, "toy", "r", folds, tables)


def test_a_fold_beyond_the_folds_is_refused(paths, folds, tables, run):
    shutil.copy(run / "fold0.npz", run / "fold3.npz")
    with pytest.raises(ValueError, match=r"fold3.npz belongs to other folds; there are folds 0 to 2"):
        load_run(paths, "toy", "r", folds, tables)


def test_folds_of_different_recipes_are_refused(paths, folds, tables, fold_file, run):
    write_fold(paths, "toy", "r", folds, tables, fold_file(2), {"settings": {**SETTINGS, "seed": 9}})
    with pytest.raises(
        ValueError, match="fold 0 and fold 2 were trained with different settings: seed was 7, is now 9"
    ):
        load_run(paths, "toy", "r", folds, tables)
    probs = fold_file(2, oof=np.full((4, 3), 0.5, np.float32), test=np.zeros((4, 3), np.float32), kind="probs")
    write_fold(paths, "toy", "r", folds, tables, probs, {"settings": SETTINGS})
    with pytest.raises(ValueError, match="kind was logits, is now probs"):
        load_run(paths, "toy", "r", folds, tables)


def test_stale_runs(paths, folds, tables, run):
    assert find_stale_runs(paths, "toy", folds) == {}
    assert find_stale_runs(paths, "toy", replace(folds, sha256="0" * 64)) == {"r": 3}


def test_an_unfinished_run_is_left_out_with_a_note_unless_it_is_named(paths, folds, tables, fold_file, run):
    write_fold(paths, "toy", "new", folds, tables, fold_file(1), {"settings": SETTINGS})
    notes = []
    assert [each.name for each in load_runs(paths, "toy", None, folds, tables, notes)] == ["r"]
    assert len(notes) == 1 and "oof/toy/new: folds [0, 2] of 3 missing. Run: accelerate launch" in notes[0]
    with pytest.raises(ValueError, match="oof/toy/new: folds"):
        load_runs(paths, "toy", ["r", "new"], folds, tables, [])
    shutil.rmtree(run)
    with pytest.raises(ValueError, match="oof/toy/new: folds"):
        load_runs(paths, "toy", None, folds, tables, [])
