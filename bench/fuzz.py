"""Breaks a competition's files and YAML in ways drawn from a seed: a right submission or a right message, nothing else.

    python bench/fuzz.py --inputs 10000

Each input goes through the commands in this process: folds, a TF-IDF run or dropped-in predictions, the blend. What
comes out is a submission, compared with the sample submission by code that is not the project's, or one error
message that names the file and says what was expected, with exit status 2. `--only 17` runs one input and shows it.
"""

import argparse
import ast
import bz2
import contextlib
import csv
import gzip
import io
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "faults")]
os.environ["FOLDBLEND_THREADS"] = "1"

from broken_files import break_files  # noqa: E402
from broken_settings import break_settings  # noqa: E402
from made_up_files import make_competition  # noqa: E402
from odd_labels import choose_label_layout  # noqa: E402
from odd_layouts import choose_layout  # noqa: E402
from yaml import safe_dump  # noqa: E402

from foldblend.commands import (  # noqa: E402
    blend,
    guard,
    inputs,
    make_folds,
    train,
)
from foldblend.data.tables import load_tables  # noqa: E402
from foldblend.ledger import records as provenance  # noqa: E402
from foldblend.settings import loading  # noqa: E402

NAMES_A_FILE = re.compile(
    r"train\.csv|dev\.csv|test\.csv|sample_submission\.csv|data/fuzz|fuzz\.yaml|competition fuzz|oof\.csv|"
    r"the training file|the submission, not yet written"
)
SAYS_A_FIX = re.compile(
    r"expected|Expected|[Ss]et |[Rr]un:? |did you mean|merge|must |neede?[ds]?\b|expects|take it out|not there|stands |"
    r"get it again|is (empty|missing)|blend other runs|are missing|never closes|not in |ower n_folds|the header has|"
    r"Fix it|Put it into|is for |is read only|no id has|are of files had|could be read two ways|no text encoding|"
    r"use accuracy|[,;] (so )?remove it|remove one of them|get the file again|give each text"
)
LIMIT_SECONDS = 60
"""Of the processor; no input may take more, and on the clock no more than ten times that."""
TFIDF = "learner: tfidf\ntfidf: {word_ngrams: [1, 1], char_ngrams: [0, 0], min_rows: 1}\n"


class TooSlow(BaseException):
    """Not an Exception, so that no command takes it for an error of the files."""


@dataclass
class Outcome:
    """What became of one input."""

    number: int
    verdict: str
    """`submission`, `error`, or what is wrong."""
    broken: str
    """What was done to the files."""
    shown: str
    """The error message, or the traceback."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="the first input, to share them among processes")
    parser.add_argument("--only", type=int, default=None, help="this input alone, shown in full")
    flags = parser.parse_args()
    started, verdicts = time.monotonic(), Counter()
    numbers = range(flags.start, flags.start + flags.inputs) if flags.only is None else [flags.only]
    for outcome in fuzz(flags.seed, numbers):
        verdicts[outcome.verdict] += 1
        if outcome.verdict not in ("submission", "error") or flags.only is not None:
            print(f"input {outcome.number}, {outcome.broken}: {outcome.verdict}\n{outcome.shown}", flush=True)
    for verdict, count in verdicts.most_common():
        print(f"{verdict:40} {count:6}")
    print(f"{verdicts.total()} inputs, {time.monotonic() - started:.0f} s")


def fuzz(seed: int, numbers):
    """Yield the outcome of each input."""
    save_time()
    signal.signal(signal.SIGALRM, _too_slow)
    signal.signal(signal.SIGPROF, _too_slow)
    for number in numbers:
        with tempfile.TemporaryDirectory() as folder:
            yield try_one(Path(folder), number, random.Random(f"{seed} {number}"))


def save_time() -> None:
    """What is the same for every input and costs more than the rest: git's answer, parsers of flags, defaults."""
    for module, name, key in (
        (provenance, "_commit", lambda code: ""),
        (loading, "_build_parser", lambda command, *_: command),
        (loading, "load_defaults", lambda paths: ""),
    ):
        setattr(module, name, remembering(getattr(module, name), key))
    inputs.load_tables = load_and_keep


seen = {}
"""Settings and tables of the input at hand, as make_folds.py read them."""


def load_and_keep(competition, data_dir):
    seen.update(settings=competition, tables=load_tables(competition, data_dir))
    return seen["tables"]


def remembering(function, key):
    known = {}

    def remembered(*arguments):
        at = key(*arguments)
        if at not in known:
            known[at] = function(*arguments)
        return known[at]

    return remembered


def _too_slow(*_):
    raise TooSlow


def try_one(root: Path, number: int, rng: random.Random) -> Outcome:
    broken = write_input(root, rng)
    os.environ["FOLDBLEND_ROOT"] = str(root)
    drop_in = rng.random() < 0.8
    out, err = io.StringIO(), io.StringIO()
    signal.alarm(10 * LIMIT_SECONDS)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = run_commands(root, drop_in)
        problem = judge(root, status, out.getvalue(), err.getvalue())
        is_right = all(done.startswith("layout ") for done in broken.split(", ") if done)
        refused = "right files refused" if is_right else "error"
        verdict = problem or ("submission" if status == 0 else refused)
    except (Exception, TooSlow, SystemExit) as error:
        verdict = f"traceback: {type(error).__name__}"
        err.write(traceback.format_exc())
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
    return Outcome(number, verdict, broken, err.getvalue()[-3000:])


def write_input(root: Path, rng: random.Random) -> str:
    """Write one broken competition; what was done to it."""
    made = make_competition(rng)
    layouts = [choose_label_layout(rng, made), choose_layout(rng, made)]
    settings, in_settings = safe_dump(made.settings, allow_unicode=True).encode(), ""
    if rng.random() < 0.35:
        settings, in_settings = break_settings(rng, made)
    in_files = break_files(rng, made, rng.choice([0, 1, 1, 1, 2]) if not in_settings else rng.choice([0, 0, 1]))
    data, configs = root / "data" / "fuzz", root / "configs"
    for folder in (data, configs / "competitions", configs / "runs"):
        folder.mkdir(parents=True)
    for name, content in made.encode().items():
        if content is not None:
            (data / name).write_bytes(content)
    (configs / "competitions" / "fuzz.yaml").write_bytes(settings)
    (configs / "runs" / "words.yaml").write_text(TFIDF)
    (configs / "default.yaml").write_text("competition: fuzz\nrun: words\nruns: [words]\n")
    named = [f"layout {layout}" for layout in layouts if layout]
    return ", ".join([*named, *in_files, *([in_settings] if in_settings else [])])


def run_commands(root: Path, drop_in: bool) -> int:
    """Folds, predictions, blend, as far as they go; the exit status of the last command."""
    if status := guard(lambda: make_folds.main([])):
        return status
    if drop_in:
        predict(root)
    elif status := guard(lambda: train.main([])):
        return status
    return guard(lambda: blend.main([]))


def predict(root: Path) -> None:
    """Drop one or two runs in that know nothing, for whatever rows and labels the project says there are."""
    rng = random.Random(len(seen["tables"].train_ids))
    for run in rng.choice([["elsewhere"], ["elsewhere", "nowhere"]]):
        drop_run(root / "oof" / "fuzz" / run, seen["tables"], rng)


def drop_run(folder: Path, tables, rng: random.Random) -> None:
    folder.mkdir(parents=True)
    for name, ids in (("oof.csv", tables.train_ids), ("test.csv", tables.test_ids)):
        with open(folder / name, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["the id", *tables.label_names])
            writer.writerows([key, *(f"{rng.random():.4f}" for _ in tables.label_names)] for key in ids.tolist())


def judge(root: Path, status: int, out: str, err: str) -> str:
    """What is wrong with what came out; empty where nothing is."""
    csvs = sorted((root / "submissions").rglob("*.csv"))
    if "Traceback" in out + err or (root / "hacked").exists() or Path("hacked").exists():
        return "traceback printed or code run"
    if status == 0:
        if len(csvs) != 1:
            return f"exit 0 and {len(csvs)} submissions"
        return compare(csvs[0], root) if not err else "exit 0 and words on stderr"
    if status != 2 or csvs:
        return f"exit {status} and {len(csvs)} submissions"
    if not err.startswith("error: ") or "\nerror: " in err:
        return "stderr is not one error"
    if not NAMES_A_FILE.search(err):
        return "no file is named"
    return "" if SAYS_A_FIX.search(err) else "no fix is named"


def compare(path: Path, root: Path) -> str:
    """Whether the submission has the right ids, columns and order, and legal values; the csv module alone reads.

    They are those of the sample submission, or of the test file if there is no sample or it only shows the form.
    """
    settings = seen["settings"]
    files, answer = settings.files, settings.submission
    rows = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8"), newline=""), delimiter=answer.separator))
    wanted = read_plain(root / "data" / "fuzz", files.sample_submission, settings) if files.has_sample else []
    header = wanted[0] if wanted else built_header(settings)
    has_index = header[:1] in ([""], ["Unnamed: 0"]) and settings.id_column in header[1:]
    if (rows[:1] != [header] and not has_index) or any(len(row) != len(rows[0]) for row in rows):
        return "wrong CSV: other columns than the sample submission"
    if header[:1] in ([""], ["Unnamed: 0"]) and settings.id_column in header[1:]:  # an index is left out
        header, wanted = header[1:], [row[1:] for row in wanted]
        if rows[:1] != [header]:
            return "wrong CSV: other columns than the sample submission"
    answers = {answer.column} if answer.form in ("delimited", "class", "ranked") or is_long(settings) else None
    if answers is None:
        answers = {name for name in header if name in seen["tables"].written_columns and name != header[key_of(header)]}
    keys = [k for k, name in enumerate(header) if name not in answers]
    ids = [[row[k] for k in keys] for row in rows[1:]]
    of_sample, of_test = [[row[k] for k in keys] for row in wanted[1:]], seen["tables"].test_ids.tolist()
    lacks = not is_long(settings) and {row[0] for row in of_sample} < set(of_test)
    if not wanted or files.answer_rows == "test" or lacks:
        if list(dict.fromkeys(row[0].rsplit("_", 1)[0] if answer.row_id else row[0] for row in ids)) != of_test:
            return "wrong CSV: other ids than the test file"
    elif ids != of_sample:
        return "wrong CSV: other ids than the sample submission"
    cells = [cell for row in rows[1:] for k, cell in enumerate(row) if k not in keys]
    return "" if all(is_legal(cell, settings) for cell in cells) else "wrong CSV: an illegal value"


def key_of(header: list[str]) -> int:
    """Position of the ids among the columns of a submission with a column per label."""
    tables = seen["tables"]
    return tables.sample_columns.index(seen["settings"].id_column) if len(header) == len(tables.sample_columns) else 0


def is_long(settings) -> bool:
    return bool(settings.submission.row_id or settings.submission.label_column)


def built_header(settings) -> list[str]:
    answer = settings.submission
    if is_long(settings):
        return [name for name in (settings.id_column, answer.label_column, answer.column) if name]
    in_columns = answer.form in ("columns", "probabilities", "values")
    return [settings.id_column, *(settings.labels.submitted if in_columns else [answer.column])]


def read_plain(folder: Path, name: str, settings) -> list[list[str]]:
    """The rows of the sample submission, unpacked, without empty lines at the end."""
    data = (folder / name).read_bytes()
    if name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            data = archive.read(archive.namelist()[0])
    unpack = {".gz": gzip.decompress, ".bz2": bz2.decompress}.get(Path(name).suffix, bytes)
    text = unpack(data).decode(settings.files.encodings.get(name, settings.files.encoding))
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=settings.submission.separator))
    while rows and not rows[-1]:
        rows.pop()
    return rows


def is_legal(cell: str, settings) -> bool:
    form = settings.submission.form
    if form == "columns":
        return cell in ("0", "1", "0.0", "1.0")
    if form == "probabilities":
        return re.fullmatch(r"[01]?(\.\d+)?(\d\.\d+e-\d+)?", cell) is not None and 0 <= float(cell) <= 1
    if form == "values":
        return re.fullmatch(r"-?\d+(\.\d+)?(e-\d+)?", cell) is not None
    names = settings.labels.submitted or seen["tables"].answer_names
    answer = settings.submission
    numbers = range(answer.first_number, answer.first_number + len(names))
    known = set(names if answer.values == "names" else map(str, numbers))
    if form == "class":
        said = [cell]
    elif answer.list != "off":
        said = [str(one) for one in (json.loads if answer.list == "json" else ast.literal_eval)(cell)]
    else:
        said = cell.split(answer.delimiter) if cell != answer.empty else []
    is_listed = form != "ranked" or 1 <= len(said) <= settings.k
    return set(said) <= known and len(set(said)) == len(said) and is_listed


if __name__ == "__main__":
    main()
