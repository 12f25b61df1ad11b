"""What packages hand each other that may not import each other: a fold's predictions, and what texts compared say."""

from dataclasses import dataclass, field

import numpy as np

FULL = 1_000_000
"""The number of the fold that holds out no row: it trains on all of them, for the test rows. Beyond any real fold's, so
that seeds drawn from numbers of folds are its own."""


def fold_name(fold: int) -> str:
    """The name of a fold's files and folders: `fold3`, or `full`."""
    return "full" if fold == FULL else f"fold{fold}"


def fold_title(fold: int) -> str:
    """A fold in words: `fold 3`, or `all rows`."""
    return "all rows" if fold == FULL else f"fold {fold}"


@dataclass(frozen=True)
class FoldPredictions:
    """One fold's predictions of its held-out rows and of the test rows; L labels. From learners/ to ledger/."""

    fold: int
    """0..n_folds-1, or FULL."""
    rows: np.ndarray
    """int64 (n_heldout,): positions of the held-out rows in the training file, in any order."""
    oof: np.ndarray
    """float32 (n_heldout, L), in the order of `rows`."""
    test: np.ndarray
    """float32 (n_test, L), in the order of the test file."""
    kind: str
    """`logits` or `probs`."""
    score: dict[str, float] = field(default_factory=dict)
    """Metric name -> score of the held-out rows."""
    device: str = ""
    """The hardware that trained the fold."""
    selected_on_heldout: bool = False
    """Whether its weights were chosen by the held-out rows, which makes their score too good."""
    truncation: dict[str, float] = field(default_factory=dict)
    """What `max_length_tokens` cut off the texts (learners/tokens/coverage.py); empty for learners that read all."""
    earlier_seconds: float = 0.0
    """What earlier starts of the same fold took, before it was killed or stopped; 0 if it was trained at once."""
    pretraining: dict = field(default_factory=dict)
    """What the fold started from if it was pretrained on the competition's texts; empty otherwise."""
    n_parameters: int = 0
    """Numbers that the model consists of, trained or frozen."""


@dataclass(frozen=True)
class TextComparison:
    """How well a classifier tells test texts from training texts, cross-fitted. From folding/ to scoring/."""

    auc: float
    """0.5: not at all."""
    error: float
    """Standard error of `auc`."""
    rows: np.ndarray
    """int64 (n,): the training rows of the sample."""
    train_scores: np.ndarray
    """float (n,): how much each of them is taken for a test text."""
    test_scores: np.ndarray
    """float (m,): the same of the test rows of the sample."""
    n_repeats: int
    """Test rows whose text is in the training file, too."""
    n_test: int
