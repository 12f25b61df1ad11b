"""bench/fuzz.py at its shortest: broken files and YAML end in a right submission or in a message that helps."""

import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))


@pytest.fixture
def fuzz(monkeypatch, tmp_path):
    """The bench, whose short cuts end with the test."""
    import fuzz

    for module, name in ((fuzz.provenance, "_commit"), (fuzz.loading, "_build_parser")):
        monkeypatch.setattr(module, name, getattr(module, name))
    monkeypatch.setattr(fuzz.loading, "load_defaults", fuzz.loading.load_defaults)
    monkeypatch.setattr(fuzz.inputs, "load_tables", fuzz.inputs.load_tables)
    monkeypatch.setenv("FOLDBLEND_ROOT", str(tmp_path))
    return fuzz


@pytest.mark.filterwarnings("default::RuntimeWarning")
def test_sixty_inputs(fuzz):
    outcomes = list(fuzz.fuzz(0, range(60)))
    bad = [outcome for outcome in outcomes if outcome.verdict not in ("submission", "error")]
    assert not bad, bad[:3]
    assert min(Counter(outcome.verdict for outcome in outcomes).values()) > 6


@pytest.mark.filterwarnings("default::RuntimeWarning")
def test_whatever_hypothesis_breaks(fuzz):
    """The same breakages, drawn by hypothesis, which makes a failing input small."""
    fuzz.save_time()
    for name in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(name, fuzz._too_slow)

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(number=st.integers(0, 10**6), rng=st.randoms(use_true_random=False))
    def check(number, rng):
        with tempfile.TemporaryDirectory() as folder:
            outcome = fuzz.try_one(Path(folder), number, rng)
        assert outcome.verdict in ("submission", "error"), outcome

    check()
