"""What a launch in a test trains: one call of train.py, or several, as starting processes takes most of a test."""

import json
from pathlib import Path


def read_calls(arguments: list[str]) -> list[list[str]]:
    """train.py's arguments call by call: the lists in CALLS.json where that alone is given, else `arguments`."""
    if len(arguments) == 1 and arguments[0].endswith(".json"):
        return json.loads(Path(arguments[0]).read_text())
    return [arguments]
