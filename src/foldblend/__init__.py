"""Foldblend: from train.csv to a blended, checked submission of a multilabel text competition.

For notebooks, arrays in and arrays out: `make_folds`, `blend`, `tune_thresholds`, `score` (foldblend/api.py). They are
imported when first asked for, so that every other import of this package stays light.
"""

from importlib import import_module

__version__ = "0.2.0"
__all__ = ["BlendResult", "blend", "make_folds", "score", "tune_thresholds"]


def __getattr__(name: str):
    if name in __all__:
        return getattr(import_module("foldblend.api"), name)
    raise AttributeError(f"module 'foldblend' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
