"""Train the folds of several runs on this machine: `python src/train_all.py`."""

import sys

from foldblend.commands.train_all import main
from foldblend.settings.loading import guard

if __name__ == "__main__":
    sys.exit(guard(main))
