"""One competition at Kaggle: calls through Kaggle's own client, errors in words, the wait for a score, uploads.

The client runs in a process of its own (kaggle/worker.py), so a call may be ended when it takes too long.
"""

import contextlib
import json
import math
import os
import re
import select
import shlex
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from foldblend.errors import UserError, kaggle_credential_files, redact

# ---------- files of credentials.


def find_wide_permissions() -> list[str]:
    """A sentence for each file of credentials that others may read."""
    found = []
    for path in kaggle_credential_files():
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            found.append(f"{path} can be read by others (mode {mode:o}). Run: chmod 600 {shlex.quote(str(path))}")
    return found


# ---------- what Kaggle and its client say when something fails, with what to run next.


LATE = re.compile(r"deadline|has ended|is over|has closed|is closed|no longer accept|not accepting|not open")
LIMIT = re.compile(r"allowance|(submission|daily|team) limit|too many submissions|maximum number of submissions")
SUBMITTING = "CreateSubmission"
"""The request that makes a submission of what was uploaded."""
CREDENTIALS = (
    "Run: kaggle auth login; or take a token from https://www.kaggle.com/settings/api and put it into "
    "~/.kaggle/access_token (chmod 600) or KAGGLE_API_TOKEN"
)


class KaggleError(UserError):
    """A call that failed. `arrived` is False if Kaggle certainly did nothing, None if that is not known."""

    def __init__(self, message: str, kind: str, arrived: bool | None):
        super().__init__(message)
        self.kind = kind
        self.arrived = arrived


def explain(slug: str, kind: str, status: int | None, message: str, asked: str) -> KaggleError:
    """The error of a failed call.

    Args:   kind: `credentials`, `network`, `timeout`, `http`, `upload` or `client`.   status: of the HTTP answer.
            message: what was said, without secrets.
            asked: the last thing that Kaggle was asked; a lost answer to SUBMITTING leaves open whether it arrived.
    """
    if kind == "http":
        kind, sentence = _explain_answer(slug, status or 0, message)
    else:
        sentence = _explain_no_answer(kind, message)
    unanswered = kind in ("network", "timeout", "server", "client")
    return KaggleError(sentence, kind, None if unanswered and asked == SUBMITTING else False)


def _explain_no_answer(kind: str, message: str) -> str:
    if kind == "credentials":
        return f"no valid Kaggle credentials were found. {CREDENTIALS}"
    if kind == "upload":
        return f"the upload failed, nothing was submitted: {message or 'no reason given'}. Run the same command again"
    if kind == "timeout":
        return f"Kaggle did not answer in time ({message}). Run the same command again, or allow more: --timeout 300"
    if kind == "network":
        return f"Kaggle cannot be reached: {message}. Check the network and the proxy, then run the same command again"
    return f"the kaggle client failed: {message}. Run: pip install -U 'kaggle>=2.2.4' six, then the same command again"


def _explain_answer(slug: str, status: int, message: str) -> tuple[str, str]:
    """What an HTTP error means: its kind and a sentence."""
    page, lowered = f"https://www.kaggle.com/competitions/{slug}", message.lower()
    if status == 401:
        return "credentials", f"Kaggle refuses the credentials ({message}). {CREDENTIALS}"
    if status == 429:
        return (
            "busy",
            f"Kaggle gets too many requests from here ({message}). Wait a minute, then run the same again",
        )
    if status >= 500:
        return "server", f"Kaggle has an error of its own ({message}). Run the same command again later"
    if LATE.search(lowered):
        return "deadline", f"{slug} takes no more submissions ({message}). Its dates: {page}"
    if LIMIT.search(lowered):
        return "limit", f"the submission limit is reached ({message}). It is reset at midnight UTC; see {page}"
    if "rules" in lowered:
        return "rules", f"the rules of {slug} are not accepted yet ({message}). Accept them: {page}/rules"
    if status in (403, 404):
        return "slug", (
            f"Kaggle knows no competition {slug!r} that you take part in ({message}). Look at {page}: if it is not "
            f"there, put the right slug into files.kaggle; if it is there, join it and accept its rules: {page}/rules"
        )
    return "refused", f"Kaggle refuses ({message}). See {page}/submissions"


# ---------- the calls of Kaggle's own client that we make, each with a time limit and no secret in its errors.


SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
"""The client makes a file name of it."""
UPLOAD_BYTES_PER_SECOND = 20_000
"""An upload that is slower than this is ended."""
PATIENCE = 3
"""The worker gives up on late answers itself; if it takes this many times the limit of one answer, it is ended."""
DOWNLOAD_SECONDS = 6 * 3600
"""A download that still moves is not cut off; one that stalls ends at the time limit of a single answer."""
VERBOSE = ("VERBOSE", "VERBOSE_OUTPUT")
"""Variables that make the client print its headers, keys included; the worker does not get them."""


@dataclass(frozen=True)
class Limits:
    """How often the team has submitted, and how often it may do so now."""

    num_today: int
    num_total: int
    num_allowed_now: int
    limited_by_total: bool


@dataclass(frozen=True)
class KaggleSubmission:
    """One submission as Kaggle lists it; scores are None until there are any."""

    ref: int
    date: str
    file_name: str
    description: str
    status: str
    public_score: float | None
    private_score: float | None
    error_description: str
    total_bytes: int


class KaggleClient:
    """One competition at Kaggle. `with KaggleClient(slug) as client:`; every call that fails raises KaggleError.

    Args:   slug: the last part of the competition's address.   timeout_seconds: for one answer.
    Raises: UserError: what cannot be a slug, or a time limit of 0 or less.
    """

    def __init__(self, slug: str, timeout_seconds: float = 60.0):
        if not SLUG.fullmatch(slug):
            address = "https://www.kaggle.com/competitions/SLUG"
            raise UserError(f"files.kaggle is {slug!r}; expected the last part of the address {address}")
        if not timeout_seconds > 0:
            raise UserError(f"the time limit of an answer is {timeout_seconds:g} s; expected more than 0")
        self.slug = slug
        self.timeout_seconds = timeout_seconds
        self._worker: subprocess.Popen | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, closed with the worker

    def __enter__(self):
        return self

    def __exit__(self, *raised) -> None:
        self._stop()
        self._log.close()

    def limits(self) -> Limits:
        """Submissions made and left."""
        return Limits(**self._call("limits", PATIENCE * self.timeout_seconds))

    def submit(self, name: str, data: bytes, message: str) -> int:
        """Upload these bytes as a file of that name and submit it.

        The client takes a path, so the bytes go into a folder that no other user can enter: a file in submissions/
        could change between the check and the upload.
        Returns: Kaggle's number for the submission, 0 if the answer has none.
        Raises:  KaggleError: with `arrived` None if the answer was lost: the file may be in the list all the same.
        """
        seconds = PATIENCE * self.timeout_seconds + len(data) / UPLOAD_BYTES_PER_SECOND
        with tempfile.TemporaryDirectory(prefix="foldblend-") as folder:
            path = Path(folder) / name
            path.write_bytes(data)
            answer = self._call("submit", seconds, path=str(path), message=message)
        return int(answer["ref"] or 0)

    def submissions(self) -> list[KaggleSubmission]:
        """Everything that the team has submitted."""
        return [_parse(one) for one in self._call("list", 10 * PATIENCE * self.timeout_seconds)]

    def submission(self, ref: int) -> KaggleSubmission:
        """One submission by its number."""
        return _parse(self._call("get", PATIENCE * self.timeout_seconds, ref=ref))

    def download(self, folder: Path) -> list[str]:
        """Download the competition's archive into an existing folder. Returns: the names of the files in it then."""
        return self._call("download", DOWNLOAD_SECONDS, folder=str(folder))

    def push_dataset(self, folder: Path, note: str) -> dict:
        """Upload a folder with its dataset-metadata.json; `error`, or `url` and `ref`."""
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        seconds = 10 * PATIENCE * self.timeout_seconds + size / UPLOAD_BYTES_PER_SECOND
        return self._call("push_dataset", seconds, folder=str(folder.resolve()), note=note)

    def dataset_status(self, ref: str) -> str:
        """`ready` once the dataset can be mounted; empty while Kaggle does not know it yet."""
        return self._call("dataset_status", PATIENCE * self.timeout_seconds, ref=ref)

    def push_notebook(self, folder: Path) -> dict:
        """Upload a notebook with its kernel-metadata.json; `error`, or `url`."""
        return self._call("push_notebook", PATIENCE * self.timeout_seconds, folder=str(folder.resolve()))

    def _call(self, name: str, seconds: float, **values):
        if self._worker is None:
            self._worker = self._start()
        line = (json.dumps({"call": name, "slug": self.slug, **values}) + "\n").encode()
        try:
            reply = self._exchange(line, seconds)
        except KeyboardInterrupt:  # its reply is still to come and would be taken for the next call's
            self._stop()
            raise
        said = redact(" ".join(str(reply.get("said", "")).split()))
        if "error" in reply:
            error = reply["error"]
            if error["kind"] in ("timeout", "died"):
                self._stop()
            kind = "client" if error["kind"] == "died" else error["kind"]
            raise explain(self.slug, kind, error["status"], redact(error["message"]), error["asked"])
        if name == "submit" and not reply["value"]["uploaded"]:
            raise explain(self.slug, "upload", None, said, "")
        return reply["value"]

    def _start(self) -> subprocess.Popen:
        source = str(Path(__file__).resolve().parents[2])
        env = {name: value for name, value in os.environ.items() if name not in VERBOSE}
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [source, env.get("PYTHONPATH", "")]))
        command = [sys.executable, "-P", "-m", "foldblend.kaggle.worker", str(self.timeout_seconds)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._log}
        return subprocess.Popen(command, env=env, bufsize=0, **pipes)

    def _exchange(self, line: bytes, seconds: float) -> dict:
        """Send a request and wait for its reply; a worker that is late or dead gives an error instead."""
        with contextlib.suppress(BrokenPipeError):
            self._worker.stdin.write(line)
        answer, until = b"", time.monotonic() + seconds
        while not answer.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._worker.stdout], [], [], left)[0]:
                return _failed("timeout", f"waited {seconds:.0f} s")
            part = os.read(self._worker.stdout.fileno(), 1 << 16)
            if not part:
                return _failed("died", self._last_words())
            answer += part
        return json.loads(answer)

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it ended with status {self._worker.wait()}"

    def _stop(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.stdin.close()
            self._worker.stdout.close()
            self._worker.wait()
            self._worker = None


def _failed(kind: str, message: str) -> dict:
    return {"error": {"kind": kind, "status": None, "message": message, "asked": SUBMITTING}}


def _parse(one: dict) -> KaggleSubmission:
    """A listed submission; its texts come from people, its scores as text."""
    scores = {name: _parse_score(one[name]) for name in ("public_score", "private_score")}
    texts = {name: redact(one[name]) for name in ("file_name", "description", "error_description")}
    if not one["date"]:
        raise KaggleError(f"Kaggle lists submission {one['ref']} without a date", "client", False)
    return KaggleSubmission(**{**one, **scores, **texts})


def _parse_score(text: str) -> float | None:
    """A finite number, or None if Kaggle shows no score."""
    try:
        value = float(text) if text else math.nan
    except ValueError:
        value = math.nan
    return value if math.isfinite(value) else None


# ---------- before and after an upload: how many are left today, and the wait for the score.


POLL_SECONDS = 3.0
"""Pause after the first request for a score; later pauses are longer."""
SLOWEST_POLL_SECONDS = 15.0


def describe_limits(limits: Limits) -> str:
    """What is left, as a sentence. Raises: UserError: nothing more may be submitted now."""
    today = f"{limits.num_today} used today, {limits.num_total} in all"
    if limits.num_allowed_now:
        return f"Submissions: {limits.num_allowed_now} left today; {today}"
    if not limits.num_today and not limits.num_total:
        return "warning: Kaggle knows no team of yours in this competition; are its rules accepted?"
    if limits.limited_by_total:
        raise UserError(
            f"the submission limit of the whole competition is reached: {today}. Choose the final ones: --choose 2"
        )
    minutes = 1440 - int(time.time() % 86400) // 60  # the day is UTC's
    when = f"{minutes // 60} h {minutes % 60} min"
    raise UserError(f"the submission limit of today is reached: {today}. Run the same command in {when}")


def wait_for_score(
    client: KaggleClient, ref: int, minutes: float, show: Callable[[str], None]
) -> KaggleSubmission | None:
    """Ask until Kaggle has scored a submission or failed to.

    Args:    show: gets a line on how long it has taken. A request without an answer is made again.
    Returns: None if the minutes are over, or after Ctrl-C.
    """
    started, pause = time.monotonic(), POLL_SECONDS
    try:
        while (waited := time.monotonic() - started) < 60 * minutes:
            trouble = ""
            try:
                one = client.submission(ref)
                if one.status != "pending":
                    return one
            except KaggleError as error:
                trouble = f" (no answer just now: {error.kind})"
            show(f"Waiting for the score: {waited:.0f} s{trouble}")
            time.sleep(pause)
            pause = min(1.3 * pause, SLOWEST_POLL_SECONDS)
    except KeyboardInterrupt:
        return None
    return None


# ---------- a dataset and the notebook that reads it, uploaded.


DATASET_POLL_SECONDS = 5.0
READY_MINUTES = 30
"""Kaggle unpacks a dataset before it can be mounted."""


def default_owner() -> str:
    """The Kaggle name in the user's credentials; empty if they have none, as tokens."""
    if os.environ.get("KAGGLE_USERNAME"):
        return os.environ["KAGGLE_USERNAME"]
    for path in kaggle_credential_files():
        if path.name == "kaggle.json":
            with contextlib.suppress(OSError, ValueError, AttributeError, RecursionError):
                return str(json.loads(path.read_text(encoding="utf-8")).get("username", ""))
    return ""


def push(
    dataset: Path, notebook: Path, note: str, show: Callable[[str], None], pause: float = DATASET_POLL_SECONDS
) -> None:
    """Upload the dataset, wait until it can be mounted, then upload the notebook, which Kaggle runs at once.

    Args:   dataset, notebook: folders with their metadata.   note: of the dataset's version.   pause: seconds per poll.
    Raises: UserError: Kaggle refuses, or is not done in READY_MINUTES; nothing after that was uploaded.
    """
    slug = json.loads((notebook / "kernel-metadata.json").read_text(encoding="utf-8"))["competition_sources"][0]
    with KaggleClient(slug) as client:
        show(f"uploading {dataset.parent.name}/dataset")
        made = _accepted("dataset", client.push_dataset(dataset, note))
        show(f"dataset: {made['url']}")
        _wait_until_ready(client, made["ref"], show, pause)
        made = _accepted("notebook", client.push_notebook(notebook))
        show(f"notebook: {made['url']}")


def _accepted(what: str, answer: dict) -> dict:
    if answer["error"]:
        raise UserError(f"Kaggle refuses the {what}: {redact(answer['error'])}")
    return answer


def _wait_until_ready(client: KaggleClient, ref: str, show: Callable[[str], None], pause: float) -> None:
    started = time.monotonic()
    while (status := client.dataset_status(ref)) != "ready":
        waited = time.monotonic() - started
        if status in ("failed", "deleted") or waited > 60 * READY_MINUTES:
            raise UserError(f"dataset {ref} is {status or 'unknown'} after {waited:.0f} s; the notebook was not pushed")
        show(f"waiting for the dataset: {status or 'not there yet'}")
        time.sleep(pause)
