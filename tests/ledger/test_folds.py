"""folds/<competition>.csv comes back only for the training file and the settings it was drawn for."""

import multiprocessing
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldblend.files import sha256_bytes
from foldblend.ledger.folds import _folds_bytes, _parse_folds, ensure_folds, load_folds, parse_fold_numbers, write_folds
from foldblend.ledger.records import read_record, write_record


def test_round_trip_with_ids_that_a_csv_has_to_quote(paths, competition, tables, folds):
    loaded = load_folds(paths, "toy", tables, competition)
    np.testing.assert_array_equal(loaded.ids, tables.train_ids)
    np.testing.assert_array_equal(loaded.fold, np.arange(12) % 3)
    np.testing.assert_array_equal(loaded.group, np.arange(12))
    assert (loaded.n_folds, loaded.sha256) == (3, folds.sha256)
    assert paths.folds("toy").read_text().startswith("id,fold,group\nr0,0,0\n")


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1, max_size=5))
def test_any_id_survives(ids):
    ids = np.array(ids)
    numbers = np.arange(len(ids))
    found = _parse_folds("folds.csv", _folds_bytes(ids, numbers, numbers))
    for array, expected in zip(found, (ids, numbers, numbers), strict=True):
        np.testing.assert_array_equal(array, expected)


def test_the_record_says_settings_and_counts(paths, tables, folds):
    record = read_record(paths.folds("toy").with_suffix(".json"))
    assert {"n_folds": 3, "fold_seed": 42, "near_duplicates": 0.8}.items() <= record.items()
    assert record["rows_per_fold"] == [4, 4, 4]
    assert np.sum(list(record["labels_per_fold"].values()), axis=1).tolist() == tables.labels.sum(axis=0).tolist()


CHANGES = {
    "texts": (lambda t: {"train_texts": [*t.train_texts[:-1], "changed"]}, "training file: its texts differ"),
    "labels": (lambda t: {"labels": ~t.labels}, "training file: its labels differ"),
    "names": (lambda t: {"label_names": ("joy", "fear", "anger")}, "training file: its label names differ"),
    "ids": (lambda t: {"train_ids": t.train_ids[::-1]}, "training file: its ids differ"),
    "border": (lambda t: {"train_texts": ["text 0t", "ext 1", *t.train_texts[2:]]}, "its texts differ"),
}


@pytest.mark.parametrize("change, message", CHANGES.values(), ids=CHANGES)
def test_another_training_file_is_refused(paths, competition, tables, folds, change, message):
    changed = replace(tables, **change(tables))
    with pytest.raises(ValueError, match=f"{message}.*make_folds.py --competition toy --overwrite"):
        ensure_folds(paths, "toy", competition, changed, draw=None)


@pytest.mark.parametrize("setting, value", [("n_folds", 4), ("fold_seed", 1), ("near_duplicates", 0.9)])
def test_other_settings_are_refused(paths, competition, tables, folds, setting, value):
    with pytest.raises(
        ValueError, match=f"drawn with {setting} {getattr(competition, setting)}, you asked for {value}"
    ):
        ensure_folds(paths, "toy", replace(competition, **{setting: value}), tables, draw=None)


@pytest.mark.parametrize(
    "given, expected",
    [
        (["all"], range(5)),
        (["3"], [3]),
        (["0", "2"], [0, 2]),
        (["2,0"], [0, 2]),
        (["0-2"], [0, 1, 2]),
        (["4,", "0-1,3"], [0, 1, 3, 4]),
    ],
)
def test_folds_are_named_in_many_ways(given, expected):
    assert parse_fold_numbers(given, 5) == list(expected)


@pytest.mark.parametrize(
    "given", [["5"], ["2-1"], ["0-5"], ["-1"], ["1.0"], ["all", "1"], [","], ["²"], ["1-"], ["99999999999"]]
)
def test_what_is_no_fold_is_refused(given):
    with pytest.raises(ValueError, match="--fold.*expected numbers from 0 to 4"):
        parse_fold_numbers(given, 5)


def test_missing_files(paths, tables, folds):
    paths.folds("toy").with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=r"has no .json beside it"):
        load_folds(paths, "toy", tables)
    paths.folds("toy").unlink()
    with pytest.raises(ValueError, match=r"missing. Run: python src/make_folds.py --competition toy$"):
        load_folds(paths, "toy", tables)


def test_every_changed_byte_is_refused(paths, tables, folds):
    path = paths.folds("toy")
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(ValueError, match=r"not the file its .json describes"):
            load_folds(paths, "toy", tables)


def forge(paths, text):
    """A CSV whose .json has its hash: what is left to find is what the rows say."""
    path = paths.folds("toy")
    data = text.encode()
    path.write_bytes(data)
    record = read_record(path.with_suffix(".json"))
    write_record(path.with_suffix(".json"), record | {"csv_sha256": sha256_bytes(data)})


FORGERIES = {
    "header": (lambda rows: ["id,fold", *rows[1:]], "starts with .*expected id,fold,group"),
    "empty": (lambda rows: [], "starts with nothing"),
    "columns": (lambda rows: [*rows[:3], "r2,2", *rows[4:]], "row 4 is 'r2,2'; expected an id and two whole numbers"),
    "number": (lambda rows: [*rows[:3], "r2,two,2", *rows[4:]], "row 4 is 'r2,two,2'"),
    "fraction": (lambda rows: [*rows[:3], "r2,2.0,2", *rows[4:]], "row 4 is"),
    "huge": (lambda rows: [*rows[:3], f"r2,{'9' * 30},2", *rows[4:]], "row 4 is"),
    "fold": (lambda rows: [*rows[:3], "r2,3,2", *rows[4:]], "row 2 is in fold 3; expected 0 to 2"),
    "torn": (lambda rows: [*rows[:3], "r2,2,1", *rows[4:]], "group 1 crosses folds 1 and 2"),
    "twice": (
        lambda rows: [*rows[:3], "r1,2,2", *rows[4:]],
        "1 ids twice, first 'r1'; 1 ids of the training file are not",
    ),
    "order": (
        lambda rows: [rows[0], rows[2], rows[1], *rows[3:]],
        "ids in another order than the training file: row 0",
    ),
    "foreign": (lambda rows: [*rows[:3], "zz,2,2", *rows[4:]], "1 ids are not of the training file, first 'zz'"),
    "short": (lambda rows: rows[:-4], "ids of the training file are not in it"),
    "quote": (lambda rows: [*rows[:3], '"r2,2,2', *rows[4:]], "not readable as CSV"),
}


@pytest.mark.parametrize("change, message", FORGERIES.values(), ids=FORGERIES)
def test_rows_are_proven_even_when_the_hash_is_right(paths, tables, folds, change, message):
    rows = paths.folds("toy").read_text().split("\n")
    forge(paths, "\n".join(change(rows)))
    with pytest.raises(ValueError, match=message):
        load_folds(paths, "toy", tables)


def test_a_torn_group_or_an_empty_fold_is_not_written(paths, competition, tables):
    with pytest.raises(ValueError, match="group 0 crosses folds 0 and 1"):
        write_folds(paths, "toy", competition, tables, np.arange(12) % 3, np.zeros(12, dtype=np.int64))
    with pytest.raises(ValueError, match="fold 2 holds no row"):
        write_folds(paths, "toy", competition, tables, np.arange(12) % 2, np.arange(12))
    assert not paths.folds("toy").exists()


def killed_before(step, work) -> bool:
    """Run `work` in a process that is killed before its step-th call that touches the disk; whether it was."""
    child = os.fork()
    if not child:
        left = iter(range(step - 1))

        def deadly(call):
            def counted(*given, **options):
                if next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*given, **options)

            return counted

        for module, name in ((os, "replace"), (os, "fsync"), (os, "open"), (Path, "unlink"), (Path, "mkdir")):
            setattr(module, name, deadly(getattr(module, name)))
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] != 0


def test_a_kill_at_any_step_of_a_new_draw_leaves_the_old_pair_or_the_new_one(paths, competition, tables, folds):
    csv, other = paths.folds("toy"), (np.arange(12) + 1) % 3
    seen, step, killed = set(), 0, True
    while killed:
        step += 1
        for path in csv.parent.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_folds(paths, "toy", competition, tables, folds.fold, folds.group)
        killed = killed_before(step, lambda: write_folds(paths, "toy", competition, tables, other, folds.group))
        found = load_folds(paths, "toy", tables, competition).fold
        seen.add("old" if np.array_equal(found, folds.fold) else "new")
        assert np.array_equal(found, folds.fold) or np.array_equal(found, other)
    assert seen == {"old", "new"} and step > 8
    assert sorted(path.name for path in csv.parent.iterdir()) == [".old", "toy.csv", "toy.json"]
    assert sorted(path.name for path in csv.parent.glob(".old/*/*")) == ["toy.csv", "toy.json"]


def test_an_edited_csv_says_the_way_out(paths, tables, folds):
    csv = paths.folds("toy")
    csv.write_bytes(csv.read_bytes() + b"x,0,0\n")
    with pytest.raises(ValueError, match=r"edited or damaged. Restore both files .*make_folds.py .*--overwrite"):
        load_folds(paths, "toy", tables)


def _draw_slowly(texts, labels, **settings):
    with open(os.environ["DRAW_LOG"], "a") as log:
        log.write("drawn\n")
    time.sleep(0.2)
    return np.arange(12) % 3, np.arange(12)


def _ensure(paths, competition, tables, queue):
    queue.put(ensure_folds(paths, "toy", competition, tables, _draw_slowly).sha256)


def test_processes_that_start_together_draw_once(paths, competition, tables, tmp_path, monkeypatch):
    monkeypatch.setenv("DRAW_LOG", str(tmp_path / "log"))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_ensure, args=(paths, competition, tables, queue)) for _ in range(3)]
    for process in processes:
        process.start()
    hashes = {queue.get(timeout=20) for _ in processes}
    for process in processes:
        process.join()
    assert len(hashes) == 1
    assert (tmp_path / "log").read_text() == "drawn\n"
    assert sorted(p.name for p in paths.folds("toy").parent.iterdir()) == ["toy.csv", "toy.json"]
