import pytest


@pytest.fixture(autouse=True)
def blend_quickly(quick_blends):
    """What commands do with a blend is the same, in half of the time."""
