"""A trained fold needs nothing but itself: its pretrained model's folder may move (case model_folder_moved)."""

import shutil

import numpy as np
import pytest
from toy_corpus import fold_rows, make_corpus

from foldblend.errors import UserError
from foldblend.learners.table import Corpus, build_learner
from foldblend.learners.trained import find_model, resolve_model
from foldblend.settings.nets import ModelSettings, OptimizerSettings, TrainingSettings
from foldblend.settings.run import CleaningSettings, EmbeddingsSettings, RunSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def train(run, tmp_path):
    corpus = make_corpus(n=80)
    rows = fold_rows(corpus, tmp_path, 20)
    got = build_learner(run, corpus).train_fold(rows)
    new = Corpus(corpus.texts[-2:], np.zeros((0, 3), bool), corpus.label_names, corpus.task)
    return got, new, rows.checkpoint_dir


def encoder(folder, **settings):
    training = TrainingSettings(epochs=1, global_batch_size=16, precision="fp32", collapse_check_after_steps=0)
    optimizer = OptimizerSettings(lr=2e-3, head_lr=2e-2)
    return RunSettings(
        "encoder", model=ModelSettings(name=str(folder)), training=training, optimizer=optimizer, **settings
    )


@pytest.mark.parametrize("architecture", ["bert", "roberta", "deberta-v2", "modernbert"])
def test_an_encoder_predicts_when_its_folder_is_gone(tiny_encoder, tmp_path, architecture):
    folder = shutil.copytree(tiny_encoder(architecture), tmp_path / "base")
    run = encoder(folder)
    got, new, fold = train(run, tmp_path)
    shutil.rmtree(folder)
    resolved = resolve_model(run, fold, "")
    assert find_model(run, fold) == fold / "model"
    assert build_learner(resolved, new).predict_fold(fold) == pytest.approx(got.test, abs=1e-5)


def test_placeholders_are_there_again(tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder("bert"), tmp_path / "base")
    run = encoder(folder, cleaning=CleaningSettings(urls=True, placeholder_tokens=True))
    got, new, fold = train(run, tmp_path)
    shutil.rmtree(folder)
    resolved = resolve_model(run, fold, "")
    assert build_learner(resolved, new).predict_fold(fold) == pytest.approx(got.test, abs=1e-5)


def test_a_fold_of_before_is_predicted_with_the_folder(tiny_encoder, tmp_path):
    run = encoder(tiny_encoder("bert"))
    assert resolve_model(run, tmp_path, "") == run and find_model(run, tmp_path) == tiny_encoder("bert")


def test_a_frozen_base_that_moved_is_searched_for(tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder("bert"), tmp_path / "base")
    run = RunSettings("embeddings", embeddings=EmbeddingsSettings(name=str(folder)))
    got, new, fold = train(run, tmp_path)
    assert resolve_model(run, fold, "") == run
    moved = folder.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"base model of run .* is not where it was.*--models FOLDER"):
        resolve_model(run, fold, "")
    with pytest.raises(UserError, match="has 0 models, none of the same files"):
        resolve_model(run, fold, str(tmp_path / "fold0"))
    resolved = resolve_model(run, fold, str(tmp_path))
    assert resolved.embeddings.name == str(moved)
    assert build_learner(resolved, new).predict_fold(fold) == pytest.approx(got.test, abs=1e-5)
