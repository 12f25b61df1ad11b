import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldblend.scoring.inputs import logit, sigmoid, to_probs, to_scores


@given(st.lists(st.floats(-15, 15, width=32), min_size=1, max_size=20))
def test_logit_undoes_sigmoid(values):
    scores = np.float32(values)
    assert np.allclose(logit(sigmoid(scores.astype(np.float64))), scores, atol=1e-3)


def test_sigmoid_does_not_overflow():
    assert sigmoid(np.float32([-1e30, 0, 1e30])).tolist() == [0.0, 0.5, 1.0]


def test_multiclass_scores_are_log_probs_of_rows_that_sum_to_one():
    scores = to_scores(np.float32([[3.0, 1.0, -100.0]]), "logits", "multiclass")
    assert np.exp(scores).sum() == pytest.approx(1.0, abs=1e-5)
    assert np.isfinite(scores).all()
    assert to_probs(scores, "multiclass") == pytest.approx(np.exp(scores), abs=1e-5)


def test_hard_probabilities_become_finite_scores():
    scores = to_scores(np.float32([[0.0, 1.0]]), "probs", "multilabel")
    assert np.isfinite(scores).all()
    assert to_probs(scores, "multilabel")[0] == pytest.approx([0.0, 1.0], abs=1e-6)


@pytest.mark.parametrize("bad, kind, message", [([[1.5]], "probs", "Are these logits"), ([[0.5]], "odds", "'odds'")])
def test_refusals(bad, kind, message):
    with pytest.raises(ValueError, match=message):
        to_scores(np.float32(bad), kind, "multilabel")
