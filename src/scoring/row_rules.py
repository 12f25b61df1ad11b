"""The scoring room's row rules: how many labels a row may have, taken only where cross-fitting says they help."""

from dataclasses import replace

import numpy as np

from scoring.bootstrap import Additive, Buckets, make_additive, resample
from scoring.decoders import Rule, Task, decide, tune_rule

N_RESAMPLES = 400
"""Paired bootstrap resamples."""


def offer_row_rules(labels: np.ndarray) -> dict[str, dict]:
    """Row rules worth trying, as fields of `Rule` by name: what the labels' own habits suggest."""
    per_row = labels.sum(axis=1)
    offered = {"at least one label": {"at_least_one": True}}
    for most in sorted({int(np.quantile(per_row, share, method="higher")) for share in (0.95, 0.99)} - {0}):
        offered[f"at most {most} labels"] = {"at_most": most}
        offered[f"one to {most} labels"] = {"at_least_one": True, "at_most": most}
    alone = (labels & (per_row == 1)[:, None]).sum(axis=0) / np.maximum(labels.sum(axis=0), 1)
    label = int(np.argmax(alone * (labels.mean(axis=0) > 0.02)))
    offered[f"label {label} stands alone"] = {"exclusive": label}
    offered[f"label {label} stands alone, at least one label"] = {"exclusive": label, "at_least_one": True}
    return offered


def choose_row_rule(
    task: Task, cutoffs: str, probs: np.ndarray, labels: np.ndarray, part: np.ndarray, seed: int
) -> tuple[dict, str, np.ndarray | None]:
    """The row rule whose lead over none is beyond luck: the lower end of the paired 90 % interval is above 0.

    Args:    probs: float32 (N, L), cross-fitted.   part: int64 (N,): cut-offs for a part are tuned on the others.
    Returns: fields of `Rule` (none where none helps), the rule in words, and the answers (N, L) in which each part's
             row rule was chosen on the other parts; None where none is taken.
    """
    if task.takes_probs or task.kind == "multiclass":
        return {}, "", None
    offered, buckets = {"": {}, **offer_row_rules(labels)}, Buckets(part, seed)
    rules = [tune_rule(task, cutoffs, probs[part != held], labels[part != held]) for held in range(part.max() + 1)]
    answers = {name: _decide_parts(rules, fields, probs, part) for name, fields in offered.items()}
    additive = {name: make_additive(task, labels, answer, buckets) for name, answer in answers.items()}
    picked = _pick(additive, np.ones(len(buckets.starts), bool), seed)
    if not picked:
        return {}, "", None
    honest = answers[""].copy()
    for held in range(part.max() + 1):
        rows = part == held
        honest[rows] = answers[_pick(additive, buckets.parts != held, seed)][rows]
    return offered[picked], picked, honest


def _decide_parts(rules: list[Rule], fields: dict, probs: np.ndarray, part: np.ndarray) -> np.ndarray:
    answer = np.empty(probs.shape, bool)
    for held, rule in enumerate(rules):
        answer[part == held] = decide(replace(rule, **fields), probs[part == held])
    return answer


def _pick(additive: dict[str, Additive], among: np.ndarray, seed: int) -> str:
    """The name of the best rule that beats none on some buckets of rows; empty where none does."""
    drawn = resample(list(additive.values()), among, 1.0, N_RESAMPLES, seed)
    lead = drawn - drawn[:, [0]]
    sure = np.quantile(lead, 0.05, axis=0) > 0
    return list(additive)[int(np.argmax(np.where(sure, lead.mean(axis=0), 0.0)))]
