"""A fold's predictions are proven before they are written, known when they are there, and never mixed up."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ledger_settings import DEFAULTS, SETTINGS

from foldblend.ledger.oof import check_same_settings, finished_folds, run_folder, set_folds_aside, write_fold
from foldblend.ledger.records import read_record, write_record
from foldblend.ledger.runs import load_run

NAN = np.full((4, 3), np.nan, dtype=np.float32)

BAD_HAND_INS = {
    "missing row": (lambda f: {"rows": f.rows[1:], "oof": f.oof[1:]}, "3 rows, folds.csv holds out 4.*1 missing"),
    "doubled row": (lambda f: {"rows": np.append(f.rows[:3], f.rows[0])}, "1 twice, 1 missing, 0 of other folds"),
    "taught row": (lambda f: {"rows": f.rows - 1}, "4 missing, 4 of other folds. Gather inside the loop"),
    "another fold": (lambda f: {"fold": 2}, "holds out 4 for fold 2"),
    "no such fold": (lambda f: {"fold": 3}, "fold 3; folds.csv has 0 to 2"),
    "float64": (lambda f: {"oof": f.oof.astype(np.float64)}, "oof is float64"),
    "labels": (lambda f: {"oof": f.oof[:, :2]}, r"oof is float32 \(4, 2\); expected float32 \(4, 3\)"),
    "test rows": (lambda f: {"test": f.test[:3]}, r"test is float32 \(3, 3\); expected float32 \(4, 3\)"),
    "nan": (lambda f: {"oof": NAN}, "oof: 12 values are NaN or infinite, the first in row 0, column 0: nan"),
    "infinity": (lambda f: {"test": NAN * 0 + np.inf}, "test: 12 values are NaN or infinite"),
    "logits called probs": (lambda f: {"kind": "probs"}, r"outside \[0, 1\] \(logits\?\)"),
    "kind": (lambda f: {"kind": "scores"}, "kind is 'scores'; expected logits or probs"),
}


@pytest.mark.parametrize("change, message", BAD_HAND_INS.values(), ids=BAD_HAND_INS)
def test_a_fold_that_is_not_whole_is_not_written(paths, folds, tables, fold_file, change, message):
    bad = replace(fold_file(1), **change(fold_file(1)))
    with pytest.raises(ValueError, match=message):
        write_fold(paths, "toy", "r", folds, tables, bad, {"settings": SETTINGS})
    assert not paths.oof("toy").exists()


@pytest.mark.parametrize("record", [{}, {"settings": {}, "score": float("nan")}, {"settings": {"x": np.float32(1)}}])
def test_a_record_that_cannot_be_written_is_found_before_the_numbers_are(paths, folds, tables, fold_file, record):
    with pytest.raises(ValueError, match="record"):
        write_fold(paths, "toy", "r", folds, tables, fold_file(1), record)
    assert not paths.oof("toy").exists()


@pytest.mark.parametrize("name", ["..", "../evil", "a/b", "", ".hidden", "a b", "x\n"])
def test_a_name_that_leaves_its_folder_is_refused(paths, name):
    with pytest.raises(ValueError, match="run is"):
        run_folder(paths, "toy", name)
    with pytest.raises(ValueError, match="competition is"):
        run_folder(paths, name, "r")


def test_finished_folds(paths, folds, tables, run):
    assert finished_folds(paths, "toy", "r", folds, tables) == [0, 1, 2]
    (run / "fold1.json").unlink()
    assert finished_folds(paths, "toy", "r", folds, tables) == [0, 2], "an .npz without its .json was cut off"
    (run / "fold2.npz").unlink()
    assert finished_folds(paths, "toy", "r", folds, tables) == [0], "a .json may be checked in without its .npz"
    assert finished_folds(paths, "toy", "another", folds, tables) == []


def test_finished_folds_refuses_what_it_cannot_keep(paths, folds, tables, run):
    with pytest.raises(ValueError, match=r"fold0.npz: trained on other folds(.|\n)*--run r --fold all --overwrite"):
        finished_folds(paths, "toy", "r", replace(folds, sha256="0" * 64), tables)
    os.replace(run / "fold0.npz", run / "fold1.npz")
    with pytest.raises(ValueError, match=r"fold1.npz: not the file its .json describes"):
        finished_folds(paths, "toy", "r", folds, tables)


def test_a_run_made_elsewhere_is_not_trained_into(paths, folds, tables, fold_file):
    folder = paths.oof("toy") / "r"
    folder.mkdir(parents=True)
    (folder / "oof.csv").write_text("id,joy,anger,fear\n")
    with pytest.raises(ValueError, match=r"oof.csv made elsewhere; train under another --name"):
        finished_folds(paths, "toy", "r", folds, tables)
    with pytest.raises(ValueError, match=r"oof.csv made elsewhere"):
        write_fold(paths, "toy", "r", folds, tables, fold_file(0), {"settings": SETTINGS})


def test_same_settings(paths, run):
    check_same_settings(paths, "toy", "r", SETTINGS, DEFAULTS)
    check_same_settings(paths, "toy", "new", {"seed": 8}, DEFAULTS)
    younger = {**SETTINGS, "tfidf": {**SETTINGS["tfidf"], "max_features": 100}}
    check_same_settings(paths, "toy", "r", younger, {**DEFAULTS, "tfidf": {"max_features": 100}})
    with pytest.raises(ValueError, match=r"tfidf.max_features was 100, is now 200 \(fold0, fold1, fold2\)"):
        younger["tfidf"]["max_features"] = 200
        check_same_settings(paths, "toy", "r", younger, {**DEFAULTS, "tfidf": {"max_features": 100}})


def test_changed_settings_are_shown_with_both_ways_out(paths, run):
    changed = {"learner": "tfidf", "seed": 8, "tfidf": {"word_ngrams": (1, 3), "min_rows": 2}}
    with pytest.raises(ValueError) as caught:
        check_same_settings(paths, "toy", "r", changed, DEFAULTS)
    message = str(caught.value)
    assert "seed was 7, is now 8 (fold0, fold1, fold2)" in message
    assert "tfidf.word_ngrams was [1, 2], is now [1, 3]" in message
    assert "--overwrite" in message and "--name" in message and "min_rows" not in message


def test_removed_folds_are_trained_again(paths, folds, tables, run):
    set_folds_aside(paths, "toy", "r", [0, 2, 7])
    assert finished_folds(paths, "toy", "r", folds, tables) == [1]
    assert sorted(p.name for p in run.iterdir() if p.is_file()) == ["fold1.json", "fold1.npz"]
    assert sorted(p.name for p in run.glob(".old/*/*")) == ["fold0.json", "fold0.npz", "fold2.json", "fold2.npz"]


def _deadly(call, left):
    def counted(*given, **options):
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*given, **options)

    return counted


def killed_before(step, work) -> bool:
    """Run `work` in a process that is killed before its step-th call that touches the disk; whether it was."""
    child = os.fork()
    if not child:
        left = iter(range(step - 1))
        for module, name in ((os, "replace"), (os, "fsync"), (Path, "unlink"), (Path, "mkdir"), (Path, "iterdir")):
            setattr(module, name, _deadly(getattr(module, name), left))
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0


def test_a_kill_at_any_step_of_writing_leaves_the_old_fold_the_new_one_or_none(paths, folds, tables, fold_file, run):
    """Killed before each call that touches the disk; nothing half-written is ever taken for a fold."""
    before, new = fold_file(1).test, replace(fold_file(1), test=fold_file(1).test + 5)
    write = lambda file, age: write_fold(  # noqa: E731
        paths, "toy", "r", folds, tables, file, {"settings": SETTINGS, "age": age}
    )
    seen, step, killed = set(), 0, True
    while killed:
        step += 1
        set_folds_aside(paths, "toy", "r", [1])
        write(fold_file(1), "old")
        killed = killed_before(step, lambda: write(new, "new"))
        if finished_folds(paths, "toy", "r", folds, tables) == [0, 1, 2]:
            loaded = load_run(paths, "toy", "r", folds, tables)
            age = loaded.records[1]["age"]
            np.testing.assert_array_equal(loaded.test_folds[1], before + (5 if age == "new" else 0))
        else:
            assert finished_folds(paths, "toy", "r", folds, tables) == [0, 2]
            age = "none"
        seen.add(age)
    assert seen == {"old", "none", "new"} and step > 6
    write(new, "new")
    assert not [p.name for p in run.iterdir() if p.name.endswith(".tmp")], "nothing of the killed ones is left"


def test_a_damaged_record_is_refused(paths, folds, tables, run):
    path = run / "fold2.json"
    write_record(path, read_record(path) | {"kind": "guesses"})
    with pytest.raises(ValueError, match="is not a record of a trained fold: kind is 'guesses'; expected text like"):
        finished_folds(paths, "toy", "r", folds, tables)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match="not readable as JSON"):
        finished_folds(paths, "toy", "r", folds, tables)
