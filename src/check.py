"""Check every file of the project against its record: `python src/check.py`."""

import sys

from foldblend.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("check"))
