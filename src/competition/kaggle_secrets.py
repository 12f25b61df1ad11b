"""competition/: Kaggle's keys: where they lie, who else can read them, and out of every text we print."""

import base64
import json
import os
import re
import stat
import urllib.parse
from pathlib import Path

HIDDEN = "<hidden>"
SHORTEST = 8
"""Characters; a shorter value is no key, and hiding it would garble the text."""
QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\")]+")
"""An address with a query: the places where Kaggle keeps files are signed there."""
NAMES = ("KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_IAP_TOKEN")
FILES = ("kaggle.json", "access_token", "access_token.txt", "credentials.json")


def hide_secrets(text: str) -> str:
    """The text without any key or token that this process or the client can know, in any form it is sent in."""
    for secret in sorted(_forms(), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return QUERY.sub(rf"\1?{HIDDEN}", text)


def find_wide_permissions() -> list[str]:
    """A sentence for each file of credentials that others may read."""
    found = []
    for path in _credential_files():
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            found.append(f"{path} can be read by others (mode {mode:o}). Run: chmod 600 '{path}'")
    return found


def _forms() -> set[str]:
    """Every key as it is, quoted for a URL, and with its user name as HTTP sends it."""
    users, secrets = {os.environ.get("KAGGLE_USERNAME", "")}, {os.environ.get(name, "") for name in NAMES}
    for path in _credential_files():
        more_users, more_secrets = _read_credentials(path)
        users, secrets = users | more_users, secrets | more_secrets
    secrets = {secret.strip() for secret in secrets if len(secret.strip()) >= SHORTEST}
    basic = {base64.b64encode(f"{name}:{secret}".encode()).decode() for name in users for secret in secrets}
    return secrets | basic | {urllib.parse.quote(secret, safe="") for secret in secrets}


def _read_credentials(path: Path) -> tuple[set[str], set[str]]:
    """User names and keys that stand in a file; a JSON that cannot be read is one the client cannot read either."""
    content = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix != ".json":
        return set(), {content}
    try:
        values = json.loads(content)
    except ValueError:
        return set(), {content}
    if not isinstance(values, dict):
        return set(), set()
    secrets = {str(value) for name, value in values.items() if "key" in name or name.endswith("_token")}
    return {str(values.get("username", ""))}, secrets


def _credential_files() -> list[Path]:
    """The files that are there and that we may read; KAGGLE_API_TOKEN may name one, too."""
    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle"
    folders = [home / ".kaggle", config]
    if os.environ.get("KAGGLE_CONFIG_DIR"):
        folders.append(Path(os.environ["KAGGLE_CONFIG_DIR"]))
    paths = [folder / name for folder in folders for name in FILES]
    named = os.environ.get("KAGGLE_API_TOKEN", "")
    if named and len(named) < 256 and os.path.isfile(named):
        paths.append(Path(named))
    return [path for path in dict.fromkeys(paths) if path.is_file() and os.access(path, os.R_OK)]
