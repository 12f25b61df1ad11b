"""A recipe without the runs that have no weight says the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldblend.scoring.ensembling.predictors import Average, Predictor, Recipe, recipe_from_record
from foldblend.scoring.thresholds.rules import Rule

N, LABELS, RUNS = 7, 3, 4
WEIGHTS = st.lists(st.sampled_from([0.0, 0.25, 1.5]), min_size=RUNS, max_size=RUNS).filter(any)


def score_tables(seed):
    """[run][fold] -> float32 (N, LABELS)."""
    return np.random.default_rng(seed).normal(size=(RUNS, 2, N, LABELS)).astype(np.float32)


def check(predictor, seed, used):
    recipe, tables = (
        Recipe("multilabel", predictor, Rule(thresholds=np.full(LABELS, 0.5, np.float32))),
        score_tables(seed),
    )
    recipe = recipe_from_record(recipe.to_record())
    assert recipe.used_runs(RUNS) == used
    expected = recipe.fold_probs(list(tables))
    assert np.array_equal(recipe.of_used_runs(RUNS).fold_probs([tables[run] for run in used]), expected)


@given(WEIGHTS, st.sampled_from(["probs", "scores"]), st.integers(0, 99))
def test_weights_of_runs(weights, form, seed):
    check(Predictor(form, "multilabel", np.array(weights)), seed, np.flatnonzero(weights).tolist())


@given(WEIGHTS, WEIGHTS, st.integers(0, 99))
def test_an_average_looks_at_what_either_looks_at(first, second, seed):
    parts = [Predictor("probs", "multilabel", np.array(weights)) for weights in (first, second)]
    used = np.flatnonzero(np.array(first) + np.array(second)).tolist()
    check(Average(*parts, np.array([0.0, 0.5, 1.0])), seed, used)


@pytest.mark.parametrize("form, n_features", [("label_stack", RUNS + 1), ("cross_label_stack", 2 * RUNS + LABELS + 2)])
def test_stacks_look_at_all_runs(form, n_features):
    coefs = np.zeros((LABELS, n_features))
    coefs[:, 0] = 1
    stack = Predictor(form, "multilabel", coefs)
    check(stack, 0, [0, 1, 2, 3])
    one = Predictor("probs", "multilabel", np.array([0.0, 1.0, 0.0, 0.0]))
    check(Average(stack, one, np.full(LABELS, 0.5)), 0, [0, 1, 2, 3])
