"""What each run and their blend said beforehand, and what they truly scored on labels kept aside: a table and a figure.

    python bench/end_to_end.py --competition goemotions --runs tfidf minilm

Needs the runs' folds in oof/ (run.sh makes them). Writes bench/figures/<competition>.svg; README.md shows it.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from score_submission import ROOT, load_truth, score_submission

from foldblend.commands import guard
from foldblend.data.fetch import TRUTH
from foldblend.data.tables import load_tables
from foldblend.settings.loading import load_competition
from foldblend.settings.paths import find_paths


def main(argv: Sequence[str] | None = None) -> int:
    return guard(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--competition", required=True, help="a file in configs/competitions/ that keeps labels aside")
    parser.add_argument("--runs", required=True, nargs="+", help="runs in oof/<competition>/")
    args = parser.parse_args(argv)
    paths = find_paths()
    competition = load_competition(paths, args.competition)
    tables = load_tables(competition, paths.data(args.competition))
    truth, parts = load_truth(competition, tables, paths.data(args.competition) / TRUTH)
    rows = {}
    for name, runs in [*((run, [run]) for run in args.runs), ("blend", args.runs)]:
        path = paths.root / blend(args.competition, runs)
        said = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["report"]
        scores = score_submission(path, competition, tables, truth, parts)
        rows[name] = said, {part: values[competition.metric] for part, values in scores.items()}
    print("\n".join(table_lines(rows)))
    figure = ROOT / "bench" / "figures" / f"{args.competition}.svg"
    draw(rows, f"{args.competition}: {competition.metric}", figure)
    print(f"\n{figure.relative_to(ROOT)}")


def blend(competition: str, runs: list[str]) -> str:
    """Blend some runs as a user does; the path of the CSV it names. Raises ValueError: blend.py failed."""
    command = [sys.executable, str(ROOT / "src/blend.py"), "--competition", competition, "--runs", *runs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"^submissions/\S+\.csv$", done.stdout, re.MULTILINE)
    if done.returncode or not found:
        raise ValueError(f"{' '.join(command)} exited with {done.returncode}: {done.stderr.strip()}")
    return found.group()


def table_lines(rows: dict) -> list[str]:
    """A Markdown table: what was said beforehand, then the truth part by part."""
    parts = list(next(iter(rows.values()))[1])
    heads = ["run", "chosen", "in-sample", "cross-fitted", "expected, 90 % interval", *(f"true, {p}" for p in parts)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, (said, true) in rows.items():
        expected = said["expected_fold_mean"]
        interval = f"{expected['score']:.4f}, {expected['low']:.4f} to {expected['high']:.4f}"
        cells = [name, f"`{said['chosen']}`", f"{said['in_sample']:.4f}", f"{said['cross_fitted']:.4f}", interval]
        lines.append("| " + " | ".join([*cells, *(f"{score:.4f}" for score in true.values())]) + " |")
    return lines


def draw(rows: dict, title: str, path: Path) -> None:
    """Points a run: in-sample, the expected score with its interval, and the truth."""
    figure, axis = plt.subplots(figsize=(7.2, 3.4), layout="constrained")
    for i, (said, true) in enumerate(rows.values()):
        first = i == 0
        expected = said["expected_fold_mean"]
        below, above = expected["score"] - expected["low"], expected["high"] - expected["score"]
        label = "expected beforehand, 90 % interval" if first else None
        axis.errorbar(i, expected["score"], [[below], [above]], fmt="s", color="tab:blue", capsize=5, label=label)
        axis.plot(i - 0.16, said["in_sample"], "x", color="tab:red", ms=8, label="in-sample" if first else None)
        axis.plot(i - 0.08, said["cross_fitted"], "o", color="tab:orange", label="cross-fitted" if first else None)
        for (part, score), marker in zip(true.items(), "^vD"):
            label = f"true, {part}" if first else None
            axis.plot(i + 0.12, score, marker, color="black", ms=6, label=label)
    axis.set_xticks(range(len(rows)), rows)
    axis.set_xlim(-0.5, len(rows) - 0.5)
    axis.set_title(title)
    axis.grid(axis="y", alpha=0.3)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
