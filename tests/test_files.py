"""Files are written whole or not at all, whatever happens to their writer; records show every change."""

import errno
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from foldblend.errors import UserError
from foldblend.files import (
    check_outputs,
    hold_lock,
    list_old,
    read_bytes,
    remove_file,
    replacing,
    replacing_folder,
    sha256_file,
    write_atomically,
    write_whole,
)

SRC = Path(__file__).resolve().parents[1] / "src"
NOBODY = 65534


def start(code: str, *arguments, **options) -> subprocess.Popen:
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(SRC)!r})\n{code}", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_write_makes_folders_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a" / "b.csv"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["b.csv"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


WRITER = """
from pathlib import Path
from foldblend.files import write_atomically
print("ready", flush=True)
for i in range(10**9):
    write_atomically(Path(sys.argv[1]), bytes([65 + i % 26]) * 3_000_000)
"""


def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "whole"
    write_atomically(path, b"A" * 3_000_000)
    rng = random.Random(0)
    for _ in range(12):
        writer = start(WRITER, path)
        assert writer.stdout.readline() == "ready\n"
        time.sleep(rng.random() * 0.05)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        data = path.read_bytes()
        assert len(data) == 3_000_000 and len(set(data)) == 1
    write_atomically(path, b"next")
    assert [p.name for p in tmp_path.iterdir()] == ["whole"], "what killed writers left is removed by the next one"


def test_what_a_living_writer_is_writing_is_left_alone(tmp_path):
    path = tmp_path / "whole"
    with replacing(path) as outer:
        outer.write(b"outer")
        write_atomically(path, b"inner")
        assert path.read_bytes() == b"inner"
    assert path.read_bytes() == b"outer"


@pytest.mark.parametrize("number, words", [(errno.ENOSPC, "no space is left"), (errno.EROFS, "cannot be written")])
def test_a_failed_write_names_path_and_fix_and_keeps_the_earlier_file(tmp_path, monkeypatch, number, words):
    path = tmp_path / "oof.npz"
    write_atomically(path, b"earlier")

    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=f"oof.npz: not written: .*{words}") as caught:
        write_atomically(path, b"later")
    assert caught.value.errno == number and isinstance(caught.value, UserError)
    assert path.read_bytes() == b"earlier"
    assert [p.name for p in tmp_path.iterdir()] == ["oof.npz"]


FILL = """
import ctypes, os
from pathlib import Path
from foldblend.files import write_atomically
folder = Path(sys.argv[1])
if os.geteuid() != 0 and ctypes.CDLL(None, use_errno=True).unshare(0x10020000):
    sys.exit(77)
if ctypes.CDLL(None, use_errno=True).mount(b"none", bytes(folder), b"tmpfs", 0, b"size=256k"):
    sys.exit(77)
try:
    write_atomically(folder / "whole", b"a" * 100_000)
    try:
        write_atomically(folder / "whole", b"b" * 200_000)
    except OSError as error:
        print(error)
    assert (folder / "whole").read_bytes() == b"a" * 100_000
    assert [p.name for p in folder.iterdir()] == ["whole"]
finally:
    ctypes.CDLL(None).umount(bytes(folder))
"""


def test_a_really_full_disk(tmp_path):
    process = start(FILL, tmp_path)
    out, err = process.communicate()
    if process.returncode == 77 or "umount" in err:
        pytest.skip("this user may not mount a small tmpfs")
    assert process.returncode == 0, err
    assert "no space is left there. Free some" in out


DROP = """
import os
from pathlib import Path
from foldblend.files import write_atomically
if os.geteuid() == 0:
    os.setuid(int(sys.argv[2]))
try:
    write_atomically(Path(sys.argv[1]), b"later")
except OSError as error:
    print(error)
"""


def test_a_really_read_only_folder():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "whole"
        write_atomically(path, b"earlier")
        path.parent.chmod(0o555)  # not below tmp_path, into which only its owner can look
        out, err = start(DROP, path, NOBODY).communicate()
        path.parent.chmod(0o755)
        assert f"{path}: not written: the folder cannot be written. Make it writable" in out, err
        assert path.read_bytes() == b"earlier"


HOLD = """
import time
from pathlib import Path
from foldblend.files import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_refuses_while_held_and_dies_with_its_holder(tmp_path):
    lock = tmp_path / "folder" / ".lock"
    holder = start(HOLD, lock)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match="someone trains this fold"), hold_lock(lock, "someone trains this fold"):
        pass
    holder.kill()
    holder.communicate()
    with hold_lock(lock, "someone trains this fold"):
        pass
    assert not lock.exists()


COUNT = """
from pathlib import Path
from foldblend.files import hold_lock
counter = Path(sys.argv[1])
for _ in range(100):
    with hold_lock(counter.with_name(".lock")):
        counter.write_text(str(int(counter.read_text()) + 1))
"""


def test_waiting_processes_enter_one_at_a_time(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [start(COUNT, counter) for _ in range(3)]
    for process in processes:
        assert process.wait() == 0, process.communicate()[1]
    assert counter.read_text() == "300"


def test_a_library_that_writes_to_a_path_writes_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder" / "weights"
    write_whole(path, lambda temporary: temporary.write_bytes(b"old"))

    def cut_off(temporary):
        temporary.write_bytes(b"ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, cut_off)
    assert path.read_bytes() == b"old" and [p.name for p in path.parent.iterdir()] == ["weights"]

    def fill_the_disk(temporary):
        temporary.write_bytes(b"ne")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(UserError, match="weights: not written: no space is left there. Free some"):
        write_whole(path, fill_the_disk)
    assert path.read_bytes() == b"old" and [p.name for p in path.parent.iterdir()] == ["weights"]


@pytest.mark.parametrize("exclusive", [False, True])
def test_whoever_holds_the_folders_lock_removes_what_other_machines_left(tmp_path, exclusive):
    left = [".other-host-123-0a1b2c3d.checkpoint.tmp", ".other-host-7-0a1b2c3d.weights.tmp"]
    kept = [".hidden.tmp", "notes.tmp", ".lock"]
    for name in left + kept:
        (tmp_path / name).write_bytes(b"x")
    write_whole(tmp_path / "weights", lambda temporary: temporary.write_bytes(b"new"), exclusive)
    expected = kept + ["weights"] + ([] if exclusive else left)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(expected)


def test_a_file_that_may_not_be_read_is_a_users_error(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match=f"{path}: cannot be read: .* run the same again"):
            read_bytes(path)
        with pytest.raises(UserError, match=f"{path}: cannot be read: "):
            sha256_file(path)


def test_remove_and_hash(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert sha256_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    remove_file(path)
    remove_file(path)
    assert not path.exists()


BUILD = """
from pathlib import Path
from foldblend.files import hold_lock, replacing_folder
target, letter = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
for _ in range(10**9):
    with hold_lock(target.with_name(".lock")), replacing_folder(target) as folder:
        for k in range(20):
            (folder / str(k)).write_text(letter * 1000)
"""


def read_folder(folder):
    return {path.name: path.read_text()[0] for path in folder.iterdir()}


def test_two_writers_of_a_folder_and_kills_leave_a_whole_folder(tmp_path):
    target = tmp_path / "folder"
    rng = random.Random(1)
    target.mkdir()
    for k in range(20):
        (target / str(k)).write_text("o")
    for _ in range(8):
        writers = [start(BUILD, target, letter) for letter in "ab"]
        assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 2
        time.sleep(0.02 + rng.random() * 0.1)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
        found = read_folder(target)
        assert len(found) == 20 and len(set(found.values())) == 1
    with hold_lock(target.with_name(".lock")), replacing_folder(target) as folder:
        (folder / "new").write_text("n")
    assert read_folder(target) == {"new": "n"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".old", "folder"]
    assert all(len(read_folder(old)) == 20 for old in tmp_path.glob(".old/*/folder"))


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_that_is_not_finished_changes_nothing_and_the_old_one_is_kept(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr("foldblend.files.ctypes.CDLL", lambda *_, **__: object())
    target = tmp_path / "folder"
    for text in ("first", "second"):
        with replacing_folder(target) as folder:
            (folder / "file").write_text(text)
    with pytest.raises(KeyboardInterrupt), replacing_folder(target) as folder:
        (folder / "file").write_text("third")
        raise KeyboardInterrupt
    assert (target / "file").read_text() == "second"
    (old,) = list_old(tmp_path)
    assert (old / "folder" / "file").read_text() == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".old", "folder"]


def test_permissions_are_those_of_the_earlier_file_or_of_the_umask(tmp_path):
    private = tmp_path / "private"
    private.write_bytes(b"old")
    private.chmod(0o600)
    write_atomically(private, b"new")
    assert private.stat().st_mode & 0o777 == 0o600
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "weights", lambda path: os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)))
        write_atomically(tmp_path / "download", b"new")
    finally:
        os.umask(before)
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("weights", "download")} == {0o640}


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "oof.csv")
    for read in (read_bytes, sha256_file):
        with pytest.raises(UserError, match="oof.csv: cannot be read: it is a folder, a pipe or a device"):
            read(tmp_path / "oof.csv")


def test_outputs_over_inputs_other_outputs_and_the_project_are_refused(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("data/train.csv", "in.csv", "there.csv"):
        (tmp_path / name).write_text("x")
    (tmp_path / "link.csv").symlink_to(tmp_path / "in.csv")
    os.link(tmp_path / "in.csv", tmp_path / "hard.csv")

    def check(output, answer="", overwrite=True):
        outputs = {"--output": output and str(tmp_path / output), "--answer": answer and str(tmp_path / answer)}
        check_outputs(outputs, {"--input": str(tmp_path / "in.csv")}, [data], overwrite)

    for same in ("in.csv", "link.csv", "hard.csv", "data/../in.csv"):
        with pytest.raises(UserError, match="is the file of --input: it would be overwritten"):
            check(same)
    with pytest.raises(UserError, match="--answer .*new.csv is the file of --output"):
        check("new.csv", "data/../new.csv")
    with pytest.raises(UserError, match="train.csv is a file of this project and is not overwritten"):
        check("data/train.csv")
    with pytest.raises(UserError, match="there.csv exists. Name another file, or add --overwrite"):
        check("there.csv", overwrite=False)
    check("there.csv", "new.csv")
    check("data/new.csv", overwrite=False)
