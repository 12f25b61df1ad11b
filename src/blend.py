"""Blend the runs in oof/ into a submission: `python src/blend.py`."""

import sys

from foldblend.commands.blend import main
from foldblend.settings.loading import guard

if __name__ == "__main__":
    sys.exit(guard(main))
