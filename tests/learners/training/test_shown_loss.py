"""What is said of the loss before its first reading, and of the time of a resumed fold (case loss_shown_as_zero)."""

import re

import pytest
from toy_corpus import fold_rows, make_corpus

from foldblend.console import Progress, bar_line
from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.training import loop
from foldblend.settings.nets import ModelSettings, OptimizerSettings, TrainingSettings
from foldblend.settings.run import RunSettings


@pytest.fixture
def run(tiny_bert):
    return RunSettings(
        "encoder",
        model=ModelSettings(name=str(tiny_bert)),
        training=TrainingSettings(epochs=2, global_batch_size=16, precision="fp32", collapse_check_after_steps=0),
        optimizer=OptimizerSettings(lr=2e-3, head_lr=2e-2),
    )


@pytest.mark.usefixtures("fresh_accelerate")
def test_an_epoch_shorter_than_a_reading_shows_its_own_loss(run, tmp_path, capsys):
    corpus = make_corpus(n=80)  # four steps per epoch; the loss is read every ten
    EncoderLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path, 20))
    (shown,) = re.findall(r"epoch 1: loss (\S+),", capsys.readouterr().err)
    assert 0.05 < float(shown) < 5


@pytest.mark.usefixtures("fresh_accelerate")
def test_an_evaluation_before_any_step_of_this_start_says_so(run, tmp_path, capsys, monkeypatch):
    """Saved after an epoch's last step, killed before its evaluation."""
    corpus = make_corpus(n=80)
    rows = fold_rows(corpus, tmp_path, 20)

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "end_epoch", killed)
    learner = EncoderLearner(run, corpus)
    fold, state = loop.build_fold(learner, rows)
    with pytest.raises(KeyboardInterrupt):
        loop.train(learner, fold, state)
    assert state.step == fold.steps_of_epochs[0]
    loop.save(fold, state)
    monkeypatch.undo()
    capsys.readouterr()
    got = EncoderLearner(run, corpus).train_fold(rows)
    said = capsys.readouterr().err
    assert "epoch 1: loss not known yet, held-out" in said
    assert re.search(r"goes on from epoch 1, step 4; \d+:\d\d were spent on it so far", said)
    assert got.earlier_seconds > 0


def test_the_time_left_is_unknown_before_a_row_is_done():
    assert bar_line("fold 0", 0, 100, "epoch 1/2", None, 79).endswith("epoch 1/2  time left not known yet")
    resumed = Progress("fold 0", 100, done_rows=40, shown=False)
    assert resumed._left(resumed.started + 5) is None
