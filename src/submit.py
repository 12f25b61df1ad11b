"""Submit the newest CSV to Kaggle and log its score: `python src/submit.py`."""

import sys

from foldblend.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("submit"))
