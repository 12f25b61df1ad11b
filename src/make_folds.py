"""Draw a competition's folds: `python src/make_folds.py`."""

import sys

from foldblend.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("make_folds"))
