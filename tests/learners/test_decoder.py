import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_encoder import die, stop_after, with_training
from tiny_chat import make_tokenizer
from tiny_decoders import KINDS, save_tiny_decoder
from toy_corpus import fold_rows, make_corpus

from foldblend.learners.decoder import DecoderLearner, set_pad_token
from foldblend.learners.nets.adapters import SharedBase
from foldblend.learners.nets.folders import NOTE
from foldblend.learners.table import FoldRows
from foldblend.learners.training import loop
from foldblend.learners.training.checkpoints import CHECKPOINT, WEIGHTS, load_checkpoint
from foldblend.learners.training.loop import build_fold, save, take_step
from foldblend.settings.nets import (
    AdapterSettings,
    AugmentationSettings,
    LossSettings,
    ModelSettings,
    OptimizerSettings,
    PromptSettings,
    TrainingSettings,
)
from foldblend.settings.run import RunSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
ADAPTERS = {
    "lora": AdapterSettings(rank=4),
    "dora": AdapterSettings(rank=4, dora=True, rslora=True),
    "pissa": AdapterSettings(rank=4, init="pissa", bias="all"),
    "prefix": AdapterSettings("prefix_tuning", virtual_tokens=4),
    "prompt": AdapterSettings("prompt_tuning", virtual_tokens=4),
    "nf4": AdapterSettings(rank=4, quantization="nf4"),
    "full": AdapterSettings("none"),
}


@pytest.fixture
def run(tiny_decoder):
    return RunSettings(
        "decoder",
        model=ModelSettings(name=str(tiny_decoder("qwen2")), pooling="last"),
        training=TrainingSettings(epochs=2, global_batch_size=16, micro_batch_size=16, precision="fp32"),
        optimizer=OptimizerSettings(lr=5e-3, head_lr=1e-2),
    )


def with_model(run, **changes):
    return replace(run, model=replace(run.model, **changes))


def two_folds(corpus, folder):
    rows = np.arange(len(corpus.labels))
    return [FoldRows(k, rows[rows % 2 != k], rows[rows % 2 == k], folder / f"fold{k}") for k in range(2)]


def logits_of(learner, model, rows):
    model.eval()
    with torch.inference_mode():
        return model(**learner.tokens.batch(rows))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "adapter, pooling", [*((name, "last") for name in ADAPTERS), ("prefix", "mean"), ("lora", "label_attention")]
)
def test_a_row_is_predicted_alike_alone_and_among_longer_ones(run, tiny_decoder, tmp_path, kind, adapter, pooling):
    corpus = make_corpus(n=80)
    run = replace(with_model(run, name=str(tiny_decoder(kind)), pooling=pooling), adapter=ADAPTERS[adapter])
    learner = DecoderLearner(run, corpus)
    model = learner.build_fold_model(fold_rows(corpus, tmp_path, 20), 0)
    rows = np.argsort(learner.tokens.lengths)[[0, -1]]
    assert np.ptp(learner.tokens.lengths[rows]) >= 2
    together = logits_of(learner, model, rows)
    alone = torch.cat([logits_of(learner, model, rows[i : i + 1]) for i in range(2)])
    assert torch.allclose(together, alone, atol=1e-4)
    inputs = learner.tokens.batch(rows)
    inputs["input_ids"][0, learner.tokens.lengths[rows[0]] - 1] = inputs["input_ids"][0, 0]
    with torch.inference_mode():
        assert not torch.allclose(model(**inputs)[0], together[0], atol=1e-3)  # its last token counts


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_two_steps_move_what_is_trained_and_only_that_is_saved(run, tmp_path, adapter):
    corpus = make_corpus()
    learner = DecoderLearner(replace(run, adapter=ADAPTERS[adapter]), corpus)
    fold, state = build_fold(learner, fold_rows(corpus, tmp_path))
    trained = {name for name, p in fold.model.named_parameters() if p.requires_grad}
    before = {name: value.clone() for name, value in fold.model.state_dict().items()}
    for step in range(2):
        state.step = step
        take_step(learner, fold, state, fold.rows.train[step * 32 : step * 32 + 32])
    moved = {name for name, value in fold.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == trained and {"head.weight", "head.bias"} < trained
    save(fold, state)
    tensors, _ = load_checkpoint(fold.rows.checkpoint_dir / CHECKPOINT, learner.identity(fold.rows))
    assert {name.removeprefix("model.") for name in tensors if name.startswith("model.")} == trained


def test_the_base_is_loaded_once_and_folds_are_as_if_alone(run, tmp_path, monkeypatch):
    loads = []
    load = SharedBase._load
    monkeypatch.setattr("foldblend.learners.nets.adapters.SharedBase._load", lambda self: loads.append(1) or load(self))
    corpus = make_corpus(n=80)
    for adapter in ("lora", "pissa"):
        settings = replace(run, adapter=ADAPTERS[adapter])
        learner = DecoderLearner(settings, corpus)
        folds = two_folds(corpus, tmp_path / adapter / "both")
        both = [learner.train_fold(rows) for rows in folds]
        alone = DecoderLearner(settings, corpus).train_fold(two_folds(corpus, tmp_path / adapter / "alone")[1])
        assert np.array_equal(both[1].oof, alone.oof) and np.array_equal(both[1].test, alone.test)
        assert not np.array_equal(both[0].test, both[1].test)
    assert len(loads) == 4


def test_heldout_rows_teach_nothing(run, tmp_path):
    corpus = make_corpus(n=120)
    flipped = replace(corpus, labels=np.concatenate([~corpus.labels[:60], corpus.labels[60:]]))
    run = with_training(run, epochs=1)
    before = DecoderLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path / "a"))
    after = DecoderLearner(run, flipped).train_fold(fold_rows(flipped, tmp_path / "b"))
    assert np.array_equal(before.test, after.test) and np.array_equal(before.oof, after.oof)


@pytest.mark.parametrize("adapter", ["pissa", "nf4", "prefix"])
def test_killed_and_started_again_ends_bit_for_bit_the_same(run, tmp_path, monkeypatch, adapter):
    corpus = make_corpus(n=120)
    run = replace(with_training(run, checkpoint_every_minutes=1e-9), adapter=ADAPTERS[adapter])
    whole = DecoderLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path / "whole"))
    rows = fold_rows(corpus, tmp_path / "killed")
    with monkeypatch.context() as patch:
        stop_after(patch, 5, die)
        with pytest.raises(RuntimeError, match="killed"):
            DecoderLearner(run, corpus).train_fold(rows)
    assert os.listdir(rows.checkpoint_dir) == [CHECKPOINT]
    again = DecoderLearner(run, corpus).train_fold(rows)
    assert np.array_equal(again.oof, whole.oof) and np.array_equal(again.test, whole.test)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_saved_weights_give_the_same_predictions(run, tmp_path, monkeypatch, adapter):
    corpus = make_corpus(n=120)
    run = replace(with_training(run, epochs=1, global_batch_size=32), adapter=ADAPTERS[adapter])
    rows = fold_rows(corpus, tmp_path)
    first = DecoderLearner(run, corpus).train_fold(rows)
    assert sorted(os.listdir(rows.checkpoint_dir)) == [NOTE, WEIGHTS]
    monkeypatch.setattr(loop, "take_step", lambda *_: die())
    again = DecoderLearner(run, corpus).train_fold(rows)
    assert np.array_equal(first.oof, again.oof) and np.array_equal(first.test, again.test)


def test_class_weights_reach_the_loss(run, tmp_path):
    """One step on one row: its positives pull the head's bias harder, its negatives as before."""
    corpus = make_corpus()
    rows = fold_rows(corpus, tmp_path)
    row = rows.train[corpus.labels[rows.train].sum(1) == 1][:1]
    gradients = []
    for power in (0.0, 1.0):
        learner = DecoderLearner(replace(run, loss=LossSettings(pos_weight_power=power)), corpus)
        fold, state = build_fold(learner, rows)
        fold.model.eval()
        batch = fold.augmentation.batch(row, np.random.default_rng(0))
        learner.batch_loss(fold.model, fold.loss, batch).backward()
        gradients.append(fold.model.head.bias.grad)
    counts = corpus.labels[rows.train].sum(0)
    weights = torch.tensor((len(rows.train) - counts) / counts, dtype=torch.float32)
    positive = torch.from_numpy(corpus.labels[row[0]])
    assert torch.allclose(gradients[1], torch.where(positive, weights, 1.0) * gradients[0], rtol=1e-4)


def test_the_heads_bias_starts_at_the_labels_log_odds_and_it_is_float32(run, tmp_path, monkeypatch):
    monkeypatch.setattr("foldblend.learners.nets.adapters.choose_base_dtype", lambda *_: torch.bfloat16)
    corpus = make_corpus()
    rows = fold_rows(corpus, tmp_path)
    learner = DecoderLearner(run, corpus)
    model = learner.build_fold_model(rows, 0)
    assert torch.sigmoid(model.head.bias).detach().numpy() == pytest.approx(corpus.labels[rows.train].mean(0), abs=0.01)
    assert model.head.weight.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        logits = logits_of(learner, model, rows.train[:4])
    assert logits.dtype == torch.float32 and not torch.equal(logits, logits.bfloat16().float())


def test_a_text_that_ends_with_the_token_that_pads_is_pooled_at_its_end(run, tmp_path):
    """Where the end-of-text token pads, only the mask tells the two apart."""
    tokenizer = make_tokenizer()
    tokenizer.pad_token = None
    save_tiny_decoder(tmp_path, "llama", tokenizer=tokenizer)
    run = replace(with_model(run, name=str(tmp_path)), prompt=PromptSettings(template="{text}<|im_end|>"))
    learner = DecoderLearner(run, make_corpus(n=80))
    tokens = learner.tokens
    assert tokens.pad_id == learner.tokenizer.eos_token_id == tokens.ids[tokens.starts[1] - 1]
    model = learner.build_fold_model(fold_rows(learner.corpus, tmp_path, 20), 0)
    shifted = tokens.batch(np.array([0]))
    logits = logits_of(learner, model, np.array([0]))
    shifted["input_ids"][0, -1] = tokens.ids[0]
    with torch.inference_mode():
        assert not torch.allclose(model(**shifted), logits, atol=1e-3)


def test_the_pad_token_is_the_one_named_or_the_tokenizers_or_its_end_of_text():
    tokenizer = make_tokenizer()
    set_pad_token(tokenizer, "")
    assert tokenizer.pad_token == "<|endoftext|>"
    set_pad_token(tokenizer, "<|im_start|>")
    assert tokenizer.pad_token == "<|im_start|>"
    tokenizer.pad_token = None
    set_pad_token(tokenizer, "")
    assert tokenizer.pad_token == tokenizer.eos_token == "<|im_end|>"
    size = len(tokenizer)
    with pytest.raises(ValueError, match=r"has no token '<pad>'"):
        set_pad_token(tokenizer, "<pad>")
    assert len(tokenizer) == size


def test_an_edited_chat_template_makes_other_prompts_with_a_warm_cache(run, tmp_path):
    folder = tmp_path / "edited"
    shutil.copytree(run.model.name, folder)
    run = replace(with_model(run, name=str(folder)), prompt=PromptSettings("chat", "{text}"))
    corpus = replace(make_corpus(n=20), cache_dir=tmp_path / "cache")
    before = DecoderLearner(run, corpus).tokens
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text("Mood? " + template)
    after = DecoderLearner(run, corpus)
    assert after.tokens.frame[0] > before.frame[0]
    assert after.tokenizer.decode(after.tokens.row(0)).startswith("Mood? ")


def test_another_pad_token_is_taken_with_a_warm_cache(run, tmp_path):
    corpus = replace(make_corpus(n=20), cache_dir=tmp_path)
    for name in ("", "<|im_start|>", "<|im_end|>", ""):
        learner = DecoderLearner(with_model(run, pad_token=name), corpus)
        assert learner.tokens.pad_id == learner.tokenizer.convert_tokens_to_ids(name or "<|endoftext|>")


def test_long_texts_are_cut_and_the_prompt_stays_whole(run):
    corpus = make_corpus(n=80)
    prompt = PromptSettings(template="Tweet: {text}\nMood:")
    learner = DecoderLearner(replace(with_model(run, max_length_tokens=16), prompt=prompt), corpus)
    assert learner.tokens.lengths.max() == 16
    for start, end in zip(learner.tokens.starts, learner.tokens.starts[1:]):
        words = learner.tokenizer.decode(learner.tokens.ids[start:end])
        assert words.startswith("Tweet: today it was") and words.endswith("\nMood:")


def test_rows_are_mixed_and_masked_inside_their_prompt(run, tmp_path):
    """As an encoder's are; what stands around the text is never touched."""
    corpus = make_corpus(n=80)
    augmentation = AugmentationSettings(2.0, 0.0, 1, mix_probability=1.0, token_dropout=0.3)
    prompt = PromptSettings(template="Tweet: {text}\nMood:")
    learner = DecoderLearner(replace(run, prompt=prompt, augmentation=augmentation), corpus)
    fold, state = build_fold(learner, fold_rows(corpus, tmp_path, 20))
    inputs, targets = fold.augmentation.batch(fold.rows.train[:8], np.random.default_rng(0))
    assert (targets.numpy() >= corpus.labels[fold.rows.train[:8]]).all()
    for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"]):
        words = learner.tokenizer.decode(ids[mask.bool()])
        assert words.startswith("Tweet: ") and words.endswith("\nMood:")
    assert learner.train_fold(fold_rows(corpus, tmp_path / "all", 20)).oof.shape == (20, 3)


def test_tokens_beyond_the_models_embeddings_are_refused(run, tmp_path):
    save_tiny_decoder(tmp_path, "qwen2", vocab_size=200)
    corpus = make_corpus(n=80)
    with pytest.raises(ValueError, match=r"is not this model.s: it has \d+ tokens, config.json says vocab_size 200"):
        DecoderLearner(with_model(run, name=str(tmp_path)), corpus).train_fold(fold_rows(corpus, tmp_path, 20))


@pytest.mark.parametrize("pooling", ["cls", "pooler", "concat_last"])
def test_poolings_of_encoders_are_refused(pooling):
    with pytest.raises(ValueError, match=f"model.pooling is {pooling}, which a decoder does not have; use last"):
        RunSettings("decoder", model=ModelSettings(pooling=pooling))
    with pytest.raises(ValueError, match="model.pad_token is set, but learner is encoder"):
        RunSettings("encoder", model=ModelSettings(pad_token="<pad>"))
