"""A training that learns nothing is stopped early, with what was seen and what to try."""

import math

import numpy as np

CURE = "Try a lower --optimizer.lr, a longer --optimizer.warmup_fraction, or --training.precision fp32"
LEAST_SPREAD = 1e-3
"""Logits of a model that tells texts apart spread by far more than this between rows."""
LEAST_STEPS = 50
"""A shorter training is not judged by its losses at its end: it may be honest and not have got anywhere yet."""
MEAN_OVER_READS = 10
"""The loss is read every ten steps. A generator starts far above the prior, having no idea of the answer's form; a mean
that remembered that for long would stop it."""


class CollapseGuard:
    """Watches the training loss against the best constant answer's, and the logits for being constant."""

    def __init__(self, prior_loss: float, check_after_steps: int):
        self.prior_loss, self.check_after_steps = prior_loss, check_after_steps

    def check_loss(self, step: int, loss: float, mean_loss: float) -> None:
        """Raises ValueError when the loss is not finite, or after the set steps no better than a constant answer's.

        Args: loss: of the last few steps, which a mean that began far above may not have followed yet.
        """
        self.check_finite(step, loss)
        judged = self.check_after_steps and step >= self.check_after_steps
        if judged and min(loss, mean_loss) >= self.prior_loss:
            raise ValueError(
                f"step {step}: the mean training loss is {mean_loss:.4f}; answering every text with the label rates "
                f"alone has {self.prior_loss:.4f}, so the model has collapsed to a constant. {CURE}"
            )

    def check_end(self, n_steps: int, mean_loss: float, heldout_loss: float, heldout_prior: float) -> None:
        """Raises ValueError when a training of n_steps ends without having got below a constant answer anywhere.

        Training rows alone would condemn a short training for its first steps, held-out rows alone an overfitted one;
        who has learned something is better on one of them.

        Args: mean_loss: of the last training steps.   heldout_loss, heldout_prior: of the held-out rows, the model's
              and that of the constant that is best on the rows taught.
        """
        judged = self.check_after_steps and n_steps >= min(LEAST_STEPS, self.check_after_steps)
        if judged and mean_loss >= self.prior_loss and heldout_loss >= heldout_prior:
            raise ValueError(
                f"after {n_steps} steps the mean training loss is {mean_loss:.4f} and the held-out loss "
                f"{heldout_loss:.4f}; answering every text with the label rates alone has {self.prior_loss:.4f} and "
                f"{heldout_prior:.4f}, so the model has learned nothing. {CURE}, or more training.epochs; "
                "training.collapse_check_after_steps 0 turns the check off"
            )

    def check_finite(self, step: int, loss: float, bad_rows: np.ndarray | None = None) -> None:
        """Raises ValueError when the loss, or the gradient of some rows, is not finite.

        Args: bad_rows: int64 (B,), the rows of the first step whose loss or gradient was not finite, if known.
        """
        if math.isfinite(loss) and bad_rows is None:
            return
        what = "the gradient is not finite" if math.isfinite(loss) else f"the training loss is {loss}"
        where = "" if bad_rows is None else f", first on rows {_name_rows(bad_rows)} of the training file"
        raise ValueError(
            f"step {step}: {what}{where}. An overflow in fp16, a rate too high, or those "
            f"texts. {CURE} (bf16 where the hardware has it)"
        )

    def check_heldout(self, loss: float) -> None:
        """Raises ValueError when the held-out rows' loss is not finite: no weights could be chosen by it."""
        if not math.isfinite(loss):
            raise ValueError(f"the held-out rows' loss is {loss}. {CURE}")


def _name_rows(rows: np.ndarray) -> str:
    shown = ", ".join(map(str, rows[:32].tolist()))
    return shown + (f" and {len(rows) - 32} more (counted from 0)" if len(rows) > 32 else " (counted from 0)")


def update_mean(mean_loss: float, loss: float, read: int) -> float:
    """Running mean over about the last MEAN_OVER_READS losses; the plain mean before that. `read` counts from 0."""
    return mean_loss + (loss - mean_loss) / min(read + 1, MEAN_OVER_READS)


def check_logits(logits: np.ndarray, what: str) -> None:
    """Raises ValueError when logits (n, L) are not finite, or the same for every row."""
    bad = int((~np.isfinite(logits)).any(1).sum())
    if bad:
        raise ValueError(f"{what}: {bad} of {len(logits)} rows have logits that are not finite. {CURE}")
    if len(logits) > 1 and float(logits.std(0).max()) < LEAST_SPREAD:
        raise ValueError(f"{what}: every text gets the same logits, so the model has collapsed to a constant. {CURE}")
