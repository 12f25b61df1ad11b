"""A fold's history: every reading and every evaluation once, however often the training was killed."""

from dataclasses import replace

import pytest
from toy_corpus import fold_rows, make_corpus

from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.training import loop
from foldblend.ledger.history import FoldHistory, read_history
from foldblend.settings.nets import ModelSettings, OptimizerSettings, TrainingSettings
from foldblend.settings.run import RunSettings


@pytest.fixture
def run(tiny_bert):
    training = TrainingSettings(
        epochs=2, global_batch_size=8, precision="fp32", evaluations_per_epoch=2, collapse_check_after_steps=0,
        checkpoint_every_minutes=0.0005,
    )  # fmt: skip
    optimizer = OptimizerSettings(lr=2e-3, head_lr=2e-2)
    return RunSettings("encoder", model=ModelSettings(name=str(tiny_bert)), training=training, optimizer=optimizer)


@pytest.fixture
def corpus():
    return make_corpus(n=160)


def train_noted(run, corpus, folder):
    """Train fold 0 of the toy corpus and return what its history says."""
    history = FoldHistory(folder / "fold0.history.jsonl")
    EncoderLearner(run, corpus).train_fold(replace(fold_rows(corpus, folder, 40), history=history))
    return read_history(history.path)


def steps(entries, key):
    return [entry["step"] for entry in entries if key in entry]


@pytest.mark.usefixtures("fresh_accelerate")
def test_a_history_has_every_reading_and_evaluation(run, corpus, tmp_path):
    entries = train_noted(run, corpus, tmp_path)
    assert steps(entries, "loss") == [10, 20, 30]  # 15 steps per epoch; the loss is read every ten
    assert steps(entries, "heldout_macro_f1") == [8, 15, 23]
    assert steps(entries, "final_macro_f1") == [30]
    assert {entry["steps"] for entry in entries} == {30}
    read = next(entry for entry in entries if entry["step"] == 20)
    assert read["epoch"] == pytest.approx(20 / 15, abs=1e-4)
    assert read["rows"] == 160
    assert 0 < read["loss"] < 5
    assert read["grad_norm"] > 0
    assert 0 < read["lr"] <= run.optimizer.lr
    assert entries[-1]["rows"] == 240
    assert all(entry["rows_per_s"] is None or entry["rows_per_s"] > 0 for entry in entries)
    seconds = [entry["seconds"] for entry in entries]
    assert seconds == sorted(seconds)


@pytest.mark.usefixtures("fresh_accelerate")
@pytest.mark.parametrize("killed_at", [(4,), (8, 9), (14, 15, 29), (10, 20, 30)])
def test_a_killed_and_resumed_training_has_no_gap_and_no_double(run, corpus, tmp_path, monkeypatch, killed_at):
    whole = train_noted(run, corpus, tmp_path / "whole")
    take_step, taken = loop.take_step, 0

    def killed(*arguments):
        nonlocal taken
        taken += 1
        if taken in killed_at:
            raise KeyboardInterrupt
        take_step(*arguments)

    monkeypatch.setattr(loop, "take_step", killed)
    for _ in killed_at:
        with pytest.raises(KeyboardInterrupt):
            train_noted(run, corpus, tmp_path / "killed")
    resumed = train_noted(run, corpus, tmp_path / "killed")
    kinds = ("loss", "heldout_loss", "final_macro_f1")
    assert [steps(resumed, kind) for kind in kinds] == [steps(whole, kind) for kind in kinds]
    assert resumed[-1]["final_macro_f1"] == whole[-1]["final_macro_f1"]


@pytest.mark.usefixtures("fresh_accelerate")
def test_a_finished_training_that_only_predicts_again_keeps_its_history(run, corpus, tmp_path):
    first = train_noted(run, corpus, tmp_path)
    assert train_noted(run, corpus, tmp_path) == first


def test_lines_after_the_checkpoint_and_a_torn_one_are_dropped(tmp_path):
    history = FoldHistory(tmp_path / "run" / "fold0.history.jsonl")
    history.start(0)
    for step in (10, 20, 30):
        history.add({"step": step, "rows": 8 * step, "seconds": step / 10, "loss": 1 / step})
    with history.path.open("a") as file:
        file.write('{"step": 40, "rows"')
    again = FoldHistory(history.path)
    again.start(20)
    again.add({"step": 30, "rows": 240, "seconds": 3.5, "loss": 0.5})
    entries = read_history(history.path)
    assert [(entry["step"], entry["rows_per_s"]) for entry in entries] == [(10, 80.0), (20, 80.0), (30, 53.3)]
    assert entries[-1]["loss"] == 0.5


def test_a_history_of_nothing_is_empty(tmp_path):
    assert read_history(tmp_path / "fold0.history.jsonl") == []
