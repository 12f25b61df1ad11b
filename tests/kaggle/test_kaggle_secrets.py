"""Planted keys leave no text; files that others may read are named."""

import base64
import json
import urllib.parse

import pytest

from foldblend.kaggle.client import HIDDEN, find_wide_permissions, hide_secrets

KEY = "planted/0123456789+abcdef"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home without credentials."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KAGGLE_KEY", "KAGGLE_USERNAME", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def plant(home, place, monkeypatch):
    """Put the key where a user may have it."""
    if place.startswith("KAGGLE"):
        monkeypatch.setenv(place, KEY)
        monkeypatch.setenv("KAGGLE_USERNAME", "user")
        return
    path = home / place
    path.parent.mkdir(parents=True)
    values = {"username": "user", "key": KEY, "refresh_token": KEY, "access_token": KEY}
    path.write_text(json.dumps(values) if place.endswith(".json") else KEY + "\n")


PLACES = ["KAGGLE_KEY", "KAGGLE_API_TOKEN", ".kaggle/kaggle.json", ".config/kaggle/kaggle.json"]
PLACES += [".kaggle/access_token", ".kaggle/credentials.json"]


@pytest.mark.parametrize("place", PLACES)
def test_a_planted_key_is_hidden_in_every_form(home, monkeypatch, place):
    plant(home, place, monkeypatch)
    assert (
        hide_secrets(f"Bearer {KEY}, url ?k={urllib.parse.quote(KEY, safe='')}") == f"Bearer {HIDDEN}, url ?k={HIDDEN}"
    )
    if "access_token" not in place:
        assert hide_secrets("Basic " + base64.b64encode(f"user:{KEY}".encode()).decode()) == f"Basic {HIDDEN}"


def test_a_token_named_by_path_and_a_folder_of_its_own(home, monkeypatch):
    (home / "token").write_text(KEY)
    monkeypatch.setenv("KAGGLE_API_TOKEN", str(home / "token"))
    assert hide_secrets(KEY) == HIDDEN
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(home / "own"))
    plant(home, "own/kaggle.json", monkeypatch)
    (home / "own" / "kaggle.json").write_text('{"key": "another-0123456789"}')
    assert hide_secrets("another-0123456789") == HIDDEN


def test_signed_addresses_lose_their_signature():
    said = "403 Client Error for url: https://storage.example/a/b.zip?X-Signature=abc&Expires=1 (try again?)"
    assert hide_secrets(said) == f"403 Client Error for url: https://storage.example/a/b.zip?{HIDDEN} (try again?)"


def test_without_keys_nothing_changes(home, monkeypatch):
    (home / ".kaggle").mkdir()
    (home / ".kaggle" / "kaggle.json").write_text('["key"]')
    monkeypatch.setenv("KAGGLE_KEY", "short")
    assert hide_secrets("a short text") == "a short text"


@pytest.mark.parametrize("mode, wide", [(0o600, False), (0o400, False), (0o644, True), (0o640, True), (0o604, True)])
def test_wide_permissions_are_named_with_the_command_that_mends_them(home, monkeypatch, mode, wide):
    plant(home, ".kaggle/kaggle.json", monkeypatch)
    path = home / ".kaggle" / "kaggle.json"
    path.chmod(mode)
    expected = [f"{path} can be read by others (mode {mode:o}). Run: chmod 600 '{path}'"]
    assert find_wide_permissions() == (expected if wide else [])
