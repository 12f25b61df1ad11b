"""Texts that say their labels, for learners to learn."""

import numpy as np

from foldblend.learners.table import Corpus, FoldRows

MOODS = {"joy": "happy glad joyful", "sadness": "sad gloomy tearful", "anger": "angry furious mad"}


def make_corpus(n=240, task="multilabel", seed=0):
    """Texts that say which labels they have; some have none, unless one label a row is the task."""
    rng = np.random.default_rng(seed)
    if task == "multiclass":
        labels = np.eye(3, dtype=bool)[rng.integers(0, 3, n)]
    else:
        labels = rng.random((n, 3)) < 0.4
    words = [mood.split() for mood in MOODS.values()]
    texts = [
        " ".join(["today it was", *(words[j][rng.integers(0, 3)] for j in np.flatnonzero(row)), "the plain"])
        for row in labels
    ]
    test_texts = "today it was happy the plain", "today it was sad furious the plain"
    return Corpus((*texts, *test_texts), labels, tuple(MOODS), task)


def fold_rows(corpus, tmp_path, n_heldout=60):
    rows = np.arange(len(corpus.labels))
    return FoldRows(0, rows[n_heldout:], rows[:n_heldout], tmp_path / "fold0")
