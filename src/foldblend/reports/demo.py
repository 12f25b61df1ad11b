"""The demo page of a blend: one text with its labels and the words that spoke for them, or a file of texts.

What is shown is built here as HTML, with every text escaped; Gradio (`pip install gradio`) makes a page of it. The page
asks for nothing outside: no analytics, fonts of the system, and a content policy that lets the browser refuse the rest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from typing import Any

import numpy as np

from foldblend.errors import UserError

# ---------- What is shown of one text

MOST_LABELS = 12
"""Labels shown at once; the others unfold."""
MOST_EXPLAINED = 6
"""Labels whose words are shown."""


@dataclass(frozen=True)
class Reading:
    """What a blend says of one text; A labels, P pieces of the text."""

    label_names: Sequence[str]
    probs: np.ndarray
    """float32 (A,); of a regression the values."""
    thresholds: np.ndarray | None
    """float32 (A,), nan for a label without one; None if nothing is decided by thresholds."""
    decisions: np.ndarray | None
    """bool (A,); None if the metric takes probabilities."""
    pieces: Sequence[str]
    """The text in pieces, words with the spaces around them; joined they are the text."""
    effects: np.ndarray
    """float64 (P, A): how far the log-odds of a label fall if a piece is left out."""
    notes: Sequence[str] = ()
    is_regression: bool = False


def reading_html(found: Reading) -> str:
    """The labels as bars against their thresholds, then the words."""
    decided = np.zeros(len(found.probs), bool) if found.decisions is None else found.decisions
    order = np.lexsort((-found.probs, ~decided)).tolist()
    rows = [_label_row(found, label, bool(decided[label])) for label in order]
    shown, rest = rows[: max(MOST_LABELS, int(decided.sum()))], rows[max(MOST_LABELS, int(decided.sum())) :]
    more = f"<details><summary>{len(rest)} more labels</summary>{''.join(rest)}</details>" if rest else ""
    title = _title(found, [found.label_names[label] for label in order if decided[label]])
    notes = "".join(f'<p class="fb-note">{escape(note)}</p>' for note in found.notes)
    return f'<div class="fb"><h3>{title}</h3>{"".join(shown)}{more}{notes}{_words_html(found, order, decided)}</div>'


def _title(found: Reading, names: Sequence[str]) -> str:
    if found.is_regression:
        return "Predicted values"
    if found.decisions is None:
        return "Probabilities"
    return f"Labels: {escape(', '.join(names))}" if names else "No label reaches its threshold"


def _label_row(found: Reading, label: int, is_decided: bool) -> str:
    name, prob = escape(found.label_names[label]), float(found.probs[label])
    if found.is_regression:
        return f'<div class="fb-row"><span class="fb-name">{name}</span><b>{prob:.4g}</b></div>'
    tick, said = "", ""
    if found.thresholds is not None and np.isfinite(found.thresholds[label]):
        threshold = float(found.thresholds[label])
        tick = f'<i class="fb-tick" style="left:{100 * min(max(threshold, 0), 1):.1f}%"></i>'
        said = f"threshold {threshold:.3f}"
    mark = " fb-yes" if is_decided else ""
    return (
        f'<div class="fb-row{mark}"><span class="fb-name">{name}</span><span class="fb-bar">'
        f'<i class="fb-fill" style="width:{100 * prob:.1f}%"></i>{tick}</span>'
        f'<span class="fb-number">{prob:.3f}</span><span class="fb-said">{said}</span></div>'
    )


LEAST_EFFECT = 0.05
"""Log-odds below which a word is not marked."""


def _words_html(found: Reading, order: Sequence[int], decided: np.ndarray) -> str:
    """The text once per label, each word shaded by how far the label's log-odds fall without it."""
    if len(found.pieces) < 2:
        return ""
    explained = [label for label in order if decided[label]][:MOST_EXPLAINED] or list(order[:1])
    blocks = []
    for label in explained:
        effects = found.effects[:, label]
        largest = max(float(np.abs(effects).max()), 1e-9)
        marked = "".join(_piece_html(piece, float(effect), largest) for piece, effect in zip(found.pieces, effects))
        blocks.append(f'<p class="fb-label">{escape(found.label_names[label])}</p><p class="fb-text">{marked}</p>')
    what = "the value falls (in standard deviations)" if found.is_regression else "the label's log-odds fall"
    note = (
        f'<p class="fb-note"><span class="fb-for" style="--a:.6">for</span> <span class="fb-against" style="--a:.6">'
        f"against</span>: how far {what} if the word is left out; point at a word for the number.</p>"
    )
    return f"<h3>Words that spoke for it</h3>{note}{''.join(blocks)}"


def _piece_html(piece: str, effect: float, largest: float) -> str:
    if abs(effect) < LEAST_EFFECT:
        return escape(piece)
    side, shade = ("for" if effect > 0 else "against"), 0.12 + 0.68 * abs(effect) / largest
    word, space = piece.rstrip(), piece[len(piece.rstrip()) :]
    return f'<span class="fb-{side}" style="--a:{shade:.2f}" title="{effect:+.2f}">{escape(word)}</span>{escape(space)}'


def message_html(lines: Sequence[str], is_error: bool = False) -> str:
    """Sentences for the reader."""
    how = "fb-error" if is_error else "fb-note"
    return '<div class="fb">' + "".join(f'<p class="{how}">{escape(line)}</p>' for line in lines) + "</div>"


# ---------- The page

CSS = """
.gradio-container { max-width: 60rem !important; margin: 0 auto !important; }
.fb { --good: #00694c; --for: 0, 114, 178; --against: 213, 94, 0; --track: #e3e7eb; font-size: .95rem; }
.dark .fb { --good: #4fd3a8; --for: 86, 180, 233; --against: 255, 140, 66; --track: #353b42; }
.fb h3 { margin: 1rem 0 .5rem; font-size: 1.1rem; }
.fb-row { display: grid; grid-template-columns: 9rem 1fr 3.4rem 8.5rem; gap: .6rem; align-items: center; }
.fb-row { padding: .16rem 0; }
.fb-name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.fb-yes .fb-name { font-weight: 650; color: var(--good); }
.fb-yes .fb-name::before { content: "\\2713\\00a0"; }
.fb-bar { position: relative; height: .8rem; background: var(--track); border-radius: 3px; }
.fb-fill { position: absolute; inset: 0 auto 0 0; background: rgba(var(--for), .55); border-radius: 3px; }
.fb-yes .fb-fill { background: var(--good); }
.fb-tick { position: absolute; top: -3px; bottom: -3px; width: 2px; background: currentColor; }
.fb-number { text-align: right; font-variant-numeric: tabular-nums; }
.fb-said, .fb-note { opacity: .75; font-size: .85rem; }
.fb details { margin: .3rem 0; } .fb summary { cursor: pointer; opacity: .8; }
.fb-label { font-weight: 650; margin: .8rem 0 .1rem; }
.fb-text { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.75; margin: 0; }
.fb-for { background: rgba(var(--for), calc(var(--a) * .75)); border-radius: 3px; padding: .05rem .12rem; }
.fb-against { background: rgba(var(--against), calc(var(--a) * .75)); border-radius: 3px; padding: .05rem .12rem;
  text-decoration: underline dotted; }
.fb-error { border-left: 4px solid #c0392b; padding: .4rem .8rem; white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  .fb-row { grid-template-columns: 6.2rem 1fr 2.9rem; gap: .4rem; }
  .fb-said { grid-column: 2 / -1; margin-top: -.25rem; }
}
footer { display: none !important; }
"""
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; media-src 'self' blob:; "
    "worker-src 'self' blob:; manifest-src 'self'; form-action 'self'; base-uri 'self'"
)
"""Gradio's own page has inline scripts and styles; nothing may come from, or go to, another server."""


@dataclass(frozen=True)
class DemoPage:
    """What the page says, and whom it asks."""

    title: str
    facts: Sequence[str]
    text_names: Sequence[str]
    """One box per text of a row."""
    file_note: str
    """What a file must look like."""
    read_texts: Callable[..., str]
    """The texts of one row -> HTML."""
    read_file: Callable[[str | None], tuple[str, str | None]]
    """A file's path -> HTML, and the file of predictions to save; None if there is none."""


def check_gradio() -> None:
    """Raises: UserError: the page's library is not installed."""
    if find_spec("gradio") is None:
        raise UserError("--serve needs gradio, which is not installed. Run: pip install gradio")


def build_app(page: DemoPage, hosts: Sequence[str]) -> Any:
    """The page as an ASGI application. Args: hosts: names under which it may be asked; `*` is any."""
    import os

    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    # a page elsewhere may name this machine; it is answered under its own names alone
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))

    @app.middleware("http")
    async def add_policy(request, call_next):
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    fonts = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]  # plain names: a Font object is fetched
    theme = gr.themes.Base(font=fonts[0], font_mono=fonts[1])
    return gr.mount_gradio_app(
        app, _blocks(gr, page), path="/", footer_links=[], run_history=False, show_error=False, ssr_mode=False,
        enable_monitoring=False, pwa=False, mcp_server=False, max_file_size="50mb", theme=theme, css=CSS,
    )  # fmt: skip


def _blocks(gr, page: DemoPage):
    hour = 3600
    with gr.Blocks(title=page.title, analytics_enabled=False, delete_cache=(hour, hour)) as blocks:
        gr.HTML(f"<h1>{escape(page.title)}</h1>{message_html(page.facts)}")
        with gr.Tab("One text"):
            boxes = [
                gr.Textbox(label=name, lines=3, max_lines=12, elem_id=f"text{number}", autofocus=not number)
                for number, name in enumerate(page.text_names)
            ]
            ask = gr.Button("Predict", variant="primary", elem_id="ask")
            answer = gr.HTML(elem_id="answer")
            ask.click(page.read_texts, boxes, answer, api_name=False)
        with gr.Tab("A file"):
            gr.HTML(message_html([page.file_note]))
            file = gr.File(label="Texts", elem_id="file", type="filepath")
            read = gr.Button("Predict the file", variant="primary", elem_id="read")
            said = gr.HTML(elem_id="said")
            saved = gr.DownloadButton("Save the predictions", visible=False, elem_id="saved")

            def read_file(path):
                html, made = page.read_file(path)
                return html, gr.DownloadButton(value=made, visible=made is not None)

            read.click(read_file, file, [said, saved], api_name=False)
    return blocks
