"""Every architecture of configs/runs/, tiny, through the code that loads the real one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_encoders import ARCHITECTURES
from toy_corpus import fold_rows, make_corpus
from transformers import AutoModel, AutoTokenizer

from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.nets.classifier import build_model
from foldblend.learners.processes import devices
from foldblend.learners.training import loop
from foldblend.learners.training.checkpoints import WEIGHTS, load_checkpoint, restore_model
from foldblend.learners.training.loop import build_fold, take_step
from foldblend.learners.training.optimizer import layer_shares
from foldblend.settings.loading import load_run
from foldblend.settings.nets import ModelSettings, OptimizerSettings, TrainingSettings
from foldblend.settings.paths import Paths
from foldblend.settings.run import RunSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

ARCHITECTURE_OF = {
    "dair-distilbert": "distilbert",
    "deberta-v3-base": "deberta-v2",
    "deberta-v3-large": "deberta-v2",
    "distilbert-a2": "distilbert",
    "distilroberta-a3": "roberta",
    "emit-umberto": "camembert",
    "goemotions-distilbert": "distilbert",
    "minilm": "bert",
    "minilm-from-goemotions": "bert",
    "modernbert-base": "modernbert",
    "modernbert-large": "modernbert",
    "movie-tones-roberta": "roberta",
    "roberta-base": "roberta",
    "roberta-base-a1": "roberta",
    "twitter-roberta-base": "roberta",
    "xlm-roberta-base": "xlm-roberta",
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_predicts_alike_alone_and_comes_back_from_its_file(tiny_encoder, tmp_path, architecture):
    """That it learns is shown by test_learning_by_command.py."""
    corpus = make_corpus(n=160)
    run = RunSettings(
        "encoder",
        model=ModelSettings(name=str(tiny_encoder(architecture))),
        training=TrainingSettings(epochs=1, global_batch_size=16, micro_batch_size=16, precision="fp32"),
        optimizer=OptimizerSettings(lr=2e-3, head_lr=2e-2),
    )
    learner, rows = EncoderLearner(run, corpus), fold_rows(corpus, tmp_path, 80)
    got = learner.train_fold(rows)
    stored, _ = load_checkpoint(rows.checkpoint_dir / WEIGHTS, learner.identity(rows))
    model = learner.build_fold_model(rows, seed=99)
    restore_model(model, stored)
    assert np.array_equal(learner.predict(model, rows.heldout), got.oof)
    shortest, longest = np.argsort(learner.tokens.lengths[:80])[[0, -1]]
    assert learner.tokens.lengths[longest] > learner.tokens.lengths[shortest]
    with torch.inference_mode():
        alone = model.eval()(**learner.tokens.batch(np.array([shortest])))
        together = model(**learner.tokens.batch(np.array([longest, shortest])))[1:]
    assert torch.allclose(alone, together, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("pooling", ["concat_last", "attention"])
def test_checkpointed_gradients_are_the_same_and_reach_every_parameter(tiny_encoder, tmp_path, architecture, pooling):
    """Dropout included: what it drew is drawn again in the backward pass."""
    corpus, gradients = make_corpus(), []
    model = ModelSettings(str(tiny_encoder(architecture)), pooling=pooling)
    if pooling == "concat_last":
        model = replace(model, concat_layers=2)
    for checkpointed in (False, True):
        training = TrainingSettings(global_batch_size=8, gradient_checkpointing=checkpointed, precision="fp32")
        run = RunSettings("encoder", model=model, training=training)
        learner = EncoderLearner(run, corpus)
        fold, state = build_fold(learner, fold_rows(corpus, tmp_path))
        fold.optimizer.step = fold.optimizer.zero_grad = lambda *_, **__: None
        assert any(getattr(m, "gradient_checkpointing", False) for m in fold.model.modules()) == checkpointed
        take_step(learner, fold, state, fold.rows.train[:8])
        gradients.append({name: parameter.grad for name, parameter in fold.model.named_parameters()})
    plain, again = gradients
    assert [name for name, gradient in plain.items() if gradient is None] == []
    assert all(torch.equal(gradient, again[name]) for name, gradient in plain.items())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_are_found_and_embeddings_learn_slowest(tiny_encoder, architecture):
    model = build_model(tiny_encoder(architecture), ModelSettings(), None, 3, seed=0)
    shares = layer_shares(model, 0.5)
    known = {name: shares.get(name, 1.0) for name, _ in model.named_parameters()}
    assert known[next(name for name in known if "word_embed" in name or "tok_embed" in name)] == 0.25
    assert {share for name, share in known.items() if "embed" in name} == {0.25}
    by_layer = {i: {s for n, s in known.items() if f"layer.{i}." in n or f"layers.{i}." in n} for i in (0, 1)}
    assert by_layer == {0: {0.5}, 1: {1.0}}
    assert {known["head.weight"], known["head.bias"]} == {1.0}


def test_deberta_attends_eagerly_and_stays_out_of_fp16(tiny_encoder, monkeypatch):
    """On a GPU that computes no bf16 `auto` would mean fp16."""
    assert AutoModel.from_pretrained(tiny_encoder("deberta-v2")).config._attn_implementation == "eager"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    gpu = torch.device("cuda")
    assert [devices.choose_precision("auto", gpu, name) for name in ("deberta-v2", "roberta")] == ["no", "fp16"]


def test_every_encoder_run_is_tried_here(paths):
    names = {path.stem for path in (paths.configs / "runs").rglob("*.yaml")}
    assert {name for name in names if load_run(paths, name).learner == "encoder"} == set(ARCHITECTURE_OF)


@pytest.mark.parametrize("name", sorted(ARCHITECTURE_OF))
def test_each_run_takes_two_steps_and_predicts(paths: Paths, tiny_encoder, tmp_path, name):
    task = "multiclass" if name == "dair-distilbert" else "multilabel"
    corpus = make_corpus(n=24 + 16, task=task)
    run = load_run(paths, name)
    run = replace(
        run,
        model=replace(run.model, name=str(tiny_encoder(ARCHITECTURE_OF[name])), max_length_tokens=64, start_from=""),
        training=replace(run.training, epochs=1, global_batch_size=12, micro_batch_size=6),
        optimizer=replace(run.optimizer, warmup_steps=min(run.optimizer.warmup_steps, 1)),
        augmentation=replace(run.augmentation, oversample_k_rarest=min(run.augmentation.oversample_k_rarest, 1)),
    )
    learner, rows = EncoderLearner(run, corpus), fold_rows(corpus, tmp_path, 16)
    fold, state = build_fold(learner, rows)
    before = {key: value.clone() for key, value in fold.model.state_dict().items()}
    loop.train(learner, fold, state)
    assert state.epoch == 1
    still = [key for key, value in fold.model.state_dict().items() if torch.equal(value, before[key])]
    assert [key for key in still if key in dict(fold.model.named_parameters())] == []
    logits = learner.predict(fold.model, rows.heldout)
    assert logits.shape == (16, 3) and np.isfinite(logits).all()


def test_the_run_that_collapses_is_stopped_inside_its_own_length(paths, tiny_encoder, tmp_path):
    """2,000 rows are 200 steps; the weights here are smaller than roberta-base's by more than the rate is larger."""
    run = load_run(paths, "roberta-base-a1")
    steps = run.training.epochs * 2000 * 4 // 5 // run.training.global_batch_size
    assert run.training.collapse_check_after_steps < steps == 200
    corpus = make_corpus(n=400)
    run = replace(
        run,
        model=replace(run.model, name=str(tiny_encoder("roberta"))),
        training=replace(run.training, epochs=8, precision="fp32"),
        optimizer=replace(run.optimizer, lr=0.5, head_lr=0.5),
    )
    with pytest.raises(ValueError, match=r"collapsed to a constant: at step \d+ .* Try a lower --optimizer.lr"):
        EncoderLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path, 80))


@pytest.mark.parametrize("architecture", ["deberta-v2", "xlm-roberta", "camembert"])
def test_a_tokenizer_that_is_a_sentencepiece_file_alone_is_read(tiny_encoder, architecture):
    assert not (tiny_encoder(architecture) / "tokenizer.json").exists()
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder(architecture))
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("it was happy")["input_ids"])
    assert pieces[1:-1] == ["▁it", "▁was", "▁happy"] and pieces[0] == tokenizer.cls_token
