"""Train folds of one run: `accelerate launch src/train.py --fold 3`."""

import sys

from foldblend.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("train"))
