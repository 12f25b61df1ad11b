"""Submit the newest CSV to Kaggle and log its score: `python src/submit.py`."""

import sys

from foldblend.commands.submit import main
from foldblend.settings.loading import guard

if __name__ == "__main__":
    sys.exit(guard(main))
