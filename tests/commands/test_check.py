"""check.py reads everything, writes nothing, and names each file that is not what its record says."""

import json
import shutil

import pytest
from trained_blend import blend_once

from foldblend.commands import bundle, check, guard, train
from foldblend.ledger.submissions import LogEntry, change_log, utc_now

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def project(paths, toy_competition, kept):
    """Two runs, their blend, its bundle, one submitted file."""
    blended = blend_once(paths, kept, ("words", "ratios"))
    bundle.main(["--competition", "toy", "--owner", "anna", "--no_wheels"])
    record = json.loads(blended.with_suffix(".json").read_text())
    scores = dict.fromkeys(("in_sample", "cross_fitted", "expected", "public_score", "private_score"))
    name = f"submissions/toy/{blended.stem}.csv"
    entry = LogEntry(utc_now(), "toy", name, record["csv_sha256"], 7, "complete", **scores, message="")
    change_log(paths, lambda _: [entry])
    return blended.stem


def run(*flags):
    return guard(lambda: check.main(list(flags)))


def everything(root):
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns) if path.is_file() else path.stat().st_mtime_ns
        for path in root.rglob("*")
    }


def test_a_whole_project_is_all_right_and_untouched(paths, project, capsys):
    before = everything(paths.root)
    assert run() == 0 and run("--competition", "toy") == 0
    shown = capsys.readouterr()
    assert "all competitions" in shown.out and ": 0 missing, 0 damaged, 0 orphaned\n" in shown.out and not shown.err
    assert everything(paths.root) == before


FAULTS = [
    ("folds/toy.csv", "damaged", "not the file that toy.json describes"),
    ("folds/toy.json", "damaged", "not readable as JSON"),
    ("oof/toy/words/fold1.npz", "damaged", "its sha256 begins"),
    ("oof/toy/words/fold1.json", "damaged", "not readable as JSON"),
    ("checkpoints/toy/words/fold2/weights.safetensors", "damaged", "oof/toy/words/fold2.json says"),
    ("submissions/toy/NAME.csv", "damaged", "its sha256 begins"),
    ("submissions/toy/NAME.json", "damaged", "not readable as JSON"),
    ("submissions/log.csv", "damaged", "expected"),
    ("bundle/toy/NAME/dataset/folds/toy.csv", "damaged", "bundle.json says"),
    ("bundle/toy/NAME/dataset/bundle.json", "damaged", "Extra data"),
]


@pytest.mark.parametrize("name, kind, words", FAULTS, ids=[name for name, _, _ in FAULTS])
def test_each_damaged_file_is_named(paths, project, capsys, name, kind, words):
    path = paths.root / name.replace("NAME", project)
    path.write_bytes(path.read_bytes() + b"x")
    assert run() == 8
    shown = capsys.readouterr()
    lines = [line for line in shown.out.splitlines() if line.startswith(f"{kind}: {path.relative_to(paths.root)}: ")]
    assert lines and words in lines[0] and "Nothing was changed" in shown.err


@pytest.mark.parametrize("name, status", [
    ("folds/toy.csv", 4), ("oof/toy/words/fold0.npz", 4), ("checkpoints/toy/words/fold0/weights.safetensors", 4),
    ("bundle/toy/NAME/dataset/folds/toy.csv", 4), ("bundle/toy/NAME/dataset/bundle.json", 4), ("folds/toy.json", 16),
    ("oof/toy/words/fold0.json", 16), ("submissions/toy/NAME.csv", 4 + 16),
])  # fmt: skip
def test_a_missing_file_makes_its_record_or_itself_a_finding(paths, project, capsys, name, status):
    (paths.root / name.replace("NAME", project)).unlink()
    assert run() == status
    assert capsys.readouterr().out.count("missing: ") == (status & 4) / 4


def test_strays_and_what_killed_writers_left_are_orphaned(paths, project, capsys):
    (paths.bundle("toy") / project / "dataset" / "stray.txt").write_text("x")
    (paths.oof("toy") / "words" / ".host-1-0a1b2c3d.fold0.npz.tmp").write_text("x")
    assert run() == 16
    assert capsys.readouterr().out.count("orphaned: ") == 2


def test_what_overwrite_sets_aside_is_listed_and_removed(paths, project, capsys):
    weights = paths.checkpoints("toy", "words") / "fold0" / "weights.safetensors"
    old = {path: path.read_bytes() for path in (weights, paths.oof("toy") / "words" / "fold0.npz")}
    train.main(["--competition", "toy", "--run", "words", "--fold", "0", "--overwrite"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--overwrite: what was there before is now in oof/toy/words/.old/" in shown
    for path, data in old.items():
        (kept,) = paths.root.rglob(f".old/*/{'fold0/' if path == weights else ''}{path.name}")
        assert kept.read_bytes() == data
    run()
    assert "2 items set aside in .old/ folders" in capsys.readouterr().out
    assert run("--clean") == 0
    assert capsys.readouterr().out.count("removed ") == 2 and not list(paths.root.rglob(".old"))
    assert run("--clean") == 0 and "nothing was set aside" in capsys.readouterr().out


def test_a_newer_record_is_named(paths, project, capsys):
    path = paths.oof("toy") / "words" / "fold0.json"
    shutil.copy(path, path.with_name("copy"))
    from foldblend.ledger.records import read_record, write_record

    write_record(path, read_record(path) | {"schema_version": 99})
    assert run() == 8
    assert "fold0.json: written by a newer version of Foldblend" in capsys.readouterr().out
