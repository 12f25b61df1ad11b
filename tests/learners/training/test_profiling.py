import gzip
import json
import time

import pytest
import torch
from toy_corpus import fold_rows, make_corpus

from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.training.profiling import TRACE, Shares, Spans, profile_fold
from foldblend.settings.nets import ModelSettings, TrainingSettings
from foldblend.settings.run import RunSettings


def test_inner_spans_are_not_counted_twice(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("foldblend.learners.training.profiling.time.perf_counter", lambda: clock[0])
    spans = Spans()

    def work(seconds):
        clock[0] += seconds

    with spans.span("outer"):
        work(1)
        with spans.span("inner"):
            work(10)
        work(2)
    work(50)
    with spans.span("inner"):
        work(5)
    assert spans.seconds == {"outer": 3, "inner": 15}


def test_shares_add_up():
    seconds, times = {"start-up": 2.0, "forward": 0.5}, {"start-up": 1.0, "forward": 6.0}
    shares = Shares(seconds, times, 1_000_000_000, 4_000_000_000, 100)
    assert shares.fold_seconds == 5.0
    assert "| forward | 0.50000 | 6 | 3.0 | 60.0% |" in shares.table() and "20.0 rows/s" in shares.table()
    plan = shares.plan(n_folds=7200, price_per_hour=2.0)
    assert "33 rows/s" in plan and "6.0 h one after the other" in plan  # one start, then 3 s a fold
    assert "1.0 of 4.0 GB" in plan and "12.00 at 2 an hour" in plan
    assert "money" not in shares.plan(5, price_per_hour=0.0)


@pytest.fixture
def run(tiny_bert, fresh_accelerate):
    training = TrainingSettings(epochs=2, global_batch_size=4, micro_batch_size=2, precision="fp32")
    return RunSettings("encoder", model=ModelSettings(name=str(tiny_bert)), training=training)


def test_every_part_of_a_fold_is_timed_and_nothing_is_left_behind(run, tmp_path):
    corpus = make_corpus(n=200)
    rows = fold_rows(corpus, tmp_path / "fold")
    learner = EncoderLearner(run, corpus)
    shares = profile_fold(learner, rows, tmp_path / "profile")
    assert list(shares.seconds) == [
        *("start-up", "tokens, weights, model", "input", "forward", "backward", "optimiser"),
        *("clipping, seeds, loss shown", "evaluation", "prediction", "checkpointing"),
    ]
    assert all(value > 0 for value in shares.seconds.values())
    n_steps = 2 * -(-len(rows.train) // 4)
    assert shares.times["forward"] == n_steps and shares.times["evaluation"] == len(rows.heldout)
    assert shares.times["prediction"] == len(rows.heldout) + len(corpus.test_rows)
    assert shares.n_rows == 2 * len(rows.train)
    with gzip.open(tmp_path / "profile" / TRACE) as file:
        assert any("addmm" in event.get("name", "") for event in json.load(file)["traceEvents"])
    assert sorted(path.name for path in (tmp_path / "profile").iterdir()) == ["operators.txt", TRACE]
    assert not rows.checkpoint_dir.exists() and "backward" not in vars(learner.accelerator)


def test_the_optimisers_own_step_is_what_its_row_times(run, tmp_path, monkeypatch):
    def slow_step(self, closure=None):
        time.sleep(0.05)

    monkeypatch.setattr(torch.optim.AdamW, "step", slow_step)
    monkeypatch.setattr("foldblend.learners.training.checks.MovementWatch.after_step", lambda *_: None)
    corpus = make_corpus(n=200)
    learner = EncoderLearner(run, corpus)
    seconds = profile_fold(learner, fold_rows(corpus, tmp_path / "fold"), tmp_path / "profile").seconds
    assert seconds["optimiser"] >= 0.05


def test_a_fold_of_few_rows_is_timed_over_several_epochs(run, tmp_path):
    corpus = make_corpus(n=100)
    rows = fold_rows(corpus, tmp_path, 60)
    shares = profile_fold(EncoderLearner(run, corpus), rows, None)
    assert shares.n_rows == 2 * len(rows.train) and shares.seconds["forward"] > 0
