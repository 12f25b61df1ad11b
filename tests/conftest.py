"""Shared by all tests: src/ on the path, paths of their own, tiny pretrained models of real architectures."""

import copy
import gc
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "src"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("FOLDBLEND_THREADS", "1")  # tiny models only lose by more
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")  # read when numpy and torch are imported
# Images of containers set this; hundreds of processes start here, and each would compile all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in a shell's background ignores it, and hands that on

WORDS = "happy glad joyful sad gloomy tearful angry furious mad calm plain dull the a is was today it".split()


@pytest.fixture
def paths(tmp_path, monkeypatch):
    """An empty root with the project's configs; commands started in this process or below it use it."""
    from foldblend.settings.paths import Paths

    shutil.copytree(PROJECT / "configs", tmp_path / "configs")
    monkeypatch.setenv("FOLDBLEND_ROOT", str(tmp_path))
    return Paths(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def remembered_settings():
    """A thousand tests read the same few YAMLs: what a parser made of the same values is not worked out again."""
    from foldblend.settings import loading

    parse, known = loading._parse_object, {}

    def parse_once(parser, values, where):
        key = parser, repr(values)
        if key not in known:
            known[key] = parse(parser, values, where)  # an error is none of them, so it is found each time
        return copy.deepcopy(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "_parse_object", parse_once)
        yield


@pytest.fixture
def quick_blends(monkeypatch):
    """Blends of this process draw one partition in place of three and search in fewer steps, by the same code."""
    import numpy as np

    monkeypatch.setattr("foldblend.scoring.blending.N_REPEATS", 1)
    for name, value in {"N_SHIFTS": 9, "MAX_THRESHOLDS": 4, "OFFSETS": np.linspace(-3, 3, 7)}.items():
        monkeypatch.setattr(f"foldblend.scoring.thresholds.exact.{name}", value)


@pytest.fixture
def files(tmp_path):
    """A tiny competition in data/tiny/ below tmp_path, not yet written."""
    from tiny_competition import Files

    folder = tmp_path / "data" / "tiny"
    folder.mkdir(parents=True)
    return Files(folder)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real data and real predictions; the test is skipped if it is not given."""
    folder = os.environ.get("FOLDBLEND_SHARED")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real data are not given: set $FOLDBLEND_SHARED to the folder that holds data/ and bench/")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory) -> Path:
    """A random BERT of 2 layers x 32 with its own word list, saved as the real ones are."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny_bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"abcdefghijklmnopqrstuvwxyz"]
    vocabulary += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def swift_collections():
    """A fold ends with a garbage collection, which looks at all there is; what is imported by now it need not."""
    from foldblend.learners import (
        generator,  # noqa: F401
    )

    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def fresh_accelerate(swift_collections):
    """Accelerate keeps its state a process long; each test that trains starts and ends without it."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


MOODS = {"joy": "happy glad joyful", "sadness": "sad gloomy tearful", "anger": "angry furious mad"}


@pytest.fixture
def toy_competition(paths, tiny_bert):
    """Competition `toy` (3 labels, 90 + 21 rows that say their labels) and run `tiny` on a random BERT."""
    import numpy as np

    rng = np.random.default_rng(0)
    labels = rng.random((111, 3)) < 0.4
    words = [mood.split() for mood in MOODS.values()]
    fillers = "the a is was today it plain dull calm".split()

    def text(row):
        said = [words[j][rng.integers(0, 3)] for j in np.flatnonzero(row)]
        return " ".join(rng.permutation([*said, *rng.choice(fillers, rng.integers(3, 9))]))

    rows = [(f"r{i}", text(row), *row.astype(int)) for i, row in enumerate(labels)]
    header = ",".join(["id", "text", *MOODS])
    data = paths.data("toy")
    data.mkdir(parents=True)
    write = lambda name, lines: (data / name).write_text("\n".join([*lines, ""]))  # noqa: E731
    write("train.csv", [header, *(",".join(map(str, row)) for row in rows[:90])])
    write("test.csv", [header, *(",".join([*map(str, row[:2]), *["NONE"] * 3]) for row in rows[90:])])
    write("sample_submission.csv", [f"id,{','.join(MOODS)}", *(f"{row[0]},0,0,0" for row in rows[90:])])
    (paths.configs / "competitions" / "toy.yaml").write_text("id_column: id\nn_folds: 3\nnear_duplicates: 1.0\n")
    (paths.configs / "runs" / "tiny.yaml").write_text(
        f"learner: encoder\nmodel: {{name: {tiny_bert}, head_dropout: 0.1}}\noptimizer: {{lr: 5e-3, head_lr: 5e-3}}\n"
        "training: {epochs: 4, global_batch_size: 6, precision: fp32, checkpoint_every_minutes: 1e-6}\n"
    )
    return "toy"


def pytest_make_parametrize_id(val, argname):
    """Bytes are named by their argument: a packed file holds its time, and every worker must name a test the same."""
    return argname if isinstance(val, bytes) else None
