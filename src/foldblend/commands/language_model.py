"""What `teach` does with a large language model: texts labelled, texts written, what it costs, how well it agrees."""

import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from foldblend.commands.inputs import RowsToTeach
from foldblend.console import Progress, is_terminal, print_lines, say, table_lines, warn
from foldblend.data.tables import Tables
from foldblend.data.taught import TaughtRows
from foldblend.errors import UserError, nearest
from foldblend.files import hold_lock
from foldblend.ledger.folds import Folds
from foldblend.settings.teacher import TeacherSettings
from foldblend.teaching.answers import (
    Agreement,
    AnswerLog,
    Reply,
    count_votes,
    failed_kind,
    measure_agreement,
    read_labels,
    read_texts,
)
from foldblend.teaching.asking import Asking, Server
from foldblend.teaching.questions import (
    TOKENS_PER_LABEL,
    TOKENS_PER_TEXT,
    Example,
    LabelList,
    Question,
    ask_for_labels,
    ask_for_paraphrases,
    ask_for_texts,
    estimate_tokens,
    labels_schema,
    paraphrases_schema,
    price,
    texts_schema,
)


@dataclass(frozen=True)
class Lesson:
    """What a command asks of a teacher, beside the texts."""

    settings: TeacherSettings
    labels: LabelList
    log: Path
    """data/<competition>/<name>.answers.jsonl."""
    shown_log: str
    is_confirmed: bool
    """`--yes`."""
    asks_failed_again: bool
    """`--retry_failed`."""


# ---------- Labels


def label_by_model(lesson: Lesson, tables: Tables, rows: RowsToTeach, folds: Folds | None) -> TaughtRows:
    """Ask about each text, show the agreement with true labels, and make labels of the votes.

    Args: folds: of the competition, if there are examples; one set of labels per fold then.
    """
    settings, names = lesson.settings, lesson.labels.names
    examples = [()] if folds is None else [draw_examples(tables, folds, k, settings) for k in range(folds.n_folds)]
    questions = ask_for_labels(settings, lesson.labels, rows.texts, examples)
    expected = min(settings.max_labels, len(names)) * TOKENS_PER_LABEL + 8
    with open_log(lesson) as log:
        ask(lesson, log, Server(settings, labels_schema(names)), questions, expected)
        replies = log.replies
    named = (
        (each.n_set, each.row, read_labels(replies[each.key], names, settings.min_labels, settings.max_labels))
        for each in questions
        if each.key in replies
    )
    probs, tally = count_votes(named, (len(examples), len(rows.texts)), names)
    if rows.allowed is not None:
        probs = np.where(rows.allowed[None] | np.isnan(probs), probs, np.float32(0))
    say(*tally.lines())
    show_agreement(tables, rows, probs, folds)
    warn_unlabelled(probs)
    made_by = {
        "teacher": settings.model,
        "base_url": settings.base_url,
        "instruction": settings.instruction,
        "temperature": settings.temperature,
        "votes": settings.votes,
        "examples": settings.examples,
        "definitions": lesson.labels.definitions,
    }
    return TaughtRows(
        rows.kind, rows.ids, rows.texts, tables.label_names, probs, np.ones((1, len(rows.ids)), np.float32),
        "" if folds is None else folds.sha256, made_by, rows.contents,
    )  # fmt: skip


def draw_examples(tables: Tables, folds: Folds, fold: int, settings: TeacherSettings) -> tuple[Example, ...]:
    """Training rows of the other folds, such that all labels are shown about equally often."""
    known = np.ones(len(tables.labels), bool) if tables.known is None else tables.known.all(axis=1)
    count = tables.labels.sum(axis=1)
    fits = known & (folds.fold != fold) & (count >= settings.min_labels) & (count <= settings.max_labels)
    short = np.array([0 < len(text) <= LONGEST_EXAMPLE for text in tables.train_texts])
    left = np.flatnonzero(fits & short)
    left = np.random.default_rng([settings.seed, fold]).permutation(left)
    shown, used = np.zeros(tables.labels.shape[1]), np.zeros(len(tables.labels), bool)
    drawn: list[int] = []
    while len(drawn) < min(settings.examples, len(left)):
        free = left[~used[left]]
        for label in np.argsort(shown, kind="stable"):
            having = free[tables.labels[free, label]]
            if len(having):
                free = having
                break
        row = int(free[0])
        used[row] = True
        shown += tables.labels[row]
        drawn.append(row)
    names = np.array(tables.label_names)
    return tuple(Example(tables.train_texts[row], tuple(names[tables.labels[row]].tolist())) for row in drawn)


LONGEST_EXAMPLE = 600
"""Characters of a training row that may be an example: it is sent before each text."""


def show_agreement(tables: Tables, rows: RowsToTeach, probs: np.ndarray, folds: Folds | None) -> None:
    """Print how well the teacher agrees with the true labels of training rows, if these are some.

    With examples, a row is judged by the answer that saw examples of other folds than its own.
    """
    if rows.kind != "train":
        return
    position = {name: row for row, name in enumerate(tables.train_ids.tolist())}
    own = np.array([position[name] for name in rows.ids])
    sets = np.zeros(len(own), np.int64) if folds is None else folds.fold[own]
    given = probs[sets, np.arange(len(own))]
    known = ~np.isnan(given).any(axis=1)
    if tables.known is not None:
        known &= tables.known[own].all(axis=1)
    if not known.any():
        return
    found = measure_agreement(tables.labels[own[known]], decide(given[known], rows, tables))
    print_lines(agreement_lines(tables.label_names, found))


def decide(given: np.ndarray, rows: RowsToTeach, tables: Tables) -> np.ndarray:
    """Labels that half of the votes or more name; of one label per row, the one with most votes."""
    if (tables.labels.sum(axis=1) == 1).all():
        return given.argmax(axis=1)[:, None] == np.arange(given.shape[1])
    return given >= 0.5


def agreement_lines(names: Sequence[str], found: Agreement) -> list[str]:
    """A table for 80 columns."""
    rows = [("label", "true rate", "teacher's rate", "F1", "kappa")]
    for label, name in enumerate(names):
        kappa = "" if np.isnan(found.kappa[label]) else f"{found.kappa[label] + 0.0:.3f}".replace("-0.000", "0.000")
        rates = (f"{found.true_rate[label]:.4f}", f"{found.given_rate[label]:.4f}")
        rows.append((name[:32], *rates, f"{found.f1[label]:.4f}", kappa))
    mean = float(np.nanmean(found.kappa)) if not np.isnan(found.kappa).all() else float("nan")
    scores = f"macro-F1 {found.macro_f1:.4f}, mean kappa {mean:.3f}"
    return ["", *table_lines(rows), "", f"Agreement with true labels, {found.n_rows:,} training rows: {scores}"]


def warn_unlabelled(probs: np.ndarray) -> None:
    """Say how many rows got no labels; they teach nothing."""
    missing = int(np.isnan(probs).all(axis=2).all(axis=0).sum())
    if missing:
        warn(f"{missing:,} of {probs.shape[1]:,} rows have no usable answer; they are in the file and teach nothing")


# ---------- Texts that a teacher writes


def write_by_model(lesson: Lesson, tables: Tables, wanted: Sequence[str], count: int) -> TaughtRows:
    """New texts for some labels, with all labels that the teacher gives them."""
    names = lesson.labels.names
    questions = ask_for_texts(lesson.settings, lesson.labels, wanted, count)
    with open_log(lesson) as log:
        ask(lesson, log, Server(lesson.settings, texts_schema(names)), questions, 5 * TOKENS_PER_TEXT)
        replies = log.replies
    texts: dict[str, set[str]] = {}
    kinds: list[str] = []
    for question in (each for each in questions if each.key in replies):
        kind, written = read_texts(replies[question.key], names)
        kinds.append(kind)
        for text, given in written:
            texts.setdefault(text, set()).update((wanted[question.row], *given))
    if not texts:
        raise UserError(f"the teacher wrote no usable text; its answers are in {lesson.shown_log}")
    show_written(kinds, len(texts), count * len(wanted))
    labels = np.array([[name in given for name in names] for given in texts.values()], np.float32)
    return _written(lesson, tables, list(texts), labels, None, {"wanted": list(wanted)})


def paraphrase_by_model(lesson: Lesson, tables: Tables, rows: Sequence[int], count: int) -> TaughtRows:
    """Training rows in other words, with the labels of their originals, whose ids they name."""
    originals = [tables.train_texts[row] for row in rows]
    questions = ask_for_paraphrases(lesson.settings, originals, count)
    expected = count * (10 + sum(map(len, originals)) // (4 * len(originals)))
    with open_log(lesson) as log:
        ask(lesson, log, Server(lesson.settings, paraphrases_schema()), questions, expected)
        replies = log.replies
    taken, kinds = set(map(str.casefold, originals)), []
    texts: list[str] = []
    sources: list[int] = []
    for question in (each for each in questions if each.key in replies):
        kind, written = read_texts(replies[question.key], ())
        kinds.append(kind)
        for text, _ in written[:count]:
            if text.casefold() not in taken:
                taken.add(text.casefold())
                texts.append(text)
                sources.append(rows[question.row])
    if not texts:
        raise UserError(f"the teacher wrote no usable paraphrase; its answers are in {lesson.shown_log}")
    show_written(kinds, len(texts), count * len(rows))
    truth = (tables.labels if tables.soft is None else tables.soft).astype(np.float32)[sources]
    if tables.known is not None:
        truth = np.where(tables.known[sources], truth, np.float32(np.nan))
    return _written(lesson, tables, texts, truth, tables.train_ids[sources].tolist(), {})


def _written(lesson, tables, texts, labels, origins, more) -> TaughtRows:
    ids = [f"written {number}" for number in range(1, len(texts) + 1)]
    made_by = {"teacher": lesson.settings.model, "base_url": lesson.settings.base_url, **more}
    made_by |= {"instruction": lesson.settings.instruction, "definitions": lesson.labels.definitions}
    weights = np.ones((1, len(texts)), np.float32)
    return TaughtRows("written", ids, texts, tables.label_names, labels[None], weights, "", made_by, None, origins)


def show_written(kinds: Sequence[str], n_texts: int, n_wanted: int) -> None:
    """How many texts there are, and how many answers could not be used."""
    say(f"{n_texts:,} different texts of {n_wanted:,} wanted")
    for kind in sorted(set(kinds) - {"usable"}):
        say(f"{kinds.count(kind):,} of {len(kinds):,} answers {kind}")


def find_wanted(words: Sequence[str] | None, names: Sequence[str]) -> list[str]:
    """The labels that a flag names. Raises: UserError: one does not exist."""
    for name in words or ():
        if name not in names:
            raise UserError(f"--for_labels has {name!r}, which is not a label{nearest(name, names)}")
    return list(words or ())


# ---------- Asking, with the price before and during


@contextmanager
def open_log(lesson: Lesson):
    """The log of answers, for one command at a time."""
    busy = f"{lesson.shown_log}: another teach.py asks for it now. Wait for it, or give this one another --name"
    with hold_lock(lesson.log.with_name(f".{lesson.log.name}.lock"), busy):
        log = AnswerLog(lesson.log)
        try:
            yield log
        finally:
            log.close()


def ask(lesson: Lesson, log: AnswerLog, server: Server, questions: Sequence[Question], tokens_out: int) -> None:
    """Ask what the log has no answer to, once the price is agreed. Args: tokens_out: expected of one answer."""
    settings = lesson.settings
    different = {each.key: each for each in questions}
    again = (lambda reply: failed_kind(reply) != "") if lesson.asks_failed_again else (lambda reply: False)
    waiting = [each for key, each in different.items() if key not in log.replies or again(log.replies[key])]
    answered = [each for key, each in different.items() if key in log.replies]
    if answered:
        say(f"{len(answered):,} of {len(different):,} answers are in {lesson.shown_log} already")
    if not waiting:
        return
    dollars = agree_on_price(lesson, waiting, *expect_tokens(waiting, answered, log.replies, tokens_out))
    most = max(2 * dollars, settings.cost_limit) if dollars else float("inf")
    asking = Asking(server, log, most)
    progress = Progress("teach", len(different), len(different) - len(waiting))

    def show(n_done: int) -> None:
        spent = asking.spent
        cost = f"  ${asking.dollars:.4f}" if settings.input_price or settings.output_price else ""
        failed = spent.n_unanswered + spent.n_rejected
        state = f"{spent.n_answers:,} answers{cost}{f'  {failed:,} failed' if failed else ''}"
        progress.advance(n_done, f"{state}{f'  {spent.n_retries:,} retries' if spent.n_retries else ''}")

    try:
        asking.ask_all(waiting, show)
    finally:
        progress.close()
        spent = asking.spent
        cost = f", ${asking.dollars:.4f}" if settings.input_price or settings.output_price else ""
        say(f"{spent.n_answers:,} answers; {spent.tokens_in:,} tokens sent, {spent.tokens_out:,} received{cost}")
    for count, words in ((spent.n_unanswered, "got no answer"), (spent.n_rejected, "were rejected by the server")):
        if count:
            warn(f"{count:,} requests {words}; the last: {spent.last_error}. The same command sends them again")


def expect_tokens(
    waiting: Sequence[Question], answered: Sequence[Question], replies: dict[str, Reply], tokens_out: int
) -> tuple[int, int]:
    """Tokens to send and to receive: by the answers so far, or else by the lengths of texts."""
    sent = sum(map(estimate_tokens, waiting))
    real = [replies[each.key] for each in answered[:1000]]
    if real:
        sent = sent * sum(each.tokens_in for each in real) // max(sum(map(estimate_tokens, answered[:1000])), 1)
        tokens_out = max(sum(each.tokens_out for each in real) // len(real), 1)
    return sent, tokens_out * len(waiting)


def agree_on_price(lesson: Lesson, waiting: Sequence[Question], tokens_in: int, tokens_out: int) -> float:
    """Print what asking will cost, and ask above the limit.

    Returns: the dollars, 0 without prices.
    Raises:  UserError: the user says no, or cannot be asked.
    """
    settings = lesson.settings
    dollars = price(settings, tokens_in, tokens_out)
    cost = f"about {in_dollars(dollars)}" if dollars else "no price is given, so nothing is known of the costs"
    say(f"{settings.model}: {len(waiting):,} requests, about {tokens_in:,} tokens to send, {tokens_out:,} back: {cost}")
    if dollars <= settings.cost_limit or lesson.is_confirmed:
        return dollars
    above = f"{in_dollars(dollars)} is above cost_limit, {in_dollars(settings.cost_limit)}"
    if not (sys.stdin.isatty() and is_terminal(sys.stdout)):
        raise UserError(f"{above}, and this is not a terminal to ask in. Add --yes, or raise --cost_limit")
    try:
        said = input(f"{above}. Ask it anyway? [y/N] ")
    except EOFError:
        said = ""
    if said.strip().lower() not in ("y", "yes"):
        raise UserError(f"nothing was asked: {above}. `--limit 200` asks about fewer rows")
    return dollars


def in_dollars(dollars: float) -> str:
    """`$12.30`, or `$0.0123` for less than a dollar."""
    return f"${dollars:.2f}" if dollars >= 1 else f"${dollars:.4f}"


def limit_rows(rows: RowsToTeach, most: int, seed: int) -> RowsToTeach:
    """At most so many rows, drawn at random, in their order."""
    if not most or most >= len(rows.texts):
        return rows
    kept = np.sort(np.random.default_rng(seed).permutation(len(rows.texts))[:most])
    pick: Callable = lambda values: None if values is None else [values[row] for row in kept]  # noqa: E731
    allowed = None if rows.allowed is None else rows.allowed[kept]
    return replace(
        rows, ids=pick(rows.ids), texts=pick(rows.texts), contents=pick(rows.contents), features=None, allowed=allowed
    )
