"""Labels that models gave: the file comes back as it was written, for the folds that it is for, or not at all."""

import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from foldblend.data.taught import TaughtRows, read_taught, write_taught
from foldblend.errors import UserError

NAMES = ("joy", "anger", "fear")
SHA = "a" * 64


def rows_of(n_sets=2, n=3, **more):
    probs = np.random.default_rng(0).random((n_sets, n, 2)).astype(np.float32)
    probs[0, 1, 0] = np.nan
    texts = ["süß 🙂", "", 'b\n"c"'][:n]
    weights = np.ones((n_sets, n), np.float32)
    sha = SHA if n_sets > 1 else ""
    return TaughtRows("test", ["7", "x", "ü"][:n], texts, ("fear", "joy"), probs, weights, sha, {"runs": ["a"]}, **more)


def read(path, names=NAMES, sha=SHA, n_folds=2, competition="toy"):
    return read_taught(path, competition, names, sha, n_folds)


def test_rows_come_back_in_the_competitions_labels(tmp_path):
    path, rows = tmp_path / "toy" / "t.npz", rows_of(contents=["a", "b", "c"], origins=["", "r1", ""])
    write_taught(path, "toy", rows)
    first = path.read_bytes()
    write_taught(path, "toy", rows)
    assert path.read_bytes() == first
    found = read(path)
    assert found.label_names == NAMES and found.made_by == {"runs": ["a"]} and found.kind == "test"
    assert (found.ids, found.texts, found.contents, found.origins) == (
        rows.ids,
        rows.texts,
        ["a", "b", "c"],
        ["", "r1", ""],
    )
    np.testing.assert_array_equal(found.probs[:, :, [2, 0]], rows.probs)
    assert np.isnan(found.probs[:, :, 1]).all()  # a label that the file does not have is unknown, not absent
    np.testing.assert_array_equal(found.of_fold(1)[0], found.probs[1])


def test_one_set_is_for_every_fold(tmp_path):
    rows = rows_of(n_sets=1)
    write_taught(tmp_path / "t.npz", "toy", rows)
    found = read(tmp_path / "t.npz", sha="b" * 64, n_folds=5)
    for fold in range(5):
        np.testing.assert_array_equal(found.of_fold(fold)[0], found.probs[0])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sha": "b" * 64}, "other folds than those in folds/ now.*teach.py --from-blend"),
        ({"n_folds": 3}, "other folds"),
        ({"competition": "other"}, "made for competition 'toy', not 'other'"),
        ({"names": ("joy", "fears")}, "does not learn: fear; did you mean 'fears'"),
    ],
)
def test_what_does_not_belong_is_refused(tmp_path, options, message):
    write_taught(tmp_path / "t.npz", "toy", rows_of())
    with pytest.raises(UserError, match=message):
        read(tmp_path / "t.npz", **options)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kind": "tset"}, "kind is 'tset'"),
        ({"ids": ["7", "7", "x"]}, "1 ids are there twice"),
        ({"probs": np.full((2, 3, 2), 1.5, np.float32)}, r"outside \[0, 1\]"),
        ({"probs": np.zeros((2, 4, 2), np.float32)}, r"expected \(sets, 3 rows, 2 labels\)"),
        ({"weights": np.full((2, 3), -1, np.float32)}, "less than 0"),
        ({"weights": np.ones((3, 3), np.float32)}, r"expected \(1, 3\) or \(2, 3\)"),
        ({"folds_sha256": ""}, "2 sets of labels with folds_sha256 ''"),
        ({"origins": ["a"]}, "origins has 1 entries for 3 texts"),
    ],
)
def test_rows_that_no_reader_takes_are_not_written(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        write_taught(tmp_path / "t.npz", "toy", replace(rows_of(), **change))
    assert not (tmp_path / "t.npz").exists()


def test_every_changed_byte_is_seen_or_means_nothing(tmp_path):
    path = tmp_path / "t.npz"
    write_taught(path, "toy", rows_of())
    whole, rng = path.read_bytes(), np.random.default_rng(1)
    good = read(path)
    for at in rng.choice(len(whole), 300, replace=False):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        try:
            found = read(path)
        except UserError:
            continue
        assert found.texts == good.texts and np.array_equal(found.probs, good.probs, equal_nan=True)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a whole .npz"):
        read(path)
    with pytest.raises(UserError, match=r"gone.npz: missing; expected the .npz that src/teach.py writes"):
        read(tmp_path / "gone.npz")


def test_ends_that_lie_are_refused(tmp_path):
    path = tmp_path / "t.npz"
    write_taught(path, "toy", rows_of())
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    file = io.BytesIO()
    np.lib.format.write_array(file, np.array([5, 2, 9**9]))
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (members | {"texts_ends.npy": file.getvalue()}).items():
            archive.writestr(name, data)
    with pytest.raises(UserError, match="the ends of texts do not fit"):
        read(path)
