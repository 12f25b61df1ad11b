"""A language model as it is scores labels: the adapters that the generator brings along change nothing."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_chat import save_tiny_chat

from foldblend.commands import teach
from foldblend.data.taught import read_taught
from foldblend.learners.generator import score_labels, zero_shot_run
from foldblend.learners.table import Corpus
from foldblend.settings.nets import AdapterSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
NAMES = ("joy", "sadness", "anger")


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    return str(save_tiny_chat(tmp_path_factory.mktemp("chat"), "qwen2"))


@pytest.mark.parametrize("task, form", [("multilabel", "yes_no"), ("multiclass", "list")])
def test_new_adapters_change_nothing(chat, task, form):
    run = zero_shot_run(chat, NAMES, {"joy": "a {text} that is happy"}, task, "Which mood?")
    assert run.answer.form == form and run.prompt.form == "chat" and run.prompt.template.count("{text}") == 1
    corpus = Corpus(("today it was happy", "sad", ""), np.zeros((0, 3), bool), NAMES, task)
    logits = score_labels(run, corpus)
    assert logits.shape == (3, 3) and np.isfinite(logits).all() and np.ptp(logits) > 0.01
    bare = score_labels(replace(run, adapter=AdapterSettings(kind="none")), corpus)
    np.testing.assert_allclose(logits, bare, atol=1e-4)


def test_the_command_writes_its_probabilities(paths, toy_competition, chat, capsys):
    teach.main(["--competition", "toy", "--local", chat, "--rows", "train", "--limit", "4", "--name", "zero"])
    rows = read_taught(paths.data("toy") / "zero.npz", "toy", NAMES)
    assert rows.probs.shape == (1, 4, 3) and ((rows.probs > 0) & (rows.probs < 1)).all()
    assert "Agreement with true labels, 4 training rows" in capsys.readouterr().out
    assert chat not in str(rows.made_by)
