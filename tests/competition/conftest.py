"""The fixture of this room's tests."""

import pytest
from tiny_competition import Files


@pytest.fixture
def files(tmp_path) -> Files:
    """A tiny competition in data/tiny/ below tmp_path, not yet written."""
    folder = tmp_path / "data" / "tiny"
    folder.mkdir(parents=True)
    return Files(folder)
