"""Show what the models do on one HTML page: `python src/report.py`."""

import sys

from foldblend.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("report"))
