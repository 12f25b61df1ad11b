"""A competition of each form of answer, and answers to it."""

import numpy as np
from tiny_competition import settings

from foldblend.data.reading import Problems, parse_table
from foldblend.data.tables import Tables, submission_form
from foldblend.submission.answers import build_submission, read_answers, submission_bytes

NAMES = ("joy", "fear", "so, sad", '"x"', "=1+1")
FORMS = {
    "columns": settings(),
    "probabilities": settings(submission={"form": "probabilities"}),
    "delimited": settings(
        labels={"names": NAMES}, submission={"form": "delimited", "column": "labels", "delimiter": "|"}
    ),
    "numbers": settings(
        labels={"names": NAMES}, submission={"form": "delimited", "column": "labels", "values": "numbers"}
    ),
    "class": settings(task="multiclass", labels={"names": NAMES}, submission={"form": "class", "column": "kind"}),
    "one of columns": settings(task="multiclass", submission={"separator": "\t"}),
}


def tables_for(competition, n_test=30, zero="0", order=None) -> Tables:
    """Tables whose sample submission lists the test rows in `order`."""
    answer = competition.submission
    in_columns = answer.form in ("columns", "probabilities")
    test_ids = np.array([f"t{k}" for k in range(n_test)])
    sample_ids = test_ids[np.arange(n_test)[::-1] if order is None else order]
    width = len(NAMES) if in_columns else 1
    labels = np.random.default_rng(0).random((200, len(NAMES))) < 0.4
    if competition.task == "multiclass":
        labels = np.eye(len(NAMES), dtype=bool)[np.random.default_rng(0).integers(0, len(NAMES), 200)]
    return Tables(
        train_ids=np.array([f"r{k}" for k in range(200)]),
        train_texts=["x"] * 200,
        labels=labels,
        label_names=NAMES,
        test_ids=test_ids,
        test_texts=["y"] * n_test,
        sample_columns=("id", *(NAMES if in_columns else (answer.column,))),
        sample_ids=sample_ids,
        sample_rows=tuple((name, *[zero] * width) for name in sample_ids.tolist()),
    )


def answers_for(competition, n_test=30, seed=1):
    """Decisions and probs (n_test, L) like the training labels of `tables_for`."""
    rng = np.random.default_rng(seed)
    probs = rng.random((n_test, len(NAMES)))
    if competition.task == "multiclass":
        return np.eye(len(NAMES), dtype=bool)[rng.integers(0, len(NAMES), n_test)], probs
    return probs < 0.4, probs * 0.8


def read_back(data, competition, tables):
    """(n_test, L) in test_ids order, from the bytes alone."""
    table = parse_table(data, submission_form(competition, "utf-8"), Problems("x"))
    answers = read_answers(table, competition, NAMES, Problems("x"))
    row_of = {name: row for row, name in enumerate(table.column("id"))}
    return answers[[row_of[name] for name in tables.test_ids.tolist()]]


def good_bytes(form="columns"):
    competition = FORMS[form]
    tables = tables_for(competition)
    frame = build_submission(competition, tables, *answers_for(competition))
    return submission_bytes(frame, competition.submission.separator), competition, tables
