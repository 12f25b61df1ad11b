"""Which weights a fold ends with, and the few candidates that are kept on disk until that is known.

An evaluation is a dict with `loss` and the competition's metric, both of the held-out rows; candidates bear its
position in the list. A candidate is removed only after a checkpoint has been written that does not need it, so that a
training killed at any moment finds what its checkpoint counts on.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from learners.checkpoints import Place, load_checkpoint, save_checkpoint
from scoring.metrics import METRICS
from settings.run import TrainingSettings

LOOKING = ("best_score", "lowest_loss", "loss_and_score")
"""These choose by held-out rows."""


def choose(evaluations: Sequence[dict], how: str, near: float, metric: str) -> int:
    """Position of the evaluation whose weights are taken; `metric`: the score, a name in METRICS.

    Of equal ones the first is taken, after the better of the other measure. `loss_and_score` takes the best score
    among the evaluations whose loss is at most (1 + near) times the lowest.
    Example: losses .30 .25 .254 .29, scores .50 .55 .56 .60 -> best_score 3, lowest_loss 1, loss_and_score 2 at .02.
    """
    if how == "lowest_loss":
        return min(range(len(evaluations)), key=lambda i: (evaluations[i]["loss"], -_merit(evaluations[i], metric)))
    near_ones = range(len(evaluations)) if how == "best_score" else _near_lowest(evaluations, near)
    return min(near_ones, key=lambda i: (-_merit(evaluations[i], metric), evaluations[i]["loss"]))


def still_in_play(evaluations: Sequence[dict], how: str, near: float, metric: str) -> list[int]:
    """Positions that `choose` may still return once more evaluations have been appended, the new ones aside."""
    if how != "loss_and_score" or not evaluations:
        return [choose(evaluations, how, near, metric)] if evaluations else []
    near_ones = _near_lowest(evaluations, near)
    return [i for i in near_ones if not any(_beats(evaluations, j, i, metric) for j in near_ones)]


def _merit(evaluation: dict, metric: str) -> float:
    """The score, larger being better."""
    return evaluation[metric] if METRICS[metric].greater_is_better else -evaluation[metric]


def _near_lowest(evaluations: Sequence[dict], near: float) -> list[int]:
    limit = min(each["loss"] for each in evaluations) * (1 + near)
    return [i for i, each in enumerate(evaluations) if each["loss"] <= limit]


def _beats(evaluations: Sequence[dict], j: int, i: int, metric: str) -> bool:
    """Whether j is taken before i wherever i could be: no further from the lowest loss, and no worse."""
    loss = evaluations[j]["loss"] - evaluations[i]["loss"]
    score = _merit(evaluations[j], metric) - _merit(evaluations[i], metric)
    return loss <= 0 <= score and (loss < 0 < score or loss != score or j < i)


class Selection:
    """The candidates of one fold, `candidate-<number>.safetensors` beside its checkpoint."""

    def __init__(self, training: TrainingSettings, metric: str, folder: Path, identity: dict):
        self.training, self.metric, self.folder, self.identity = training, metric, folder, identity

    @property
    def looks(self) -> bool:
        """Whether held-out rows decide."""
        return self.training.selection in LOOKING

    def needed(self, place: Place) -> list[int]:
        """Numbers of the candidates that a training at `place` counts on."""
        if self.looks:
            return still_in_play(place.history, self.training.selection, self.training.near_lowest_loss, self.metric)
        averages = self.training.selection == "average_last" and self._averaged(place.epoch) > 0
        return [place.epoch] if averages else []

    def wants(self, place: Place, at_epoch_end: bool) -> bool:
        """Whether the weights at `place`, just evaluated where evaluations decide, must be kept."""
        newest = len(place.history) - 1 if self.looks else place.epoch
        return (self.looks or at_epoch_end) and newest in self.needed(place)

    def keep(self, place: Place, tensors: dict[str, torch.Tensor]) -> None:
        """Write the candidate of `place`: its weights, or their mean with the epochs before."""
        number = len(place.history) - 1
        if not self.looks:
            number, n_averaged = place.epoch, self._averaged(place.epoch)
            if n_averaged > 1:
                tensors = add_to_mean(self.load(number - 1), tensors, n_averaged)
        save_checkpoint(self._path(number), tensors, place, self.identity)

    def drop_all_but(self, numbers: Sequence[int]) -> None:
        """Remove the other candidates' files."""
        kept = {self._path(number) for number in numbers}
        for path in set(self.folder.glob("candidate-*.safetensors")) - kept:
            path.unlink(missing_ok=True)

    def check(self, place: Place) -> None:
        """Raise ValueError where a candidate that `place` counts on is gone, or its scores are of another metric."""
        if any(self.metric not in evaluation for evaluation in place.history):
            raise ValueError(
                f"{self.folder}: the checkpoint there has no {self.metric} of its looks at the held-out rows; the "
                f"competition's metric was another one. {self._cure()}"
            )
        for number in self.needed(place):
            if not self._path(number).exists():
                raise ValueError(f"{self._path(number)} is gone, the checkpoint beside it counts on it. {self._cure()}")

    def final(self, place: Place) -> int | None:
        """Number of the candidate that a fold at its end takes; None where it keeps the weights it has."""
        if self.looks:
            return choose(place.history, self.training.selection, self.training.near_lowest_loss, self.metric)
        return next(iter(self.needed(place)), None)

    def load(self, number: int) -> dict[str, torch.Tensor]:
        """A candidate's tensors. Raises ValueError where it is damaged, gone or of another training."""
        found = load_checkpoint(self._path(number), self.identity)
        if found is None:
            raise ValueError(f"{self._path(number)} is gone. {self._cure()}")
        return found[0]

    def _averaged(self, epoch: int) -> int:
        """How many of the epochs to average have ended when `epoch` epochs have."""
        return epoch - (self.training.epochs - self.training.average_last_epochs)

    def _path(self, number: int) -> Path:
        return self.folder / f"candidate-{number}.safetensors"

    def _cure(self) -> str:
        return f"Train the fold anew: rm -r '{self.folder}' and run the same command again"


def add_to_mean(mean: dict[str, torch.Tensor], new: dict[str, torch.Tensor], n: int) -> dict[str, torch.Tensor]:
    """The mean of n tensors of each name, from the mean of n - 1 and the new one; whole numbers are the new ones."""
    return {
        name: torch.lerp(mean[name], tensor, 1 / n) if tensor.is_floating_point() else tensor
        for name, tensor in new.items()
    }
