"""Folds of a training file of many rows, as the command makes them: seconds, and the most memory it took.

python bench/large_table.py --rows 1000000
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        n_bytes = write_competition(root, flags.rows)
        started = time.monotonic()
        command = [sys.executable, str(ROOT / "src" / "make_folds.py"), "--competition", "large"]
        subprocess.run(command, env={**os.environ, "FOLDBLEND_ROOT": folder}, check=True, stdout=subprocess.DEVNULL)
        seconds, peak = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"{flags.rows:,} rows, {n_bytes / 2**20:.0f} MB of train.csv: {seconds:.1f} s, {peak:.2f} GB at most")


def write_competition(root: Path, n_rows: int) -> int:
    """Texts of 3 to 30 made-up words, four labels; returns the training file's bytes."""
    rng = np.random.default_rng(0)
    words = np.array(["".join(rng.choice(list("abcdefghijklmnop"), 6)) for _ in range(20_000)])
    data, configs = root / "data" / "large", root / "configs"
    data.mkdir(parents=True)
    (configs / "competitions").mkdir(parents=True)
    (configs / "default.yaml").write_text("competition: large\nrun: tfidf\nruns: [tfidf]\n")
    (configs / "competitions" / "large.yaml").write_text("id_column: id\n")
    with open(data / "train.csv", "w", encoding="utf-8") as file:
        file.write("id,text,a,b,c,d\n")
        for row in range(n_rows):
            text, labels = " ".join(rng.choice(words, rng.integers(3, 31))), rng.random(4) < 0.2
            file.write(f"r{row},{text},{','.join(map(str, labels.astype(int)))}\n")
    (data / "test.csv").write_text("id,text\nt0,one more\n")
    (data / "sample_submission.csv").write_text("id,a,b,c,d\nt0,0,0,0,0\n")
    return (data / "train.csv").stat().st_size


if __name__ == "__main__":
    main()
