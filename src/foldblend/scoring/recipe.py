"""The recipe of a submission: everything that turns the runs' test scores into the answer, as plain numbers.

Test rows are predicted by every fold's models and the probabilities averaged. The mean of probabilities keeps each
label's mean, so about as many rows pass a threshold tuned on single models' OOF rows as passed it there; the mean of
log-odds would pull rare labels below it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from foldblend.scoring.ensembling.predictors import (
    Formula,
    keep_runs,
    predict_folds,
    predictor_from_record,
    used_runs,
)
from foldblend.scoring.thresholds.rules import Rule, decide, rule_from_record
from foldblend.scoring.validation.expected import reestimate_priors


@dataclass(frozen=True)
class Recipe:
    """From the runs' test scores to probabilities and to the answer."""

    kind: str
    """`multilabel` or `multiclass`."""
    predictor: Formula
    rule: Rule
    priors: np.ndarray | None = None
    """float64 (L,): label rates of training, if they are re-estimated on the test rows."""
    shifted: tuple[int, ...] = ()
    """The labels whose rates are re-estimated."""

    def used_runs(self, n_runs: int) -> list[int]:
        """The runs that the probabilities depend on, of the `n_runs` that the recipe was made of; rising."""
        return used_runs(self.predictor, n_runs)

    def of_used_runs(self, n_runs: int) -> "Recipe":
        """The recipe for the scores of `used_runs` alone; it gives the same answer."""
        return replace(self, predictor=keep_runs(self.predictor, self.used_runs(n_runs)))

    def fold_probs(self, test_folds: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
        """Each fold's probabilities of the test rows, float32 (K, n, L).

        Args: test_folds: for each of M runs, K tables of scores (n, L), or one for a run that has no fold models.
        """
        return predict_folds(self.predictor, test_folds)

    def answer(self, fold_probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mean probabilities float32 (n, L), and the decisions bool (n, L), or the same probs again."""
        probs = fold_probs.mean(axis=0)
        if self.priors is not None and self.shifted:
            moved = reestimate_priors(probs, self.priors, self.kind)[0]
            labels = list(range(probs.shape[1])) if self.kind == "multiclass" else list(self.shifted)
            probs[:, labels] = moved[:, labels]
        return probs, decide(self.rule, probs)

    def to_record(self) -> dict:
        """Plain values that JSON holds without loss."""
        record = {"kind": self.kind, "predictor": self.predictor.to_record(), "rule": self.rule.to_record()}
        if self.priors is not None:
            record |= {"priors": self.priors.tolist(), "shifted": list(self.shifted)}
        return record


def recipe_from_record(record: dict) -> Recipe:
    """The recipe that `to_record` wrote, now or before version 0.2."""
    priors = np.array(record["priors"], np.float64) if "priors" in record else None
    return Recipe(
        record["kind"],
        predictor_from_record(record["predictor"]),
        rule_from_record(record["rule"]),
        priors,
        tuple(record.get("shifted", ())),
    )
