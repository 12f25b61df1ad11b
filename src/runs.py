"""Compare the runs in oof/: `python src/runs.py`."""

import sys

from foldblend.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("runs"))
