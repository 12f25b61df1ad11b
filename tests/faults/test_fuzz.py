"""bench/fuzz.py at its shortest: broken files and YAML end in a right submission or in a message that helps."""

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))


@pytest.mark.filterwarnings("default::RuntimeWarning")
def test_two_hundred_inputs(monkeypatch, tmp_path):
    import fuzz

    for module, name in ((fuzz.provenance, "_commit"), (fuzz.loading, "_build_parser")):
        monkeypatch.setattr(module, name, getattr(module, name))
    monkeypatch.setattr(fuzz.loading, "load_defaults", fuzz.loading.load_defaults)
    monkeypatch.setattr(fuzz.make_folds, "load_tables", fuzz.make_folds.load_tables)
    monkeypatch.setenv("FOLDBLEND_ROOT", str(tmp_path))
    outcomes = list(fuzz.fuzz(0, range(200)))
    bad = [outcome for outcome in outcomes if outcome.verdict not in ("submission", "error")]
    assert not bad, bad[:3]
    assert min(Counter(outcome.verdict for outcome in outcomes).values()) > 20
