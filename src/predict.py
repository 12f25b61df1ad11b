"""Predict new texts with a blend's models: `python src/predict.py --text "..."`."""

import sys

from foldblend.commands.predict import main
from foldblend.settings.loading import guard

if __name__ == "__main__":
    sys.exit(guard(main))
