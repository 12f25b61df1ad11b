"""Planted keys leave every text, in every form in which they are sent; and a redactor never fails."""

import base64
import json
import os
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

from foldblend.errors import REDACTED, redact

KEY = "planted/0123456789+abcdef"
SRC = Path(__file__).resolve().parents[1] / "src"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home without credentials."""
    monkeypatch.setenv("HOME", str(tmp_path))
    names = ("KAGGLE_KEY", "KAGGLE_USERNAME", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME", "HF_HOME")
    for name in names:
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
def test_a_planted_key_is_redacted_in_every_form(home, monkeypatch, place):
    plant(home, place, monkeypatch)
    assert redact(f"Bearer {KEY}, url ?k={urllib.parse.quote(KEY, safe='')}") == f"Bearer {REDACTED}, url ?k={REDACTED}"
    if "access_token" not in place:
        assert redact("Basic " + base64.b64encode(f"user:{KEY}".encode()).decode()) == f"Basic {REDACTED}"


def test_a_token_named_by_path_and_a_folder_of_its_own(home, monkeypatch):
    (home / "token").write_text(KEY)
    monkeypatch.setenv("KAGGLE_API_TOKEN", str(home / "token"))
    assert redact(KEY) == REDACTED
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(home / "own"))
    plant(home, "own/kaggle.json", monkeypatch)
    (home / "own" / "kaggle.json").write_text('{"key": "another-0123456789"}')
    assert redact("another-0123456789") == REDACTED


def test_signed_addresses_lose_their_signature():
    said = "403 Client Error for url: https://storage.example/a/b.zip?X-Signature=abc&Expires=1 (try again?)"
    assert redact(said) == f"403 Client Error for url: https://storage.example/a/b.zip?{REDACTED} (try again?)"


def test_without_keys_nothing_changes(home, monkeypatch):
    (home / ".kaggle").mkdir()
    (home / ".kaggle" / "kaggle.json").write_text('["key"]')
    monkeypatch.setenv("KAGGLE_KEY", "short")
    assert redact("a short text") == "a short text"


@pytest.mark.parametrize("name", ["HF_TOKEN", "OPENAI_API_KEY", "MY_SECRET", "DB_PASSWORD"])
def test_the_value_of_a_variable_that_is_called_like_a_secret(monkeypatch, name):
    monkeypatch.setenv(name, KEY)
    assert redact(f"401 for {KEY}!") == f"401 for {REDACTED}!"


@pytest.mark.parametrize("folder", [".cache/huggingface", "elsewhere"])
def test_the_token_that_the_hub_stored(home, monkeypatch, folder):
    (home / folder).mkdir(parents=True)
    (home / folder / "token").write_text(KEY + "\n")
    if folder == "elsewhere":
        monkeypatch.setenv("HF_HOME", str(home / folder))
    assert redact(KEY) == REDACTED


def test_of_two_keys_one_of_which_holds_the_other_nothing_is_left(monkeypatch):
    monkeypatch.setenv("A_KEY", KEY)
    monkeypatch.setenv("B_KEY", f"{KEY}-and-more")
    assert redact(f"{KEY}-and-more {KEY}") == f"{REDACTED} {REDACTED}"


ALONE = """
import os
from foldblend.errors import redact
if os.geteuid() == 0:  # root reads every folder
    os.setuid(54321)  # in no list of users
print(redact("said: planted/0123456789+abcdef"))
"""


@pytest.mark.parametrize("home", ["", "/nowhere", "unreadable", "a file", "\udcff\udcfe"])
def test_without_a_home_that_can_be_read_it_still_redacts(tmp_path, home):
    """A container may run as a user without a name, whose HOME is absent or of somebody else."""
    folder = tmp_path / "home"
    if home == "a file":
        folder.write_text("")
    elif home == "unreadable":
        (folder / ".kaggle").mkdir(parents=True)
        folder.chmod(0)
    env = {name: value for name, value in os.environ.items() if name not in ("HOME", "HF_HOME")}
    env |= {"OPENAI_API_KEY": KEY, "OTHER_KEY": "not-utf8-\udcff\udcfe", "PYTHONPATH": str(SRC)}
    if home:
        env["HOME"] = str(folder) if home in ("a file", "unreadable") else home
    command = [sys.executable, "-c", ALONE]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    folder.chmod(0o755) if folder.exists() else None
    assert done.stdout == f"said: {REDACTED}\n", done.stderr
