"""Log-loss stacks: one logistic regression per label on the runs' scores, shrunk towards weights that labels share.

Log loss is smooth and F1 is a staircase, so these weights hold on new rows, and the probabilities are calibrated,
which robust thresholds need. A label's weights are shrunk towards weights that all labels share; the strength is
chosen by the log loss of parts left out. Cross-fitting needs each regression without every part and every pair of
parts; `fit_logistic` fits all of these subsets at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from foldblend.cores import over_labels
from foldblend.scoring.ensembling.predictors import Predictor, label_features
from foldblend.scoring.inputs import Partition, Scores, sigmoid

# ---------- Solver: ridge logistic regressions on many subsets of the same rows at once


MAX_STEPS = 30
"""Newton steps of one fit."""
SLOW = 0.1
"""A step that promises more than this share of what the last one did asks for a new Hessian."""
SURE_GAIN = 0.3
"""A step that promises less log loss than this is so near to the goal that it is taken without a check."""
TOLERANCE = 1e-4
"""Log loss, summed over rows, that a further step would still win."""
MAX_HALVINGS = 8
"""Times that a step is halved before it is taken as it is."""


def fit_logistic(
    features: np.ndarray, labels: np.ndarray, parts: list[slice], subsets: np.ndarray,
    prior: np.ndarray, penalty: np.ndarray, start: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Minimise log loss + 0.5 * sum(penalty * (coefs - prior)**2) over the rows of each subset.

    The fits run side by side, for one matrix product is faster than S, and share nothing: no number of a fit depends
    on the labels of a row that it may not see, to the last bit. A Hessian costs more than all else, so a fit keeps its
    own from step to step until the steps no longer shrink fast.

    Args:    features: float32 (N, F), rows ordered by part.   labels: bool (N,), or shares in [0, 1].
             parts: P slices of the N rows.
             subsets: bool (S, P), the parts each fit may see.   prior: float64 (F,) or (F, S).   penalty: float64 (F,).
             start: float64 (F, S), where to begin, each from its own subset; the prior by default.
    Returns: float64 (F, S).
    Source:  Newton-Raphson (IRLS) with a Hessian that is used again (the chord method, Kelley 1995, chapter 5), each
             fit's step halved until its loss does not rise.
    """
    member = np.empty((len(labels), len(subsets)), bool)  # (N, S): the rows of each subset
    for part, rows in enumerate(parts):
        member[rows] = subsets[:, part]
    prior, penalty = (_per_subset(values, len(subsets)) for values in (prior, penalty))  # (F, S)
    # (N, 1), against probs of (N, S)
    target = labels.astype(np.float32)[:, None]
    coefs = prior.copy() if start is None else start.copy()
    probs = sigmoid(features @ coefs.astype(np.float32))  # (N, S)
    hessians = np.empty((len(subsets), len(coefs), len(coefs)))
    moving, last = np.ones(len(subsets), bool), np.zeros(len(subsets))
    for _ in range(MAX_STEPS):
        # the gradient of a logistic loss: features times (probability - label), plus that of the penalty
        slope = _slope(features, probs - target, member) + penalty * (coefs - prior)  # (F, S)
        step, gain = np.zeros_like(slope), np.zeros(len(subsets))
        # first with the Hessian that the fit has from an earlier step, which costs one small system
        known = np.flatnonzero(moving & (last > 0))
        step[:, known] = _solve(hessians[known], slope[:, known])
        gain[known] = (slope * step).sum(axis=0)[known]  # twice the log loss to win, if the loss is a parabola
        # a new one for fits that have none yet, or whose steps no longer shrink fast; not for those that are done
        slow = np.flatnonzero(moving & ((last == 0) | (gain > SLOW * last)) & ~((last > 0) & (gain < TOLERANCE)))
        for fit in slow:
            hessians[fit] = _hessian(features, probs[:, fit], parts, subsets[fit], penalty[:, fit])
        step[:, slow] = _solve(hessians[slow], slope[:, slow])
        gain[slow] = (slope * step).sum(axis=0)[slow]
        moving &= gain >= TOLERANCE
        if not moving.any():
            break
        last = gain
        # a finished fit stays as it is to the last bit, whatever the fits beside it still do
        step[:, ~moving] = 0
        far = moving & (gain >= SURE_GAIN)
        coefs, probs = _descend(features, target, member, probs, coefs, step, far, prior, penalty)
    return coefs


def _per_subset(values: np.ndarray, n_subsets: int) -> np.ndarray:
    return np.repeat(values[:, None], n_subsets, axis=1) if values.ndim == 1 else values


def _slope(features: np.ndarray, error: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Gradient of each subset's log loss (F, S); overwrites `error`, (N, S)."""
    # rows outside a subset get error 0, which leaves them out of all sums of the one matrix product
    error *= member
    return (features.T @ error).astype(np.float64)


def _loss(probs, target, member, coefs, prior, penalty) -> np.ndarray:
    """Each subset's penalised loss (S,)."""
    # p for a positive, p - 1 for a negative: the absolute value is the probability of what did happen
    right = probs + (target - np.float32(1))
    np.maximum(np.abs(right, out=right), np.float32(1e-12), out=right)  # the probability of what did happen
    if ((target > 0) & (target < 1)).any():  # shares: both things did, in part
        yes, no = (np.log(np.maximum(part, np.float32(1e-12))) for part in (probs, 1 - probs))
        right = np.exp(target * yes + (1 - target) * no)
    # summed in float64: the loss of 50,000 rows is compared with one that is 1e-6 lower
    loss = -np.einsum("ns,ns->s", np.log(right, out=right), member, dtype=np.float64)
    return loss + 0.5 * (penalty * (coefs - prior) ** 2).sum(axis=0)


def _hessian(features, probs, parts, subset, penalty) -> np.ndarray:
    """Second derivatives of one subset's penalised loss, float64 (F, F). Args: probs: float32 (N,), of its own fit."""
    # X^T diag(p (1 - p)) X as a product of one scaled matrix with itself; 1e-8, as float32 may say p is exactly 1
    spread = np.sqrt(probs * (1 - probs) + np.float32(1e-8))[:, None]
    # 1e-6 keeps the system solvable if two runs are the same and a penalty is 0
    total = np.diag(penalty + 1e-6)
    for part in np.flatnonzero(subset):
        scaled = features[parts[part]] * spread[parts[part]]
        total += scaled.T @ scaled
    return total


def _solve(hessians: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """The Newton step of some fits, float64 (F, s). Args: hessians: (s, F, F).   slope: (F, s)."""
    return np.linalg.solve(hessians, slope.T[:, :, None])[:, :, 0].T


def _descend(features, target, member, probs, coefs, step, far, prior, penalty) -> tuple:
    """Move every fit along its step: coefs, probs. The step of a `far` fit is halved if its loss would rise."""
    moved = coefs - step
    new_probs = sigmoid(features @ moved.astype(np.float32))
    if not far.any():
        return moved, new_probs
    loss, size = _loss(probs, target, member, coefs, prior, penalty), np.ones(coefs.shape[1])
    for _ in range(MAX_HALVINGS):
        worse = far & (_loss(new_probs, target, member, moved, prior, penalty) > loss + 1e-6 * np.abs(loss))
        if not worse.any():
            break
        size[worse] /= 2
        moved = coefs - size * step
        new_probs = sigmoid(features @ moved.astype(np.float32))
    return moved, new_probs


# ---------- Stacks


STRENGTHS = (10.0, 100.0, 1000.0)
"""Ridge penalties on a label's distance to the shared weights."""
SHARED_STRENGTH = 1e5
"""The penalty that all but forbids any distance."""
OWN_STRENGTH = 100.0
"""The penalty on a label's own weights in a stack that sees the other labels."""
CROSS_STRENGTHS = (10.0, 100.0)
"""Ridge penalties on the squares and the row's summary ..."""
OTHERS_PENALTY = 100.0
"""... and this many times as much on the other labels' scores one by one."""
PARTS_AT_ONCE = 2
"""Tables of probabilities that cross-fitting holds at a time: more would be faster and take the memory."""
FIRST_PENALTY = 1.0
"""Ridge on the separate fits that the shared weights are averaged from."""


@dataclass(frozen=True)
class Stack:
    """The linear weights of every fit that cross-fitting needs, at every strength, and the strength each one takes."""

    coefs: np.ndarray
    """float64 (T, S, L, F): strength, fit of `Partition.left_out`, label, feature of `label_features`."""
    chosen: np.ndarray
    """int64 (P + 1,): the strength that part k takes, chosen without part k; the last one for new rows."""
    form: str
    """`label_stack`, or `cross_label_stack` if the features reach beyond the label's own scores."""
    kind: str
    """`multilabel` or `multiclass`."""

    def predictor(self, part: int, fit: int) -> Predictor:
        """The formula of one fit at the strength that `part` takes."""
        return Predictor(self.form, self.kind, self.coefs[self.chosen[part], fit])

    def predict_parts(self, scores: Scores, partition: Partition) -> Iterator[np.ndarray]:
        """What cross-fitting for each part k needs: probabilities float32 (N, L), one table per part.

        Table k holds, for rows of part j, what the fit without k and j says at the strength that k takes; for part k's
        own rows, the fit without k. Each label's features are built once for several tables.
        """
        for start in range(0, partition.n_parts, PARTS_AT_ONCE):
            held_out = np.arange(start, min(start + PARTS_AT_ONCE, partition.n_parts))
            yield from self._predict_some(scores, partition, held_out)

    def _predict_some(self, scores: Scores, partition: Partition, held_out: np.ndarray) -> np.ndarray:
        """The tables of some parts, float32 (C, N, L)."""
        coefs = self.coefs.astype(np.float32)
        probs = np.empty((len(held_out), *scores.runs[0].shape), np.float32)

        def predict_label(label):
            for part, rows in enumerate(partition.rows):
                # for held == part this is the fit without that part alone
                fits = [partition.fit_without(part, held) for held in held_out]
                chosen = coefs[self.chosen[held_out], fits, label]  # (C, F)
                features = label_features(scores, label, rows, self.form == "cross_label_stack")
                probs[:, rows, label] = sigmoid(chosen @ features.T)

        over_labels(predict_label, probs.shape[2], probs.shape[1])
        return probs / probs.sum(axis=2, keepdims=True) if self.kind == "multiclass" else probs


def fit_shared_weights(scores: Scores, labels: np.ndarray, partition: Partition) -> np.ndarray:
    """Weights of the runs that all labels share, one set per fit: float64 (M + 1, S), the last row 0 for the constant.

    Each label is fitted by itself; the fits are averaged, each weighted by its information. (A fixed-effects
    meta-analysis, which is one Newton step of the joint fit.)
    """
    n_runs = len(scores.runs)
    # the last feature is the constant, which is all but free
    penalty = np.r_[np.full(n_runs, FIRST_PENALTY), 1e-3]

    def fit_label(label):
        features = label_features(scores, label, partition.order, across_labels=False)
        coefs = fit_logistic(
            features, labels[partition.order, label], partition.slices, partition.subsets,
            np.zeros(n_runs + 1), penalty,
        )  # fmt: skip
        return coefs, _information(features, partition)

    fits = over_labels(fit_label, labels.shape[1], len(labels))
    coefs = np.array([fit[0][:n_runs] for fit in fits])  # (L, M, S)
    information = np.array([fit[1] for fit in fits])  # (L, S, M, M)
    # precision-weighted mean: (sum of I_l)^-1 (sum of I_l w_l), over labels l, for each fit s
    pulled = np.einsum("lsij,ljs->si", information, coefs)
    shared = np.linalg.solve(information.sum(axis=0) + 1e-6 * np.eye(n_runs), pulled[:, :, None])[:, :, 0].T  # (M, S)
    return np.r_[shared, np.zeros((1, shared.shape[1]))]


def _information(features: np.ndarray, partition: Partition) -> np.ndarray:
    """Fisher information of the runs' weights in every fit, the constant taken out: float64 (S, M, M).

    At the equal mean of the scores, not at the fit: what a fit may not see must not weigh in it either.
    """
    # without the last column, which is the constant
    probs = sigmoid(features[:, :-1].mean(axis=1))
    scaled = features * np.sqrt(probs * (1 - probs) + np.float32(1e-8))[:, None]
    # information adds up over rows, so each part is counted once and every subset is a sum of parts
    by_part = np.array([scaled[rows].T @ scaled[rows] for rows in partition.slices], np.float64)
    whole = np.tensordot(partition.subsets.astype(np.float64), by_part, 1)  # (S, M + 1, M + 1)
    constant = whole[:, :-1, -1]
    return whole[:, :-1, :-1] - constant[:, :, None] * constant[:, None, :] / whole[:, -1:, -1:]  # Schur complement


def fit_stack(
    scores: Scores, labels: np.ndarray, partition: Partition, shared: np.ndarray, kind: str,
    strengths: tuple[float, ...], cross_strengths: tuple[float, ...] = (),
) -> Stack:  # fmt: skip
    """Fit each label's weights at each strength and choose the strength by the log loss of parts left out.

    Args: shared: float64 (M + 1, S), where each fit's weights are shrunk to.
          cross_strengths: penalties on the features beyond the label's own scores; none leaves them out. Then the first
          of `strengths` is the penalty on the label's own weights.
    """
    across_labels, n_runs = bool(cross_strengths), len(scores.runs)
    n_more, n_others = (n_runs + 2, labels.shape[1] - 1) if across_labels else (0, 0)
    grid = [(strengths[0], more) for more in cross_strengths] if across_labels else [(own, 0.0) for own in strengths]
    # what is not a run's score of the label itself is shrunk to 0
    prior = np.r_[shared, np.zeros((n_more + n_others, shared.shape[1]))]

    def fit_label(label):
        features = label_features(scores, label, partition.order, across_labels)
        target, coefs, start = labels[partition.order, label], [], None
        for own, more in reversed(grid):  # from the strongest: each fit is a good start for the next weaker one
            penalty = np.r_[np.full(n_runs, own), 0.0, np.full(n_more, more), np.full(n_others, OTHERS_PENALTY * more)]
            start = fit_logistic(features, target, partition.slices, partition.subsets, prior, penalty, start)
            coefs.append(start)
        by_strength = np.array(coefs[::-1])  # (T, F, S)
        # judged here, while the features are in memory: of all labels together they would not fit
        return by_strength, _left_out_loss(features, target, by_strength, partition)

    fits = over_labels(fit_label, labels.shape[1], len(labels))
    # from (L, T, F, S) to (T, S, L, F)
    coefs = np.array([fit[0] for fit in fits]).transpose(1, 3, 0, 2)
    loss = np.array([fit[1] for fit in fits])  # (L, P + 1, T)
    form = "cross_label_stack" if across_labels else "label_stack"
    # one strength for all labels: chosen label by label it would follow the noise of rare ones
    return Stack(coefs, loss.sum(axis=0).argmin(axis=1), form, kind)


def _log_loss(target: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Log loss summed over rows, (P,), of probs (n, P). Args: target: (n, 1), bool, or shares of a regression."""
    least = np.float32(1e-7)
    if target.dtype == bool:
        return -np.log(np.maximum(np.where(target, probs, 1 - probs), least)).sum(axis=0, dtype=np.float64)
    yes, no = np.log(np.maximum(probs, least)), np.log(np.maximum(1 - probs, least))
    return -(target * yes + (1 - target) * no).sum(axis=0, dtype=np.float64)


def _left_out_loss(features: np.ndarray, target: np.ndarray, coefs: np.ndarray, partition: Partition) -> np.ndarray:
    """How each strength does on parts it did not see, within the rows that each part may see: (P + 1, T).

    A label's log loss is divided by that of its rate alone, so that rare labels count as much as frequent ones.
    """
    n_parts = partition.n_parts
    loss = np.zeros((n_parts + 1, len(coefs)))
    for inner, rows in enumerate(partition.slices):
        held_out = [*(part for part in range(n_parts) if part != inner), n_parts]  # n_parts: nothing but `inner`
        fits = [partition.fit_without(inner, *([part] if part < n_parts else [])) for part in held_out]
        for strength, weights in enumerate(coefs):
            probs = sigmoid(features[rows] @ weights[:, fits].astype(np.float32))  # (n, P)
            loss[held_out, strength] += _log_loss(target[rows, None], probs)
    hits = np.array([target[rows].sum() for rows in partition.slices])
    sizes = np.array([rows.stop - rows.start for rows in partition.slices])
    # the label's rate without part k, for each k, and on all rows: (P + 1,); half a row keeps the logarithms finite
    rates = (np.r_[hits.sum() - hits, hits.sum()] + 0.5) / (np.r_[sizes.sum() - sizes, sizes.sum()] + 1)
    return loss / -(rates * np.log(rates) + (1 - rates) * np.log(1 - rates))[:, None]
