"""Keys and tokens out of every text that a door prints: whatever a server said back must not show them."""

import os
import re
from pathlib import Path

HIDDEN = "<hidden>"
SECRET_NAME = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD)$")
"""How a variable of the environment is called that holds one."""
SHORTEST = 8
"""Characters; a shorter value is no key, and hiding it would garble the text."""


def hide_keys(text: str) -> str:
    """The text without the value of any variable that is called like a key, and without the hub's stored token."""
    values = [value for name, value in os.environ.items() if SECRET_NAME.search(name)]
    stored = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface") / "token"
    if stored.is_file() and os.access(stored, os.R_OK):
        values.append(stored.read_text(encoding="utf-8", errors="replace"))
    for value in sorted((value.strip() for value in values), key=len, reverse=True):
        if len(value) >= SHORTEST:
            text = text.replace(value, HIDDEN)
    return text
