"""Bundle a blend for an offline Kaggle notebook: `python src/bundle.py`."""

import sys

from foldblend.commands.bundle import main
from foldblend.settings.loading import guard

if __name__ == "__main__":
    sys.exit(guard(main))
