import pytest


@pytest.fixture(autouse=True)
def one_repeat(monkeypatch):
    """Blends of this process draw one partition in place of three: what commands do with them is the same, in half."""
    monkeypatch.setattr("foldblend.scoring.blending.N_REPEATS", 1)
