"""Draw a competition's folds: `python src/make_folds.py`."""

import sys

from foldblend.commands.make_folds import main
from foldblend.settings.loading import guard

if __name__ == "__main__":
    sys.exit(guard(main))
