import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from toy_corpus import fold_rows, make_corpus

from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.nets.folders import OWN_MODEL
from foldblend.learners.table import score_heldout
from foldblend.learners.training import loop
from foldblend.learners.training.checkpoints import BY_HELDOUT, CHECKPOINT, WEIGHTS, add_to_mean, choose, may_be_chosen
from foldblend.learners.training.loop import evaluation_steps
from foldblend.settings.nets import ModelSettings, OptimizerSettings, TrainingSettings
from foldblend.settings.run import RunSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
F1 = "macro_f1"
EVERY = ("last", *BY_HELDOUT, "average_last")


def evaluations(*pairs):
    return [{"loss": loss, "macro_f1": score} for loss, score in pairs]


def test_what_each_way_takes():
    seen = evaluations((0.30, 0.50), (0.25, 0.55), (0.254, 0.56), (0.29, 0.60))
    assert [choose(seen, how, 0.02, F1) for how in BY_HELDOUT] == [3, 1, 2]
    assert choose(seen, "loss_and_score", 0.0, F1) == 1 and choose(seen, "loss_and_score", 1.0, F1) == 3
    assert choose(evaluations((0.3, 0.5), (0.2, 0.5)), "best_score", 0, F1) == 1  # of equal scores the lower loss
    assert choose(evaluations((0.2, 0.5), (0.2, 0.6)), "lowest_loss", 0, F1) == 1
    assert [choose(evaluations((0.2, 0.5), (0.2, 0.5)), how, 0, F1) for how in BY_HELDOUT] == [0, 0, 0]


@pytest.mark.parametrize("metric, taken", [("macro_auc", 0), ("weighted_f1", 1), ("log_loss", 2), ("macro_f1", 3)])
def test_the_best_score_is_the_competitions(metric, taken):
    """Each is best at another look; of log loss the least is."""
    seen = [{"loss": 0.3, "macro_auc": 0.5, "weighted_f1": 0.5, "log_loss": 0.5, "macro_f1": 0.5} for _ in range(4)]
    seen[0]["macro_auc"], seen[1]["weighted_f1"], seen[2]["log_loss"], seen[3]["macro_f1"] = 0.6, 0.6, 0.4, 0.6
    for how in ("best_score", "loss_and_score"):
        assert choose(seen, how, 0.02, metric) == taken and taken in may_be_chosen(seen, how, 0.02, metric)
    assert choose(seen, "lowest_loss", 0.02, metric) == taken  # of equal losses


COARSE = st.tuples(st.integers(1, 6).map(lambda n: n / 10), st.integers(1, 4).map(lambda n: n / 5))


@given(st.lists(COARSE, min_size=1, max_size=8), st.sampled_from(BY_HELDOUT), st.sampled_from([0.0, 0.3, 1.0]))
def test_no_kept_candidate_is_lost_or_without_hope(pairs, how, near):
    """What is taken in the end was in play all along, and for each one in play there is an end in which it is taken."""
    seen = evaluations(*pairs)
    taken = choose(seen, how, near, F1)
    for end in range(taken + 1, len(seen) + 1):
        assert taken in may_be_chosen(seen[:end], how, near, F1)
    for i in may_be_chosen(seen, how, near, F1):
        limit = seen[i]["loss"] / (1 + near)
        ends = [seen, [*seen, {"loss": limit * (1 + 1e-9), "macro_f1": 0.0}]]
        assert any(choose(end, how, near, F1) == i for end in ends)


def test_looks_are_spread_over_the_epoch():
    assert evaluation_steps(10, 4) == {3, 5, 8} and evaluation_steps(10, 1) == set()
    assert evaluation_steps(2, 9) == {1}


def test_the_mean_of_all_is_built_one_by_one():
    values = [{"w": torch.randn(3), "n": torch.tensor(i)} for i in range(5)]
    mean = values[0]
    for n, new in enumerate(values[1:], 2):
        mean = add_to_mean(mean, new, n)
    assert torch.allclose(mean["w"], torch.stack([each["w"] for each in values]).mean(0)) and mean["n"] == 4


@pytest.fixture
def run(tiny_bert):
    training = TrainingSettings(epochs=4, global_batch_size=20, micro_batch_size=20, precision="fp32")
    optimizer = OptimizerSettings(lr=2e-2, head_lr=2e-2)  # so fast that the last epoch is not the best one
    return RunSettings("encoder", model=ModelSettings(name=str(tiny_bert)), training=training, optimizer=optimizer)


def selecting(run, how, **more):
    return replace(run, training=replace(run.training, selection=how, **more))


def watch(monkeypatch):
    """Weights and logits at each look, and the files that lie there after each save."""
    seen, files, measure, save = [], [], loop.measure, loop.save

    def note(learner, fold):
        weights = {name: value.detach().clone() for name, value in fold.model.state_dict().items()}
        seen.append((weights, learner.predict(fold.model, fold.rows.heldout)))
        return measure(learner, fold)

    def list_files(fold, state):
        save(fold, state)
        files.append(sorted(os.listdir(fold.rows.checkpoint_dir)))

    monkeypatch.setattr(loop, "measure", note)
    monkeypatch.setattr(loop, "save", list_files)
    return seen, files


@pytest.mark.parametrize("how, metric", [*((how, F1) for how in BY_HELDOUT), ("best_score", "log_loss")])
def test_the_chosen_weights_predict_and_stay(run, tmp_path, monkeypatch, capsys, how, metric):
    corpus, rows = replace(make_corpus(), metric=metric), fold_rows(make_corpus(), tmp_path)
    seen, files = watch(monkeypatch)
    got = EncoderLearner(selecting(run, how, evaluations_per_epoch=2), corpus).train_fold(rows)
    labels, rates = corpus.labels[rows.heldout], corpus.labels[rows.train].mean(0)
    z = [logits.astype(np.float64) for _, logits in seen]
    losses = [float(np.mean(np.logaddexp(0, logits) - labels * logits)) for logits in z]
    scores = [score_heldout(logits, labels, rates, "multilabel", metric)[metric] for _, logits in seen]
    scores = [-score for score in scores] if metric == "log_loss" else scores
    assert len(seen) == 8 and f", {metric} " in capsys.readouterr().err and set(got.score) == {F1, metric}
    near = [i for i in range(8) if how == "best_score" or losses[i] <= min(losses) * 1.02]
    best = int(np.argmin(losses)) if how == "lowest_loss" else min(near, key=lambda i: (-scores[i], losses[i]))
    stored = load_file(rows.checkpoint_dir / WEIGHTS)
    assert all(torch.equal(stored[f"model.{name}"], value) for name, value in seen[best][0].items())
    assert np.array_equal(got.oof, seen[best][1]) and got.selected_on_heldout
    assert sorted(os.listdir(rows.checkpoint_dir)) == [OWN_MODEL, WEIGHTS]
    most = 1 if how != "loss_and_score" else 3
    assert all(1 <= len(there) - there.count(CHECKPOINT) <= most for there in files)


def test_the_last_epochs_are_averaged(run, tmp_path, monkeypatch):
    corpus, rows = make_corpus(), fold_rows(make_corpus(), tmp_path)
    ends, end_epoch = [], loop.end_epoch

    def note(learner, fold, *more):
        ends.append({name: value.detach().clone() for name, value in fold.model.state_dict().items()})
        end_epoch(learner, fold, *more)

    monkeypatch.setattr(loop, "end_epoch", note)
    got = EncoderLearner(selecting(run, "average_last", average_last_epochs=3), corpus).train_fold(rows)
    stored = load_file(rows.checkpoint_dir / WEIGHTS)
    for name in ("head.weight", "encoder.embeddings.word_embeddings.weight"):
        assert torch.allclose(stored[f"model.{name}"], torch.stack([e[name] for e in ends[1:]]).mean(0), atol=1e-6)
    assert not got.selected_on_heldout and sorted(os.listdir(rows.checkpoint_dir)) == [OWN_MODEL, WEIGHTS]


def test_last_is_what_it_was_and_looks_at_nothing(run, tmp_path):
    corpus = make_corpus()
    plain = EncoderLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path / "a"))
    often = EncoderLearner(selecting(run, "last", evaluations_per_epoch=3), corpus)
    shown = often.train_fold(fold_rows(corpus, tmp_path / "b"))
    assert np.array_equal(plain.oof, shown.oof) and not plain.selected_on_heldout
    relabelled = replace(corpus, labels=corpus.labels.copy())
    relabelled.labels[:60] ^= True
    other = EncoderLearner(run, relabelled).train_fold(fold_rows(corpus, tmp_path / "c"))
    assert np.array_equal(plain.oof, other.oof)


@pytest.mark.parametrize("how", EVERY)
def test_killed_anywhere_it_ends_bit_for_bit_the_same(run, tmp_path, monkeypatch, how):
    """Between any two writes or removals of files."""
    corpus = make_corpus(n=100)
    run = selecting(run, how, evaluations_per_epoch=2, ema_decay=0.5, epochs=3, average_last_epochs=2)
    whole = EncoderLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path / "whole"))
    left = (tmp_path / "whole" / "fold0" / WEIGHTS).read_bytes()
    for n_writes in range(1, 11, 3 if how in ("last", "best_score") else 2):
        rows = fold_rows(corpus, tmp_path / str(n_writes))
        with monkeypatch.context() as patch:
            die_after(patch, n_writes)
            with pytest.raises(RuntimeError, match="killed"):
                EncoderLearner(run, corpus).train_fold(rows)
        again = EncoderLearner(run, corpus).train_fold(rows)
        assert np.array_equal(again.oof, whole.oof) and np.array_equal(again.test, whole.test)
        assert sorted(os.listdir(rows.checkpoint_dir)) == [OWN_MODEL, WEIGHTS]
        assert len((rows.checkpoint_dir / WEIGHTS).read_bytes()) == pytest.approx(len(left), abs=100)  # seconds differ


def die_after(patch, n_writes):
    """Die instead of the next change of the folder's files after n of them."""
    import foldblend.learners.training.checkpoints as selection
    import foldblend.learners.training.checkpoints as store

    count = {"left": n_writes}

    def mortal(change):
        def wrapped(*args):
            if not count["left"]:
                raise RuntimeError("killed")
            count["left"] -= 1
            return change(*args)

        return wrapped

    write = mortal(store.save_checkpoint)
    patch.setattr(store, "save_checkpoint", write)
    patch.setattr(selection, "save_checkpoint", write)
    patch.setattr(selection.Selection, "drop_all_but", mortal(selection.Selection.drop_all_but))


def test_a_candidate_that_is_gone_is_named(run, tmp_path, monkeypatch):
    corpus, rows = make_corpus(n=100), fold_rows(make_corpus(n=100), tmp_path)
    run = selecting(run, "best_score")
    with monkeypatch.context() as patch:
        die_after(patch, 4)
        with pytest.raises(RuntimeError, match="killed"):
            EncoderLearner(run, corpus).train_fold(rows)
    (gone,) = rows.checkpoint_dir.glob("candidate-*")
    gone.unlink()
    with pytest.raises(ValueError, match=rf"{gone.name} is missing.*rm -r"):
        EncoderLearner(run, corpus).train_fold(rows)


def test_looks_of_another_metric_are_refused(run, tmp_path, monkeypatch):
    corpus, rows = make_corpus(n=100), fold_rows(make_corpus(n=100), tmp_path)
    with monkeypatch.context() as patch:
        die_after(patch, 4)
        with pytest.raises(RuntimeError, match="killed"):
            EncoderLearner(selecting(run, "best_score"), corpus).train_fold(rows)
    with pytest.raises(ValueError, match="evaluations have no macro_auc.*rm -r"):
        EncoderLearner(selecting(run, "best_score"), replace(corpus, metric="macro_auc")).train_fold(rows)


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match="average_last_epochs is 3, training.epochs is 2"):
        RunSettings("encoder", training=TrainingSettings(selection="average_last", average_last_epochs=3))
    with pytest.raises(ValueError, match="loss_tolerance is -0.1"):
        RunSettings("encoder", training=TrainingSettings(loss_tolerance=-0.1))
    with pytest.raises(
        ValueError, match="loss_tolerance is set, but training.selection is lowest_loss; only loss_and_s"
    ):
        RunSettings("encoder", training=TrainingSettings(selection="lowest_loss", loss_tolerance=0.1))
    with pytest.raises(ValueError, match="average_last_epochs is set, but training.selection is last; only av"):
        RunSettings("encoder", training=TrainingSettings(epochs=5, average_last_epochs=3))
