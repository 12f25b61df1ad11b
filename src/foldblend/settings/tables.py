"""The learners and losses that a run can name, and which settings each of them reads."""

from collections.abc import Callable
from dataclasses import dataclass

# ---------- The table of learners: which settings each one reads.


@dataclass(frozen=True)
class LearnerEntry:
    """One kind of model that a run can name."""

    build: Callable | str
    """The class, called with (run, corpus), or `module:class`, which is imported only when a run needs it."""
    reads: frozenset[str]
    """Fields of RunSettings that it reads; naming another one in YAML or as a flag is an error."""
    settings: type | None = None
    """The dataclass of a plugin's own settings: the group of the learner's name."""
    needs_gpu: bool = True
    """Whether a GPU saves hours."""


_SOURCES = ("extra_rows", "distillation")
_LINEAR = ("use_features", "cleaning", "logistic", *_SOURCES)
_NEURAL = ("seed", "model", "training", "optimizer", "loss", "cleaning", "augmentation", *_SOURCES)


def _entry(build: str, *reads: str, needs_gpu: bool = True) -> LearnerEntry:
    return LearnerEntry(f"foldblend.learners.{build}", frozenset({"learner", *reads}), needs_gpu=needs_gpu)


LEARNERS: dict[str, LearnerEntry] = {
    "tfidf": _entry("tfidf:TfidfLearner", *_LINEAR, "seed", "tfidf", needs_gpu=False),
    "nbsvm": _entry("nbsvm:NbsvmLearner", *_LINEAR, "seed", "tfidf", "nbsvm", needs_gpu=False),
    "embeddings": _entry("embeddings:EmbeddingsLearner", *_LINEAR, "embeddings"),
    "encoder": _entry("encoder:EncoderLearner", *_NEURAL, "use_features", "adversarial", "pretraining"),
    "decoder": _entry("decoder:DecoderLearner", *_NEURAL, "use_features", "prompt", "adapter", "pretraining"),
    "generator": _entry("generator:GeneratorLearner", *_NEURAL, "prompt", "answer", "adapter"),
}
"""Name in `learner:` -> its entry. A new learner of the package is one new file and one line here."""


# ---------- The table of losses: which of the settings in LossSettings each one reads.


@dataclass(frozen=True)
class LossEntry:
    """One loss that `loss.name` can name."""

    build: Callable | str
    """Called with (settings, labels, task), or `module:function`, which is imported only when a training needs it."""
    tasks: tuple[str, ...] = ("multilabel",)
    """Kinds of competitions that it is for: multilabel, multiclass."""
    reads: frozenset[str] = frozenset()
    """Settings of the group `loss` that only some losses read, this one among them."""
    soft_targets: bool = False
    """Whether it knows what a target between 0 and 1 is."""


_WEIGHTED = ("pos_weight_power", "pos_weight_cap", "label_smoothing")
_BOTH_TASKS = ("multilabel", "multiclass")


def _loss(build: str, *reads: str, tasks: tuple[str, ...] = ("multilabel",), soft_targets: bool = False) -> LossEntry:
    return LossEntry(f"foldblend.learners.losses.{build}", tasks, frozenset(reads), soft_targets)


LOSSES: dict[str, LossEntry] = {
    "auto": _loss("named:build_auto", *_WEIGHTED, tasks=_BOTH_TASKS, soft_targets=True),
    "bce": _loss("named:build_bce", *_WEIGHTED, soft_targets=True),
    "cross_entropy": _loss("named:build_cross_entropy", *_WEIGHTED, tasks=("multiclass",), soft_targets=True),
    "focal": _loss("named:build_focal", *_WEIGHTED, "focal_gamma", tasks=_BOTH_TASKS, soft_targets=True),
    "asymmetric": _loss(
        "named:build_asymmetric",
        "asymmetric_gamma_positive",
        "asymmetric_gamma_negative",
        "asymmetric_shift",
        soft_targets=True,
    ),
    "distribution_balanced": _loss(
        "named:build_distribution_balanced",
        *(f"balanced_{part}" for part in ("alpha", "beta", "mu", "lambda", "kappa")),
    ),
    "soft_macro_f1": _loss("named:build_soft_macro_f1", "f1_smoothing"),
    "zlpr": _loss("named:build_zlpr"),
}
"""Name in `loss.name` -> its entry. A new loss of the package is one new file and one line here."""
