"""Attacks a small project in ways drawn from a seed: nothing lost, nothing wrong, no traceback, no hang, no leak.

    python bench/attacks.py --attempts 5000
    python bench/attacks.py --only records --attempts 200

Each attempt copies a trained, blended and bundled project, does one bad thing to it, and runs commands in this
process with keys planted in the environment. After it, every content that was there before is still there (in its
place or in `.old/`), a command ended with 0 or with one message, and what must be refused was refused. `--only KIND`
runs one kind; `--number N` runs one attempt of it and shows it.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "bench"), str(ROOT / "tests" / "faults")]
os.environ["FOLDBLEND_THREADS"] = "1"

from fuzz import TooSlow, remembering  # noqa: E402
from small_job import TFIDF, table_lines  # noqa: E402

from foldblend.commands import blend, bundle, check, guard, make_folds, predict, submit, train  # noqa: E402
from foldblend.files import sha256_file  # noqa: E402
from foldblend.ledger import records  # noqa: E402
from foldblend.settings import loading  # noqa: E402

COMMANDS = {
    "blend": blend,
    "bundle": bundle,
    "check": check,
    "make_folds": make_folds,
    "predict": predict,
    "submit": submit,
    "train": train,
}
KEYS = {"KAGGLE_KEY": "planted-kaggle-0123456789abcdef", "HF_TOKEN": "hf_plantedAbCdEfGhIjKlMnOpQrSt"}
LIMIT_SECONDS = 60
FAULTS = ("lost", "wrong", "traceback", "hang", "leak")
CONTROL = re.compile(r"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0e-\x1a\x9b\u202e]")


@dataclass
class Attack:
    """One bad thing that was done to a project, and what to run after it."""

    what: str
    """In words, for the report."""
    commands: list[list[str]]
    must_refuse: bool = False
    """Whether the last command must not end with 0."""
    gone: set[str] = field(default_factory=set)
    """Contents (sha256) that the attack itself destroyed."""


# ---------- the project that is attacked


def make_project(root: Path) -> None:
    """Two TF-IDF runs trained, a stack of them blended and bundled."""
    lines = table_lines(40, 12)
    for folder in ("data/small", "configs/competitions", "configs/runs"):
        (root / folder).mkdir(parents=True)
    for name, rows in lines.items():
        (root / "data/small" / name).write_text("\n".join([*rows, ""]), encoding="utf-8")
    (root / "configs/competitions/small.yaml").write_text("id_column: id\nn_folds: 2\nnear_duplicates: 1.0\n")
    for name in ("words", "other"):
        (root / f"configs/runs/{name}.yaml").write_text(TFIDF)
    (root / "configs/default.yaml").write_text("competition: small\nrun: words\nruns: [words, other]\n")
    os.environ["FOLDBLEND_ROOT"] = str(root)
    steps = [["make_folds"], ["train"], ["train", "--run", "other", "--seed", "1", "--name", "other"]]
    steps += [["blend", "--strategy", "cross_label_stack"], ["bundle", "--no_wheels", "--owner", "anna"]]
    for words in steps:
        status, out, error = run(words)
        if status:
            raise RuntimeError(f"{words} ended with {status}: {out}{error}")


def save_time() -> None:
    """What is the same for every attempt and costs more than the rest: git's answer, parsers of flags, defaults."""
    records._commit = remembering(records._commit, lambda code: "")
    loading._build_parser = remembering(loading._build_parser, lambda command, *_: command)
    loading.load_defaults = remembering(loading.load_defaults, lambda paths: "")


def run(words: list[str]) -> tuple[int, str, str]:
    """Exit status and what was printed by one command."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        status = guard(lambda: COMMANDS[words[0]].main(words[1:]))
    return status, out.getvalue(), error.getvalue()


# ---------- kinds of attacks: (root, rng) -> Attack


VALUES = [None, True, -1, 3, 10**30, 0.5, 1e308, "", "x", "../../x", "a\x1b]0;b\x07", "\ud800", [], [[]], {}, {"a": 1}]
"""What a field of a record is replaced by."""


def attack_record(root: Path, rng: random.Random) -> Attack:
    """A record whose hash is right and one of whose values is another."""
    path = rng.choice(sorted(set(root.rglob("*.json")) - set(root.glob("bundle/**/*"))))
    body = json.loads(path.read_text(encoding="utf-8"))
    body.pop(records.SEAL, None)
    places = [place for place in walk(body) if place]
    place = rng.choice(places)
    holder = body
    for key in place[:-1]:
        holder = holder[key]
    if rng.random() < 0.25:
        del holder[place[-1]]
        value = "(removed)"
    else:
        value = holder[place[-1]] = rng.choice(VALUES)
    before = sha256_file(path)
    seal(path, body)
    what = f"{path.relative_to(root)}: {'.'.join(map(str, place))} = {value!r}"
    command = rng.choice([PREDICT, ["blend"], ["bundle", "--no_wheels", "--owner", "anna"], ["submit", "--choose", "1"],
                          ["make_folds"], ["train", "--fold", "0"], ["blend", "--from", blend_of(root)]])  # fmt: skip
    return Attack(what, [command, ["check"]], gone={before})


def seal(path: Path, body: dict) -> None:
    text = json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    body = {**body, records.SEAL: hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()}
    path.write_text(json.dumps(body), encoding="utf-8")


def walk(value, place=()):
    """The places of all values in nested JSON."""
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from walk(each, (*place, key))


def blend_of(root: Path) -> str:
    return str(next((root / "submissions/small").glob("blend-*.json")))


PREDICT = ["predict", "--text", "happy glad day"]


def attack_dropped(root: Path, rng: random.Random) -> Attack:
    """Predictions of another program with rows of another width, a wrong cell, or a library's warning."""
    labels = (root / "data/small/sample_submission.csv").read_text().split("\n")[0].split(",")[1:]
    folder = root / "oof/small/dropped"
    folder.mkdir()
    for name, source in (("oof.csv", "train.csv"), ("test.csv", "test.csv")):
        ids = [line.split(",")[0] for line in (root / "data/small" / source).read_text().splitlines()[1:]]
        rows = [",".join([one, *(f"{rng.random():.3f}" for _ in labels)]) for one in ids]
        (folder / name).write_text("\n".join([",".join(["id", *labels]), *rows, ""]))
    path = folder / rng.choice(["oof.csv", "test.csv"])
    lines = path.read_text().splitlines()
    row = rng.randrange(1, len(lines))
    ways: dict[str, Callable[[], object]] = {
        "every row wider": lambda: lines.__setitem__(slice(1, None), [f"{line},0.5" for line in lines[1:]]),
        "every row has an index": lambda: lines.__setitem__(slice(1, None), [f"0,{line}" for line in lines[1:]]),
        "one row wider": lambda: lines.__setitem__(row, f"{lines[row]},0.5"),
        "one row narrower": lambda: lines.__setitem__(row, lines[row].rsplit(",", 1)[0]),
        "a row twice": lambda: lines.insert(row, lines[row]),
        "a row less": lambda: lines.pop(row),
        "a word": lambda: lines.__setitem__(row, lines[row].rsplit(",", 1)[0] + rng.choice([",nan", ",x", ",", ",9"])),
        "a quote": lambda: lines.__setitem__(row, '"' + lines[row]),
    }  # fmt: skip
    way = rng.choice(sorted(ways))
    ways[way]()
    path.write_text("\n".join([*lines, ""]))
    return Attack(f"{path.name}: {way}", [["blend", "--runs", "words", "dropped"]], must_refuse=True)


def attack_bytes(root: Path, rng: random.Random) -> Attack:
    """Bytes of any file of the ledger changed, cut off, or put in a header."""
    tops = ("folds", "oof", "submissions", "checkpoints", "bundle")
    path = rng.choice([each for top in tops for each in sorted((root / top).rglob("*")) if each.is_file()])
    data, before = bytearray(path.read_bytes()), sha256_file(path)
    way = rng.choice(["flip", "cut", "brackets", "zeros", "empty"])
    if way == "flip":
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif way == "cut":
        del data[rng.randrange(len(data)) :]
    elif way == "brackets":
        at = rng.randrange(len(data))
        data[at : at + 3000] = b"[" * 3000
    elif way == "zeros":
        at = rng.randrange(len(data))
        data[at : at + 64] = bytes(len(data[at : at + 64]))
    else:
        data.clear()
    path.write_bytes(data)
    unhashed = ("predict.ipynb", "kernel-metadata.json", "dataset-metadata.json", "bundle.json")
    commands = [rng.choice([PREDICT, ["blend"], ["make_folds"], ["bundle", "--no_wheels", "--owner", "a"]]), ["check"]]
    must = path.name not in unhashed and sha256_file(path) != before and "bundle" not in commands[0]
    return Attack(f"{path.relative_to(root)}: {way}", commands, must_refuse=must, gone={before})


def attack_weights(root: Path, rng: random.Random) -> Attack:
    """Other weights with a checksum of their own that is right: from another fold, scaled, or NaN."""
    import numpy as np
    from safetensors import safe_open
    from safetensors.numpy import save_file

    from foldblend.learners.training.weights import checksum

    path = rng.choice(sorted(root.glob("checkpoints/small/*/fold*/weights.safetensors")))
    before = sha256_file(path)
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name = rng.choice([name for name, each in arrays.items() if each.dtype.kind == "f"])
    way = rng.choice(["nan", "infinite", "scaled"])
    value = {"nan": np.nan, "infinite": np.inf, "scaled": 2}[way]
    arrays[name] = np.ascontiguousarray(arrays[name] * np.asarray(value, arrays[name].dtype))
    save_file(arrays, path, {**metadata, "crc32": checksum(arrays)})
    is_same = sha256_file(path) == before
    command = rng.choice([PREDICT, ["bundle", "--no_wheels", "--owner", "anna"]])
    return Attack(f"{path.relative_to(root)}: {name} {way}", [command], must_refuse=not is_same, gone={before})


def attack_outputs(root: Path, rng: random.Random) -> Attack:
    """An output flag that names a file of the project, spelt in some way."""
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    path = rng.choice(files)
    new = root / "new.csv"
    spelt = [path, path.parent / ".." / path.parent.name / path.name]
    link = root / "link.csv"
    if rng.random() < 0.3:
        link.symlink_to(path) if rng.random() < 0.5 else os.link(path, link)
        spelt = [link]
    name = str(rng.choice(spelt))
    source = str(root / "data/small/test.csv")
    flags = rng.choice([["--output", name], ["--answer", name], ["--output", str(new), "--answer", str(new)],
                        ["--answer", str(root / "x" / ".." / "new.csv"), "--output", str(new)]])  # fmt: skip
    flags += rng.choice([[], ["--overwrite"]])
    is_hard_link = link.exists() and not link.is_symlink() and "new.csv" not in " ".join(flags)
    own = is_hard_link and path != root / "data/small/test.csv" and "--overwrite" in flags
    return Attack(" ".join(flags), [["predict", "--input", source, *flags]], must_refuse=not own)


EVIL = ["a\x1b]0;b\x07", "\x1b[2J", 'x"; touch hacked #', "$(touch hacked)", "a\u202eb", "'; id", "\x9b2J"]


def attack_names(root: Path, rng: random.Random) -> Attack:
    """Label names, ids and flags that a terminal, a shell or a notebook would obey."""
    evil = rng.choice(EVIL)
    way = rng.choice(["id", "label", "--owner", "--competition", "--run", "--from", "text"])
    if way in ("id", "label"):
        old = "r3," if way == "id" else "joy"
        for path in (root / "data/small").glob("*.csv"):
            cell = '"' + evil.replace('"', '""') + '"'
            path.write_text(path.read_text().replace(old, cell + ("," if way == "id" else "")), encoding="utf-8")
        return Attack(f"{way} {evil!r}", [["make_folds", "--overwrite"], ["train", "--overwrite"], ["blend"]])
    if way == "text":
        return Attack(f"text {evil!r}", [["predict", "--text", evil]])
    command = "bundle" if way in ("--owner", "--from") else "train" if way == "--run" else "make_folds"
    more = ["--no_wheels"] if command == "bundle" else ["--overwrite"]
    value = rng.choice([evil, ""])
    must = not (way in ("--owner", "--from") and not value)  # without a value it is the default
    return Attack(f"{way} {value!r}", [[command, way, value, *more]], must_refuse=must)


def attack_kill(root: Path, rng: random.Random) -> Attack:
    """A command that replaces files, killed at a call that touches the disk; then the same command again."""
    words = rng.choice([["make_folds", "--fold_seed", "7", "--overwrite"], ["train", "--fold", "1", "--overwrite"],
                        ["bundle", "--no_wheels", "--owner", "anna"], ["blend"]])  # fmt: skip
    step = rng.randrange(1, {"make_folds": 40, "train": 60, "bundle": 200, "blend": 40}[words[0]])
    child = os.fork()
    if not child:
        left = iter(range(step))

        def deadly(call):
            def counted(*given, **options):
                if next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*given, **options)

            return counted

        for name in ("replace", "fsync", "rename", "open"):
            setattr(os, name, deadly(getattr(os, name)))
        with contextlib.suppress(BaseException):
            run(words)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    what = f"{' '.join(words)}, {'killed' if status else 'done'} at step {step}"
    after = [["make_folds", "--fold_seed", "7"]] if words[0] == "make_folds" and status == 0 else []
    if words[0] == "make_folds" and status:
        after = [words]
    return Attack(what, after or [words, ["check"]])


KINDS: dict[str, tuple[Callable[[Path, random.Random], Attack], float]] = {
    "records": (attack_record, 4),
    "dropped-in": (attack_dropped, 2),
    "bytes": (attack_bytes, 3),
    "weights": (attack_weights, 1),
    "outputs": (attack_outputs, 2),
    "names": (attack_names, 1.5),
    "kills": (attack_kill, 1.5),
}
"""Name -> the attack, and its share of the attempts."""


# ---------- the judge


def contents(root: Path) -> dict[str, str]:
    """sha256 -> a path, of every file that someone would miss."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return {sha256_file(path): str(path.relative_to(root)) for path in files if path.suffix not in (".lock", ".tmp")}


def attempt(template: Path, folder: Path, kind: str, number: int, seed: int) -> tuple[str, str]:
    """What one attempt showed: (verdict, the story). The verdict is `held` or one of FAULTS."""
    root, rng = folder / "root", random.Random(f"{seed} {kind} {number}")
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(template, root)
    os.environ["FOLDBLEND_ROOT"] = str(root)
    before, attack, said = contents(root), KINDS[kind][0](root, rng), []
    signal.alarm(LIMIT_SECONDS)
    try:
        status = 0
        for words in attack.commands:
            status, out, error = run(words)
            said.append(f"$ {' '.join(words)}\n{out}{error}[{status}]")
            verdict = judge_words(status, out, error)
            if verdict:
                return verdict, f"{attack.what}\n" + "\n".join(said)
    except TooSlow:
        return "hang", f"{attack.what}\n" + "\n".join(said)
    except Exception:
        return "traceback", f"{attack.what}\n{traceback.format_exc()}"
    finally:
        signal.alarm(0)
    story = f"{attack.what}\n" + "\n".join(said)
    if attack.must_refuse and status == 0:
        return "wrong", story
    if (root / "hacked").exists() or Path("hacked").exists():
        return "wrong", story
    after = contents(root)
    lost = before.keys() - after.keys() - attack.gone
    ours = ("submissions/log.csv",)
    lost_names = sorted(before[digest] for digest in lost if before[digest] not in ours)
    if lost_names and attack.what.split(" ")[0] not in ("id", "label"):
        return "lost", f"{story}\nlost: {', '.join(lost_names)}"
    return "held", story


def judge_words(status: int, out: str, error: str) -> str:
    """What is wrong with what a command printed and how it ended; empty if nothing is."""
    if "Traceback" in out + error or status == 1:
        return "traceback"
    if any(key in out + error for key in KEYS.values()):
        return "leak"
    if CONTROL.search(out + error):
        return "wrong"
    return "" if status == 0 or "error: " in error else "wrong"


def plan(attempts: int, only: str) -> list[tuple[str, int]]:
    """(kind, number) of each attempt, by the kinds' shares."""
    kinds = [only] if only else list(KINDS)
    total = sum(KINDS[kind][1] for kind in kinds)
    return [(kind, k) for kind in kinds for k in range(max(1, round(attempts * KINDS[kind][1] / total)))]


def _too_slow(*_):
    raise TooSlow


def attack_all(attempts: int, seed: int = 0, only: str = "", number: int | None = None):
    """Yield (kind, number, verdict, story) of each attempt."""
    os.environ.update(KEYS)
    signal.signal(signal.SIGALRM, _too_slow)
    with tempfile.TemporaryDirectory() as name:
        template = Path(name) / "template"
        make_project(template)
        todo = plan(attempts, only) if number is None else [(only, number)]
        for kind, k in todo:
            yield kind, k, *attempt(template, Path(name), kind, k, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attempts", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", choices=["", *KINDS])
    parser.add_argument("--number", type=int, default=None)
    flags = parser.parse_args()
    save_time()
    counts, started = Counter(), time.monotonic()
    for kind, number, verdict, story in attack_all(flags.attempts, flags.seed, flags.only, flags.number):
        counts[kind, verdict] += 1
        if verdict != "held" or flags.number is not None:
            print(f"== {kind} {number}: {verdict}\n{story}\n", flush=True)
    print(f"{'kind':12}{'held':>8}" + "".join(f"{fault:>11}" for fault in FAULTS))
    for kind in [*KINDS, ""]:
        row = [sum(n for (k, v), n in counts.items() if k == (kind or k) and v == each) for each in ("held", *FAULTS)]
        if sum(row):
            print(f"{kind or 'all':12}{row[0]:8}" + "".join(f"{n:11}" for n in row[1:]))
    print(f"{counts.total()} attempts, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
