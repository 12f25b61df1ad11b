"""Losses and gradient norms of the last few steps, kept on the device until they are read, each with its rows."""

import numpy as np
import torch


class LossWindow:
    """Summed losses of steps, this process's share of each."""

    def __init__(self, accelerator):
        self.accelerator = accelerator
        self.losses: list[torch.Tensor] = []
        self.norms: list[torch.Tensor] = []
        self.rows: list[np.ndarray] = []

    def add(self, loss: torch.Tensor, norm: torch.Tensor, rows: np.ndarray) -> None:
        """Take in a step's summed loss and gradients' norm, scalars, and its rows, int64 (B,), over all processes."""
        self.losses.append(loss)
        self.norms.append(norm)
        self.rows.append(rows)

    def read(self) -> tuple[float, np.ndarray | None]:
        """What `peek` says; then the window is empty."""
        seen = self.peek()
        self.losses, self.norms, self.rows = [], [], []
        return seen

    def peek(self) -> tuple[float, np.ndarray | None]:
        """Mean loss a row since the last reading; rows of the first step with a loss or gradient not finite, if any."""
        if not self.losses:
            return 0.0, None
        seen = torch.stack([torch.stack(self.losses), torch.stack(self.norms)])  # (2, steps)
        losses, norms = self.accelerator.reduce(seen, "sum")
        finite = (torch.isfinite(losses) & torch.isfinite(norms)).tolist()
        bad = None if all(finite) else self.rows[finite.index(False)]
        return float(losses.sum()) / sum(map(len, self.rows)), bad
