"""Let a teacher label texts, our own blend or a large language model: `python src/teach.py --from-blend`."""

import sys

from foldblend.commands import run_command

if __name__ == "__main__":
    sys.exit(run_command("teach"))
