"""The documentation: links resolve, commands and flags exist, and the code on the pages runs."""

import doctest
import importlib
import io
import re
import subprocess
import sys
from contextlib import redirect_stdout, suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from foldblend.commands import COMMANDS, blend, make_folds, train
from foldblend.plugins import load_plugins

PROJECT = Path(__file__).resolve().parents[1]
PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md")])
COMMAND = re.compile(r"(?:src/(\w+)\.py|(?m:^)(?:\$ )?foldblend ([a-z][a-z_-]+))([^`\n]*)")
"""`src/train.py --fold 3`, `foldblend train --fold 3`: the name in either way, and what follows."""
WORDS_OF_THE_README = 1_000


def page_id(path):
    return path.relative_to(PROJECT).as_posix()


def code_of(page):
    """The page's blocks of code and its code inside sentences."""
    text = page.read_text()
    return [
        *re.findall(r"```\w*\n(.*?)```", text, re.S),
        *re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S)),
    ]


def test_the_readme_is_short():
    words = len((PROJECT / "README.md").read_text().split())
    assert words < WORDS_OF_THE_README, f"{words} words"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_resolve(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in links:
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link} is no file"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            known = [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads]
            assert anchor in known, f"{link}: no such heading in {target.name}; there are {known}"


@cache
def flags_of(command):
    """What `--help` of a command lists."""
    with redirect_stdout(io.StringIO()) as shown, suppress(SystemExit):
        importlib.import_module(f"foldblend.commands.{command}").main(["--help"])
    return set(re.findall(r"(?<![\w-])--?[A-Za-z][\w.-]*", shown.getvalue()))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_and_their_flags_exist(page):
    for code in code_of(page):
        for in_src, installed, rest in COMMAND.findall(code.replace("\\\n", " ")):
            name = in_src or installed.replace("-", "_")
            assert name in COMMANDS, f"no command {name}: {code.strip()[:80]}"
            rest = re.split(r"[#|;&>]", rest)[0]
            given = {word.split("=")[0] for word in rest.split() if re.fullmatch(r"--?[a-zA-Z][\w.-]*(=.*)?", word)}
            unknown = given - flags_of(name)
            assert not {flag for flag in unknown if not is_setting_pattern(flag)}, f"{name} has no {unknown}"


def is_setting_pattern(flag):
    """`--group.setting` and `--<name>.<field>` stand for any setting."""
    return flag in ("--group.setting",)


def test_the_api_page_is_what_the_api_does():
    page = PROJECT / "docs" / "python-api.md"
    result = doctest.testfile(str(page), module_relative=False, verbose=False)
    assert result.attempted > 15 and not result.failed


# ---------- docs/architecture.md, "Add a learner, a loss, a metric, a strategy"


ADD = (PROJECT / "docs" / "architecture.md").read_text().split("## Add a learner")[1]
BLOCKS = re.findall(r"```python\n(.*?)```", ADD, re.S)
OUTSIDE = [block for block in BLOCKS if "@" in block]
"""With the decorators."""
LINES = [block for block in BLOCKS if "@" not in block]
"""The lines of the package's tables."""
TABLES = """from foldblend.scoring.ensembling.strategies import STRATEGIES
from foldblend.scoring.metrics.table import METRICS, Metric
from foldblend.settings.tables import LEARNERS, LOSSES, LearnerEntry, LossEntry
"""


def without_decorators(block):
    return re.sub(r"^@(learner|loss|metric|strategy).*\n", "", block, flags=re.M)


MODULES = {
    "outside": "\n".join(OUTSIDE),
    "inside": "\n".join([TABLES, *map(without_decorators, OUTSIDE), *LINES]),
}


def test_the_page_shows_each_in_both_ways():
    assert len(OUTSIDE) == len(LINES) == 4 and all(block.count("\n") == 1 for block in LINES)
    assert "@" not in MODULES["inside"].replace("@dataclass", "")


@pytest.fixture
def forget_tables(tmp_path_factory):
    """What the lines of a test add to the tables goes away with it."""
    from foldblend.scoring.ensembling.strategies import STRATEGIES
    from foldblend.scoring.metrics.table import METRICS
    from foldblend.settings.tables import LEARNERS, LOSSES

    kept = [(table, dict(table)) for table in (STRATEGIES, METRICS, LEARNERS, LOSSES)]
    yield
    load_plugins([], tmp_path_factory.mktemp("elsewhere"))
    for table, entries in kept:
        table.clear()
        table.update(entries)


@pytest.mark.usefixtures("fresh_accelerate", "forget_tables", "quick_blends")
@pytest.mark.parametrize("way", MODULES)
def test_the_code_of_the_page_makes_a_submission(paths, toy_competition, tiny_bert, way, capsys):
    """A learner, a loss, a metric and a strategy of the user's own, through the real commands."""
    (paths.root / "my_module.py").write_text(MODULES[way])
    with (paths.configs / "default.yaml").open("a") as file:
        file.write("plugins: [my_module]\n")
    with (paths.configs / "competitions" / "toy.yaml").open("a") as file:
        file.write("metric: macro_f2\n")
    runs = paths.configs / "runs"
    (runs / "my_ridge.yaml").write_text("learner: ridge\nridge: {alpha: 0.5}\n")
    squared = (runs / "tiny.yaml").read_text().replace("epochs: 4", "epochs: 1, collapse_check_after_steps: 0")
    (runs / "squared.yaml").write_text(squared + "loss: {name: squared}\n")

    make_folds.main(["--competition", "toy"])
    for run in ("my_ridge", "squared"):
        train.main(["--competition", "toy", "--run", run, "--fold", "all"])
    blend.main(["--competition", "toy"])
    shown = capsys.readouterr().out
    assert "Score table: macro_f2" in shown and "random_weights" in shown and "my_ridge" in shown
    blend.main(["--competition", "toy", "--strategy", "random_weights"])
    assert "Chosen: random_weights" in capsys.readouterr().out
    written = sorted(paths.submissions("toy").glob("*.csv"))
    assert len(written) >= 1
    table = np.loadtxt(written[0], delimiter=",", skiprows=1, usecols=(1, 2, 3))
    assert table.shape == (21, 3) and np.isin(table, (0, 1)).all() and 0 < table.mean() < 1


@pytest.mark.usefixtures("forget_tables")
def test_a_child_process_loads_the_plugins_too(paths, toy_competition):
    (paths.root / "my_module.py").write_text(MODULES["outside"])
    with (paths.configs / "default.yaml").open("a") as file:
        file.write("plugins: [my_module]\n")
    (paths.configs / "runs" / "my_ridge.yaml").write_text("learner: ridge\n")
    command = [sys.executable, str(PROJECT / "src" / "train_all.py"), "--competition", "toy", "--runs", "my_ridge"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=paths.root, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(paths.oof("toy").glob("my_ridge/*.npz"))) == 3
