"""Search better settings of a run: `python src/tune.py --search configs/search/tfidf.yaml`."""

import sys

from foldblend.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("tune"))
