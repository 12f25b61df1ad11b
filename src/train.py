"""Train folds of one run: `accelerate launch src/train.py --fold 3`."""

import sys

from foldblend.commands.train import main
from foldblend.settings.loading import guard

if __name__ == "__main__":
    sys.exit(guard(main))
