"""Competition `emo`, which is emo-2024 on a Kaggle of our own, and the command as it is run on it."""

import time
from pathlib import Path

import pytest
from kaggle_server import SLUG, serving

from foldblend.commands import guard, submit
from foldblend.kaggle import client as kaggle_waiting
from foldblend.ledger.submissions import write_submission

PROJECT = Path(__file__).resolve().parents[1]
N_TEST = 20
TRUTH = {f"t{k}": [int(k % 2 == 0), int(k % 3 == 0)] for k in range(N_TEST)}


@pytest.fixture
def kaggle(paths, tmp_path, monkeypatch):
    """Competition `emo`, which is emo-2024 on Kaggle, with its files here."""
    monkeypatch.setattr(kaggle_waiting, "POLL_SECONDS", 0.01)
    settings = f"id_column: id\nfiles: {{source: kaggle, kaggle: {SLUG}}}\n"
    (paths.configs / "competitions" / "emo.yaml").write_text(settings)
    paths.data("emo").mkdir(parents=True)
    for name, rows in tables().items():
        (paths.data("emo") / name).write_text("\n".join(rows) + "\n")
    with serving(TRUTH, monkeypatch, tmp_path / "home") as server:
        yield server


def tables():
    train = [f"r{k},words number {k * k},{k % 2},{k % 3 % 2}" for k in range(30)]
    return {
        "train.csv": ["id,text,joy,fear", *train],
        "test.csv": ["id,text", *(f"{name},new {name}" for name in TRUTH)],
        "sample_submission.csv": ["id,joy,fear", *(f"{name},0,0" for name in TRUTH)],
    }


def answer(wrong):
    """A CSV that is wrong in so many rows."""
    rows = [(name, 1 - row[0] if k < wrong else row[0], row[1]) for k, (name, row) in enumerate(TRUTH.items())]
    return ("id,joy,fear\n" + "".join(f"{name},{a},{b}\n" for name, a, b in rows)).encode()


def write(paths, name="blend-1", wrong=2, cross_fitted=0.8):
    account = {
        "metric": "macro_f1", "in_sample": cross_fitted + 0.02, "cross_fitted": cross_fitted,
        "expected_fold_mean": {"score": cross_fitted + 0.01, "low": cross_fitted - 0.04, "high": cross_fitted + 0.06},
    }  # fmt: skip
    return write_submission(paths, "emo", name, answer(wrong), {"competition": "emo", "report": account})


def run(*flags) -> int:
    return guard(lambda: submit.main(["--competition", "emo", *flags]))


def wait_until(is_so, seconds=60):
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)
