"""What every learner is given and returns, how a run gets its learner, and the score that a fold shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np

from foldblend.features import Features, FittedFeatures, fit_features
from foldblend.learners.lessons import Lesson, Source, Teacher, build_lesson
from foldblend.predictions import FoldPredictions
from foldblend.scoring.metrics.table import METRICS, find_metric, score_cells, to_values
from foldblend.settings.run import RunSettings
from foldblend.settings.tables import LEARNERS, LOSSES

# 1. What a learner is given and returns


@dataclass(frozen=True)
class Start:
    """Another training that every fold goes on from."""

    source: str
    """As `model.start_from` names it."""
    folders: tuple[Path, ...]
    """Of its trained folds, whose mean is taken; or one folder with an ordinary model."""
    settings: Mapping | None
    """Those that it was trained with, as in its folds' records; None for an ordinary model."""


@dataclass(frozen=True)
class Corpus:
    """All texts of a competition with their labels; shared by all folds of a run."""

    texts: tuple[str, ...]
    """n_train + n_test texts, the training rows first; then those of `sources`."""
    labels: np.ndarray
    """bool (n_train, L); with task multiclass exactly one True per row."""
    label_names: tuple[str, ...]
    """L names in submission order."""
    task: str
    """`multilabel` or `multiclass`."""
    cache_dir: Path | None = None
    """Folder in which tokens of the texts may be kept for the next run and process; None keeps none."""
    soft_targets: np.ndarray | None = None
    """float32 (n_train, L) in [0, 1]: what a fold's training rows teach instead of their labels; None is the labels
    themselves. Held-out rows are always scored by their labels."""
    known: np.ndarray | None = None
    """bool (n_train, L), False for a label that nobody knows: not learned, not scored; None if all are known."""
    features: Features | None = None
    """Columns beside the text, of all texts; None if there are none or the run does not use them."""
    metric: str = "macro_f1"
    """The competition's metric, a name in METRICS: shown while training, and weights may be chosen by it."""
    metric_groups: np.ndarray | None = None
    """(n_train,): the group of each row, for a metric that is averaged over groups of rows; None for others."""
    allowed: np.ndarray | None = None
    """bool (n_train, L), False for labels that a row cannot have: they score as the least likely; None allows all."""
    scale: np.ndarray | None = None
    """float64 (L, 2): of a regression, the values that soft targets of 0 and 1 stand for; None for labels."""
    pretrained_dir: Path | None = None
    """Folder of the weights that `pretraining` leaves."""
    unlabelled: tuple[str, ...] = ()
    """More texts to pretrain on, cleaned like the others."""
    start: Start | None = None
    """What `model.start_from` names; None without it, and where trained folds predict."""

    sources: tuple[Source, ...] = ()
    """Extra rows, the texts of one source after those of another."""
    teacher: Teacher | None = None
    """How probabilities teach beside labels; None if they are targets like others."""

    @property
    def n_known_texts(self) -> int:
        """n_train + n_test."""
        return len(self.texts) - sum(source.n_rows for source in self.sources)

    @property
    def test_rows(self) -> np.ndarray:
        """int64 (n_test,): positions of the test rows in `texts`."""
        return np.arange(len(self.labels), self.n_known_texts)

    def lesson(self, fold: int, train: np.ndarray) -> Lesson:
        """What a fold with these training rows learns from, extra rows and a teacher's probabilities included."""
        return build_lesson(fold, train, self.taught[train], self.sources, self.n_known_texts, self.teacher)

    @property
    def some_unknown(self) -> bool:
        """Whether some label of some row is unknown, be it an extra row's."""
        return self.known is not None or any(np.isnan(source.probs).any() for source in self.sources)

    @property
    def taught(self) -> np.ndarray:
        """(n_train, L): what a training row teaches, bool labels, or float32 soft targets with nan for unknown ones."""
        taught = self.labels if self.soft_targets is None else self.soft_targets
        return taught if self.known is None else np.where(self.known, taught, np.float32("nan")).astype(np.float32)

    def fit_features(self, rows: np.ndarray) -> FittedFeatures | None:
        """How the columns beside the text are read, fitted on training rows; None if there are none."""
        return None if self.features is None else fit_features(self.features.take(rows))

    @property
    def scored(self) -> np.ndarray:
        """(n_train, L): what predictions are scored against, bool labels or the shares of a regression."""
        return self.labels if self.scale is None or self.soft_targets is None else self.soft_targets

    def judged(self, rows: np.ndarray) -> dict[str, np.ndarray | None]:
        """What scores of some rows need beside their labels, by its name in `score_heldout`."""
        parts = {"known": self.known, "groups": self.metric_groups, "allowed": self.allowed}
        return {"scale": self.scale, **{name: part if part is None else part[rows] for name, part in parts.items()}}

    def rates(self, rows: np.ndarray) -> np.ndarray:
        """Share of positives of each label among the rows in which it is known, float64 (L,); 0 if there are none."""
        if self.known is None:
            return self.labels[rows].mean(0)
        return self.labels[rows].sum(0) / np.maximum(self.known[rows].sum(0), 1)


class History(Protocol):
    """Where a learner that takes steps notes how its training goes: `ledger.history.FoldHistory`."""

    def start(self, step: int) -> None:
        """Begin, or go on after `step` optimizer steps."""

    def add(self, entry: Mapping[str, float | int | None]) -> None:
        """Note what was measured at a step: at least `step`, `rows` and `seconds`."""


@dataclass(frozen=True)
class FoldRows:
    """One fold: which rows are trained on and which are held out. The held-out rows' labels are read only for the shown
    score, and to choose weights if the settings say so."""

    fold: int
    train: np.ndarray
    """int64 (n_train,), rising."""
    heldout: np.ndarray
    """int64 (n_heldout,), rising; none of the fold FULL."""
    checkpoint_dir: Path
    """The folder of this fold's checkpoint and weights."""
    history: History | None = None
    """None notes nothing."""


class Learner(Protocol):
    """Made once per run; trains any number of its folds."""

    uses_all_processes: bool
    """Whether every process of a launch takes part; otherwise only the first one trains."""

    def train_fold(self, rows: FoldRows) -> FoldPredictions:
        """Train on rows.train, predict rows.heldout and the test rows; go on from a checkpoint if there is one.

        The weights that predict new texts stay in rows.checkpoint_dir, as `weights.WEIGHTS`.
        """

    def predict_fold(self, checkpoint_dir: Path) -> np.ndarray:
        """The corpus's test rows, predicted by a fold that was trained earlier: float32 (n_test, L), of the same kind.

        The corpus may have no training rows: labels (0, L). What is no number is refused by whoever asked.
        Raises UserError: the weights are missing or damaged.
        """


# 2. From a run to its learner; settings/tables.py lists the learners


def build_learner(run: RunSettings, corpus: Corpus) -> Learner:
    """The learner that `run.learner` names, imported only now so that TF-IDF never loads torch."""
    build = LEARNERS[run.learner].build
    if isinstance(build, str):
        module, name = build.split(":")
        build = getattr(import_module(module), name)
    return build(run, corpus)


def learns_shares(run: RunSettings) -> bool:
    """Whether the run can learn shares of annotators; others learn 0 and 1."""
    if "loss" not in LEARNERS[run.learner].reads:
        return True
    writes_lists = run.learner == "generator" and run.answer.form == "list"
    return LOSSES[run.loss.name].soft_targets and not writes_lists


def needs_gpu(learner: str) -> bool:
    """Whether the learner trains so long on a CPU that it should wait for a GPU."""
    return LEARNERS[learner].needs_gpu


# 3. The score a fold shows; its thresholds come from the training rows' rates, so nothing is tuned on held-out rows


NEVER = np.float32(-1e4)
"""The logit of a label that a row cannot have: its probability is 0, and no sum overflows."""


def score_heldout(
    logits: np.ndarray,
    labels: np.ndarray,
    train_rates: np.ndarray,
    task: str,
    metric: str = "macro_f1",
    known: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    allowed: np.ndarray | None = None,
    scale: np.ndarray | None = None,
) -> dict[str, float]:
    """Scores of held-out rows; where a metric wants decisions, as many positives a label as the training rows have.

    Args:   logits: float32 (n, L); metrics of decisions and ranks read any rising function of the probabilities.
            labels: bool (n, L), or the shares of a regression.
            train_rates: float (L,), share of positives a label in the fold's training rows.
            metric: the competition's, a name in METRICS.
            known: bool (n, L), False for cells that are not scored; None scores all. Metrics of probabilities are by
            label, of the rows in which it is known; those of whole rows are of the rows that are known as a whole.
            groups: (n,), for a metric that is averaged over groups of rows.
            allowed: bool (n, L), False for labels that a row cannot have; None allows all.
            scale: float64 (L, 2), of a regression: the values of shares of 0 and 1.
    Returns: `macro_f1`, `accuracy` too where one label a row is the task, and `metric`; nothing for no rows.
    """
    entry = find_metric(metric, task)
    if not len(logits):
        return {}
    if scale is not None:
        from scipy.special import expit  # as below

        values, predicted = (to_values(each, scale) for each in (labels, expit(logits)))
        if known is not None:
            return {metric: score_cells(entry, values, predicted, known)}
        return {metric: entry.score(values, predicted)}
    if allowed is not None:
        logits = np.where(allowed, logits, NEVER)
    if task == "multiclass":
        decisions = logits.argmax(1)[:, None] == np.arange(logits.shape[1])
    else:
        decisions = logits >= np.array([np.quantile(column, 1 - rate) for column, rate in zip(logits.T, train_rates)])
    if known is not None:
        decisions = decisions & known
    names = dict.fromkeys(["macro_f1", *(["accuracy"] if task == "multiclass" else []), metric])
    of_decisions = [name for name in names if not METRICS[name].takes_probs]
    scores = {name: float(METRICS[name].score(labels, decisions)) for name in of_decisions}
    if metric not in scores:
        from scipy.special import expit, softmax  # here, as commands import this file before their first line

        probs = softmax(logits, axis=1) if task == "multiclass" else expit(logits)
        if known is not None:
            scores[metric] = score_cells(entry, labels, probs, known, groups if entry.by_groups else None)
        else:
            scores[metric] = entry.score(labels, probs, *((groups,) if entry.by_groups else ()))
    return scores


def label_log_odds(labels: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) of each label's rate, float32 (L,); half a row on each side keeps it finite.

    labels: (n, L), bool or shares in [0, 1]; nan is unknown and does not count.
    """
    positives, rows = count_positives(labels)
    return np.log((positives + 0.5) / (rows - positives + 0.5)).astype(np.float32)


def count_positives(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray | int]:
    """(sum of each label (L,), rows in which it is known) of labels (n, L), bool or shares with nan for unknown."""
    if labels.dtype == bool:
        return labels.sum(0), len(labels)
    return np.nansum(labels, axis=0), (~np.isnan(labels)).sum(axis=0)


def prior_logits(labels: np.ndarray, task: str) -> np.ndarray:
    """Logits, float32 (L,), of answering every text with the label rates: log-odds; log rates where one label a row."""
    if task == "multiclass":
        return np.log((labels.sum(0) + 0.5) / len(labels)).astype(np.float32)
    return label_log_odds(labels)
