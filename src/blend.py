"""Blend the runs in oof/ into a submission: `python src/blend.py`."""

import sys

from foldblend.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("blend"))
