"""Where a run starts from: another training is found, and proven not to have seen a row that this run holds out.

`model.start_from` names a run of any competition of this project, or a folder with a model. For each fold to train, no
row that the other model learned from may say the same as one of the fold's held-out rows, or nearly so: the groups of
the folding package tell. `training.leave_out` is the other side: rows that a run leaves out so that it can be a start.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from foldblend.commands.inputs import prepare_tables
from foldblend.console import say
from foldblend.data.reading import shown_path
from foldblend.data.tables import Tables
from foldblend.errors import UserError, nearest
from foldblend.files import replacing_folder, sha256_bytes, sha256_file
from foldblend.folding.duplicates import group_texts
from foldblend.learners.nets.folders import weight_files
from foldblend.learners.table import Start
from foldblend.learners.trained import model_group
from foldblend.ledger.folds import Folds, load_folds, parse_fold_numbers
from foldblend.ledger.oof import FOLD, check_record, describe_origin, is_recorded, recorded_folds, run_folder
from foldblend.ledger.records import read_record
from foldblend.predictions import FULL, fold_name
from foldblend.settings.loading import Job, load_competition, run_from_settings
from foldblend.settings.paths import Paths
from foldblend.settings.records import relative_folder
from foldblend.settings.run import START_PART, RunSettings
from foldblend.settings.tables import LEARNERS
from foldblend.settings.yaml_files import NAME, list_configs
from foldblend.submission.new_texts import read_rows

NO_ROWS = np.zeros(0, dtype=np.int64)
ORIGIN = "foldblend.json"
"""In the folder of an exported encoder: the competition, the run and the folds that it is of."""

# 1. The other training, found


@dataclass(frozen=True)
class Training:
    """Trained folds of a run of this project, or a folder with a model."""

    source: str
    """As the settings name it."""
    weights_sha256: dict[str, str]
    """Name of each fold, or of each file of the folder -> sha256 of its weights."""
    competition: str = ""
    """Empty for a folder of which nobody knows what it learned from."""
    run: str = ""
    folds: tuple[int, ...] = ()
    """Numbers of the folds whose mean is taken."""
    folder: Path | None = None
    """None for trained folds."""

    @property
    def sha256(self) -> str:
        """One hash of all weights."""
        hashes = list(self.weights_sha256.values())
        return hashes[0] if len(hashes) == 1 else sha256_bytes("\n".join(hashes).encode())


def find_training(paths: Paths, source: str, for_competition: str = "") -> Training:
    """What `model.start_from` names.

    Args:   for_competition: the one that would start from it, for the command that trains it.
    Raises: UserError: there is no such run or folder, or not all of its folds are trained, with the command.
    """
    parts = source.strip("/").split("/")
    is_run = len(parts) in (2, 3) and all(map(NAME.fullmatch, parts)) and not source.startswith("/")
    if is_run and (paths.oof(parts[0]) / parts[1]).is_dir():
        return _find_folds(paths, source, parts, for_competition)
    for folder in (Path(source).expanduser(), paths.root / source):
        if (folder / "config.json").is_file():
            return _find_folder(source, folder)
    if not is_run or (len(parts) == 3 and not START_PART.fullmatch(parts[2])):
        raise UserError(
            f"model.start_from {source}: no folder with config.json, and no run; expected COMPETITION/RUN, "
            "COMPETITION/RUN/fold0, COMPETITION/RUN/full or such a folder"
        )
    known = [path.stem for path in list_configs(paths, "competitions")]
    if parts[0] not in known:
        hint = nearest(parts[0], known) or f"; there are {', '.join(known)}."
        raise UserError(f"model.start_from {source}: no competition {parts[0]}{hint}")
    trained = sorted(each.name for each in paths.oof(parts[0]).glob("[!.]*") if each.is_dir())
    there = f" (trained are: {', '.join(trained)})" if trained else ""
    raise UserError(
        f"model.start_from {source}: run {parts[1]} of {parts[0]} is not trained{there}. Run: "
        f"{train_command(parts[0], parts[1], 'full' if parts[2:] == ['full'] else 'all', for_competition)}"
    )


def train_command(competition: str, run: str, fold: str, for_competition: str, name: str = "") -> str:
    """The command that trains a start, without the rows of the competition that will start from it."""
    left_out = f" --training.leave_out '[{for_competition}]'" if for_competition else ""
    named = f" --name {name}" if name else ""
    return f"accelerate launch src/train.py --competition {competition} --run {run}{named} --fold {fold}{left_out}"


def _find_folds(paths: Paths, source: str, parts: Sequence[str], for_competition: str) -> Training:
    competition, run = parts[0], parts[1]
    folder = run_folder(paths, competition, run)
    if len(parts) == 3:
        if not START_PART.fullmatch(parts[2]):
            raise UserError(f"model.start_from {source}: {parts[2]} is not a fold; expected fold0, fold1, ... or full")
        folds = [FULL if parts[2] == "full" else int(parts[2].removeprefix("fold"))]
    else:
        n_folds = load_competition(paths, competition).n_folds
        folds = recorded_folds(folder, n_folds)
        if not folds and is_recorded(folder, FULL):
            raise UserError(
                f"model.start_from {source}: only its model of all rows is trained. Set it to {source}/full"
            )
        folds = list(range(n_folds))
    missing = [fold for fold in folds if not is_recorded(folder, fold)]
    if missing:
        numbers = " ".join(fold_name(fold).removeprefix("fold") for fold in missing)
        has = [fold_name(k) for k in recorded_folds(folder, max(folds) + 1 if max(folds) != FULL else 1000)]
        instead = f", or name a trained one: {competition}/{run}/{has[0]}" if has else ""
        raise UserError(
            f"model.start_from {source}: fold {numbers} is not trained. Run: "
            f"{train_command(competition, run, numbers, for_competition)}{instead}"
        )
    hashes = {}
    for fold in folds:
        name = fold_name(fold)
        record = read_record(folder / f"{name}.json", FOLD)
        hashes[name] = record.get("weights_sha256") or sha256_file(_weights(paths, competition, run, name))
    return Training(source, hashes, competition, run, tuple(folds))


def _weights(paths: Paths, competition: str, run: str, name: str) -> Path:
    from foldblend.learners.training.weights import WEIGHTS

    return paths.checkpoints(competition, run) / name / WEIGHTS


def _find_folder(source: str, folder: Path) -> Training:
    """A folder with a model; an exported one says what it was trained on."""
    hashes = {name: sha256_file(folder / name) for name in ("config.json", *weight_files(folder))}
    note = folder / ORIGIN
    if not note.is_file():
        return Training(source, hashes, folder=folder)
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
        folds = tuple(FULL if name == fold_name(FULL) else int(name.removeprefix("fold")) for name in said["folds"])
        return Training(source, hashes, str(said["competition"]), str(said["run"]), folds, folder)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{note}: not readable ({error}). Export the encoder again: src/train.py --export") from error


def with_start_hash(job: Job, run: RunSettings) -> RunSettings:
    """The run with the hashes of its start and of what it is pretrained on among its settings, so that others are a
    different training.

    Raises: UserError: there is no such training or file, or it is not the one that the settings state.
    """
    if run.pretraining.file and run.pretraining.epochs:
        path = job.paths.data(job.competition_name) / run.pretraining.file
        if not path.is_file():
            raise UserError(
                f"{shown_path(path)} is missing; pretraining.file names a file in data/{job.competition_name}/"
            )
        found, stated = sha256_file(path), run.pretraining.file_sha256
        if stated not in ("", found):
            raise UserError(f"{shown_path(path)}: its sha256 is {found}, pretraining.file_sha256 is {stated}")
        run = replace(run, pretraining=replace(run.pretraining, file_sha256=found))
    if not run.model.start_from:
        return run
    found, stated = find_training(job.paths, run.model.start_from, job.competition_name).sha256, run.model.start_sha256
    if stated not in ("", found):
        raise UserError(
            f"model.start_from {run.model.start_from}: the sha256 of its weights is {found}, model.start_sha256 is "
            f"{stated}; expected the same"
        )
    return replace(run, model=replace(run.model, start_sha256=found))


# 2. Which rows it has seen, against those that this run holds out


@dataclass(frozen=True)
class Sources:
    """What the folds of a run learn from beside their own rows, and what they leave out."""

    start: Start | None = None
    facts: dict | None = None
    """What the record of a fold says of its start."""
    left_out: np.ndarray = field(default_factory=NO_ROWS.copy)
    """int64: rows that no fold learns from, as training.leave_out says."""
    unlabelled: tuple[str, ...] = ()
    """More texts to pretrain on."""
    lines: tuple[str, ...] = ()
    """What a user must know."""

    def record(self, fold: int, folds: Folds) -> dict:
        """What goes into the record of a fold."""
        start = {"start": self.facts} if self.facts else {}
        taught = self.left_out[folds.fold[self.left_out] != fold]
        return start | ({"left_out": taught.tolist()} if len(self.left_out) else {})


NO_SOURCES = Sources()


def open_sources(job: Job, tables: Tables, folds: Folds, todo: list[int]) -> Sources:
    """Find and check what the run starts from, and the rows that it leaves out.

    Raises: UserError: the start has seen rows that a fold of `todo` holds out, or cannot be found or checked.
    """
    run, lines = job.run, []
    left_out = find_left_out(job, tables) if "training" in LEARNERS[run.learner].reads else NO_ROWS
    if len(left_out):
        names = ", ".join(run.training.leave_out)
        lines.append(f"left out, as rows of {names} say the same: {len(left_out):,} of {len(tables.labels):,} rows")
    group = model_group(run)
    named = getattr(run, group).name if group else ""
    if named and (Path(named).expanduser() / ORIGIN).is_file():  # an encoder that was exported from a run of ours
        lines.append(check_seen(job, tables, folds, todo, _find_folder(named, Path(named).expanduser()))[1])
    unlabelled: tuple[str, ...] = ()
    if run.pretraining.epochs and run.pretraining.file:
        unlabelled = tuple(
            read_rows(job.paths.data(job.competition_name) / run.pretraining.file, job.competition).texts
        )
    if group != "model" or not run.model.start_from:
        return Sources(left_out=left_out, unlabelled=unlabelled, lines=tuple(lines))
    training = find_training(job.paths, run.model.start_from, job.competition_name)
    facts, line = check_seen(job, tables, folds, todo, training)
    start = open_start(job.paths, training)
    return Sources(start, facts, left_out, unlabelled, (*lines, line))


def open_start(paths: Paths, training: Training) -> Start:
    """Where the weights of a start are. Raises UserError: they are not those of the records."""
    if training.folder is not None:
        return Start(training.source, (training.folder,), None)
    folder = run_folder(paths, training.competition, training.run)
    settings = read_record(folder / f"{fold_name(training.folds[0])}.json", FOLD)["settings"]
    files = {name: _weights(paths, training.competition, training.run, name) for name in training.weights_sha256}
    for name, path in files.items():
        if not path.is_file():
            raise UserError(
                f"model.start_from {training.source}: {path.relative_to(paths.root)} is missing. Copy it here"
            )
        if sha256_file(path) != training.weights_sha256[name]:
            raise UserError(
                f"model.start_from {training.source}: {path.relative_to(paths.root)} is not the file that its fold's "
                "record in oof/ describes. Restore it, or train that fold again with --overwrite"
            )
    return Start(training.source, tuple(path.parent for path in files.values()), settings)


def check_seen(job: Job, tables: Tables, folds: Folds, todo: list[int], training: Training) -> tuple[dict, str]:
    """Prove that a start has not seen what the folds to train hold out.

    Returns: what the record of a fold says of it, and a line to print.
    Raises:  UserError: how many rows of which folds it has seen, and how to train one that has not.
    """
    said = f"starts from {training.source}"
    if len(training.folds) > 1:
        said += f", the mean of {len(training.folds)} folds"
    facts: dict = {
        "from": relative_folder(training.source),
        "weights_sha256": training.weights_sha256,
        "compared_rows": 0,
    }
    if not training.competition:
        return facts, f"{said}; what it learned from is not known here. No row of train.csv may have been in it"
    seen = find_seen(job, tables, folds, training)
    if seen is None:
        return facts, (
            f"{said}, which was exported from {training.competition}/{training.run}; its records are not in oof/ here, "
            "so whether it has seen held-out rows cannot be checked"
        )
    n, m = len(tables.train_texts), len(tables.test_texts)
    test_texts = tables.test_texts
    group = group_texts([*tables.compared_texts, *test_texts, *seen], job.competition.near_duplicates)
    shared = np.isin(group[: n + m], group[n + m :])
    bad = [fold for fold in todo if (shared[:n] & (folds.fold == fold)).any()]
    if bad:
        refuse_seen(job, tables, training, np.flatnonzero(shared[:n] & np.isin(folds.fold, bad)), bad)
    facts |= {"compared_rows": len(seen), "shared_rows": 0, "shared_test_rows": int(shared[n:].sum())}
    line = f"{said}; it learned from {len(seen):,} rows, and none of them is held out here"
    if facts["shared_test_rows"]:
        line += f". {facts['shared_test_rows']:,} test rows say the same as some of them, which no score here shows"
    return facts, line


def refuse_seen(job: Job, tables: Tables, training: Training, rows: np.ndarray, bad: list[int]) -> None:
    """Raise UserError: the start has seen rows that these folds hold out."""
    numbers = ", ".join(fold_name(fold).removeprefix("fold") for fold in bad)
    first = f"{str(tables.train_ids[rows[0]])!r} {tables.train_texts[rows[0]][:40]!r}"
    what = (
        f"{training.source} has seen {len(rows):,} rows that fold {numbers} holds out, or rows that nearly say the "
        f"same, first {first}. Out-of-fold scores would be too good. "
    )
    own = job.competition_name
    if training.competition == own:
        raise UserError(f"{what}It is of this competition. Start from a run of another one")
    name = f"{training.run}-without-{own}"
    fold = "full" if training.folds == (FULL,) else "all" if len(training.folds) > 1 else str(training.folds[0])
    ends = source_end(training)
    raise UserError(
        f"{what}Train a start without them: {train_command(training.competition, training.run, fold, own, name)} and "
        f"then set --model.start_from {training.competition}/{name}{ends}"
    )


def source_end(training: Training) -> str:
    """`/fold0` or `/full` of a start that is one fold, else nothing."""
    return f"/{fold_name(training.folds[0])}" if len(training.folds) == 1 else ""


def find_seen(job: Job, tables: Tables, folds: Folds, training: Training) -> list[str] | None:
    """The texts that a start has learned from; None if an exported encoder's records are not here.

    Raises: UserError: the other competition's data or folds are missing, or not those that it was trained on.
    """
    other, paths = training.competition, job.paths
    folder = run_folder(paths, other, training.run)
    names = [fold_name(fold) for fold in training.folds]
    if training.folder is not None and not all((folder / f"{name}.json").exists() for name in names):
        return None
    if other != job.competition_name:
        competition = load_competition(paths, other)
        tables = open_tables(job, other)
        folds = load_folds(paths, other, tables, competition)
    origin, seen = describe_origin(folds, tables), np.zeros(len(folds.fold), dtype=bool)
    for fold, name in zip(training.folds, names, strict=True):
        record = check_record(folder / f"{name}.npz", origin)
        refuse_extra_rows(training, record["settings"])
        learned = folds.fold != fold
        learned[record.get("left_out", [])] = False
        seen |= learned
    texts = tables.compared_texts
    return [texts[row] for row in np.flatnonzero(seen)]


def refuse_extra_rows(training: Training, settings: dict) -> None:
    """Raises: UserError: the start learned from rows of other sources, whose texts its record does not have."""
    named = [each.get("file") or each.get("competition") for each in settings.get("extra_rows", [])]
    if named:
        raise UserError(
            f"{training.source} learned from extra_rows, too ({', '.join(named)}), so nobody can tell whether it has "
            "seen held-out rows of this competition. Train a start without extra_rows, under another --name"
        )


def find_left_out(job: Job, tables: Tables) -> np.ndarray:
    """Rows, int64, that say the same as a training row of a competition in training.leave_out, or nearly so."""
    texts, n = tables.compared_texts, len(tables.train_texts)
    found = np.zeros(n, dtype=bool)
    for other in job.run.training.leave_out:
        if other == job.competition_name:
            raise UserError(f"training.leave_out names {other}, this competition itself; name those that start from it")
        group = group_texts([*texts, *open_tables(job, other).compared_texts], job.competition.near_duplicates)
        found |= np.isin(group[:n], group[n:])
    if found.all():
        raise UserError("training.leave_out leaves no row to learn from: every row says the same as one of theirs")
    return np.flatnonzero(found)


def open_tables(job: Job, other: str) -> Tables:
    """The tables of another competition of this project; files that can be fetched are."""
    return prepare_tables(replace(job, competition_name=other, competition=load_competition(job.paths, other)))


# 3. The encoder of a run as an ordinary model


def export_encoder(job: Job) -> None:
    """Write the encoder of trained folds as a folder that transformers loads: `--export encoder`.

    Raises: UserError: the run has no encoder of its own, or folds are not trained.
    """
    paths, name, run_name = job.paths, job.competition_name, job.run_name
    numbers = parse_fold_numbers(job.own.fold, job.competition.n_folds)
    folds = [fold_name(fold) for fold in numbers]
    sources = [f"{name}/{run_name}"] if job.own.fold == ["all"] else [f"{name}/{run_name}/{fold}" for fold in folds]
    trainings = [find_training(paths, source) for source in sources]
    starts = [open_start(paths, training) for training in trainings]
    run = run_from_settings(dict(starts[0].settings or {}), sources[0])
    if run.learner != "encoder":
        raise UserError(
            f"--export encoder: run {run_name} is a {run.learner}, whose weights are not an encoder's. To go on from a "
            f"decoder's adapters: --model.start_from {name}/{run_name}/fold0"
        )
    from foldblend.learners.training.starts import export_encoder as write_encoder

    target = paths.checkpoints(name, run_name) / "-".join(["encoder", *(folds if job.own.fold != ["all"] else [])])
    folders = [folder for start in starts for folder in start.folders]
    hashes = {fold: sha256 for training in trainings for fold, sha256 in training.weights_sha256.items()}
    with replacing_folder(target) as folder:
        write_encoder(run, folders, folder)
        note = {"competition": name, "run": run_name, "folds": hashes}
        (folder / ORIGIN).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    shown = target.relative_to(paths.root)
    what = f"the mean of {len(folders)} folds" if len(folders) > 1 else folders[0].name
    say(f"{shown}: the encoder of {name}/{run_name}, {what}; transformers' AutoModel loads it")
    say(f"to start another run from it: --model.start_from {shown}")
