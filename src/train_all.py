"""Train the folds of several runs on this machine: `python src/train_all.py`."""

import sys

from foldblend.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("train_all"))
