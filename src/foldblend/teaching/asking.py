"""A teacher's server: many requests at a time, its limits obeyed, each answer in the log before the next question.

What a server says is taken as OpenAI's API says it: 429 and 5xx are tried again, with its Retry-After if it gives one;
401, 403 and 404 end the command, as every other request would fail, too; 400 and the like are of that one text.
"""

import email.utils
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from foldblend.console import announce
from foldblend.errors import UserError, redact
from foldblend.settings.teacher import TeacherSettings
from foldblend.teaching.answers import AnswerLog, Reply
from foldblend.teaching.questions import Question, estimate_tokens, price

LONGEST_WAIT_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 600.0
"""A server that asks for a longer wait has nothing more to give today."""
FEW_REJECTED = 5
"""Rejected requests, and no answer, after which no other one is tried."""
LONGEST_MESSAGE = 300
"""Characters of a server's message that are kept."""


class RetryError(Exception):
    """The server is busy or failed; the same request may work later."""

    def __init__(self, words: str, seconds: float | None = None):
        super().__init__(words)
        self.seconds = seconds
        """What its Retry-After says."""


class RejectedError(Exception):
    """The server does not take this request, whenever it is sent."""


# ---------- One request


class Server:
    """A model behind an OpenAI-compatible address."""

    def __init__(self, settings: TeacherSettings, form: dict):
        """Args: form: the JSON schema of an answer, as `questions` makes them.

        Raises: UserError: the client is not installed, or the environment has no key.
        """
        try:
            import openai
        except ImportError as error:
            raise UserError(
                "the package `openai` is not installed, which asks a teacher. Run: pip install openai, or pip install "
                "'foldblend[teach]'"
            ) from error
        self._openai, self.settings, self.form = openai, settings, form
        self.uses_schema = settings.structured != "text"
        self.limit_name = "max_tokens"
        """OpenAI's newer models want `max_completion_tokens`, and other servers know only this one."""
        name = settings.key_variable
        key = os.environ.get(name, "").strip() if name else "none"
        if not key:
            raise UserError(
                f"the environment variable {name} is empty; expected the key of {settings.base_url}. Run: export "
                f'{name}=..., or set key_variable: "" for a server that wants none'
            )
        self._client = openai.OpenAI(
            base_url=settings.base_url, api_key=key, max_retries=0, timeout=settings.timeout_seconds
        )

    def ask(self, question: Question) -> Reply:
        """One answer. What a server does not take is left out of all later requests: the schema if `structured` is
        auto, or the older name of the limit.

        Raises: RetryError: it may work later.   RejectedError: not this text.   UserError: no request will work.
        """
        with_schema, limit_name = self.uses_schema, self.limit_name
        while True:
            try:
                reply = self._send(question, with_schema, limit_name)
            except self._openai.APIStatusError as error:
                if limit_name == "max_tokens" and error.status_code == 400 and NEWER_LIMIT in str(error):
                    limit_name = NEWER_LIMIT
                elif with_schema and self.settings.structured == "auto" and _may_be_the_schema(error):
                    with_schema = False
                else:
                    raise self._explained(error) from error
            else:
                self.uses_schema, self.limit_name = with_schema, limit_name
                return reply

    def _send(self, question: Question, with_schema: bool, limit_name: str) -> Reply:
        settings = self.settings
        more = {"response_format": self.form} if with_schema else {}
        more[limit_name] = settings.max_answer_tokens
        try:
            answer = self._client.chat.completions.create(
                model=settings.model,
                messages=list(question.messages),
                temperature=settings.temperature,
                **more,
            )
        except self._openai.APIStatusError:
            raise
        except (self._openai.OpenAIError, ValueError) as error:  # no connection, too slow, or an answer that is no JSON
            raise RetryError(f"{type(error).__name__}: {error}") from error
        return self._read(question, answer)

    def _read(self, question: Question, answer) -> Reply:
        choices = getattr(answer, "choices", None)
        message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
        if message is None:
            raise RetryError("an answer without a message")
        usage = getattr(answer, "usage", None)
        content = getattr(message, "content", None)
        content = content if isinstance(content, str) else ""
        # not every server counts; costs are then estimated as they were before the start
        tokens_in = getattr(usage, "prompt_tokens", None) or estimate_tokens(question)
        tokens_out = getattr(usage, "completion_tokens", None)
        tokens_out = len(content) // 4 + 1 if tokens_out is None else tokens_out
        refusal, finish = getattr(message, "refusal", None), getattr(choices[0], "finish_reason", "")
        if refusal or finish == "content_filter":
            return Reply(str(refusal or content), "refusal", int(tokens_in), int(tokens_out))
        return Reply(content, "length" if finish == "length" else "stop", int(tokens_in), int(tokens_out))

    def _explained(self, error) -> Exception:
        """What to raise for a status that is no success."""
        status, said, url = error.status_code, redact(str(error))[:LONGEST_MESSAGE], self.settings.base_url
        if status in (401, 403):
            where = (
                f"the key in {self.settings.key_variable}" if self.settings.key_variable else "requests without a key"
            )
            return UserError(f"{url} refuses {where} ({status}): {said}")
        if status == 404:
            return UserError(
                f"{url} does not know model {self.settings.model!r}, or is not an address of this API (404): {said}"
            )
        if "insufficient_quota" in said or status == 402:
            return UserError(f"the account at {url} has no credit left: {said}")
        if status in (408, 409, 425, 429) or status >= 500:
            return RetryError(f"{status}: {said}", retry_after(error.response.headers))
        return RejectedError(f"{status}: {said}")


NEWER_LIMIT = "max_completion_tokens"


def _may_be_the_schema(error) -> bool:
    """Whether a request may have failed over its response_format: servers say so with 400, 422, 500 or 501."""
    if error.status_code in (400, 415, 422, 501):
        return True
    return error.status_code >= 500 and ("response_format" in str(error) or "json_schema" in str(error))


def retry_after(headers) -> float | None:
    """Seconds that a server asks to wait: `retry-after-ms`, or `retry-after` as seconds or as a date; None if it
    says nothing that can be read."""
    with suppress(TypeError, ValueError):
        return float(headers.get("retry-after-ms")) / 1000
    said = headers.get("retry-after")
    with suppress(TypeError, ValueError):
        return max(float(said), 0.0)
    with suppress(TypeError, ValueError):
        return max(email.utils.parsedate_to_datetime(said).timestamp() - time.time(), 0.0)
    return None


# ---------- The pace of all requests together


class Pace:
    """When the next request may begin. Threads share it."""

    def __init__(self, requests_per_minute: int, stopped: threading.Event):
        self.gap = 60 / requests_per_minute if requests_per_minute else 0.0
        self.stopped, self._lock, self._next = stopped, threading.Lock(), 0.0

    def wait(self) -> None:
        """Wait for this thread's turn, or until all is stopped."""
        with self._lock:
            # the turn is taken under the lock and waited for outside it, so that threads queue and do not block each
            # other
            begin = max(time.monotonic(), self._next)
            self._next = begin + self.gap
        self.stopped.wait(max(begin - time.monotonic(), 0))

    def pause(self, seconds: float) -> None:
        """Let no request begin for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


# ---------- All requests


@dataclass
class Spent:
    """What was asked in this start of the command."""

    n_answers: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    n_retries: int = 0
    n_unanswered: int = 0
    n_rejected: int = 0
    last_error: str = ""
    """What the server said last that was no answer."""

    @property
    def n_done(self) -> int:
        """Questions that are dealt with in this start."""
        return self.n_answers + self.n_unanswered + self.n_rejected


class Asking:
    """Asks questions over several threads until all are answered, or something stops it."""

    def __init__(self, server: Server, log: AnswerLog, most_dollars: float):
        """Args: most_dollars: asking stops when this start has cost so much."""
        self.server, self.log, self.most_dollars = server, log, most_dollars
        self.settings, self.spent = server.settings, Spent()
        self._stopped, self._lock = threading.Event(), threading.Lock()
        self._pace = Pace(self.settings.requests_per_minute, self._stopped)
        self._failed_in_a_row = 0
        self._fault: BaseException | None = None

    @property
    def dollars(self) -> float:
        """What the answers of this start cost."""
        return price(self.settings, self.spent.tokens_in, self.spent.tokens_out)

    def ask_all(self, questions: Sequence[Question], show: Callable[[int], None]) -> None:
        """Ask; each answer is in the log when it counts. After Ctrl-C, requests that are under way are waited for.

        Args:   questions: none of them answered, each once.   show: called with the number of answers since the last
                call, now and then.
        Raises: UserError: no request works, or the costs are higher than they may be.
        """
        waiting = iter(questions)
        threads = [
            threading.Thread(target=self._work, args=(waiting,), daemon=True)
            for _ in range(min(self.settings.concurrency, len(questions)))
        ]
        shown = 0
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                # the main thread only watches: a signal reaches it alone, and join() without an end would not see
                # Ctrl-C
                time.sleep(0.02 if len(questions) < 100 else 0.1)
                done = self.spent.n_done
                show(done - shown)
                shown = done
        except KeyboardInterrupt:
            announce("teach", "stopping; answers that are under way are waited for, unless you press Ctrl-C again")
            raise
        finally:
            self._stopped.set()
            for thread in threads:
                if thread.ident is not None:
                    thread.join(self.settings.timeout_seconds)
        show(self.spent.n_done - shown)
        if self._fault is not None:
            raise self._fault

    def _work(self, waiting: Iterator[Question]) -> None:
        """One thread: question after question."""
        while not self._stopped.is_set():
            with self._lock:
                question = next(waiting, None)
            if question is None:
                return
            try:
                self._ask_until_answered(question)
            except BaseException as error:  # of any kind: it is raised again by the main thread
                with self._lock:
                    # the first one: the others often follow from it
                    self._fault = self._fault or error
                self._stopped.set()

    def _ask_until_answered(self, question: Question) -> None:
        """Send a question up to `attempts` times, and log its answer."""
        for attempt in range(self.settings.attempts):
            self._pace.wait()
            if self._stopped.is_set():
                return
            try:
                reply = self.server.ask(question)
            except RetryError as error:
                self._wait_after(error, attempt)
                continue
            except RejectedError as error:
                self._count_rejected(error)
                return
            self.log.append(question.key, reply)
            self._count(reply)
            return
        with self._lock:
            self.spent.n_unanswered += 1
            self._failed_in_a_row += 1
            # more than all threads at once: not one unlucky moment of the server
            if self._failed_in_a_row >= self.settings.concurrency + 2:
                raise UserError(
                    f"{self.settings.base_url} gives no answers: {self._failed_in_a_row} requests in a row failed "
                    f"{self.settings.attempts} times each, the last with {self.spent.last_error}. What was answered is "
                    "kept; run the same command again later"
                )

    def _wait_after(self, error: RetryError, attempt: int) -> None:
        with self._lock:
            self.spent.n_retries += 1
            self.spent.last_error = redact(str(error))[:LONGEST_MESSAGE]
        if attempt + 1 == self.settings.attempts:
            return
        if error.seconds is not None:
            if error.seconds > LONGEST_RETRY_AFTER_SECONDS:
                raise UserError(
                    f"{self.settings.base_url} asks to wait for {error.seconds / 60:.0f} minutes: {error}. What was "
                    "answered is kept; run the same command again then"
                )
            self._pace.pause(error.seconds)  # of all threads: the limit is of the account
            self._stopped.wait(error.seconds * (1 + 0.1 * random.random()))
            return
        wait = min(self.settings.retry_seconds * 2**attempt, LONGEST_WAIT_SECONDS)
        self._stopped.wait(wait * random.uniform(0.5, 1))  # jitter, so that threads do not come back together

    def _count_rejected(self, error: RejectedError) -> None:
        """A rejected text costs nothing, so it is not in the log, and the next start sends it once more."""
        with self._lock:
            self.spent.n_rejected += 1
            self.spent.last_error = redact(str(error))[:LONGEST_MESSAGE]
            if self.spent.n_rejected >= FEW_REJECTED and not self.spent.n_answers:
                raise UserError(
                    f"{self.settings.base_url} rejects every request, the last with {self.spent.last_error}. Look at "
                    "the settings of the teacher: model, temperature, max_answer_tokens, structured"
                )

    def _count(self, reply: Reply) -> None:
        with self._lock:
            spent = self.spent
            spent.n_answers += 1
            spent.tokens_in += reply.tokens_in
            spent.tokens_out += reply.tokens_out
            self._failed_in_a_row = 0
            if self.dollars > self.most_dollars:
                raise UserError(
                    f"the answers cost ${self.dollars:.2f} so far, more than twice what was estimated. What was "
                    "answered is kept. Look at max_answer_tokens and the prices, and run the same command again"
                )
