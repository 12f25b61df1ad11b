"""Full and read-only disks, real ones where this user may mount: one clear error, and what was there is whole."""

import pytest
from small_job import snapshot

from foldblend.console import Progress
from foldblend.learners.training.checkpoints import CHECKPOINT, read_checkpoint

FULL = "no space is left there. Free some and run the same command again"


def test_a_full_disk_while_a_fold_is_written(paths, words, run_command, disk):
    small = disk(paths.oof("toy"))
    assert run_command("train", "--run", words, "--fold", "0")[0] == 0
    before = snapshot(small.folder)
    small.fill()
    status, _, error = run_command("train", "--run", words, "--fold", "1")
    assert status == 2 and FULL in error and "fold1.npz" in error and error.count("\n") == 1
    assert snapshot(small.folder) == before and not list(small.folder.rglob("*.tmp"))
    small.free()
    assert run_command("train", "--run", words, "--fold", "all")[0] == 0
    assert len(snapshot(small.folder)) == 6


@pytest.mark.usefixtures("fresh_accelerate")
def test_a_full_disk_while_a_checkpoint_is_written(paths, toy_competition, run_command, disk, monkeypatch):
    """The save before is whole; with space again the fold ends as one that was never disturbed."""
    flags = ["--fold", "0", "--training.epochs", "1"]
    assert run_command("train", "--run", "tiny", "--name", "whole", *flags)[0] == 0
    small = disk(paths.checkpoints("toy", "tiny"))
    steps, advance = [], Progress.advance

    def counted(self, *args):
        advance(self, *args)
        steps.append(1)
        if len(steps) == 4:
            small.fill()

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "advance", counted)
        status, _, error = run_command("train", "--run", "tiny", *flags)
    assert status == 2 and "checkpoint.safetensors: not written: no space is left there. Free some" in error
    folder = small.folder / "fold0"
    assert read_checkpoint(folder / CHECKPOINT)[1].step == 3
    assert [path.name for path in folder.iterdir()] == [CHECKPOINT]
    small.free()
    assert run_command("train", "--run", "tiny", *flags)[0] == 0
    ours, whole = (paths.oof("toy") / name / "fold0.npz" for name in ("tiny", "whole"))
    assert ours.read_bytes() == whole.read_bytes()


def test_a_full_disk_while_a_submission_is_written(paths, words, run_command, disk):
    small = disk(paths.submissions("toy"))
    assert run_command("train", "--run", words)[0] == 0 and run_command("blend")[0] == 0
    before = snapshot(small.folder)
    small.fill()
    status, _, error = run_command("blend", "--seed", "1")
    assert status == 2 and FULL in error and snapshot(small.folder) == before
    small.free()
    assert run_command("blend", "--seed", "1")[0] == 0 and len(snapshot(small.folder)) == 4


@pytest.mark.parametrize(
    "place, name, flags",
    [
        ("folds", "make_folds", []),
        ("oof", "train", ["--run", "words"]),
        ("submissions", "blend", []),
    ],
)
def test_read_only_folders(paths, words, run_command, disk, place, name, flags):
    folder = paths.root / place
    disk(folder)
    if name == "blend":
        assert run_command("train", "--run", words)[0] == 0
    disk(folder).make_read_only()
    status, _, error = run_command(name, *flags)
    assert status == 2 and str(folder) in error and "Make it writable" in error and error.count("\n") == 1
    assert snapshot(folder) == {}


def test_checkpoints_that_cannot_be_written(paths, words, run_command, disk):
    disk(paths.root / "checkpoints").make_read_only()
    status, _, error = run_command("train", "--run", words)
    assert status == 2 and str(paths.root / "checkpoints") in error and snapshot(paths.oof("toy")) == {}


def test_data_that_can_only_be_read_is_enough(paths, words, run_command, disk):
    """As a notebook's input folder is."""
    files = snapshot(paths.data("toy"))
    small = disk(paths.data("toy"))
    for name, content in files.items():
        (small.folder / name).write_bytes(content)
    small.make_read_only()
    assert [run_command("make_folds")[0], run_command("train", "--run", words)[0], run_command("blend")[0]] == [0, 0, 0]
