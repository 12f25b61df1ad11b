"""What a fold keeps on disk while it trains: its checkpoint, its candidates, and in the end its weights."""

from pathlib import Path

import torch

from learners.checkpoints import (
    CHECKPOINT,
    WEIGHTS,
    Place,
    load_checkpoint,
    model_tensors,
    optimizer_tensors,
    restore_model,
    restore_optimizer,
    save_checkpoint,
)
from learners.selection import Selection
from learners.sharding import gather_whole


class FoldStore:
    """Files of one fold. Every process calls every method, as shards are gathered; the first one writes."""

    def __init__(self, accelerator, model, optimizer, average, folder: Path, identity: dict):
        self.accelerator, self.optimizer, self.average = accelerator, optimizer, average
        self.model, self.folder, self.identity = accelerator.unwrap_model(model), folder, identity

    def save_checkpoint(self, place: Place, selection: Selection) -> None:
        """Everything that going on takes; then the candidates it does not count on are removed."""
        tensors = model_tensors(self.model) | optimizer_tensors(self.optimizer)
        tensors |= self.average.tensors() if self.average is not None else {}
        place.scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else {}
        self._write(CHECKPOINT, tensors, place)
        if self.accelerator.is_main_process:
            selection.drop_all_but(selection.needed(place))

    def save_candidate(self, place: Place, selection: Selection) -> None:
        """The model's weights as they stand, as the newest candidate."""
        tensors = gather_whole(model_tensors(self.model), self.accelerator.is_main_process)
        if self.accelerator.is_main_process:
            selection.keep(place, tensors)
        self.accelerator.wait_for_everyone()

    def save_weights(self, place: Place, selection: Selection) -> None:
        """The finished weights; they replace checkpoint and candidates."""
        self._write(WEIGHTS, model_tensors(self.model), place)
        if self.accelerator.is_main_process:
            self._tidy(selection)

    @staticmethod
    def has_saved(folder: Path) -> bool:
        """Whether there is something to restore."""
        return any((folder / name).exists() for name in (WEIGHTS, CHECKPOINT))

    def restore(self, selection: Selection) -> Place:
        """Load the finished weights, else the checkpoint, else stand at the beginning."""
        found = load_checkpoint(self.folder / WEIGHTS, self.identity)
        if found is not None:
            restore_model(self.model, found[0])
            if self.accelerator.is_main_process:
                self._tidy(selection)
            return found[1]
        found = load_checkpoint(self.folder / CHECKPOINT, self.identity)
        if found is None:
            return Place()
        tensors, place = found
        selection.check(place)
        restore_model(self.model, tensors)
        restore_optimizer(self.optimizer, tensors)
        if self.average is not None:
            self.average.restore(tensors)
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(place.scaler)
        return place

    def load_weights(self) -> dict[str, torch.Tensor]:
        """The tensors of the finished fold's file."""
        self.accelerator.wait_for_everyone()
        found = load_checkpoint(self.folder / WEIGHTS, self.identity)
        if found is None:
            raise ValueError(
                f"{self.folder / WEIGHTS} is not there for every process; share its folder between machines"
            )
        return found[0]

    def _write(self, name: str, tensors: dict[str, torch.Tensor], place: Place) -> None:
        tensors = gather_whole(tensors, self.accelerator.is_main_process)
        if self.accelerator.is_main_process:
            save_checkpoint(self.folder / name, tensors, place, self.identity)

    def _tidy(self, selection: Selection) -> None:
        (self.folder / CHECKPOINT).unlink(missing_ok=True)
        selection.drop_all_but([])
