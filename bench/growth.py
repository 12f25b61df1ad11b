"""Reads inputs of growing sizes: is the time per unit the same for 64 times as much?

    python bench/growth.py --times 64

Each kind of input is read at its first size and at `--times` that size, in CPU seconds, the best of three; a large one
once if that is fast enough. A ratio of 1 is linear; the square would be 64. Nothing is trained.
"""

import argparse
import contextlib
import csv
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import numpy as np  # noqa: E402
import yaml  # noqa: E402

from foldblend.data.formats import parse_file  # noqa: E402
from foldblend.data.reading import FileForm, Problems, parse_table  # noqa: E402
from foldblend.errors import UserError  # noqa: E402
from foldblend.ledger.dropped import load_dropped  # noqa: E402
from foldblend.ledger.records import read_record, write_record  # noqa: E402
from foldblend.ledger.submissions import COLUMNS, read_log  # noqa: E402
from foldblend.settings.paths import Paths  # noqa: E402
from foldblend.settings.yaml_files import StrictLoader  # noqa: E402
from foldblend.submission.answers import check_header  # noqa: E402

MOST = 2.0
"""Time per unit may grow by this factor: caches and allocation cost a little more for more."""


def rows_of_a_table(n: int, folder: Path) -> Callable[[], object]:
    data = ("id,text,labels\n" + "".join(f'r{k},"some, words {k}",joy fear\n' for k in range(n))).encode()
    return lambda: parse_table(data, FileForm(), Problems(Path("train.csv")))


def line_ends_of_one_text(n: int, folder: Path) -> Callable[[], object]:
    data = b'id,text\n1,"a' + b"\n" * n + b'b"\n' + b"\r\n" * n
    return lambda: parse_table(data, FileForm(), Problems(Path("train.csv")))


def quotes_of_one_text(n: int, folder: Path) -> Callable[[], object]:
    data = b'id,text\n1,"' + b'""' * n + b'"\n'
    return lambda: parse_table(data, FileForm(), Problems(Path("train.csv")))


def lines_of_json(n: int, folder: Path) -> Callable[[], object]:
    data = "".join(f'{{"id": {k}, "text": "words {k}"}}\n' for k in range(n)).encode()
    return lambda: parse_file(data, "test.jsonl", FileForm(), Problems(Path("test.jsonl")))


def keys_of_yaml(n: int, folder: Path) -> Callable[[], object]:
    text = "".join(f"key{k}: {k}\n" for k in range(n))
    return lambda: yaml.load(text, Loader=StrictLoader)


def columns_of_labels(n: int, folder: Path) -> Callable[[], object]:
    found, expected = [f"a{k}" for k in range(n)], [f"b{k}" for k in range(n)]
    return lambda: check_header(found, expected, Problems(Path("submission.csv")))


def fields_of_a_record(n: int, folder: Path) -> Callable[[], object]:
    path = folder / f"record{n}.json"
    write_record(path, {f"label {k}": {"oof_mean": k / n, "test_mean": k / n} for k in range(n)})
    return lambda: read_record(path)


def rows_of_the_log(n: int, folder: Path) -> Callable[[], object]:
    paths, text = Paths(folder / f"log{n}"), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for k in range(n):
        writer.writerow(["2026-01-31T23:59:59Z", "toy", f"{k}.csv", "", k + 1, "complete", *[""] * 5, ""])
    paths.submissions_log.parent.mkdir(parents=True)
    paths.submissions_log.write_text(text.getvalue())
    return lambda: read_log(paths)


def rows_of_dropped_predictions(n: int, folder: Path) -> Callable[[], object]:
    data = ("id,joy,fear\n" + "".join(f"r{k},0.25,0.5\n" for k in range(n))).encode()
    ids = np.array([f"r{k}" for k in range(n)])
    return lambda: load_dropped(Path("oof.csv"), ids, ("joy", "fear"), "the training file", data)


KINDS = {
    rows_of_a_table: 2_000,
    line_ends_of_one_text: 5_000,
    quotes_of_one_text: 20_000,
    lines_of_json: 1_000,
    keys_of_yaml: 300,
    columns_of_labels: 500,
    fields_of_a_record: 4_000,
    rows_of_the_log: 500,
    rows_of_dropped_predictions: 2_000,
}
"""Kind of input -> its first size."""


def measure(read: Callable[[], object], enough: float = 0.0) -> float:
    """CPU seconds of the fastest of three, or of the first that takes no more than `enough`."""
    seconds = []
    for _ in range(3):
        started = time.process_time()
        with contextlib.suppress(UserError):
            read()
        seconds.append(time.process_time() - started)
        if seconds[-1] <= enough:
            break
    return min(seconds)


def grow(times: int) -> dict[str, tuple[int, float, float]]:
    """Kind -> (largest size, its seconds, how much longer a unit takes than at the first size)."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        for make, n in KINDS.items():
            first = measure(make(n, Path(name)))
            last = measure(make(n * times, Path(name)), enough=MOST * times * first)
            found[make.__name__] = (n * times, last, last / max(first, 1e-4) / times)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=64)
    flags = parser.parse_args()
    worst = 0.0
    print(f"{'input':32}{'size':>12}{'seconds':>10}{'per unit':>10}")
    for name, (size, seconds, ratio) in grow(flags.times).items():
        worst = max(worst, ratio)
        print(f"{name.replace('_', ' '):32}{size:12,}{seconds:10.2f}{ratio:10.2f}", flush=True)
    sys.exit(f"time per unit grows by {worst:.1f}, more than {MOST}" if worst > MOST else 0)


if __name__ == "__main__":
    main()
