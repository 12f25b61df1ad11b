"""What a start from another training is worth: a task of few labelled rows, alone and from a model of a related task.

    python bench/start_from.py --root /tmp/start_from
    python bench/start_from.py --root /tmp/tried --rows 120 --start_rows 300 --seeds 1 --test_rows 300   # a rehearsal

GoEmotions' training rows are split in two parts without a common row. One model learns all of the larger part under the
first labels; then `--rows` rows of the other part are learned under the second labels, alone and from that model, in
five folds, with each seed. Both ways round: Ekman's seven groups first and 28 labels second, and the reverse. The score
is the macro-F1 of the blend of each run alone on the official dev and test rows, which no command has read. The same
command goes on after a kill.
"""

import argparse
import csv
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from end_to_end import ROOT, blend
from score_submission import load_truth, score_submission

from foldblend.commands import guard
from foldblend.data.fetch import TRUTH, goemotions_files
from foldblend.data.tables import load_tables
from foldblend.settings.loading import load_competition
from foldblend.settings.paths import Paths

FORMS = {"labels": "goemotions", "ekman": "goemotions-ekman"}
"""Name of a task here -> the competition whose labels it has."""
DRAW_SEED = 2020


def main(argv: Sequence[str] | None = None) -> int:
    return guard(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", required=True, type=Path, help="a folder of its own, for configs, data and models")
    parser.add_argument("--run", default="minilm", help="a file in configs/runs/")
    parser.add_argument("--rows", type=int, default=2_000, help="labelled rows of the task of interest")
    parser.add_argument("--start_rows", type=int, default=0, help="rows of the start; 0: all others")
    parser.add_argument("--test_rows", type=int, default=0, help="test rows that are scored; 0: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--settings", nargs="*", default=[], help="more words for every training, as training.epochs=1")
    args = parser.parse_args(argv)
    root = args.root.resolve()
    os.environ["FOLDBLEND_ROOT"] = str(root)
    paths = Paths(root)
    write_workspace(paths, args.rows, args.start_rows, args.test_rows)
    for few, start in (("few-labels", "many-ekman"), ("few-ekman", "many-labels")):
        show(f"{few} from {start}", compare(paths, few, start, args))


def write_workspace(paths: Paths, n_few: int, n_start: int, n_test: int) -> None:
    """Configs and the four competitions' files; what is there stays."""
    if not paths.configs.is_dir():
        shutil.copytree(ROOT / "configs", paths.configs)
    for form, origin in FORMS.items():
        original = load_competition(paths, origin)
        contents, _ = goemotions_files(tuple(original.labels.groups))
        train, test, sample, truth = (
            _rows(contents[f"{name}.csv"]) for name in ("train", "test", "sample_submission", "truth")
        )
        order = np.random.default_rng(DRAW_SEED).permutation(len(train) - 1) + 1  # one draw, whatever the labels are
        parts = {"few": order[:n_few], "many": order[n_few : n_few + n_start] if n_start else order[n_few:]}
        kept = range(1, len(test)) if not n_test else range(1, n_test + 1)
        for part, rows in parts.items():
            name = f"{part}-{form}"
            text = (paths.configs / "competitions" / f"{origin}.yaml").read_text(encoding="utf-8")
            config = paths.configs / "competitions" / f"{name}.yaml"
            config.write_text(text.replace("  source: goemotions\n", "  source: by_hand\n"), encoding="utf-8")
            data = paths.data(name)
            data.mkdir(parents=True, exist_ok=True)
            _write(data / "train.csv", [train[0], *(train[row] for row in sorted(rows))])
            for file, lines in (("test.csv", test), ("sample_submission.csv", sample), (TRUTH, truth)):
                _write(data / file, [lines[0], *(lines[row] for row in kept)])


def _rows(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode("utf-8"), newline="")))


def _write(path: Path, rows: list[list[str]]) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows(rows)
    path.write_text(out.getvalue(), encoding="utf-8")


def compare(paths: Paths, few: str, start: str, args) -> dict[str, list[float]]:
    """Name of each way -> its macro-F1 per seed, the mean of the official parts."""
    more = [word for each in args.settings for word in (f"--{each.split('=')[0]}", each.split("=", 1)[1])]
    train(start, args.run, "--fold", "full", "--training.leave_out", f"[{few}]", *more)
    ways = {"alone": [], "started": ["--model.start_from", f"{start}/{args.run}/full"]}
    scores: dict[str, list[float]] = {way: [] for way in ways}
    for seed in range(args.seeds):
        for way, flags in ways.items():
            name = f"{way}-{seed}"
            train(few, args.run, "--fold", "all", "--seed", str(seed), "--name", name, *flags, *more)
            scores[way].append(score(paths, few, paths.root / blend(few, [name])))
    return scores


def train(competition: str, run: str, *flags: str) -> None:
    """Train as a user does; what is trained already is skipped."""
    words = [sys.executable, str(ROOT / "src/train.py"), "--competition", competition, "--run", run, *flags]
    print(" ".join(["train.py", *words[2:]]), flush=True)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"train.py exited with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def score(paths: Paths, name: str, path: Path) -> float:
    """Macro-F1 of a submission on the kept labels, the mean over the official parts."""
    competition = load_competition(paths, name)
    tables = load_tables(competition, paths.data(name))
    truth, parts = load_truth(competition, tables, paths.data(name) / TRUTH)
    scores = score_submission(path, competition, tables, truth, parts)
    return scores["mean" if "mean" in scores else next(iter(scores))]["macro_f1"]


def show(title: str, scores: dict[str, list[float]]) -> None:
    """One line per way, and the gain with its standard error over seeds."""
    print(f"\n{title}: macro-F1 on the kept rows")
    for way, values in scores.items():
        print(f"  {way:<8} {np.mean(values):.4f}  seeds {' '.join(f'{value:.4f}' for value in values)}")
    gains = np.subtract(scores["started"], scores["alone"])
    error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else float("nan")
    print(f"  gain     {gains.mean():+.4f} +- {error:.4f}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
