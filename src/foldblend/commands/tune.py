"""Search better settings of a run, measure the noise first, and check what was found on folds that it did not see.

python src/tune.py --search configs/search/tfidf.yaml
python src/tune.py --competition goemotions --search minilm --trials 60 --hours 8
python src/tune.py --search tfidf --show
"""

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from foldblend.commands import start_words
from foldblend.commands.inputs import prepare_folds, prepare_tables
from foldblend.console import Screen, clock_time, say, table_lines
from foldblend.cores import count_cores
from foldblend.data.tables import Tables
from foldblend.errors import UserError
from foldblend.files import BusyError, hold_lock
from foldblend.learners.table import needs_gpu
from foldblend.learners.training.tracking import check_tracker
from foldblend.ledger.folds import Folds
from foldblend.ledger.history import history_path, read_history, write_study
from foldblend.ledger.oof import FOLD, finished_folds, run_folder
from foldblend.ledger.records import read_record
from foldblend.ledger.runs import load_parts_of_runs
from foldblend.queueing.machines import describe_slots, find_gpus, plan_slots, threads_per_slot
from foldblend.queueing.queue import FoldJob, Queue, without_flags
from foldblend.scoring.inputs import Task, rows_to_score
from foldblend.scoring.validation.comparing import Comparer, Predicted, SeededGain, compare_over_seeds
from foldblend.settings.loading import Job, find_tracker, open_job
from foldblend.settings.records import settings_of
from foldblend.settings.search import Search, Value, describe_space, load_search
from foldblend.settings.tables import LEARNERS
from foldblend.settings.yaml_files import check_name

OWN = {"competition", "search", "study", "storage", "trials", "hours", "side_by_side", "attempts", "show"}
"""Flags of this command; all others are the competition's, and every training gets them, too."""
STORAGE = "FOLDBLEND_STORAGE"
"""Environment variable: the storage's URL, which then is in no list of processes."""
LOOK_EVERY_SECONDS, MOST_FAILURES = 1.0, 3
BY_HELDOUT = ("best_score", "lowest_loss", "loss_and_score")


def add_flags(parser) -> None:
    parser.add_argument("--search", default="", help="a file in configs/search/, or the path of one")
    parser.add_argument("--study", default="", help="name of the study; by default the search's")
    parser.add_argument("--storage", default="", help=f"URL of the study's database (or ${STORAGE}); default: SQLite")
    parser.add_argument("--trials", type=int, default=0, help="number of trials, instead of the file's")
    parser.add_argument("--hours", type=float, default=0.0, help="no trial starts later, instead of the file's")
    parser.add_argument("--side_by_side", type=int, default=0, help="trainings per GPU (1), or on all cores (one each)")
    parser.add_argument("--attempts", type=int, default=3, help="how often a training that crashes is started (3)")
    parser.add_argument("--tracker", default="", help="tensorboard, wandb, mlflow, trackio or none; see default.yaml")
    parser.add_argument("--show", action="store_true", help="only show what the study has found so far")


def main(argv: list[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    job = open_job("tune.py", argv, add_flags)
    check_tracker(find_tracker(job.paths, job.own.tracker))
    search = open_search(job)
    name = check_name(job.own.study or search.name, "--study")
    print(f"competition {job.competition_name}: study {name} of run {search.settings.run}", flush=True)
    from foldblend.tuning import outcome  # Optuna takes a second, after the first line

    tables = prepare_tables(job)
    folds = prepare_folds(job, tables)
    confirm_folds = search.settings.check_folds(folds.n_folds)
    target = outcome.tuned_path(job.paths, name)
    work = Work(job, search, name, tables, folds, without_flags(argv, OWN))
    study = open_study(work)
    if not job.own.show:
        noise = work.measure_noise()
        run_trials(work, study, noise)
    else:
        noise = work.known_noise()
    show_study(work, study, noise)
    if not job.own.show:
        check_best(work, study, noise, confirm_folds, target)


def open_search(job: Job) -> Search:
    """The search that `--search` names, with the budget of the flags."""
    own = job.own
    if own.trials < 0 or own.hours < 0 or own.side_by_side < 0 or own.attempts < 1:
        raise UserError("expected --trials, --hours and --side_by_side from 0, --attempts from 1")
    search = load_search(job.paths, own.search)
    settings = replace(
        search.settings, trials=own.trials or search.settings.trials, hours=own.hours or search.settings.hours
    )
    selection = search.base.training.selection
    if "training" in LEARNERS[search.base.learner].reads and selection in BY_HELDOUT:
        raise UserError(
            f"run {settings.run}: training.selection {selection} chooses weights by held-out rows, so every trial's "
            "score would be too good. Make a run with training.selection last (base: takes the rest) and search that"
        )
    return replace(search, settings=settings)


# ---------- What is trained: runs of the study's folder, by name.


@dataclass
class Work:
    """One study's trainings and their scores."""

    job: Job
    search: Search
    study: str
    """Its name."""
    tables: Tables
    folds: Folds
    shared: list[str]
    """Flags of the competition, which every training gets."""
    screen: Screen = field(default_factory=Screen)

    def __post_init__(self):
        job, tables = self.job, self.tables
        self.paths = replace(job.paths, study=self.study)
        self.folder = self.paths.oof(job.competition_name)
        self.task = Task(job.competition.metric, job.competition.task, scale=tables.scale)
        self.rows = rows_to_score(tables, self.folds)
        self.comparer = Comparer(self.task, self.rows, tables.known, 0)

    def jobs(self, name: str, values: dict[str, Value], folds: Sequence[int], fidelity: float) -> list[FoldJob]:
        """The trainings of one run of the study: the base run with other values."""
        jobs = []
        changes = [word for key, value in values.items() for word in (f"--{key}", flag_word(value))]
        for fold in folds:
            flags = ["--competition", self.job.competition_name, "--run", self.search.settings.run, "--name", name]
            flags += ["--study", self.study, "--fold", str(fold), "--fidelity", str(fidelity), *changes, *self.shared]
            jobs.append(
                FoldJob(
                    run=name,
                    fold=fold,
                    command=(*start_words("train"), *flags),
                    shown=shlex.join(["python", "src/train.py", *flags]),
                    log=self.paths.checkpoints(self.job.competition_name, name) / f"fold{fold}.log",
                    wants_gpu=needs_gpu(self.search.base.learner),
                )
            )
        return jobs

    def finished(self, name: str) -> list[int]:
        """Folds of a run of the study that are trained."""
        return finished_folds(self.paths, self.job.competition_name, name, self.folds, self.tables)

    def predicted(self, name: str) -> Predicted:
        """What a run of the study predicted, of all its trained folds."""
        (part,) = load_parts_of_runs(self.paths, self.job.competition_name, [name], self.folds, self.tables, [])
        scores = self.task.to_scores(part.oof, part.kind, self.rows.scores.allowed_at(part.rows))
        return Predicted(name, part.rows, scores)

    def score(self, name: str) -> float:
        """The cross-fitted score of a run of the study, as the metric counts."""
        return self.task.entry.sign * self.comparer.score(self.predicted(name)).score

    def open_queue(self) -> Queue:
        """An empty queue over this machine's GPUs or cores."""
        cores, own = count_cores(), self.job.own
        slots = plan_slots([needs_gpu(self.search.base.learner)] * 64, find_gpus(), own.side_by_side, cores)
        threads = threads_per_slot(cores, slots)
        print(describe_slots(slots, threads), flush=True)
        return Queue([], slots, threads, own.attempts, self.screen)

    def train(self, jobs: Sequence[FoldJob]) -> None:
        """Train what is not trained yet. Raises UserError if a training fails; ends if a signal comes."""
        done = {name: self.finished(name) for name in {each.run for each in jobs}}
        todo = [each for each in jobs if each.fold not in done[each.run]]
        if not todo:
            return
        queue = self.open_queue()
        queue.add(todo)
        self.end_if_stopped(queue.run())
        failed = [ticket.job.name for ticket in queue.tickets if ticket.state != "done"]
        if failed:
            raise UserError(f"not trained: {', '.join(failed)}. The lines above say why; then run the same command")
        self.remove_weights(done)

    def end_if_stopped(self, signal_number: int) -> None:
        if signal_number:
            print("stopped; every trial that ran is saved, and the same command goes on from there")
            sys.exit(128 + signal_number)

    def remove_weights(self, names) -> None:
        """Weights and checkpoints of runs that are scored: only their predictions are of use."""
        for name in names:
            for folder in self.paths.checkpoints(self.job.competition_name, name).glob("fold*"):
                if folder.is_dir():
                    shutil.rmtree(folder, ignore_errors=True)

    # The base run under several seeds.

    @property
    def has_seed(self) -> bool:
        return "seed" in LEARNERS[self.search.base.learner].reads

    def seeds(self, count: int, first: int) -> list[int]:
        """Seeds from `first` on, none of them the base run's own; one without effect if the learner has none."""
        own = self.search.base.seed
        return [seed for seed in range(first, first + count + 1) if seed != own][:count] if self.has_seed else [own]

    def noise_runs(self) -> dict[str, dict[str, Value]]:
        """Name of each base run with a seed -> its values."""
        settings = self.search.settings
        others = self.seeds(settings.noise_seeds - 1, 1001) if self.has_seed else []
        return {"base": {}, **{f"base-seed{seed}": {"seed": seed} for seed in others}}

    def measure_noise(self):
        """Train the base run with several seeds on the search's folds; say how much its score varies."""
        from foldblend.tuning.outcome import Noise

        settings, runs = self.search.settings, self.noise_runs()
        say(f"noise first: {settings.run} with {len(runs)} seed{'s' * (len(runs) > 1)}, {self.describe_rows()}")
        self.train(
            [job for name, values in runs.items() for job in self.jobs(name, values, settings.folds, settings.fidelity)]
        )
        noise = Noise(tuple(self.score(name) for name in runs))
        say(f"{settings.run}: {noise.describe(self.task.metric)}")
        return noise

    def known_noise(self):
        """The same of what is trained already. Raises UserError: nothing is."""
        from foldblend.tuning.outcome import Noise

        wanted = len(self.search.settings.folds)
        trained = [name for name in self.noise_runs() if len(self.finished(name)) == wanted]
        if "base" not in trained:
            raise UserError(f"study {self.study} has nothing to show: its base run is not trained yet")
        return Noise(tuple(self.score(name) for name in trained))

    def describe_rows(self) -> str:
        settings = self.search.settings
        share = f", {settings.fidelity:.0%} of their training rows" if settings.fidelity < 1 else ""
        return f"fold {', '.join(map(str, settings.folds))}{share}"


def flag_word(value: Value) -> str:
    """A value as the word behind its flag."""
    return value if isinstance(value, str) else json.dumps(value)


def open_study(work: Work):
    """The study in its storage, checked to be of the same search."""
    from foldblend.tuning.study import SharedStudy, hide_password

    search, job = work.search, work.job
    url = job.own.storage or os.environ.get(STORAGE, "")
    work.folder.mkdir(parents=True, exist_ok=True)
    if url:
        say(f"storage: {hide_password(url)}")
    settings = {**settings_of(search.base)}
    definition = {
        "competition": job.competition_name,
        "metric": job.competition.metric,
        "folds drawn": work.folds.sha256,
        "base run": json.loads(json.dumps(settings)),
        "space": describe_space(search.space),
        **{name: value for name, value in asdict(search.settings).items() if name in ("folds", "fidelity")},
    }
    direction = "maximize" if work.task.entry.greater_is_better else "minimize"
    return SharedStudy(
        url or f"sqlite:///{work.folder / 'study.db'}",
        work.folder,
        f"{job.competition_name}/{work.study}",
        direction,
        search.space,
        search.settings,
        definition,
        is_shared=bool(url),
    )


# ---------- The trials.


class TrialRunner:
    """Follows the queue: claims trials for idle slots, reads how they train, stops the bad ones, scores the others."""

    def __init__(self, work: Work, study, queue: Queue):
        self.work, self.study, self.queue = work, study, queue
        self.started = time.monotonic()
        self.looked_at = self.beaten_at = -1e9
        self.failures, self.is_exhausted, self.may_grow = 0, False, True
        self.progress = ""
        self.ended_before: int | None = None
        self.reported: dict[int, set[int]] = {}  # number of a trial -> its points, of `look_point`

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self.looked_at < LOOK_EVERY_SECONDS:
            return self.may_grow
        self.looked_at = now
        from foldblend.tuning.study import HEARTBEAT_SECONDS, trial_name

        if now - self.beaten_at > HEARTBEAT_SECONDS:
            self.study.beat()
            self.beaten_at = now
        for own in list(self.study.own.values()):
            self.follow(own, trial_name(own.number))
        while self.queue.n_idle > 0 and self.claim():
            pass
        self.progress = self.describe_progress()
        self.may_grow = bool(self.study.own) or bool(self.study.open()) or self.may_start()
        return self.may_grow

    def describe_progress(self) -> str:
        """`12 of 30 trials, best 0.5312, about 8:10 left`."""
        counted, best = self.study.counted(), self.study.best()
        wanted = self.work.search.settings.trials
        ended = sum(trial.state.is_finished() for trial in counted)
        words = [f"{ended} of {wanted} trials", *([f"best {best.value:.4f}"] if best else [])]
        self.ended_before = ended if self.ended_before is None else self.ended_before
        if ended > self.ended_before:
            seconds = (time.monotonic() - self.started) / (ended - self.ended_before) * max(0, wanted - ended)
            words.append(f"about {clock_time(seconds)} left")
        return ", ".join(words)

    def may_start(self) -> bool:
        """Whether new trials may begin: the budget is not used up."""
        settings = self.work.search.settings
        in_time = not settings.hours or time.monotonic() - self.started < 3600 * settings.hours
        return in_time and not self.is_exhausted and len(self.study.counted()) < settings.trials

    def claim(self) -> bool:
        """Work on one more trial; whether there was one."""
        from foldblend.tuning.study import TriedEverythingError, trial_name

        try:
            own = self.study.claim(self.may_start())
        except TriedEverythingError as error:
            say(str(error))
            self.is_exhausted = True
            return False
        if own is None:
            return False
        settings, name = self.work.search.settings, trial_name(own.number)
        self.queue.screen.say(f"{name}: {'goes on, ' if own.is_continued else ''}{describe_values(own.values)}")
        done = self.work.finished(name)
        todo = [fold for fold in settings.folds if fold not in done]
        self.queue.add(self.work.jobs(name, own.values, todo, settings.fidelity))
        self.follow(own, name)
        return True

    def follow(self, own, name: str) -> None:
        """Read how a trial trains; end it if it failed, falls behind, or is trained."""
        from foldblend.tuning.study import TrialState

        tickets = [ticket for ticket in self.queue.tickets if ticket.job.run == name]
        bad = [ticket for ticket in tickets if ticket.state in ("failed", "refused")]
        if bad:
            self.queue.drop(name)
            self.study.fail(own, f"{bad[0].job.name} {bad[0].state}")
            self.failures += 1
            if self.failures >= MOST_FAILURES:
                raise UserError(
                    f"{self.failures} trials could not be trained, the last one {name}: the lines above say why, and "
                    f"{bad[0].job.log}. Change the search, and start another study with --study NAME"
                )
            return
        if all(ticket.state == "done" for ticket in tickets):
            score = self.work.score(name)
            self.study.end(own, TrialState.COMPLETE, score)
            self.queue.screen.say(f"{name}: {self.work.task.metric} {score:.4f}")
            self.work.remove_weights([name])
            return
        points = self.reported.setdefault(own.number, set())
        for point, value in sorted(self.read_points(name).items()):
            if point not in points:
                points.add(point)
                if self.study.report(own, point, value):
                    self.queue.drop(name)
                    self.study.end(own, TrialState.PRUNED)
                    self.queue.screen.say(f"{name}: stopped early, its held-out score {value:.4f} is below the median")
                    return

    def read_points(self, name: str) -> dict[int, float]:
        """The held-out scores of a trial so far, by `look_point`: of its histories and of its finished folds."""
        from foldblend.tuning.study import look_point

        work, found = self.work, {}
        competition, metric = work.job.competition_name, work.task.metric
        for position, fold in enumerate(work.search.settings.folds):
            for entry in read_history(history_path(work.paths, competition, name, fold)):
                if f"heldout_{metric}" in entry and entry.get("steps"):
                    found[look_point(position, entry["step"] / entry["steps"])] = entry[f"heldout_{metric}"]
            record = run_folder(work.paths, competition, name) / f"fold{fold}.json"
            if record.is_file():
                score = read_record(record, FOLD).get("score", {})
                if metric in score:
                    found[look_point(position, 1.0)] = score[metric]
        return found


def describe_values(values: dict[str, Value]) -> str:
    """`lr 3.2e-05, epochs 3`, within a line."""
    from foldblend.tuning.outcome import shown

    words = ", ".join(f"{name.rsplit('.', 1)[-1]} {shown(value)}" for name, value in values.items())
    return words if len(words) <= 66 else f"{words[:65]}…"


def run_trials(work: Work, study, noise) -> None:
    """Work on trials until the budget is used up and none is left anywhere."""
    from foldblend.tuning.study import trial_name

    study.add_base(work.search.values_of(work.search.base), noise.scores[0])
    before = study.trials()
    work.remove_weights(trial_name(trial.number) for trial in before if trial.state.is_finished())
    runner = TrialRunner(work, study, work.open_queue())
    if not study.open() and not runner.may_start():
        return
    runner.queue.headline = lambda: runner.progress
    try:
        stopped_by = runner.queue.run(runner)
    finally:
        for own in list(study.own.values()):
            study.release(own)
    work.end_if_stopped(stopped_by)


# ---------- What was found.


def show_study(work: Work, study, noise) -> None:
    """Tables of the best trials and settings, and the figures."""
    from foldblend.tuning import outcome

    importance, metric = study.importance(), work.task.metric
    print(f"\n{outcome.count_states(study)}; {metric} on {work.describe_rows()}", flush=True)
    print(f"base run {work.search.settings.run}: {noise.describe(metric)}\n")
    if study.best() is None:
        print("no trial has a score yet")
        return
    print("\n".join([*table_lines(outcome.trial_rows(study, noise.scores[0])), ""]))
    print("\n".join(table_lines(outcome.best_rows(study, work.search, importance))))
    print("\nThe best of many trials is best by luck, too; the check below counts.\n" if not work.job.own.show else "")
    complete = sorted(study.complete(), key=lambda trial: trial.number)
    record = {
        "name": work.study,
        "run": work.search.settings.run,
        "metric": metric,
        "greater_is_better": study.sign > 0,
        "trials": [{"number": trial.number, "score": float(trial.value)} for trial in complete],
        "base_score": noise.mean,
        "base_spread": noise.spread,
        "importance": dict(importance),
    }
    write_study(work.folder, record)
    for path in outcome.draw_figures(study, importance, metric, noise, work.folder):
        print(path.relative_to(work.job.paths.root))


def check_best(work: Work, study, noise, folds: Sequence[int], target) -> None:
    """Compare the best settings with the base run, by fresh seeds on folds that no trial saw; write the YAML."""
    best = study.best()
    if best is None:
        raise UserError(f"study {work.study} has no trial with a score; see the lines above")
    if study.sign * (best.value - noise.scores[0]) <= 0:
        print(f"No trial scores above the base run. Keep {work.search.settings.run}.")
        return
    try:
        with hold_lock(work.folder / ".check.lock", "busy"):
            gain = train_check(work, study, best, folds)
    except BusyError:
        print("Another process checks the best settings; see its output.")
        return
    say_verdict(work, study, best, noise, gain, folds, target)


def train_check(work: Work, study, best, folds: Sequence[int]) -> SeededGain:
    """Both settings with each fresh seed, on all rows of the folds that are left."""
    from foldblend.tuning.study import trial_name, values_of

    values, seeds = values_of(best, study.space), work.seeds(work.search.settings.confirm_seeds, 2001)
    pairs, jobs = [], []
    for seed in seeds:
        names = f"check-base-seed{seed}", f"check-{trial_name(best.number)}-seed{seed}"
        more = {"seed": seed} if work.has_seed else {}
        for name, changed in zip(names, (more, {**values, **more}), strict=True):
            jobs += work.jobs(name, changed, folds, 1.0)
        pairs.append(names)
    which = f"fold {', '.join(map(str, folds))}"
    print(f"check: base run and {trial_name(best.number)}, {len(seeds)} fresh seeds each, {which}", flush=True)
    work.train(jobs)
    return compare_over_seeds(work.comparer, [tuple(map(work.predicted, names)) for names in pairs])


def count_seeds(gain: SeededGain, kind: str = "") -> str:
    """`3 seeds`."""
    return f"{len(gain.gains)} {kind}seed{'s' * (len(gain.gains) > 1)}"


def say_verdict(work: Work, study, best, noise, gain: SeededGain, folds: Sequence[int], target) -> None:
    """Whether the gain is more than noise; the YAML of the best settings, with that in its header."""
    from foldblend.tuning import outcome

    sign, metric, settings = work.task.entry.sign, work.task.metric, work.search.settings
    which = f"fold {', '.join(map(str, folds))}"
    found = f"{sign * gain.gain:+.4f}, standard error {gain.error:.4f}"
    if gain.is_more_than_noise:
        verdict = "more than noise: the 90 % interval leaves out 0"
    elif gain.exceeds_error:
        verdict = "more than its standard error, but the 90 % interval holds 0: it may be noise"
    else:
        verdict = "not more than its standard error: no gain was shown"
    print(f"\n{metric} of the best settings minus the base run, on {which}, {count_seeds(gain)}:")
    print(f"  {found}\n  by seed: {', '.join(f'{sign * each:+.4f}' for each in gain.gains)}")
    print(f"  {verdict}\n")
    spread = "no seed" if noise.spread is None else f"sd {noise.spread:.4f} over {len(noise.scores)} seeds"
    lines = [
        f"Competition {work.job.competition_name}, {outcome.count_states(study)}, {time.strftime('%Y-%m-%d')}.",
        f"Search, {work.describe_rows()}: {metric} {best.value:.4f}; base run {noise.scores[0]:.4f}, {spread}.",
        f"Check, {which}, {count_seeds(gain, 'fresh ')}: {found}; {verdict}.",
    ]
    from foldblend.tuning.study import values_of

    values = values_of(best, study.space)
    outcome.write_tuned(target, work.job.paths, work.search, values, work.study, lines)
    print(target.relative_to(work.job.paths.root))
    if gain.is_more_than_noise:
        competition = work.job.competition_name
        print(f"accelerate launch src/train.py --competition {competition} --run {target.stem} --fold all")
    else:
        print(f"Not recommended over {settings.run}; several seeds of {settings.run} may be worth more.")
