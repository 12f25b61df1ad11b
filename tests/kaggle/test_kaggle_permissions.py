"""Files of credentials that others may read are named with the command that fixes them."""

import pytest

from foldblend.kaggle.client import find_wide_permissions


@pytest.mark.parametrize("mode, wide", [(0o600, False), (0o400, False), (0o644, True), (0o640, True), (0o604, True)])
def test_wide_permissions_are_named_with_the_command_that_fixes_them(tmp_path, monkeypatch, mode, wide):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / ".kaggle" / "kaggle.json"
    path.parent.mkdir()
    path.write_text('{"username": "user", "key": "planted/0123456789"}')
    path.chmod(mode)
    expected = [f"{path} can be read by others (mode {mode:o}). Run: chmod 600 {path}"]
    assert find_wide_permissions() == (expected if wide else [])
