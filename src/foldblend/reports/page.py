"""What a report consists of: findings, tables and charts; how it becomes one HTML page, a few lines, or PNG files.

The page opens from disk and asks for nothing: style, script and all numbers are inside, and its content policy forbids
every request. Whatever comes from the competition's files reaches it as text, never as HTML.
"""

import base64
import hashlib
import io
import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np

from foldblend.files import write_atomically

# ---------- The parts


Kind = Literal["text", "long", "int", "score", "signed", "share", "seconds", "number"]
"""How the cells of a column are written; `long` is a text that may take several lines."""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    kind: Kind = "text"
    says: str = ""
    """What the column says, if its name does not."""


@dataclass(frozen=True)
class Table:
    """A table that sorts by any column and can be saved as CSV."""

    id: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    """Plain values, one per column; None is an empty cell."""
    note: str = ""
    in_terminal: int = 0
    """How many of its rows `--text` prints."""


@dataclass(frozen=True)
class Series:
    """One line, or one set of bars or points, of a chart."""

    name: str
    x: Sequence[float | str]
    """Numbers; or names, which `bars` and `dots` write on the vertical axis."""
    y: Sequence[float | None]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    """An interval around each `y`; empty for none."""
    names: Sequence[str] = ()
    """What each point is, for `points`."""


@dataclass(frozen=True)
class Chart:
    """A figure by its numbers: the page draws it, `draw_charts` writes it as PNG, its numbers can be saved as CSV."""

    id: str
    title: str
    kind: Literal["lines", "points", "bars", "dots", "heat"]
    x: str
    """Label of the horizontal axis, with its unit."""
    y: str
    series: Sequence[Series]
    note: str = ""
    share: bool = False
    """Whether values are shares, written as percent."""
    diagonal: bool = False
    """Whether to draw the line on which both axes agree."""
    at: Sequence[tuple[float, str]] = ()
    """Vertical lines: where, and what they mark."""


@dataclass(frozen=True)
class Browser:
    """A part of the page that the reader steers: `curves` of labels, or `rows` with their errors."""

    id: str
    title: str
    kind: Literal["curves", "rows"]
    data: Mapping[str, Any]
    """Plain values; page.js says which."""
    note: str = ""


@dataclass(frozen=True)
class MarkedText:
    """A text whose pieces are shaded."""

    title: str
    pieces: Sequence[str]
    """Joined they are the text."""
    shares: Sequence[float]
    """One per piece; above 0 it spoke for what the title says, below 0 against it."""

    @property
    def shaded(self) -> list[tuple[str, str, str]]:
        """(spaces before, piece, CSS class): `for1` to `for5`, `against1` to `against5`, "" for what hardly matters."""
        most = max((abs(share) for share in self.shares), default=0.0) or 1.0
        shades = [round(SHADES * abs(share) / most) for share in self.shares]
        sides = ["for" if share > 0 else "against" for share in self.shares]
        return [
            (piece[: len(piece) - len(piece.lstrip())], piece.lstrip(), f"{side}{shade}" if shade else "")
            for piece, side, shade in zip(self.pieces, sides, shades, strict=True)
        ]


SHADES = 5


@dataclass(frozen=True)
class Marked:
    """Texts with shaded pieces; the page draws them without a script."""

    id: str
    title: str
    texts: Sequence[MarkedText]
    note: str = ""


Block = Table | Chart | Browser | Marked


@dataclass(frozen=True)
class Section:
    """One question of the reader."""

    id: str
    title: str
    findings: Sequence[str]
    """What to know, the most important first; sentences. The terminal prints them, too."""
    blocks: Sequence[Block] = ()


@dataclass(frozen=True)
class Page:
    """A report."""

    title: str
    facts: Sequence[str]
    """What it was made from and when, below the title."""
    sections: Sequence[Section] = field(default_factory=tuple)

    @property
    def charts(self) -> Iterator[Chart]:
        """Every chart, in order."""
        for section in self.sections:
            yield from (block for block in section.blocks if isinstance(block, Chart))


# ---------- Cells


def write_cell(value: Any, kind: Kind) -> str:
    """A value as a person reads it; empty for None."""
    if value is None or value == "":
        return ""
    if kind in ("text", "long"):
        return str(value)
    if kind == "int":
        return f"{value:,}"
    if kind == "share":
        return write_share(value)
    if kind == "seconds":
        hours, rest = divmod(round(value), 3600)
        return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
    if kind == "number":
        return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:+.4f}" if kind == "signed" else f"{value:.4f}"


def write_share(value: float) -> str:
    """A share as percent, with a digit after the point below ten. Example: 0.0312 -> "3.1 %"."""
    percent = 100 * value
    if not percent:
        return "0 %"
    if 0 < percent < 0.05:
        return "under 0.1 %"
    return f"{percent:.1f} %" if abs(percent) < 9.95 else f"{percent:.0f} %"


def shortened(text: str, length: int) -> str:
    """A text of at most `length` characters; a longer one ends with an ellipsis."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


# ---------- The page


def render(page: Page) -> str:
    """The page as HTML."""
    import jinja2  # here, as the terminal does not need it

    texts = {name: resources.files(__package__).joinpath(f"page.{name}").read_text("utf-8") for name in EXTENSIONS}
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.globals |= {"cell": write_cell, "kind_of": _kind_of}
    markup = jinja2.utils.markupsafe.Markup
    blocks = [block for section in page.sections for block in section.blocks]
    drawn = {block.id: asdict(block) for block in blocks if isinstance(block, Chart | Browser)}
    return environment.from_string(texts["html"]).render(
        page=page,
        style=markup(texts["css"]),
        script=markup(texts["js"]),
        data=markup(as_json(drawn)),
        policy=f"default-src 'none'; style-src {_hash(texts['css'])}; script-src {_hash(texts['js'])}; img-src data:",
    )


EXTENSIONS = ("html", "css", "js")
"""Of the files beside this one that a page is made of."""


def _kind_of(block: Block) -> str:
    return type(block).__name__.lower()


def _hash(text: str) -> str:
    """The text's hash as a content policy names it: nothing but this style and this script is run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def as_json(values: Any) -> str:
    """JSON that is safe inside a script element: no text in it can end the element or begin a comment.

    Example: as_json("</script>") -> '"\\\\u003c/script\\\\u003e"'
    """
    text = json.dumps(_rounded(values), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return "".join(c if not 0xD800 <= ord(c) < 0xE000 else "\ufffd" for c in text)  # half a pair cannot be written


def _rounded(values: Any) -> Any:
    """Plain values with six significant digits, enough for any reader; nan and infinity are None."""
    if isinstance(values, Mapping):
        return {key: _rounded(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        if values and all(type(value) is int or type(value) is str for value in values):
            return values  # most lists are long and plain
        return [_rounded(value) for value in values]
    if isinstance(values, float):
        if values != values or values in (float("inf"), float("-inf")):
            return None
        return int(values) if values.is_integer() and abs(values) < 1e15 else float(f"{values:.6g}")
    return values


# ---------- The terminal


COLUMNS = 80


def terminal_lines(page: Page) -> list[str]:
    """The findings and the first rows of the tables that are marked for it, for 80 columns."""
    lines = [page.title, *_wrapped(page.facts, "")]
    for section in page.sections:
        lines += ["", section.title.upper(), *_wrapped(section.findings, "- ")]
        for block in section.blocks:
            if isinstance(block, Table) and block.in_terminal and block.rows:
                lines += ["", *_table_lines(block)]
    return lines


def _wrapped(sentences: Sequence[str], bullet: str) -> list[str]:
    indent = " " * len(bullet)
    how = {"subsequent_indent": indent, "break_on_hyphens": False}
    return [line for each in sentences for line in textwrap.wrap(each, COLUMNS, initial_indent=bullet, **how)]


def _table_lines(table: Table) -> list[str]:
    """As many columns as fit; a first column that is too wide is shortened."""
    rows = [
        [write_cell(value, column.kind) for value, column in zip(row, table.columns, strict=True)] for row in table.rows
    ]
    shown = [[column.name for column in table.columns], *rows[: table.in_terminal]]
    shown = [[shortened(" ".join(cell.split()), 28) for cell in row] for row in shown]
    widths = [max(map(len, cells)) for cells in zip(*shown, strict=True)]
    used, kept = 0, 0
    for width in widths:
        if used + width + 2 * kept > COLUMNS:
            break
        used, kept = used + width, kept + 1
    left = [column.kind in ("text", "long") for column in table.columns]
    lines = [
        "  ".join(
            f"{cell:{'<' if is_left else '>'}{width}}" for cell, width, is_left in zip(row[:kept], widths, left)
        ).rstrip()
        for row in shown
    ]
    more = len(table.rows) - table.in_terminal
    return [table.title, *lines, *([f"... and {more:,} more on the page"] if more > 0 else [])]


# ---------- The charts as PNG files, for slides and write-ups; the page draws the same numbers itself


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
