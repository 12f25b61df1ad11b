"""A competition of 12 rows, its folds, and a run of 3 folds, as other tests break them."""

import numpy as np
import pytest
from ledger_settings import SETTINGS

from foldblend.data.tables import Tables
from foldblend.ledger.folds import write_folds
from foldblend.ledger.oof import write_fold
from foldblend.predictions import FoldPredictions
from foldblend.settings.competition import CompetitionSettings


@pytest.fixture
def competition():
    return CompetitionSettings(id_column="id", n_folds=3)


@pytest.fixture
def tables():
    """Ids hold what a CSV has to quote."""
    train_ids = np.array([f"r{i}" for i in range(9)] + ["a,b", 'c"d', "e\nf"])
    labels = np.arange(36).reshape(12, 3) % 5 < 2
    return Tables(
        train_ids=train_ids,
        train_texts=[f"text {i}" for i in range(12)],
        labels=labels,
        label_names=("joy", "anger", "fear"),
        test_ids=np.array(["t0", "t1", "007", "t3"]),
        test_texts=[f"test {i}" for i in range(4)],
        sample_columns=("id", "joy", "anger", "fear"),
        sample_ids=np.array(["t0", "t1", "007", "t3"]),
    )


@pytest.fixture
def folds(paths, competition, tables):
    fold = np.arange(12) % 3
    return write_folds(paths, "toy", competition, tables, fold, np.arange(12))


@pytest.fixture
def fold_file(folds, tables):
    """Builds fold k's predictions: the held-out rows backwards, value = row number + label number / 10."""

    def build(k, **changes):
        rows = np.flatnonzero(folds.fold == k)[::-1]
        oof = np.float32(rows[:, None] + np.arange(3) / 10)
        test = np.full((len(tables.test_ids), 3), k, dtype=np.float32)
        return FoldPredictions(**{"fold": k, "rows": rows, "oof": oof, "test": test, "kind": "logits", **changes})

    return build


@pytest.fixture
def run(paths, folds, tables, fold_file):
    """A whole run `r`; returns its folder."""
    for k in range(3):
        write_fold(paths, "toy", "r", folds, tables, fold_file(k), {"settings": SETTINGS, "score": {"macro_f1": 0.5}})
    return paths.oof("toy") / "r"
