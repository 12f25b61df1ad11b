import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldblend.scoring.metrics.table import METRICS
from foldblend.scoring.thresholds.exact import CLASS_SCORES, tune_offsets


def decide(log_probs, offsets):
    return np.eye(log_probs.shape[1], dtype=bool)[(log_probs + offsets).argmax(axis=1)]


@pytest.mark.parametrize("metric", CLASS_SCORES)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_offsets_never_lose_to_plain_argmax(metric, seed):
    rng = np.random.default_rng(seed)
    labels = np.eye(4, dtype=bool)[rng.choice(4, 60, p=[0.7, 0.15, 0.1, 0.05])]
    log_probs = np.log(rng.dirichlet(np.ones(4), 60) + 0.3 * labels).astype(np.float32)
    offsets = tune_offsets(log_probs, labels, CLASS_SCORES[metric])
    score = METRICS[metric].score
    assert score(labels, decide(log_probs, offsets)) >= score(labels, decide(log_probs, np.zeros(4))) - 1e-9


def test_a_known_bias_is_found():
    rng = np.random.default_rng(0)
    labels = np.eye(3, dtype=bool)[rng.integers(0, 3, 2000)]
    log_probs = (2 * labels + rng.normal(size=labels.shape)).astype(np.float32)
    biased = log_probs + np.float32([3, 0, -2])
    unbiased = METRICS["macro_f1"].score(labels, decide(log_probs, np.zeros(3)))
    offsets = tune_offsets(biased, labels, CLASS_SCORES["macro_f1"])
    assert METRICS["macro_f1"].score(labels, decide(biased, offsets)) >= unbiased - 0.002
    assert offsets == pytest.approx(np.array([-3, 0, 2]) + 1 / 3, abs=0.5)
