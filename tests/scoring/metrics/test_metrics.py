"""Every metric equals scikit-learn's, on random tables and on degenerate ones."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as reference

from foldblend.scoring.metrics.formulas import class_log_loss, label_auc
from foldblend.scoring.metrics.table import METRICS, find_metric

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 5))
DECISIONS = {
    "macro_f1": lambda y, d: reference.f1_score(y, d, average="macro", zero_division=0),
    "micro_f1": lambda y, d: reference.f1_score(y, d, average="micro", zero_division=0),
    "weighted_f1": lambda y, d: reference.f1_score(y, d, average="weighted", zero_division=0),
    "samples_f1": lambda y, d: reference.f1_score(y, d, average="samples", zero_division=0),
    "jaccard": lambda y, d: reference.jaccard_score(y, d, average="samples", zero_division=0),
    "subset_accuracy": reference.accuracy_score,
    "macro_f2": lambda y, d: reference.fbeta_score(y, d, beta=2, average="macro", zero_division=0),
    "micro_f2": lambda y, d: reference.fbeta_score(y, d, beta=2, average="micro", zero_division=0),
    "samples_f2": lambda y, d: reference.fbeta_score(y, d, beta=2, average="samples", zero_division=0),
    "macro_f05": lambda y, d: reference.fbeta_score(y, d, beta=0.5, average="macro", zero_division=0),
    "micro_f05": lambda y, d: reference.fbeta_score(y, d, beta=0.5, average="micro", zero_division=0),
    "matthews": lambda y, d: np.mean([reference.matthews_corrcoef(*pair) for pair in zip(y.T, d.T, strict=True)]),
}
PROBS = {
    "macro_auc": lambda y, p: np.mean([reference.roc_auc_score(y[:, k], p[:, k]) for k in range(y.shape[1])]),
    "macro_ap": lambda y, p: np.mean([reference.average_precision_score(y[:, k], p[:, k]) for k in range(y.shape[1])]),
    "log_loss": lambda y, p: np.mean(
        [reference.log_loss(y[:, k], p[:, k], labels=[False, True]) for k in range(y.shape[1])]
    ),
}


@st.composite
def tables(draw, n_tables=2):
    shape = draw(SHAPES)
    return [draw(arrays(bool, shape)) for _ in range(n_tables)]


def as_indicator(table):
    """scikit-learn reads one column as a binary target; a second, empty one would change the means: repeat it."""
    return np.repeat(table, 2, axis=1) if table.shape[1] == 1 else table


@pytest.mark.parametrize("name", DECISIONS)
@settings(max_examples=60, deadline=None)
@given(pair=tables())
def test_decision_metrics_equal_the_reference(name, pair):
    labels, decisions = map(as_indicator, pair)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = DECISIONS[name](labels, decisions)
    assert METRICS[name].score(labels, decisions) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", PROBS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=40, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 10_000), levels=st.sampled_from([2, 5, 10**6]))
def test_probability_metrics_equal_the_reference_with_ties(name, dtype, shape, seed, levels):
    rng = np.random.default_rng(seed)
    labels = rng.random(shape) < 0.4
    probs = (np.round(rng.random(shape) * levels) / levels).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        defined = labels.any(0) & ~labels.all(0) if name == "macro_auc" else np.ones(labels.shape[1], bool)
        expected = PROBS[name](labels[:, defined], probs[:, defined]) if defined.any() else 0.5
    tolerance = 1e-5 if dtype == np.float32 else 1e-9
    assert METRICS[name].score(labels, probs) == pytest.approx(expected, rel=tolerance, abs=tolerance)


@settings(max_examples=30, deadline=None)
@given(n_rows=st.integers(1, 20), n_labels=st.integers(2, 5), seed=st.integers(0, 10_000))
def test_multiclass_metrics_equal_the_reference(n_rows, n_labels, seed):
    rng = np.random.default_rng(seed)
    truth, decided = rng.integers(0, n_labels, (2, n_rows))
    probs = rng.dirichlet(np.ones(n_labels), n_rows)
    labels, decisions = np.eye(n_labels, dtype=bool)[truth], np.eye(n_labels, dtype=bool)[decided]
    assert METRICS["accuracy"].score(labels, decisions) == pytest.approx(reference.accuracy_score(truth, decided))
    expected = reference.log_loss(truth, probs, labels=range(n_labels))
    assert class_log_loss(labels, probs) == pytest.approx(expected)


@pytest.mark.parametrize("name", DECISIONS)
@pytest.mark.parametrize("fill", [(False, False), (False, True), (True, False), (True, True)])
def test_constant_tables(name, fill):
    labels, decisions = (np.full((6, 3), value) for value in fill)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert METRICS[name].score(labels, decisions) == pytest.approx(DECISIONS[name](labels, decisions))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 40), n_labels=st.integers(2, 6))
def test_metrics_of_one_class_per_row_equal_the_reference(seed, n, n_labels):
    truth, decided = np.random.default_rng(seed).integers(0, n_labels, (2, n))
    labels, decisions = (np.eye(n_labels, dtype=bool)[classes] for classes in (truth, decided))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kappa = reference.cohen_kappa_score(truth, decided, weights="quadratic", labels=np.arange(n_labels))
        correlation = reference.matthews_corrcoef(truth, decided)
    ours = METRICS["quadratic_weighted_kappa"].score(labels, decisions)
    assert ours == pytest.approx(kappa if np.isfinite(kappa) else 0.0)
    assert find_metric("matthews", "multiclass").score(labels, decisions) == pytest.approx(correlation)


def test_counts_survive_more_rows_than_a_byte_holds():
    labels = np.ones((70_000, 2), bool)
    assert METRICS["macro_f1"].score(labels, labels) == 1.0


def test_scores_do_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(0)
    labels, probs, order = rng.random((50, 3)) < 0.4, rng.random((50, 3)), rng.permutation(50)
    for name, metric in METRICS.items():
        answer = probs if metric.takes_probs else probs > 0.5
        assert metric.score(labels[order], answer[order]) == pytest.approx(metric.score(labels, answer)), name


def test_a_label_of_one_class_has_no_auc():
    assert np.isnan(label_auc(np.ones((3, 1), bool), np.zeros((3, 1)))).all()


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"labels are \(3, 2\), predictions \(3, 1\)"):
        METRICS["macro_f1"].score(np.ones((3, 2), bool), np.ones((3, 1), bool))
