"""Calls train.py several times in one launch.

accelerate launch --multi_gpu --num_processes 2 tests/launch_several.py CALLS.json
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from launched_calls import read_calls

from foldblend.commands import guard, train


def main() -> None:
    """Says who trains and who writes what."""
    train_one, write_fold = train.train_one, train.write_fold
    rank = os.environ["RANK"]

    def said(verb, run, do, *given):
        print(f"process {rank} {verb} {run}", flush=True)
        return do(*given)

    train.train_one = lambda job, *more: said("trains", job.run_name, train_one, job, *more)
    train.write_fold = lambda paths, name, run, *more: said("writes", run, write_fold, paths, name, run, *more)
    for arguments in read_calls(sys.argv[1:]):
        train.main(arguments)


if __name__ == "__main__":
    sys.exit(guard(main))
