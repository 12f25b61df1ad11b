"""competition/: the calls of Kaggle's own client that we make, each with a time limit and no secret in its errors."""

import contextlib
import json
import math
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from competition.kaggle_errors import HANDING_IN, KaggleError, explain
from competition.kaggle_secrets import hide_secrets

SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
"""The client makes a file name of it."""
UPLOAD_BYTES_PER_SECOND = 20_000
"""The slowest upload that is waited for."""
PATIENCE = 3
"""The worker ends late answers itself; it is ended where it takes this many times the limit of one answer."""
DOWNLOAD_SECONDS = 6 * 3600
"""A download that still moves is not cut off; one that stalls ends by the time limit of a single answer."""
VERBOSE = ("VERBOSE", "VERBOSE_OUTPUT")
"""Make the client print its headers, keys included; not handed on."""


@dataclass(frozen=True)
class Limits:
    """How often the team has handed in and may do so now."""

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
    """One competition at Kaggle. `with KaggleClient(slug) as client:`; every call raises KaggleError where it fails.

    Args:   slug: the last part of the competition's address.   timeout_seconds: for one answer.
    Raises: ValueError: what cannot be a slug, or a limit that is none.
    """

    def __init__(self, slug: str, timeout_seconds: float = 60.0):
        if not SLUG.fullmatch(slug):
            address = "https://www.kaggle.com/competitions/SLUG"
            raise ValueError(f"files.kaggle is {slug!r}; expected the last part of the address {address}")
        if not timeout_seconds > 0:
            raise ValueError(f"the time limit of an answer is {timeout_seconds:g} s; expected more than 0")
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
        """Submissions handed in and left."""
        return Limits(**self._call("limits", PATIENCE * self.timeout_seconds))

    def submit(self, path: Path, message: str) -> int:
        """Upload and hand in a file.

        Returns: Kaggle's number of the submission, 0 where the answer holds none.
        Raises: KaggleError: `arrived` is None where the answer was lost: the file may be in the list all the same.
        """
        seconds = PATIENCE * self.timeout_seconds + path.stat().st_size / UPLOAD_BYTES_PER_SECOND
        answer = self._call("submit", seconds, path=str(path.resolve()), message=message)
        return int(answer["ref"] or 0)

    def submissions(self) -> list[KaggleSubmission]:
        """Everything that the team has handed in."""
        return [_parse(one) for one in self._call("list", 10 * PATIENCE * self.timeout_seconds)]

    def submission(self, ref: int) -> KaggleSubmission:
        """One submission by its number."""
        return _parse(self._call("get", PATIENCE * self.timeout_seconds, ref=ref))

    def download(self, folder: Path) -> list[str]:
        """Download the competition's archive into a folder that is there; the names that lie in it then."""
        return self._call("download", DOWNLOAD_SECONDS, folder=str(folder))

    def push_dataset(self, folder: Path, note: str) -> dict:
        """Upload a folder with its dataset-metadata.json; `error`, or `url` and `ref`."""
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        seconds = 10 * PATIENCE * self.timeout_seconds + size / UPLOAD_BYTES_PER_SECOND
        return self._call("push_dataset", seconds, folder=str(folder.resolve()), note=note)

    def dataset_status(self, ref: str) -> str:
        """`ready` once the dataset can be mounted; empty where Kaggle does not know it yet."""
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
        except KeyboardInterrupt:  # its reply, still to come, would be taken for the next call's
            self._stop()
            raise
        said = hide_secrets(" ".join(str(reply.get("said", "")).split()))
        if "error" in reply:
            error = reply["error"]
            if error["kind"] in ("timeout", "died"):
                self._stop()
            kind = "client" if error["kind"] == "died" else error["kind"]
            raise explain(self.slug, kind, error["status"], hide_secrets(error["message"]), error["asked"])
        if name == "submit" and not reply["value"]["uploaded"]:
            raise explain(self.slug, "upload", None, said, "")
        return reply["value"]

    def _start(self) -> subprocess.Popen:
        source = str(Path(__file__).resolve().parents[1])
        env = {name: value for name, value in os.environ.items() if name not in VERBOSE}
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [source, env.get("PYTHONPATH", "")]))
        command = [sys.executable, "-P", "-m", "competition.kaggle_worker", str(self.timeout_seconds)]
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
    return {"error": {"kind": kind, "status": None, "message": message, "asked": HANDING_IN}}


def _parse(one: dict) -> KaggleSubmission:
    """A listed submission; its texts come from people, its scores as text."""
    scores = {name: _parse_score(one[name]) for name in ("public_score", "private_score")}
    texts = {name: hide_secrets(one[name]) for name in ("file_name", "description", "error_description")}
    if not one["date"]:
        raise KaggleError(f"Kaggle lists submission {one['ref']} without a date", "client", False)
    return KaggleSubmission(**{**one, **scores, **texts})


def _parse_score(text: str) -> float | None:
    """A finite number, or None where Kaggle shows no score."""
    try:
        value = float(text) if text else math.nan
    except ValueError:
        value = math.nan
    return value if math.isfinite(value) else None
