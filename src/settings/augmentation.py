"""What makes more of a fold's training rows, of rare labels above all."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class AugmentationSettings:
    """Made of a fold's training rows alone, after the folds are drawn; all off by default."""

    oversample_factor: float = 0.0
    """Copies appended, drawn with replacement, as a multiple of the rows that carry a rare label."""
    oversample_rarer_than: float = 0.0
    """A label is rare whose share of the training rows is below this, if there is one; or name a number by
    oversample_k_rarest."""
    oversample_k_rarest: int = 0
    """The k labels with the fewest rows are rare."""
    oversample_labels: tuple[str, ...] = ()
    """These labels take the place of rare ones, such as those that a first run was worst at."""
    mix_probability: float = 0.0
    """Chance that a text is joined with another one's, within model.max_length_tokens; the row then has the labels of
    both. Multilabel only."""
    token_dropout: float = 0.0
    """Chance of each token of a text to be masked, or left out where the tokenizer has no mask token."""


def augmentation_conflicts(augmentation: AugmentationSettings) -> Iterator[str]:
    """Every value that cannot work, as sentences."""
    ways = ("oversample_rarer_than", "oversample_k_rarest", "oversample_labels")
    chosen = [name for name in ways if getattr(augmentation, name)]
    if augmentation.oversample_factor and len(chosen) != 1:
        yield (
            f"augmentation.oversample_factor is {augmentation.oversample_factor}; say which labels are rare by one of "
            f"{', '.join(f'augmentation.{name}' for name in ways)}"
        )
    if chosen and not augmentation.oversample_factor:
        yield f"augmentation.{chosen[0]} is set, but augmentation.oversample_factor is 0, so nothing is drawn"
    for name in ("oversample_factor", "oversample_k_rarest"):
        if not getattr(augmentation, name) >= 0:
            yield f"augmentation.{name} is {getattr(augmentation, name)}; expected 0 or more"
    if not 0 <= augmentation.mix_probability <= 1:
        yield f"augmentation.mix_probability is {augmentation.mix_probability}; expected 0 to 1"
    for name in ("oversample_rarer_than", "token_dropout"):
        if not 0 <= getattr(augmentation, name) < 1:
            yield f"augmentation.{name} is {getattr(augmentation, name)}; expected 0 up to, but not, 1"
