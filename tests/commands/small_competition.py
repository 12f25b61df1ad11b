"""A made-up competition with runs in the ledger, for commands that read them."""

import numpy as np

from foldblend.data.tables import load_tables
from foldblend.ledger.folds import write_folds
from foldblend.ledger.oof import write_fold
from foldblend.predictions import FoldPredictions
from foldblend.scoring.inputs import sigmoid
from foldblend.settings.loading import load_competition

LABELS = ("joy", "fear", "anger")
N_ROWS, N_TEST = 120, 40


def hidden_log_odds():
    """What is behind the labels, float64 (N_ROWS + N_TEST, 3)."""
    return 2 * np.random.default_rng(0).normal(size=(N_ROWS + N_TEST, 3)) - [0.0, 0.8, 1.5]


def write_competition(paths, metric="macro_f1", form="columns", task="multilabel"):
    """Files of a competition `small`, and the hidden log-odds behind its labels."""
    hidden, rng = hidden_log_odds(), np.random.default_rng(0)
    rng.normal(size=hidden.shape)  # as before the log-odds were drawn on their own
    labels = (rng.random(hidden.shape) < sigmoid(hidden)).astype(int)
    if task != "multilabel":
        labels = np.eye(3, dtype=int)[hidden.argmax(axis=1)]
    settings = (
        f"id_column: id\ntask: {task}\nmetric: {metric}\nsubmission: {{form: {form}}}\nfiles: {{kaggle: small}}\n"
    )
    (paths.configs / "competitions" / "small.yaml").write_text(settings)
    data = paths.data("small")
    data.mkdir(parents=True)
    rows = [f"r{row},text {row}," + ",".join(map(str, labels[row])) for row in range(N_ROWS)]
    (data / "train.csv").write_text("\n".join(["id,text," + ",".join(LABELS), *rows]) + "\n")
    (data / "test.csv").write_text("\n".join(["id,text", *(f"t{row},new {row}" for row in range(N_TEST))]) + "\n")
    blank = "0.5,0.5,0.5" if form == "probabilities" else "0,0,0"
    rows = [f"t{row},{blank}" for row in reversed(range(N_TEST))]
    (data / "sample_submission.csv").write_text("\n".join(["id," + ",".join(LABELS), *rows]) + "\n")
    return hidden


def write_runs(paths, hidden, noise=(0.5, 1.5), record=None, n_trained=None):
    """Folds, and one run per noise level in the ledger, with all five folds or the first `n_trained[run]` of them."""
    competition = load_competition(paths, "small")
    tables = load_tables(competition, paths.data("small"))
    folds = write_folds(paths, "small", competition, tables, np.arange(N_ROWS) % 5, np.arange(N_ROWS))
    rng = np.random.default_rng(1)
    for number, level in enumerate(noise):
        for fold in range(n_trained[number] if n_trained else 5):
            seen = (hidden + level * rng.normal(size=hidden.shape)).astype(np.float32)
            rows = np.flatnonzero(folds.fold == fold)
            entry = FoldPredictions(fold, rows, seen[rows], seen[N_ROWS:], "logits")
            more = record(number) if callable(record) else record or {}
            write_fold(paths, "small", f"run{number}", folds, tables, entry, {"settings": {}, **more})
