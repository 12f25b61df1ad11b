"""Faults of saving and of padding, put into trained folds."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_corpus import fold_rows, make_corpus

from foldblend.learners.answering.answers import AnswerModel
from foldblend.learners.decoder import DecoderClassifier, DecoderLearner
from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.generator import GeneratorLearner
from foldblend.learners.nets.classifier import TextClassifier
from foldblend.learners.training import checkpoints as fold_store
from foldblend.learners.training import checks as end_gates
from foldblend.learners.training.loop import build_fold
from foldblend.learners.training.predicting import predict_logits
from foldblend.settings.nets import (
    AdapterSettings,
    AnswerSettings,
    ModelSettings,
    OptimizerSettings,
    PromptSettings,
    TrainingSettings,
)
from foldblend.settings.run import RunSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
TRAINING = TrainingSettings(epochs=1, global_batch_size=16, micro_batch_size=16, precision="fp32")
OPTIMIZER = OptimizerSettings(lr=5e-3, head_lr=5e-3)


@pytest.fixture
def run(tiny_bert):
    return RunSettings("encoder", model=ModelSettings(name=str(tiny_bert)), training=TRAINING, optimizer=OPTIMIZER)


@pytest.fixture
def decoder_run(tiny_decoder):
    model, adapter = ModelSettings(name=str(tiny_decoder("llama")), pooling="last"), AdapterSettings(rank=4)
    return RunSettings("decoder", model=model, training=TRAINING, optimizer=OPTIMIZER, adapter=adapter)


def in_precision(run, precision):
    return replace(run, training=replace(run.training, precision=precision))


def train(learner, tmp_path, n=100):
    return learner(make_corpus(n)).train_fold(fold_rows(make_corpus(n), tmp_path, 40))


def test_what_the_file_does_not_hold_is_found_at_the_end(run, tmp_path, monkeypatch):
    """Something drawn with the head that is no parameter of the model: what loads the file draws another one."""
    build, read = EncoderLearner.build_fold_model, TextClassifier.read_labels

    def with_secret(self, rows, seed):
        model = build(self, rows, seed)
        model.secret = (seed % 7 + 1) / 10
        return model

    monkeypatch.setattr(EncoderLearner, "build_fold_model", with_secret)
    monkeypatch.setattr(TextClassifier, "read_labels", lambda self, *given: read(self, *given) + self.secret)
    with pytest.raises(ValueError, match="after saving and reloading: .* over 4 held-out rows, .*expected in fp32"):
        train(lambda corpus: EncoderLearner(run, corpus), tmp_path)


def test_a_stale_part_of_the_file_is_found_at_the_end(decoder_run, tmp_path, monkeypatch):
    """On a base shared by the folds."""
    save = fold_store.model_tensors
    stale = lambda model: {k: torch.zeros_like(v) if "lora_B" in k else v for k, v in save(model).items()}  # noqa: E731
    monkeypatch.setattr(fold_store, "model_tensors", stale)
    with pytest.raises(ValueError, match="predicted after saving and reloading: .* over 4 held-out rows"):
        train(lambda corpus: DecoderLearner(decoder_run, corpus), tmp_path)


def test_a_name_that_is_not_saved_is_refused_at_the_end(decoder_run, tmp_path, monkeypatch):
    save = fold_store.model_tensors
    monkeypatch.setattr(
        fold_store, "model_tensors", lambda model: {k: v for k, v in save(model).items() if "head" not in k}
    )
    with pytest.raises(ValueError, match=r"do not fit the model: missing \['head.weight', 'head.bias'\]"):
        train(lambda corpus: DecoderLearner(decoder_run, corpus), tmp_path)


def put_fault(monkeypatch, model_class, fault):
    """Padding that reaches the logits of a classifier, or of a generator's labels."""
    forward = model_class.forward

    def faulty(self, input_ids, attention_mask, **answers):
        if fault == "mask":
            return forward(self, input_ids, torch.ones_like(attention_mask), **answers)
        if fault == "side":  # pads moved to the front, the mask left where it was
            shifts = (attention_mask == 0).sum(1).tolist()
            input_ids = torch.stack([torch.roll(ids, by) for ids, by in zip(input_ids, shifts)])
            return forward(self, input_ids, attention_mask, **answers)
        return forward(self, input_ids, attention_mask, **answers) + attention_mask.shape[1] / 200

    monkeypatch.setattr(model_class, "forward", faulty)


FOUND_PADDING = r"each alone instead of in a padded batch: .* 4 held-out.*at most 0.00.*fp32.*pad token or padding side"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fault", ["mask", "side", "position"])
def test_padding_that_reaches_an_encoders_prediction_is_found(run, tmp_path, monkeypatch, fault, precision):
    put_fault(monkeypatch, TextClassifier, fault)
    run = replace(in_precision(run, precision), model=replace(run.model, pooling="mean"))
    with pytest.raises(ValueError, match=FOUND_PADDING):
        train(lambda corpus: EncoderLearner(run, corpus), tmp_path)


@pytest.mark.parametrize("fault", ["mask", "side", "position"])
def test_padding_that_reaches_a_decoders_prediction_is_found(decoder_run, tmp_path, monkeypatch, fault):
    put_fault(monkeypatch, DecoderClassifier, fault)
    with pytest.raises(ValueError, match=FOUND_PADDING):
        train(lambda corpus: DecoderLearner(in_precision(decoder_run, "bf16"), corpus), tmp_path)


@pytest.mark.parametrize(
    "form, fault", [("list", "mask"), ("list", "side"), ("yes_no", "mask"), ("yes_no", "position")]
)
def test_padding_that_reaches_a_generators_prediction_is_found(decoder_run, tmp_path, monkeypatch, form, fault):
    put_fault(monkeypatch, AnswerModel, fault)
    run = RunSettings(
        "generator",
        model=ModelSettings(name=decoder_run.model.name),
        training=TRAINING,
        optimizer=OptimizerSettings(lr=5e-3),
        prompt=PromptSettings(template="Text: {text}\nLabels:"),
        answer=AnswerSettings(form),
        adapter=decoder_run.adapter,
    )
    with pytest.raises(ValueError, match=FOUND_PADDING):
        train(lambda corpus: GeneratorLearner(in_precision(run, "bf16"), corpus), tmp_path)


@pytest.mark.parametrize("fault", [None, "mask", "side"])
def test_a_base_held_in_bf16_is_looked_at_in_it(decoder_run, tmp_path, monkeypatch, capsys, fault):
    """As on a GPU that computes in it; rounding passes, a fault is a warning: it may be another kernel."""
    monkeypatch.setattr("foldblend.learners.nets.adapters.choose_base_dtype", lambda *_: torch.bfloat16)
    run = in_precision(decoder_run, "bf16")
    if fault is not None:
        put_fault(monkeypatch, DecoderClassifier, fault)
    found = train(lambda corpus: DecoderLearner(run, corpus), tmp_path)
    shown = " ".join("".join(capsys.readouterr()).split())
    said = re.search("warning: .* each alone instead of in a padded batch: .* 4 held-out.*expected in bf16", shown)
    assert np.isfinite(found.test).all() and bool(said) == (fault is not None)
    assert not said or "The fold is kept" in shown


def test_padding_that_leaves_no_numbers_ends_the_fold_in_any_precision(decoder_run, tmp_path, monkeypatch):
    monkeypatch.setattr("foldblend.learners.nets.adapters.choose_base_dtype", lambda *_: torch.bfloat16)
    forward = DecoderClassifier.forward

    def faulty(self, input_ids, attention_mask, beside=None):
        logits = forward(self, input_ids, attention_mask, beside)
        return logits * np.nan if len(input_ids) == 1 else logits

    monkeypatch.setattr(DecoderClassifier, "forward", faulty)
    with pytest.raises(ValueError, match="each alone instead of in a padded batch: by nan"):
        train(lambda corpus: DecoderLearner(in_precision(decoder_run, "bf16"), corpus), tmp_path)


def test_a_file_a_little_off_is_found_in_bf16(run, tmp_path, monkeypatch):
    save = fold_store.model_tensors
    off = lambda model: {k: v * 1.02 if k == "model.head.weight" else v for k, v in save(model).items()}  # noqa: E731
    monkeypatch.setattr(fold_store, "model_tensors", off)
    with pytest.raises(ValueError, match="predicted after saving and reloading: .* over 4 held-out rows, .*fp32"):
        train(lambda corpus: EncoderLearner(in_precision(run, "bf16"), corpus), tmp_path)


def test_autocast_is_off_inside_and_back_afterwards(run, tmp_path):
    corpus = make_corpus(60)
    learner = EncoderLearner(in_precision(run, "bf16"), corpus)
    (fold, _), rows = build_fold(learner, fold_rows(corpus, tmp_path, 40)), np.arange(8)
    before = learner.predict(fold.model, rows)
    with end_gates.without_autocast(learner.accelerator, fold.model):
        exact = learner.predict(fold.model, rows)
    assert np.array_equal(learner.predict(fold.model, rows), before) and not np.array_equal(exact, before)
    fresh = learner.build_fold_model(fold.rows, fold.seed).to(learner.accelerator.device)  # as Accelerate found it
    expected = predict_logits(learner.accelerator, fresh, learner.tokens, rows, 3)
    assert np.array_equal(exact, expected)


def test_the_gates_leave_the_predictions_as_they_were(decoder_run, run, tmp_path, monkeypatch):
    cases = (("e", EncoderLearner, run), ("d", DecoderLearner, decoder_run))
    for name, learner, settings in ((n, kind, in_precision(s, "bf16")) for n, kind, s in cases):
        gated = train(lambda corpus: learner(settings, corpus), tmp_path / name)  # noqa: B023
        shutil.rmtree(tmp_path / name)
        with monkeypatch.context() as patch:
            patch.setattr("foldblend.learners.training.neural.check_end", lambda *_: None)
            free = train(lambda corpus: learner(settings, corpus), tmp_path / name)  # noqa: B023
        assert np.array_equal(gated.oof, free.oof) and np.array_equal(gated.test, free.test)


def test_wiping_forgets_all_that_was_trained():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).requires_grad_(False))
    kept = model[1].weight.clone()
    end_gates.wipe(model)
    assert not model[0].weight.any() and torch.equal(model[1].weight, kept)
