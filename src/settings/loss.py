"""What a run minimises, and which of its values contradict each other."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class LossSettings:
    """What is minimised. A setting of a loss that is not the run's is refused: it would do nothing."""

    name: Literal[
        "auto", "bce", "cross_entropy", "focal", "asymmetric", "distribution_balanced", "soft_macro_f1", "zlpr"
    ] = "auto"
    """`auto`: bce for multilabel, cross_entropy for multiclass. focal is for both, all others for multilabel.
    soft_macro_f1 is that of each micro-batch, so training.micro_batch_size and the number of devices change it."""
    label_smoothing: float = 0.0
    """Share of a target that goes to 0.5 (multilabel) or evenly to all labels (multiclass)."""
    focal_gamma: float = 2.0
    """Power of the error that weighs a row; 0 is plain cross-entropy."""
    asymmetric_gamma_positive: float = 0.0
    """As focal_gamma, for positives alone."""
    asymmetric_gamma_negative: float = 4.0
    """As focal_gamma, for negatives alone."""
    asymmetric_shift: float = 0.05
    """Negatives with a probability below this count nothing."""
    balanced_alpha: float = 0.1
    """Least weight of a label's term in the distribution-balanced loss."""
    balanced_beta: float = 10.0
    """Steepness of its weights."""
    balanced_mu: float = 0.3
    """Centre of its weights, as a share of what a row's labels ask for together."""
    balanced_lambda: float = 2.0
    """How much faster than positives a denied label stops learning."""
    balanced_kappa: float = 0.05
    """Share of a label's log-odds by which its logits are moved."""
    f1_smoothing: float = 1.0
    """Added to both sides of soft macro-F1's fraction; 0 leaves labels that a micro-batch does not hold untaught."""
    pos_weight_power: float = 0.0
    """Weight of a positive = (negatives / positives) ** power, from the fold's training rows; 0 weighs all alike."""
    pos_weight_cap: float = 20.0
    """The largest such weight."""
    r_drop_alpha: float = 0.0
    """Run each text through dropout twice and add this much of what the two answers disagree; half the alpha of the
    R-Drop paper does what that did. 0 is off."""
    bias_from_prior: bool = True
    """Start the head's bias at the labels' log-odds in the fold's training rows."""
    soft_targets: str = ""
    """A CSV in data/<competition>/: an id column, then for each label a column of numbers from 0 to 1. Every training
    row stands in it and teaches these in the place of 0 and 1; folds, scores and class weights keep train.csv's."""
    soft_targets_sha256: str = ""
    """Of that file; read from it when a training starts. Where it is stated, another file is refused."""


PREFIX_OF = {
    "focal": "focal_",
    "asymmetric": "asymmetric_",
    "distribution_balanced": "balanced_",
    "soft_macro_f1": "f1_",
}
"""How the settings that one loss alone reads begin."""
WEIGHTED = ("auto", "bce", "cross_entropy", "focal")
"""Losses that read pos_weight_power and label_smoothing."""
TAKES_FRACTIONS = (*WEIGHTED, "asymmetric")
"""Losses that know what a target between 0 and 1 is."""

NOT_NEGATIVE = (
    "pos_weight_power",
    "focal_gamma",
    "asymmetric_gamma_positive",
    "asymmetric_gamma_negative",
    "balanced_alpha",
    "balanced_kappa",
    "f1_smoothing",
    "r_drop_alpha",
)


def loss_conflicts(loss: LossSettings) -> Iterator[str]:
    """Every value that cannot work or that the chosen loss does not read, as sentences."""
    if not loss.pos_weight_cap > 0:
        yield f"loss.pos_weight_cap is {loss.pos_weight_cap}; expected more than 0"
    for name in ("label_smoothing", "asymmetric_shift"):
        if not 0 <= getattr(loss, name) < 1:
            yield f"loss.{name} is {getattr(loss, name)}; expected 0 up to, but not, 1"
    for name in NOT_NEGATIVE:
        if not getattr(loss, name) >= 0:
            yield f"loss.{name} is {getattr(loss, name)}; expected 0 or more"
    for name in ("balanced_beta", "balanced_lambda"):
        if not getattr(loss, name) > 0:
            yield f"loss.{name} is {getattr(loss, name)}; expected more than 0"
    if loss.pos_weight_cap != LossSettings.pos_weight_cap and not loss.pos_weight_power:
        yield "loss.pos_weight_cap is set, but loss.pos_weight_power is 0, so all weights are 1; take it out"
    yield from _soft_conflicts(loss)
    changed = [field.name for field in fields(loss) if getattr(loss, field.name) != field.default]
    for name in changed:
        owners = [owner for owner, prefix in PREFIX_OF.items() if name.startswith(prefix)]
        owners += WEIGHTED if name in ("pos_weight_power", "pos_weight_cap", "label_smoothing") else ()
        if owners and loss.name not in owners:
            readers = " or ".join(owners)
            yield f"loss.{name} is set, but loss.name {loss.name} does not read it; take it out, or choose {readers}"


def _soft_conflicts(loss: LossSettings) -> Iterator[str]:
    name = loss.soft_targets
    if name and loss.name not in TAKES_FRACTIONS:
        yield f"loss.soft_targets is set, but loss.name {loss.name} takes no fractions; {', '.join(TAKES_FRACTIONS)} do"
    if name and (Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name):
        yield f"loss.soft_targets is {name[:80]!r}; expected the name of a file inside data/<competition>/"
    if loss.soft_targets_sha256 and not name:
        yield "loss.soft_targets_sha256 is set, but loss.soft_targets names no file"
