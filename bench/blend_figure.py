"""The figure of docs/blending.md: what each way said beforehand against what was true.

python bench/blend_figure.py   # reads bench/figures/small_competitions.json, which bench/blend_small.py writes
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

FIGURES = Path(__file__).resolve().parent / "figures"


def draw_panel(axis, n_rows: str, draws: list[dict]) -> None:
    """One size: said on the horizontal axis, true on the vertical one."""
    naive = np.array([[draw["naive"]["Caruana, exact"][key] for key in ("in", "one fold")] for draw in draws])
    ours = np.array([[draw["default"][key] for key in ("expected", "one fold", "low", "high")] for draw in draws])
    errors = np.abs(ours[:, 2:].T - ours[:, 0])
    axis.errorbar(ours[:, 0], ours[:, 1], xerr=errors, fmt="none", ecolor="#9ecae1", elinewidth=1, zorder=1)
    axis.scatter(
        ours[:, 0], ours[:, 1], s=22, color="#08519c", label="blend.py: expected score, 90 % interval", zorder=3
    )
    axis.scatter(
        naive[:, 0], naive[:, 1], s=22, color="#d94801", marker="x", label="Caruana: score in-sample", zorder=2
    )
    axis.plot([0.40, 0.60], [0.40, 0.60], color="grey", linewidth=0.8)
    axis.set(title=f"{int(n_rows):,} rows", xlim=(0.42, 0.59), ylim=(0.42, 0.53), xlabel="macro-F1 said beforehand")


def main() -> None:
    source = FIGURES / "small_competitions.json"
    if not source.is_file():
        sys.exit(f"{source} is missing. Run: python bench/blend_small.py")
    results = json.loads(source.read_text(encoding="utf-8"))
    results = {n_rows: results[n_rows] for n_rows in sorted(results, key=int)}
    size = (max(7.0, 3.6 * len(results)), 3.6)
    figure, axes = plt.subplots(1, len(results), figsize=size, sharey=True, squeeze=False)
    for axis, (n_rows, draws) in zip(axes[0], results.items(), strict=True):
        draw_panel(axis, n_rows, draws)
    axes[0, 0].set_ylabel("macro-F1 on 10,853 other rows")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=2, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.92))
    matplotlib.rcParams["svg.hashsalt"] = "foldblend"
    figure.savefig(FIGURES / "honest_score.svg", metadata={"Date": None})
    print(FIGURES / "honest_score.svg")


if __name__ == "__main__":
    main()
