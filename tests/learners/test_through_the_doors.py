"""Every architecture learns a toy competition as a user's run does: train.py, OOF, blend.py, the CSV's true score.

Runs keep their own settings, but for a tiny random model and the rates, epochs and batch that it needs.
"""

import shutil

import numpy as np
import pytest
from tiny_decoders import KINDS
from tiny_encoders import ARCHITECTURES
from toy_competition import TASKS, write_competition

import blend
import train
from learners.table import build_learner
from scoring.metrics import macro_f1

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
ENOUGH = 0.9
SHORT = ["--training.global_batch_size", "8", "--training.micro_batch_size", "8", "--training.precision", "fp32"]
SHORT += ["--optimizer.warmup_steps", "0", "--optimizer.warmup_fraction", "0.1", "--training.epochs"]
OF_ENCODERS = [*SHORT, "12", "--optimizer.lr", "2e-3", "--optimizer.head_lr", "1e-2", "--model.max_length_tokens", "60"]
OF_DECODERS = [*SHORT, "6", "--optimizer.lr", "3e-3", "--optimizer.head_lr", "1e-2"]
OF_GENERATORS = [*SHORT, "10", "--optimizer.lr", "3e-3"]
ENCODERS = [
    ("minilm", "bert", "toy"),
    ("minilm", "electra", "toy"),
    ("goemotions-distilbert", "distilbert", "toy"),
    ("dair-distilbert", "distilbert", "one"),
    ("distilroberta-a3", "roberta", "toy"),
    ("xlm-roberta-base", "xlm-roberta", "toy"),
    ("emit-umberto", "camembert", "tweets"),
    ("deberta-v3-base", "deberta-v2", "toy"),
    ("modernbert-base", "modernbert", "toy"),
]
DECODERS = [
    ("gemma-2-2b", "gemma2"),
    ("llama-3.2-1b", "llama"),
    ("stella-1.5b", "qwen2"),
    ("e5-mistral-7b", "mistral"),
    ("qwen3-0.6b", "qwen3"),
    ("gemma-3-1b-t4", "gemma3_text"),
    ("gemma-3-4b", "gemma3"),
]
GENERATORS = [
    ("qwen2.5-1.5b-sft", "qwen2", []),
    ("llama-3.2-3b-instruct-sft", "llama", []),
    ("qwen2.5-1.5b-sft", "qwen2", ["--answer.form", "yes_no"]),
]
MORE = {"tweets": ["--training.epochs", "24"]}
"""Cleaned tweets are longer, most of it the same in all."""
FOUR_BITS = {"gemma-2-2b", "llama-3.2-1b", "e5-mistral-7b", "llama-3.2-3b-instruct-sft"}
CASES = [
    *((run, model, name, [*OF_ENCODERS, *MORE.get(name, [])]) for run, model, name in ENCODERS),
    *((run, model, "toy", OF_DECODERS) for run, model in DECODERS),
    *((run, model, "toy", [*OF_GENERATORS, *more]) for run, model, more in GENERATORS),
]


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """Competitions that are drawn, and TF-IDF's runs of them, once a session."""
    return tmp_path_factory.mktemp("toy_competitions")


@pytest.fixture
def enter(places, kept):
    """name -> labels of its training rows and of its test rows; TF-IDF, the reference, can learn it."""

    def of(name):
        made = kept / name
        truth = write_competition(places, name)
        if not made.exists():
            train.main(["--competition", name, "--run", "tfidf", "--fold", "all"])
            for part in ("folds", "oof"):
                shutil.copytree(places.root / part, made / part)
        shutil.copytree(made, places.root, dirs_exist_ok=True)
        assert oof_score(places, name, "tfidf", truth[0]) > ENOUGH
        return truth

    return of


def oof_score(places, name, run, labels):
    """macro-F1 of a run's out-of-fold rows at the cut-off that nobody tunes."""
    decided = np.zeros_like(labels)
    for path in (places.oof(name) / run).glob("fold*.npz"):
        with np.load(path, allow_pickle=False) as fold:
            rows, logits = fold["rows"], fold["oof"]
        decided[rows] = np.eye(3, dtype=bool)[logits.argmax(1)] if TASKS[name] == "multiclass" else logits > 0
    return macro_f1(labels, decided)


def answer_score(csv, labels):
    lines = csv.read_text().splitlines()
    return macro_f1(labels, np.array([line.split(",")[1:] for line in lines[1:]]) == "1")


def test_every_architecture_is_here():
    assert {model for _, model, _ in ENCODERS} == set(ARCHITECTURES) and {model for _, model in DECODERS} == set(KINDS)


@pytest.mark.parametrize(
    "run, model, name, flags",
    CASES,
    ids=[f"{run}-{model}{'-yes_no' * ('yes_no' in more)}" for run, model, _, more in CASES],
)
def test_learns(places, enter, tiny_encoder, tiny_decoder, monkeypatch, run, model, name, flags):
    labels, truth = enter(name)
    learners = []
    monkeypatch.setattr(train, "build_learner", lambda *given: learners.append(build_learner(*given)) or learners[-1])
    folder = tiny_encoder(model) if model in ARCHITECTURES else tiny_decoder(model)
    at = ["--competition", name, "--run", run]
    train.main([*at, "--fold", "all", "--model.name", str(folder), "--model.revision", "main", *flags])
    blend.main(["--competition", name, "--runs", run])
    (csv,) = places.submissions(name).glob("*.csv")
    assert oof_score(places, name, run, labels) > ENOUGH and answer_score(csv, truth) > ENOUGH
    if name == "tweets":
        read = learners[0].corpus.texts
        assert read[0].startswith("<USER> ") and read[0].endswith(" <URL>") and any("faccina" in text for text in read)
    if run in FOUR_BITS:
        assert learners[0].run.adapter.quantization == "nf4"
