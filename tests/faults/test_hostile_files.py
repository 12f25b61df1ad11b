"""Files that were cut, flipped, swapped or made to do harm, wherever a command reads: one error that names the file.

tests/ledger and tests/learners flip every byte of each kind of file; here the commands meet one of each kind.
"""

import io
import json
import pickle
import shlex
import struct
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file
from small_job import snapshot

from foldblend.files import sha256_file
from foldblend.ledger.records import read_record, write_record


class Harm:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def cut(data, _):
    return data[: len(data) // 2]


def flip(data, _):
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :]


def empty(*_):
    return b""


def pickled(_, mark):
    return pickle.dumps(Harm(mark))


def pickle_in_zip(_, mark):
    file = io.BytesIO()
    np.savez(file, oof=np.array([Harm(mark)], dtype=object), allow_pickle=True)
    return file.getvalue()


def bomb(*_):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("oof.npy", b"\0" * 50_000_000)
    return file.getvalue()


def traversal(*_):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../../../hacked", b"x")
    return file.getvalue()


HARMS = [cut, flip, empty, pickled, pickle_in_zip, bomb, traversal]


@pytest.mark.parametrize(
    "place", ["folds/toy.csv", "folds/toy.json", "oof/toy/words/fold1.npz", "oof/toy/words/fold1.json"]
)
def test_damaged_folds_and_predictions_are_refused_by_both_commands(paths, words, run_command, tmp_path, place):
    assert run_command("train", "--run", words)[0] == 0
    path, mark = paths.root / place, tmp_path / "hacked"
    whole = path.read_bytes()
    for harm in HARMS:
        path.write_bytes(harm(whole, mark))
        before = snapshot(paths.root)
        for name, flags in (("train", ["--run", words]), ("blend", [])):
            status, _, error = run_command(name, *flags)
            assert status == 2 and path.stem in error and not mark.exists()
        assert snapshot(paths.root) == before


def test_what_resealed_predictions_hold_is_proven_too(paths, words, run_command, tmp_path):
    """Whoever can write the .npz can write its hash; the arrays are believed no more for that."""
    assert run_command("train", "--run", words)[0] == 0
    path, mark = paths.oof("toy") / words / "fold1.npz", tmp_path / "hacked"
    whole, record = path.read_bytes(), read_record(path.with_suffix(".json"))
    for harm in HARMS:
        path.write_bytes(harm(whole, mark))
        write_record(path.with_suffix(".json"), {**record, "npz_sha256": sha256_file(path)})
        status, _, error = run_command("blend")
        assert status == 2 and "fold1.npz" in error and not mark.exists()
    assert not list(paths.root.rglob("submissions/*/*.csv"))


def test_records_of_an_older_version_are_refused_with_the_command_that_fixes_it(paths, words, run_command):
    assert run_command("train", "--run", words)[0] == 0
    path = paths.oof("toy") / words / "fold1.json"
    record = json.loads(path.read_text())
    del record["record_sha256"]
    path.write_text(json.dumps(record))
    status, _, error = run_command("train", "--run", words)
    assert status == 2 and "older version" in error


def metadata_bomb(_, mark):
    """A safetensors file whose metadata nest deeper than Python can follow."""
    path = mark.with_name("nested")
    save_file({"a": np.zeros(1)}, path, {"place": "[" * 100_000, "identity": "[" * 100_000, "crc32": "0"})
    return path.read_bytes()


def endless_header(*_):
    return struct.pack("<Q", 2**62) + b"{}"


def another_version(_, mark):
    path = mark.with_name("older")
    save_file({"a": np.zeros(1)}, path, {"place": '{"epoch": 1, "gone": 2}', "identity": "{}", "crc32": "0"})
    return path.read_bytes()


@pytest.mark.usefixtures("fresh_accelerate")
def test_damaged_checkpoints_are_refused_with_the_command_that_fixes_it(paths, toy_competition, run_command, tmp_path):
    flags = ["--run", "tiny", "--fold", "0", "--training.epochs", "1"]
    assert run_command("train", *flags)[0] == 0
    path, mark = paths.checkpoints("toy", "tiny") / "fold0" / "weights.safetensors", tmp_path / "hacked"
    whole = path.read_bytes()
    for file in (paths.oof("toy") / "tiny").iterdir():
        file.unlink()  # without its predictions a training looks at the weights
    for harm in (*HARMS, metadata_bomb, endless_header, another_version):
        path.write_bytes(harm(whole, mark))
        status, _, error = run_command("train", *flags)
        assert (
            status == 2
            and f"{path} is damaged" in error
            and f"rm {shlex.quote(str(path))}" in error
            and not mark.exists()
        ), harm


@pytest.mark.parametrize("file", ["train.csv", "test.csv", "sample_submission.csv"])
def test_what_is_no_table_is_refused(paths, words, run_command, tmp_path, file):
    path, mark = paths.data("toy") / file, tmp_path / "hacked"
    whole = path.read_bytes()
    for harm in HARMS[2:]:
        path.write_bytes(harm(whole, mark))
        status, _, error = run_command("make_folds")
        assert status == 2 and file in error and not mark.exists() and not paths.folds("toy").exists()


def test_no_number_that_is_none_comes_in_by_hand(paths, words, run_command):
    """From a notebook's CSV; what a training returns is proven by ledger/oof.py before it is written."""
    assert run_command("make_folds")[0] == 0
    folder = paths.oof("toy") / "elsewhere"
    folder.mkdir(parents=True)
    names = (paths.data("toy") / "sample_submission.csv").read_text().splitlines()[0]
    for file, source in (("oof.csv", "train.csv"), ("test.csv", "test.csv")):
        ids = [line.split(",")[0] for line in (paths.data("toy") / source).read_text().splitlines()[1:]]
        (folder / file).write_text("\n".join([names, *(f"{name},0.1,0.2,0.3" for name in ids), ""]))
    path = folder / "oof.csv"
    whole = path.read_text()
    for cell in ("nan", "inf", "-inf", "1e30", "-0.1", "", "=1", '"0,5"'):
        path.write_text(whole.replace("r7,0.1", f"r7,{cell}"))
        status, _, error = run_command("blend")
        assert status == 2 and "elsewhere/oof.csv" in error, cell
