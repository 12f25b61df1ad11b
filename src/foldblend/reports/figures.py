"""The charts of a report as PNG files, for slides and write-ups; the page draws the same numbers itself."""

import io
import re
from pathlib import Path

import numpy as np

from foldblend.files import write_atomically
from foldblend.reports.page import Chart, Page, Series

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#a77c00", "#4477aa", "#333333")
"""After Okabe and Ito 2008: they can be told apart with any colour vision, and lines differ in their dashes, too."""
DASHES = ("-", (0, (5, 2)), (0, (1, 2)), (0, (7, 2, 1, 2)), (0, (1, 1)), (0, (9, 3)))
DOTS_PER_INCH = 150


def draw_charts(page: Page, folder: Path) -> int:
    """Write every chart of a page as `<id>.png` into a folder. Returns: how many."""
    from matplotlib.figure import Figure  # without pyplot: no window and no global state

    count = 0
    for chart in page.charts:
        if not any(len(series.x) for series in chart.series):
            continue
        named = chart.kind in ("bars", "dots", "heat")
        rows = len(chart.series) if chart.kind == "heat" else len(chart.series[0].x)
        figure = Figure(figsize=(7, max(4.2, 0.24 * rows + 1.4) if named else 4.2), layout="constrained")
        axes = figure.add_subplot()
        {"lines": _draw_plot, "points": _draw_plot, "bars": _draw_names, "dots": _draw_names, "heat": _draw_heat}[
            chart.kind
        ](axes, chart)
        axes.set_title(_plain(chart.title), loc="left", fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=DOTS_PER_INCH)
        write_atomically(folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', chart.id)}.png", drawn.getvalue())
        count += 1
    return count


def _plain(text: str) -> str:
    """Text without the signs that start a formula."""
    return text.replace("$", r"\$")


def _draw_plot(axes, chart: Chart) -> None:
    for k, series in enumerate(chart.series):
        colour, y = COLOURS[k % len(COLOURS)], np.array([np.nan if v is None else v for v in series.y], float)
        if chart.kind == "points" and len(series.names):
            axes.plot(series.x, y, "o", color=colour, label=_plain(series.name))
        else:
            axes.plot(series.x, y, color=colour, linestyle=DASHES[k % len(DASHES)], label=_plain(series.name))
        if len(series.low):
            axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.15)
    if chart.diagonal:
        axes.axline((0, 0), slope=1, color="#888888", linestyle=":", linewidth=1)
    for at, name in chart.at:
        axes.axvline(at, color="#888888", linestyle=":", linewidth=1)
        axes.text(at, axes.get_ylim()[1], f" {_plain(name)}", fontsize=8, va="top")
    axes.set_xlabel(_plain(chart.x))
    axes.set_ylabel(_plain(chart.y))
    _add_legend(axes, chart)


def _add_legend(axes, chart: Chart) -> None:
    if len(chart.series) > 1:
        axes.legend(frameon=False, fontsize=8)


def _draw_names(axes, chart: Chart) -> None:
    names = [_plain(str(name)) for name in chart.series[0].x]
    places, thick = np.arange(len(names)), 0.8 / len(chart.series)
    for k, series in enumerate(chart.series):
        at = places + (k - (len(chart.series) - 1) / 2) * thick
        _draw_row(axes, chart, series, at, thick, COLOURS[k % len(COLOURS)])
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(_plain(chart.x))
    _add_legend(axes, chart)


def _draw_row(axes, chart: Chart, series: Series, at: np.ndarray, thick: float, colour: str) -> None:
    y = np.array([np.nan if v is None else v for v in series.y], float)
    if chart.kind == "bars":
        axes.barh(at, y, thick * 0.9, color=colour, label=_plain(series.name))
    else:
        axes.plot(y, at, "o", color=colour, markersize=4, label=_plain(series.name))
    if len(series.low):
        axes.hlines(at, series.low, series.high, color=colour, linewidth=1.5)


def _draw_heat(axes, chart: Chart) -> None:
    values = np.array([[np.nan if v is None else v for v in series.y] for series in chart.series], float)
    names = [series.name for series in chart.series], list(map(str, chart.series[0].x))
    most = np.nanmax(np.where(np.array(names[0])[:, None] == np.array(names[1]), np.nan, values), initial=1e-9)
    axes.imshow(values, cmap="Blues", vmin=0, vmax=most, aspect="auto")
    axes.set_yticks(range(len(names[0])), map(_plain, names[0]), fontsize=7)
    axes.set_xticks(range(len(names[1])), map(_plain, names[1]), fontsize=7, rotation=60, ha="left")
    axes.xaxis.tick_top()
