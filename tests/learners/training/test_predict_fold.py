"""A finished fold, met again by a learner that knows only the new texts."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_chat import save_tiny_chat
from toy_corpus import fold_rows, make_corpus

from foldblend.learners.table import Corpus, build_learner
from foldblend.learners.training.weights import check_training, describe_training
from foldblend.settings.loading import run_from_settings
from foldblend.settings.nets import (
    AdapterSettings,
    AnswerSettings,
    LossSettings,
    ModelSettings,
    OptimizerSettings,
    PromptSettings,
    TrainingSettings,
)
from foldblend.settings.records import settings_of
from foldblend.settings.run import CleaningSettings, EmbeddingsSettings, RunSettings, TfidfSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
NEW = ("furious words that nobody taught", "<URL> joyful sad")


@pytest.fixture
def few_steps(tiny_bert, tiny_decoder, tmp_path_factory):
    """Name -> a run of few steps, one for each way that a fold's weights are kept."""
    training = TrainingSettings(epochs=1, global_batch_size=32, micro_batch_size=32, precision="fp32")
    optimizer, gentle = OptimizerSettings(lr=5e-3, head_lr=1e-2), OptimizerSettings(lr=1e-3, head_lr=1e-3)
    loss = LossSettings(bias_from_prior=True)
    shared = {"training": training, "optimizer": optimizer}
    encoder = RunSettings("encoder", model=ModelSettings(name=str(tiny_bert)), loss=loss, **shared)
    decoder = RunSettings("decoder", model=ModelSettings(name=str(tiny_decoder("qwen2")), pooling="last"), **shared)
    with_adapter = lambda **values: replace(decoder, adapter=AdapterSettings(**values))  # noqa: E731

    def generator(form):
        model = ModelSettings(name=str(save_tiny_chat(tmp_path_factory.mktemp("chat") / "qwen2", "qwen2")))
        prompt, optimizer = PromptSettings(template="Text: {text}\nLabels:"), OptimizerSettings(lr=1e-2)
        answer = AnswerSettings(form=form)
        return RunSettings(
            "generator", model=model, training=training, optimizer=optimizer, prompt=prompt, answer=answer
        )

    placeholders = CleaningSettings(urls=True, placeholder_tokens=True)
    return {
        "tfidf": lambda: RunSettings("tfidf"),
        "words alone": lambda: RunSettings("tfidf", tfidf=TfidfSettings(char_ngrams=(0, 0))),
        "nbsvm": lambda: RunSettings("nbsvm"),
        "embeddings": lambda: RunSettings("embeddings", embeddings=EmbeddingsSettings(name=str(tiny_bert))),
        "encoder": lambda: encoder,
        "ema": lambda: replace(encoder, training=replace(training, ema_decay=0.9)),
        "placeholders": lambda: replace(encoder, cleaning=placeholders),
        "mlp": lambda: replace(
            encoder, model=replace(encoder.model, pooling="attention", head="mlp"), optimizer=gentle
        ),
        "lora": lambda: with_adapter(rank=4),
        "dora": lambda: with_adapter(rank=4, dora=True),
        "pissa": lambda: with_adapter(rank=4, init="pissa", bias="all"),
        "prefix": lambda: with_adapter(kind="prefix_tuning", virtual_tokens=4),
        "prompt": lambda: with_adapter(kind="prompt_tuning", virtual_tokens=4),
        "nf4": lambda: with_adapter(rank=4, quantization="nf4"),
        "whole decoder": lambda: with_adapter(kind="none"),
        "list": lambda: generator("list"),
        "yes or no": lambda: generator("yes_no"),
    }


NEURAL = ["encoder", "ema", "placeholders", "mlp", "lora", "dora", "pissa", "prefix", "prompt", "nf4"]
NAMES = ["tfidf", "words alone", "nbsvm", "embeddings", *NEURAL, "whole decoder", "list", "yes or no"]


def new_corpus(corpus, texts):
    return Corpus(tuple(texts), np.zeros((0, len(corpus.label_names)), bool), corpus.label_names, corpus.task)


@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_learner_predicts_what_the_trained_one_did(few_steps, tmp_path, name):
    corpus = make_corpus(96)
    run, rows = few_steps[name](), fold_rows(corpus, tmp_path, 32)
    corpus = replace(corpus, texts=(*corpus.texts, *NEW))
    got = build_learner(run, corpus).train_fold(rows)
    texts = [corpus.texts[row] for row in corpus.test_rows]
    again = build_learner(run, new_corpus(corpus, texts)).predict_fold(rows.checkpoint_dir)
    assert again.dtype == np.float32 and again == pytest.approx(got.test, abs=1e-5)
    other_way = build_learner(run, new_corpus(corpus, texts[::-1])).predict_fold(rows.checkpoint_dir)
    assert other_way == pytest.approx(got.test[::-1], abs=1e-4)
    assert np.ptp(got.test, axis=0).max() > 1e-3  # a model that says the same of every text would prove nothing


@pytest.mark.parametrize("name", ["tfidf", "nbsvm", "embeddings", "encoder"])
def test_one_label_a_row(few_steps, tmp_path, name):
    corpus = make_corpus(96, task="multiclass")
    run, rows = few_steps[name](), fold_rows(corpus, tmp_path, 32)
    if name == "encoder":
        run = replace(run, loss=LossSettings(bias_from_prior=True))
    got = build_learner(run, corpus).train_fold(rows)
    again = build_learner(run, new_corpus(corpus, corpus.texts[-2:])).predict_fold(rows.checkpoint_dir)
    assert again == pytest.approx(got.test, abs=1e-5)


@pytest.mark.parametrize("name", ["tfidf", "encoder", "lora"])
def test_weights_say_what_they_are_of(few_steps, tmp_path, name):
    corpus = make_corpus(96)
    run, rows = few_steps[name](), fold_rows(corpus, tmp_path, 32)
    build_learner(run, corpus).train_fold(rows)
    taught = describe_training(run, corpus, rows)["fold_rows_sha256"]
    check_training(rows.checkpoint_dir, settings_of(run), taught)
    older = settings_of(run)
    del older["seed"]  # as if it were younger than the record
    check_training(rows.checkpoint_dir, older, taught)
    with pytest.raises(ValueError, match="fold_rows_sha256 was"):
        check_training(rows.checkpoint_dir, settings_of(run), "0" * 64)
    with pytest.raises(ValueError, match="seed was 42, is now 1"):
        check_training(rows.checkpoint_dir, {**settings_of(run), "seed": 1}, taught)


@pytest.mark.parametrize("name", NAMES)
def test_settings_come_back_from_a_record(few_steps, name):
    run = few_steps[name]()
    again = run_from_settings(settings_of(run), "record")
    assert settings_of(again) == settings_of(run)
    # a record names the model's folder from the project's
    assert replace(again, model=run.model, embeddings=run.embeddings) == run


@pytest.mark.parametrize("name", ["tfidf", "encoder"])
def test_a_fold_that_was_never_finished_is_refused(few_steps, tmp_path, name):
    learner = build_learner(few_steps[name](), new_corpus(make_corpus(4), NEW))
    with pytest.raises(
        ValueError, match=r"weights.safetensors is missing: this fold was not trained here.*src/train.py --run"
    ):
        learner.predict_fold(tmp_path)
