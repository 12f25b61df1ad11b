"""A study that several processes share through an Optuna storage: trials proposed, claimed, continued, counted once.

A trial is written to the storage in one step, with all its values and the folder that it trains in. Its number names
its folder, and a lock in there says whether a process works on it. So a kill at any moment leaves either no trial, or
one that the next process of the same folder continues where its folds were saved.

Machines that share no folder share the storage alone. Each trial has a heartbeat there; one that has been silent for
GRACE_SECONDS is given up and put back into the queue with the same values (RetryHeartbeatStaleTrialCallback).
"""

import hashlib
import json
import re
import secrets
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foldblend.errors import UserError
from foldblend.files import BusyError, hold_lock, write_atomically
from foldblend.settings.search import Parameter, SearchSettings, Value

try:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.trial import FrozenTrial, TrialState, create_trial
except ImportError:
    raise UserError("tuning needs Optuna 5, which is not installed. Run: pip install optuna") from None

HEARTBEAT_SECONDS, GRACE_SECONDS = 60, 15 * 60
"""Between two signs of life of a trial; after so long a silence it is given up."""
FOLDER, DUPLICATE_DRAWS = "folder", 50
"""User attribute of a trial: the study's folder that it trains in. So many draws in a row that were all tried before
end the search."""
IS_BASE, FAILURE = "base", "failure"
"""User attributes: the trial is the base run, which counts for no budget; why its training failed."""
FEWEST_FOR_IMPORTANCE = 4
"""Trials with a score."""
FEWEST_TO_PRUNE = 5
"""Other trials that must have a score at a point before a trial is judged by them."""


# ---------- Values of settings as Optuna's distributions.


def distribution_of(parameter: Parameter) -> BaseDistribution:
    """What Optuna draws from; lists are drawn as their JSON."""
    if parameter.choices:
        return CategoricalDistribution([_stored(choice) for choice in parameter.choices])
    low, high = parameter.low, parameter.high
    if parameter.is_whole:
        return IntDistribution(int(low), int(high), log=parameter.log, step=int(parameter.step or 1))
    return FloatDistribution(low, high, log=parameter.log, step=parameter.step)


def _stored(value: Value) -> str | int | float | bool:
    return json.dumps(value) if isinstance(value, tuple) else value


def values_of(trial: FrozenTrial, space: Sequence[Parameter]) -> dict[str, Value]:
    """A trial's values as settings hold them, in the order of the space."""
    values = {}
    for parameter in space:
        if parameter.name in trial.params:
            drawn = trial.params[parameter.name]
            values[parameter.name] = next((c for c in parameter.choices if _stored(c) == drawn), drawn)
    return values


def as_trial(values: Mapping[str, Value], space: Sequence[Parameter], **more: Any) -> FrozenTrial:
    """A trial of Optuna with these values."""
    distributions = {each.name: distribution_of(each) for each in space if each.name in values}
    params = {name: _stored(values[name]) for name in distributions}
    return create_trial(params=params, distributions=distributions, **more)


# ---------- What to try next, and what to stop.


def propose(
    trials: Sequence[FrozenTrial], space: Sequence[Parameter], settings: SearchSettings, direction: str, draw: str
) -> dict[str, Value]:
    """The values of the next trial, by multivariate TPE: the same for the same trials, settings and name of the draw.

    Nothing is written: a copy of the study in memory is asked. Trials that run count as bad ones meanwhile
    (constant_liar), so that processes at work at the same time do not try the same.

    Source: Falkner et al. 2018 (BOHB) for multivariate TPE; conditional settings by `group` of Optuna's TPESampler.
    """
    with _quiet():
        sampler = optuna.samplers.TPESampler(
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=settings.random_trials,
            # a hash of the name, not the number of the draw: a process that is killed and started again proposes the
            # same
            seed=int.from_bytes(hashlib.sha256(f"{settings.seed} {draw}".encode()).digest()[:4], "big"),
        )
        copy = optuna.create_study(direction=direction, sampler=sampler)
        copy.add_trials([trial for trial in trials if trial.state not in (TrialState.FAIL, TrialState.WAITING)])
        trial, values = copy.ask(), {}
        for parameter in space:
            if parameter.is_tried_with(values):
                values[parameter.name] = _draw(trial, parameter)
        return values


def _draw(trial: optuna.Trial, parameter: Parameter) -> Value:
    if parameter.choices:
        drawn = trial.suggest_categorical(parameter.name, [_stored(choice) for choice in parameter.choices])
        return next(choice for choice in parameter.choices if _stored(choice) == drawn)
    low, high, log, step = parameter.low, parameter.high, parameter.log, parameter.step
    if parameter.is_whole:
        return trial.suggest_int(parameter.name, int(low), int(high), log=log, step=int(step or 1))
    return trial.suggest_float(parameter.name, low, high, log=log, step=step)


def falls_behind(point: int, value: float, others: Sequence[FrozenTrial], sign: int) -> bool:
    """Whether a score is below the median of what other trials had at the same point of the same fold.

    Args: point: fold and how far its training is, of `look_point`.   value: the score there.
          others: trials that have ended, also stopped ones.   sign: 1 if more is better, otherwise -1.
    """
    there = sorted(sign * each.intermediate_values[point] for each in others if point in each.intermediate_values)
    if len(there) < FEWEST_TO_PRUNE:
        return False
    # the median, of an even number the mean of the two in the middle
    middle = (there[(len(there) - 1) // 2] + there[len(there) // 2]) / 2
    return sign * value < middle


POINTS, STRIDE = 10, 20
"""So many points of a fold are told apart; the next fold's begin at a distance."""


def look_point(position: int, share: float) -> int:
    """The number under which a score of a fold is reported, so that trials of different lengths can be compared.

    Args:    position: of the fold among those of the search.   share: of its steps that are done, up to 1.
    Example: look_point(1, 0.5) -> 25
    """
    return position * STRIDE + int(share * POINTS + 1e-9)


# ---------- The study.


@dataclass
class OwnTrial:
    """A trial that this process works on."""

    number: int
    trial_id: int
    values: dict[str, Value]
    is_continued: bool
    """Whether an earlier process began it."""
    lock: ExitStack = field(repr=False)


class TriedEverythingError(UserError):
    """There are no values left that no trial has."""


class SharedStudy:
    """One study in a storage, as one process sees it.

    Args: folder: of the study: locks, and the identity by which trials are known to be trained here.
          name: of the study in the storage.   direction: `maximize` or `minimize`.
          is_shared: whether other machines may write to the storage, too: two of them must not draw the same values.
          definition: what the trials mean; a study that exists must have the same.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        name: str,
        direction: str,
        space: Sequence[Parameter],
        settings: SearchSettings,
        definition: Mapping[str, Any],
        is_shared: bool = False,
    ):
        self.folder, self.space, self.settings, self.direction = folder, space, settings, direction
        self.sign = 1 if direction == "maximize" else -1
        self.folder_id = _identify(folder)
        self.salt = self.folder_id if is_shared else ""
        with _quiet(), self._alone():  # two processes that make the tables of one new database disturb each other
            self.storage = open_storage(url)
            self.study = optuna.create_study(
                storage=self.storage, study_name=name, direction=direction, load_if_exists=True
            )
            self._check_definition(name, json.loads(json.dumps(definition)))
        self.own: dict[int, OwnTrial] = {}

    def _check_definition(self, name: str, definition: dict) -> None:
        known = self.study.user_attrs.get("definition")
        if known is None:
            self.study.set_user_attr("definition", definition)
        elif known != definition:
            changed = sorted(key for key in known | definition if known.get(key) != definition.get(key))
            raise UserError(
                f"study {name} was started with another {', '.join(changed)}. Its trials cannot be compared with new "
                "ones: start another study with --study NAME, or undo the change"
            )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process of this folder claims or creates a trial meanwhile."""
        with hold_lock(self.folder / ".claim.lock"):
            yield

    # What there is.

    def trials(self) -> list[FrozenTrial]:
        """All trials, by number."""
        return self.study.get_trials(deepcopy=False)

    def counted(self) -> list[FrozenTrial]:
        """The trials that count for the budget: each once, whatever became of the process that began it."""
        return [trial for trial in self.trials() if not (_is_repeated(trial) or IS_BASE in trial.user_attrs)]

    def complete(self) -> list[FrozenTrial]:
        """The trials that have a score, without the base run."""
        return [trial for trial in self.counted() if trial.state == TrialState.COMPLETE]

    def add_base(self, values: Mapping[str, Value], score: float) -> None:
        """Tell the search what the base run scores, once, if its values are inside of the ranges."""
        with self._alone():
            if any(IS_BASE in trial.user_attrs for trial in self.trials()):
                return
            if all(parameter.holds(values[parameter.name]) for parameter in self.space if parameter.name in values):
                attributes = {IS_BASE: True}
                trial = as_trial(values, self.space, state=TrialState.COMPLETE, value=score, user_attrs=attributes)
                self.study.add_trial(trial)

    def best(self) -> FrozenTrial | None:
        """The complete trial with the best score, the earliest of equals; None without one."""
        return max(self.complete(), key=lambda trial: (self.sign * trial.value, -trial.number), default=None)

    def importance(self) -> dict[str, float]:
        """Share of the differences between good and bad trials that each setting explains; empty for too few trials.

        Source: Watanabe et al. 2023, PED-ANOVA, arXiv:2304.10255; settings that are tried under a condition count, too.
        """
        if len(self.complete()) < FEWEST_FOR_IMPORTANCE:
            return {}
        try:
            return optuna.importance.get_param_importances(self.study)
        except (ValueError, RuntimeError):  # all trials score the same
            return {}

    def open(self) -> list[FrozenTrial]:
        """Trials that run somewhere, or wait to be run again."""
        return [trial for trial in self.trials() if trial.state in (TrialState.RUNNING, TrialState.WAITING)]

    # Claiming.

    def claim(self, may_start: bool) -> OwnTrial | None:
        """A trial to work on: one whose process ended, one that waits to be run again, else a new one.

        Args:   may_start: whether the time allows a new one; the number of trials is judged here.
        Returns: None if there is none now.
        Raises: TriedEverythingError: the space is exhausted.
        """
        with self._alone():
            trials = self.trials()
            for trial in trials:
                if trial.state == TrialState.RUNNING and trial.user_attrs.get(FOLDER) == self.folder_id:
                    own = self._take(trial, is_continued=True)
                    if own is not None:
                        return own
            for trial in trials:
                is_waiting = trial.state == TrialState.WAITING
                if is_waiting and self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                    self.storage.set_trial_user_attr(trial._trial_id, FOLDER, self.folder_id)
                    return self._take(trial, is_continued=True)
            if may_start and len(self.counted()) < self.settings.trials:
                return self._start(trials)
        return None

    def _take(self, trial: FrozenTrial, is_continued: bool) -> OwnTrial | None:
        """Hold the trial's lock until it ends; None if another process, or this one, holds it."""
        lock = ExitStack()
        try:
            lock.enter_context(hold_lock(self.folder / f".{trial_name(trial.number)}.lock", "busy"))
        except BusyError:
            return None
        own = OwnTrial(trial.number, trial._trial_id, values_of(trial, self.space), is_continued, lock)
        self.own[trial.number] = own
        self.beat()
        return own

    def _start(self, trials: Sequence[FrozenTrial]) -> OwnTrial | None:
        """Write a new trial, whole."""
        tried = [trial.params for trial in trials]
        for draw in range(DUPLICATE_DRAWS):
            name = f"{len(trials)} {draw} {self.salt}"
            values = propose(trials, self.space, self.settings, self.direction, name)
            # TPE may propose what was tried before; another name of the draw is another seed
            if {name: _stored(value) for name, value in values.items()} not in tried:
                break
        else:
            raise TriedEverythingError(
                f"{DUPLICATE_DRAWS} draws in a row were tried before: the space holds hardly any other values"
            )
        # add_trial returns nothing, and other machines add theirs at the same time: the token finds our own again
        token = secrets.token_hex(8)
        attributes = {FOLDER: self.folder_id, "token": token}
        self.study.add_trial(as_trial(values, self.space, state=TrialState.RUNNING, user_attrs=attributes))
        (trial,) = [each for each in self.trials() if each.user_attrs.get("token") == token]
        return self._take(trial, is_continued=False)

    # While a trial runs.

    def beat(self) -> None:
        """Say that this process's trials live, and give up those of machines that went silent."""
        if hasattr(self.storage, "record_heartbeat"):
            for own in self.own.values():
                self.storage.record_heartbeat(own.trial_id)
            with _quiet():
                optuna.storages.fail_stale_trials(self.study)

    def report(self, own: OwnTrial, point: int, value: float) -> bool:
        """Keep a score of a trial that runs. Returns whether the trial should be stopped."""
        with _unless_taken_over(own):
            self.storage.set_trial_intermediate_value(own.trial_id, point, value)
        if self.settings.pruner == "none":
            return False
        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        others = [trial for trial in self.trials() if trial.state in ended]
        return falls_behind(point, value, others, self.sign)

    def end(self, own: OwnTrial, state: TrialState, value: float | None = None) -> None:
        """Write what became of a trial, and free it."""
        with _unless_taken_over(own):
            self.storage.set_trial_state_values(own.trial_id, state, None if value is None else [value])
        self.release(own)

    def fail(self, own: OwnTrial, why: str) -> None:
        """Write that a trial cannot be trained: it counts, and is not tried again."""
        with _unless_taken_over(own):
            self.storage.set_trial_user_attr(own.trial_id, FAILURE, why[:500])
        self.end(own, TrialState.FAIL)

    def release(self, own: OwnTrial) -> None:
        """Leave a trial to whoever claims it next, as it is."""
        self.own.pop(own.number, None)
        own.lock.close()


def trial_name(number: int) -> str:
    """The name of its run in the study's folder."""
    return f"trial-{number:04d}"


def _is_repeated(trial: FrozenTrial) -> bool:
    """Whether another trial with the same values was queued in its place."""
    return trial.state == TrialState.FAIL and FAILURE not in trial.user_attrs


@contextmanager
def _unless_taken_over(own: OwnTrial) -> Iterator[None]:
    """A machine that slept may find that others gave its trial up and run it again: theirs counts."""
    with suppress(optuna.exceptions.UpdateFinishedTrialError):
        yield


def _identify(folder: Path) -> str:
    """A name for this folder that no other machine has; made once."""
    path = folder / "folder_id"
    with hold_lock(folder / ".folder_id.lock"):
        if not path.is_file():
            write_atomically(path, secrets.token_hex(8).encode())
        return path.read_text()


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna says on stderr what it does, and that some of it is experimental."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


# ---------- The storage.


OPENING_ATTEMPTS, AT_ONCE = 5, re.compile("IntegrityError|already exists|UNIQUE|duplicate key", re.IGNORECASE)
"""What a database says if another machine makes the same tables at this moment: they are there a moment later."""


def open_storage(url: str) -> Any:
    """The storage behind a URL. Raises UserError, without the password that may be in the URL."""
    for attempt in range(1, OPENING_ATTEMPTS + 1):
        try:
            return _connect(url)
        except Exception as error:  # of SQLAlchemy, of a database's driver, of Optuna: they share no class
            if attempt < OPENING_ATTEMPTS and AT_ONCE.search(str(error)):
                time.sleep(1)
                continue
            said = hide_in(str(error), url).splitlines()
            first = said[0] if said else type(error).__name__
            raise UserError(
                f"the storage {hide_password(url)} cannot be opened: {first}. Expected a URL as sqlite:///study.db, "
                "postgresql://USER:PASSWORD@HOST/NAME or mysql://USER:PASSWORD@HOST/NAME, its driver installed"
            ) from None
    raise AssertionError("the loop returns or raises")


def _connect(url: str) -> Any:
    lock_wait = {"connect_args": {"timeout": 120}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    with _quiet():
        return optuna.storages.RDBStorage(
            url,
            engine_kwargs=lock_wait,
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=GRACE_SECONDS,
            heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
        )


def hide_password(url: str) -> str:
    """A storage's URL as it may be shown: without user, password and query."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return scheme if len(scheme) < 8 and "@" not in scheme else "(not a URL)"
    rest = rest.split("?")[0]
    place = rest.rsplit("@", 1)[-1]
    return f"{scheme}://{'***@' if '@' in rest else ''}{place}"


def hide_in(text: str, url: str) -> str:
    """A text in which neither the URL nor the user and password in it are spelt out."""
    text = text.replace(url, hide_password(url))
    rest = url.partition("://")[2].split("?")[0]
    login = rest.rsplit("@", 1)[0] if "@" in rest else ""
    for part in sorted({login, *login.split(":", 1)} - {""}, key=len, reverse=True):
        text = text.replace(part, "***")
    return text
