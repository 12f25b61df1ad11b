"""Predict new texts with a blend's models: `python src/predict.py --text "..."`."""

import sys

from foldblend.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("predict"))
