"""MAP@k against the words of its definition, AUC averaged over groups against scikit-learn's AUC of each group."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import mean_absolute_error, mean_squared_error, roc_auc_score

from foldblend.scoring.inputs import Task
from foldblend.scoring.metrics import formulas
from foldblend.scoring.metrics.formulas import group_auc, map_at_k, row_average_precision
from foldblend.scoring.metrics.table import METRICS, k_of
from foldblend.scoring.validation.bootstrap import Buckets, make_additive, resample
from foldblend.submission.answers import list_labels


def average_precision(actual, predicted, k):
    """`apk` of github.com/benhamner/Metrics, which Kaggle's pages point to."""
    score, hits = 0.0, 0
    for place, label in enumerate(predicted[:k]):
        if label in actual and label not in predicted[:place]:
            hits += 1
            score += hits / (place + 1.0)
    return score / min(len(actual), k) if actual else 0.0


@settings(max_examples=200, deadline=None)
@given(
    n_rows=st.integers(1, 12),
    n_labels=st.integers(1, 7),
    k=st.integers(1, 9),
    rate=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    levels=st.sampled_from([1, 2, 5, 10**6]),
    seed=st.integers(0, 10_000),
)
def test_map_at_k_is_that_of_the_lists_that_are_submitted(n_rows, n_labels, k, rate, levels, seed):
    rng = np.random.default_rng(seed)
    labels = rng.random((n_rows, n_labels)) < rate
    probs = (np.round(rng.random((n_rows, n_labels)) * levels) / levels).astype(np.float32)  # with ties and zeros
    lists = [
        sorted(np.flatnonzero(row > 0).tolist(), key=lambda label, row=row: (-row[label], label))[:k] for row in probs
    ]
    assert [each.tolist() for each in list_labels(probs, k)] == lists
    expected = [average_precision(set(np.flatnonzero(row)), said, k) for row, said in zip(labels, lists, strict=True)]
    assert row_average_precision(labels, probs, k) == pytest.approx(expected)
    assert METRICS[f"map_at_{k}"].score(labels, probs) == pytest.approx(np.mean(expected))


def test_many_rights_and_labels_are_compared_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    labels, probs = rng.random((40, 30)) < 0.3, rng.random((40, 30), np.float32)
    whole = map_at_k(labels, probs, 5)
    monkeypatch.setattr(formulas, "CELLS_AT_ONCE", 64)
    assert map_at_k(labels, probs, 5) == whole


def test_every_number_is_a_metric_and_no_other_word():
    assert "map_at_25" in METRICS and METRICS["map_at_25"].is_ranked and k_of("map_at_25") == 25
    for name in ("map_at_0", "map_at_03", "map_at_", "map_at_x", "macro_f1_at_3", "map_at_3_at_3"):
        assert name not in METRICS
        with pytest.raises(KeyError):
            METRICS[name]
    assert "map_at_25" not in list(METRICS)  # what is listed and printed is the family


@settings(max_examples=60, deadline=None)
@given(n=st.integers(2, 60), n_groups=st.integers(1, 6), n_labels=st.integers(1, 3), seed=st.integers(0, 10_000))
def test_group_auc_is_the_mean_of_the_groups_that_have_one(n, n_groups, n_labels, seed):
    rng = np.random.default_rng(seed)
    groups, labels = rng.integers(0, n_groups, n), rng.random((n, n_labels)) < 0.4
    probs = np.round(rng.random((n, n_labels)), 1)
    expected = [
        roc_auc_score(labels[groups == group, label], probs[groups == group, label])
        for group in range(n_groups)
        for label in range(n_labels)
        if 0 < labels[groups == group, label].sum() < (groups == group).sum()
    ]
    assert group_auc(labels, probs, groups) == pytest.approx(np.mean(expected) if expected else 0.5)
    assert Task("group_auc", groups=groups).score(labels, probs) == group_auc(labels, probs, groups)
    rows = rng.permutation(n)[: n // 2 + 1]
    part = Task("group_auc", groups=groups).at(rows)
    assert part.score(labels[rows], probs[rows]) == group_auc(labels[rows], probs[rows], groups[rows])


def test_the_spread_of_group_auc_is_that_of_a_bootstrap_of_rows():
    rng = np.random.default_rng(0)
    groups, labels = rng.integers(0, 4, 600) ** 2, rng.random((600, 2)) < 0.4
    probs = (0.8 * labels + rng.random((600, 2)) + 0.3 * groups[:, None]).astype(np.float32)
    task, buckets = Task("group_auc", groups=groups), Buckets(np.arange(600) % 5, 0)
    additive = make_additive(task, labels, probs, buckets)
    assert additive.score(buckets.everything) == pytest.approx(group_auc(labels, probs, groups), abs=1e-6)
    drawn = []
    for _ in range(300):
        rows = rng.integers(0, 600, 600)
        drawn.append(group_auc(labels[rows], probs[rows], groups[rows]))
    ours = resample([additive], buckets.everything, 1.0, 1500, 0)
    assert ours.std() == pytest.approx(np.std(drawn), rel=0.2)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 40), n_columns=st.integers(1, 3), levels=st.sampled_from([1, 3, 10**6]), seed=st.integers(0, 999)
)
def test_metrics_of_values_equal_the_reference(n, n_columns, levels, seed):
    rng = np.random.default_rng(seed)
    values, predicted = (np.round(rng.random((n, n_columns)) * levels) / levels for _ in range(2))
    columns = list(zip(values.T, predicted.T, strict=True))
    expected = {
        "rmse": [np.sqrt(mean_squared_error(*pair)) for pair in columns],
        "mae": [mean_absolute_error(*pair) for pair in columns],
        "pearson": [pearsonr(*pair)[0] if np.ptp(pair[0]) and np.ptp(pair[1]) else 0.0 for pair in columns],
        "spearman": [spearmanr(*pair)[0] if np.ptp(pair[0]) and np.ptp(pair[1]) else 0.0 for pair in columns],
    }
    for name, of_columns in expected.items():
        assert METRICS[name].score(values, predicted) == pytest.approx(np.mean(of_columns), abs=1e-9), name
    scale = np.stack([np.arange(n_columns) - 3.0, np.arange(n_columns) + 7.0], axis=1)
    assert Task("rmse", scale=scale).score(values, predicted) == pytest.approx(-10 * np.mean(expected["rmse"]))
