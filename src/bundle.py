"""Bundle a blend for an offline Kaggle notebook: `python src/bundle.py`."""

import sys

from foldblend.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("bundle"))
