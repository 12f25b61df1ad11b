"""Every architecture learns a toy competition as a user's run does: train.py, OOF, test rows; some up to the CSV."""

import shutil

import numpy as np
import pytest
from tiny_chat import save_tiny_chat
from tiny_decoders import KINDS
from tiny_encoders import ARCHITECTURES
from toy_competition import TASKS, write_competition

from foldblend.commands import blend, train
from foldblend.scoring.metrics.formulas import macro_f1

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
ENOUGH = 0.9
ENCODER = """learner: encoder
model: {name: %s}
training: {epochs: 10, global_batch_size: 16, precision: fp32}
optimizer: {lr: 2e-3, head_lr: 2e-2}
"""
DECODER = """learner: decoder
model: {name: %s, pooling: last}
training: {epochs: 7, global_batch_size: 8, precision: fp32}
optimizer: {lr: 5e-3, head_lr: 1e-2}
"""
GENERATOR = """learner: generator
model: {name: %s}
training: {epochs: %d, global_batch_size: 8, precision: fp32}
optimizer: {lr: 5e-3}
adapter: {rank: 8}
prompt: {template: 'Text: {text} Labels:'}
"""
LIST, YES_NO = "answer: {form: list}\n", "answer: {form: yes_no}\n"
CASES = [
    *((ENCODER, model, "toy") for model in ARCHITECTURES),
    (ENCODER, "distilbert", "one"),
    *((DECODER, model, "toy") for model in KINDS),
]


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """Competitions that are drawn, and TF-IDF's runs of them, once a session."""
    return tmp_path_factory.mktemp("toy_competitions")


@pytest.fixture
def enter(paths, kept):
    """name -> labels of its training rows and of its test rows; TF-IDF, the reference, can learn it."""

    def of(name):
        made = kept / name
        truth = write_competition(paths, name)
        if not made.exists():
            train.main(["--competition", name, "--run", "tfidf", "--fold", "all"])
            for part in ("folds", "oof"):
                shutil.copytree(paths.root / part, made / part)
        shutil.copytree(made, paths.root, dirs_exist_ok=True)
        assert min(fold_scores(paths, name, "tfidf", *truth)) > ENOUGH
        return truth

    return of


def decide(name, logits):
    """Labels at the cut-off that nobody tunes."""
    return np.eye(3, dtype=bool)[logits.argmax(1)] if TASKS[name] == "multiclass" else logits > 0


def fold_scores(paths, name, run, labels, truth):
    """macro-F1 of a run's out-of-fold rows and, at worst of its folds, of its test rows."""
    rows, decided, on_test = [], [], []
    for path in (paths.oof(name) / run).glob("fold*.npz"):
        with np.load(path, allow_pickle=False) as fold:
            rows.append(fold["rows"])
            decided.append(decide(name, fold["oof"]))
            on_test.append(macro_f1(truth, decide(name, fold["test"])))
    return macro_f1(labels[np.concatenate(rows)], np.concatenate(decided)), min(on_test)


def answer_score(csv, labels):
    lines = csv.read_text().splitlines()
    return macro_f1(labels, np.array([line.split(",")[1:] for line in lines[1:]]) == "1")


def check_learns(paths, name, labels, truth, text, folds="0"):
    """train.py finds the labels of the rows that it holds out and of the test rows; of all folds, blend.py does too."""
    (paths.configs / "runs" / "learns.yaml").write_text(text)
    train.main(["--competition", name, "--run", "learns", "--fold", folds])
    assert min(fold_scores(paths, name, "learns", labels, truth)) > ENOUGH
    if folds == "all":
        blend.main(["--competition", name, "--runs", "learns"])
        (csv,) = paths.submissions(name).glob("*.csv")
        assert answer_score(csv, truth) > ENOUGH


TO_THE_CSV = ["bert-toy", "distilbert-one", "qwen2-toy"]
"""One of a kind goes on to the blend, which knows no architecture."""


@pytest.mark.parametrize("text, model, name", CASES, ids=[f"{model}-{name}" for _, model, name in CASES])
def test_a_classifier_learns(paths, enter, tiny_encoder, tiny_decoder, text, model, name):
    folder = tiny_encoder(model) if model in ARCHITECTURES else tiny_decoder(model)
    folds = "all" if f"{model}-{name}" in TO_THE_CSV else "0"
    check_learns(paths, name, *enter(name), text % folder, folds)


@pytest.mark.parametrize("text, kind, epochs", [(LIST, "qwen2", 10), (YES_NO, "qwen2", 8)], ids=["list", "yes_no"])
def test_a_generator_learns(paths, enter, tmp_path, text, kind, epochs):
    folds = "all" if text == LIST else "0"
    check_learns(paths, "toy", *enter("toy"), GENERATOR % (save_tiny_chat(tmp_path / kind, kind), epochs) + text, folds)
