"""A blend's models behind a page: loaded once, asked again and again. `predict.py --serve` and a Space's app run it."""

import atexit
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from foldblend.commands.inputs import keep_trained
from foldblend.console import say
from foldblend.errors import UserError
from foldblend.ledger.runs import TrainedRun
from foldblend.reports.demo import DemoPage, Reading, build_app, message_html, reading_html
from foldblend.scoring.ensembling.predictors import Recipe
from foldblend.scoring.inputs import Task, TestScores, logit
from foldblend.settings.data_files import PAIR
from foldblend.settings.loading import Job
from foldblend.submission.new_texts import Answered, NewRows, prediction_bytes, read_rows, typed_rows

MOST_CHARACTERS = 20_000
"""Of a text that is typed in; a file may have longer ones."""
MOST_ROWS = 5_000
"""Of a file: more belong on the command line."""
MOST_PIECES = 60
"""A text with more words is explained by pieces of several words."""
WORD = re.compile(r"\s*\S+\s*")


class Demo:
    """The blend in memory. Args: answer: rows and a run's predictor -> what the recipe answers."""

    def __init__(self, job: Job, recipe: Recipe, runs: list[TrainedRun], answer: Callable[..., Answered]):
        self.job, self.recipe, self.runs, self.answer = job, recipe, runs, answer
        self.task = Task(job.competition.metric, job.competition.task)
        self.models = {run.name: keep_trained(job, run, job.own.models, job.own.precision) for run in runs}
        self.lock = threading.Lock()  # the page answers in threads, and a model reads one corpus at a time
        self.scratch = Path(tempfile.mkdtemp(prefix="foldblend-"))
        atexit.register(shutil.rmtree, self.scratch, ignore_errors=True)

    def predict(self, run: TrainedRun, rows: NewRows, allowed: np.ndarray | None) -> TestScores:
        """One run's scores of the texts, a table per fold."""
        return TestScores(self.models[run.name](rows.texts, rows.features), run.kind, self.task, allowed)

    # ---------- One text

    def read_texts(self, *texts: str) -> str:
        """The texts of one row as HTML; a sentence if they cannot be predicted."""
        try:
            with self.lock:
                return reading_html(self.explain([text or "" for text in texts]))
        except UserError as error:
            return message_html(str(error).splitlines(), is_error=True)

    def explain(self, texts: list[str]) -> Reading:
        """What the blend says of one row, and how each word moves it. Raises: UserError: it cannot be predicted."""
        if not any(text.strip() for text in texts):
            raise UserError("There is no text. Type one, then press Predict")
        longest = max(map(len, texts))
        if longest > MOST_CHARACTERS:
            raise UserError(
                f"The text has {longest:,} characters; this page reads {MOST_CHARACTERS:,}. Put it into a file, or use "
                "predict.py --input"
            )
        competition = self.job.competition
        rows = typed_rows(texts, competition.text.pair, competition.features)
        found = self.answer(rows, self.predict)
        pieces = split_pieces(rows.texts[0])
        effects = self.measure_pieces(pieces, found)
        thresholds = self.recipe.rule.thresholds
        if thresholds is not None:
            thresholds = found.spread(thresholds, np.float32("nan"))
        shown = [piece.replace(PAIR, " | ") for piece in pieces]
        decisions = None if found.decisions is None else found.decisions[0]
        values, is_regression = found.values[0], found.scale is not None
        return Reading(
            found.label_names, values, thresholds, decisions, shown, effects, found.warnings, is_regression
        )  # fmt: skip

    def measure_pieces(self, pieces: list[str], found: Answered) -> np.ndarray:
        """How far each label's log-odds fall if a piece of the text is left out: float64 (P, A).

        It asks the whole blend, so it is right for every kind of run; words that say the same share what they say.
        Source: the occlusion of Zeiler and Fergus 2014; Li et al. 2016, arXiv:1612.08220 (erasure of words).
        """
        if len(pieces) < 2:
            return np.zeros((len(pieces), len(found.label_names)))
        texts = ["".join(pieces), *("".join(pieces[:k] + pieces[k + 1 :]) for k in range(len(pieces)))]
        features = None if found.rows.features is None else found.rows.features.take(np.zeros(len(texts), np.int64))
        rows = NewRows((), tuple(texts), features)
        probs = self.recipe.fold_probs([self.predict(run, rows, None) for run in self.runs]).mean(axis=0)  # (P + 1, L)
        moved = probs if found.scale is not None else logit(probs)
        return np.stack([found.spread(row, 0.0) for row in (moved[0] - moved[1:]).astype(np.float64)])

    # ---------- A file

    def read_file(self, given: str | None) -> tuple[str, str | None]:
        """A sentence on the file as HTML, and the file of its predictions; None if there are none."""
        try:
            with self.lock:
                return self.predict_file(given)
        except UserError as error:
            said = str(error).replace(str(given), Path(str(given)).name)  # where it was uploaded to is nobody's concern
            return message_html(said.splitlines(), is_error=True), None

    def predict_file(self, given: str | None) -> tuple[str, str | None]:
        """As `read_file`. Raises: UserError: the file cannot be read."""
        if not given:
            raise UserError("There is no file. Choose one, then press Predict the file")
        path = Path(given)
        rows = read_rows(path, self.job.competition)
        if len(rows.texts) > MOST_ROWS:
            raise UserError(
                f"{path.name} has {len(rows.texts):,} rows; this page reads {MOST_ROWS:,}. Run: python src/predict.py "
                f"--competition {self.job.competition_name} --input FILE --output predictions.csv"
            )
        found = self.answer(rows, self.predict)
        suffix = ".jsonl" if path.suffix == ".jsonl" else ".csv"
        data = prediction_bytes(found.rows, found.label_names, found.values, found.decisions, suffix)
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        made = folder / f"{path.stem}-predictions{suffix}"
        made.write_bytes(data)
        said = f"{path.name}: {len(rows.texts):,} rows predicted. Save them by the button below."
        return message_html([said, *found.warnings]), str(made)


def split_pieces(text: str) -> list[str]:
    """The text in at most MOST_PIECES pieces of whole words; joined they are the text.

    Example: split_pieces("so  happy ") -> ["so  ", "happy "]
    """
    words = WORD.findall(text)
    if not words:
        return [text]
    size = -(-len(words) // MOST_PIECES)
    return ["".join(words[start : start + size]) for start in range(0, len(words), size)]


# ---------- The page, and who serves it

LOOPBACK = "127.0.0.1"


def make_page(job: Job, name: str, demo: Demo) -> DemoPage:
    """What the page says. Args: name: of the blend."""
    competition = job.competition
    runs = ", ".join(run.name for run in demo.runs)
    folds = sum(len(run.checkpoints) for run in demo.runs)
    columns = [competition.id_column, *competition.text.columns, *competition.features.columns]
    return DemoPage(
        title=f"{job.competition_name}: {len(demo.runs[0].label_names)} labels",
        facts=[f"Blend {name} of {runs}: {folds} models, loaded once. Probabilities are means over the folds."],
        text_names=competition.text.pair or ("Text",),
        file_note=f"A .csv with the columns {', '.join(columns)}, or a .jsonl with a text in each line; at most "
        f"{MOST_ROWS:,} rows.",
        read_texts=demo.read_texts,
        read_file=demo.read_file,
    )


def serve(page: DemoPage, host: str, port: int) -> None:
    """Answer until Ctrl-C. Args: host: LOOPBACK, except in a container whose ports somebody else guards.

    Raises: UserError: the port is taken.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise UserError(
                f"--port {port} cannot be used: {error.strerror}. Name another one, or 0 for any"
            ) from error
        hosts = [LOOPBACK, "localhost"] if host == LOOPBACK else ["*"]
        app = build_app(page, hosts)
        import uvicorn

        say(f"http://{host}:{listener.getsockname()[1]}: open it in a browser; Ctrl-C ends it")
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        server.run(sockets=[listener])
