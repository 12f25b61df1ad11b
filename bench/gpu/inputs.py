"""What the parts of the check are given: the options of the call, findings written at once, texts, models, settings.

Nothing is fetched. Models are made on the spot from real configuration classes with random weights, and tokenizers are
trained on the texts.
"""

import contextlib
import json
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from foldblend.learners.table import Corpus, FoldRows
from foldblend.settings.loading import run_from_settings
from foldblend.settings.run import RunSettings

ROOT = Path(__file__).resolve().parents[2]
RESULTS = "results.jsonl"
N_LABELS = 28
MODELS_FOLDER = "foldblend_gpu_check"
"""Below the folder of temporary files: models are made by the first part that needs them and read by the others."""

# 1. Options and findings


@dataclass
class Check:
    """One part's view of the call."""

    part: str
    out: Path
    device: str
    """`cuda` or `cpu`."""
    tiny: bool
    """Models and numbers of steps that a CPU rehearses in seconds."""
    most_cases: int
    """Cases taken of each part; 0 is all."""
    role: str = ""
    """What a process does that a part has started."""
    command: list[str] = field(default_factory=list)
    """The part's own command; with `--role` and a name it does something else."""
    begun: int = 0
    """Cases begun by this process."""
    known: set[str] = field(default_factory=set)
    """Cases whose findings are in the results already."""

    def __post_init__(self):
        self.known = {line["case"] for line in read_results(self.out) if line["part"] == self.part and "case" in line}

    def wants(self, case: str) -> bool:
        """Whether to run a case: not found yet, and not one too many."""
        if case in self.known:
            return False
        self.begun += 1
        return not self.most_cases or self.begun <= self.most_cases

    def note(self, case: str, found: object) -> None:
        """Write a finding at once, so that a part that is stopped loses nothing."""
        add_result(self.out, {"part": self.part, "case": case, "found": found})

    def attempt(self, case: str, function: Callable, *args) -> object:
        """Run a case if it is wanted and note what it returns, or how it failed; the next case runs either way."""
        if not self.wants(case):
            return None
        try:
            found = function(*args)
        except Exception as error:  # whatever it is, it is a finding, and the other cases are worth their time
            traceback.print_exc()
            found = {"FAILED": f"{type(error).__name__}: {str(error)[:400]}"}
        self.note(case, "ok" if found is None else found)
        free_memory()
        return found

    def choose(self, usual: object, tiny: object) -> object:
        """One of two values: the second in a rehearsal."""
        return tiny if self.tiny else usual


def read_results(out: Path) -> list[dict]:
    """The lines of earlier parts; a last line that was cut off is left out."""
    found = []
    path = out / RESULTS
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def add_result(out: Path, line: Mapping) -> None:
    """Append one line of JSON; it is on disk when this returns."""
    # with a line break first: a line that was cut off must not spoil this one
    with open(out / RESULTS, "a", encoding="utf-8") as file:
        file.write("\n" + json.dumps(line, default=str))
        file.flush()
        os.fsync(file.fileno())


# 2. Time and memory


def wait() -> None:
    """Wait until the GPU has done all its work."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_per_call(function: Callable, n: int, warm: int = 2) -> float:
    """Mean seconds of a call, after some that are not counted."""
    for _ in range(warm):
        function()
    wait()
    started = time.perf_counter()
    for _ in range(n):
        function()
    wait()
    return (time.perf_counter() - started) / n


def free_memory() -> None:
    """Give back what the case before held, and count the peak from zero."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gb() -> float:
    """Peak GPU memory of the case, in GB; 0 on a CPU."""
    import torch

    return round(torch.cuda.max_memory_allocated() / 1e9, 2) if torch.cuda.is_available() else 0.0


# 3. Settings, learners, texts


def settings(learner: str, model: str | Path, **changes) -> RunSettings:
    """The run of a case. Args: model: a tiny model's kind, or a folder.   changes: as `training__epochs=2`."""
    folder = model if isinstance(model, Path) else models_folder() / f"{learner_family(learner)}-{model}"
    made = {
        "learner": learner,
        "model": {"name": str(folder)},
        "optimizer": {"lr": 1e-3},
        "training": {"epochs": 2, "global_batch_size": 16, "collapse_check_after_steps": 0},
    }
    if learner == "decoder":
        made["model"]["pooling"] = "last"
    if learner != "encoder":
        made["prompt"] = {"template": "Text: {text}\nLabels:"}
    if learner != "generator":
        made["optimizer"]["head_lr"] = 3e-3
    for path, value in changes.items():
        group, name = path.split("__")
        made.setdefault(group, {})[name] = value
    return run_from_settings(made, "gpu check")


def learner_family(learner: str) -> str:
    """`encoder` or `decoder`: a generator is a decoder's model."""
    return "encoder" if learner == "encoder" else "decoder"


def build(run: RunSettings, corpus: Corpus):
    """The run's learner; its tiny model is made if it is not there yet."""
    from accelerate.state import AcceleratorState

    from foldblend.learners.table import build_learner

    make_tiny(Path(run.model.name))
    AcceleratorState._reset_state(True)  # several learners in one process, each with a precision of its own
    return build_learner(run, corpus)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def read_texts() -> tuple[list[str], np.ndarray]:
    """Texts and labels, bool (N, 28): GoEmotions' training file in wheels/, else made up with the same lengths."""
    rng = np.random.default_rng(0)
    path = ROOT / "bench" / "gpu" / "wheels" / "train.tsv"
    if path.exists():
        lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
        labels = np.zeros((len(lines), N_LABELS), dtype=bool)
        for row, line in enumerate(lines):
            labels[row, [int(label) for label in line[1].split(",")]] = True
        return [line[0] for line in lines], labels
    words = np.array([f"word{i}" for i in range(3000)])
    lengths = np.clip(rng.gamma(4, 4.2, 43410), 2, 60).astype(int)
    texts = [" ".join(words[rng.integers(0, len(words), n)]) for n in lengths]
    return texts, rng.random((len(texts), N_LABELS)) < 0.04


def make_corpus(n_rows: int, n_test: int = 64) -> Corpus:
    """A part of the texts, drawn at random."""
    texts, labels = read_texts()
    drawn = np.random.default_rng(1).permutation(len(texts))[: n_rows + n_test]
    names = tuple(f"label {i}" for i in range(N_LABELS))
    return Corpus(tuple(texts[row] for row in drawn), labels[drawn[:n_rows]], names, "multilabel")


def fold_of(corpus: Corpus, folder: Path, n_heldout: int) -> FoldRows:
    """The first rows are held out."""
    rows = np.arange(len(corpus.labels))
    return FoldRows(0, rows[n_heldout:], rows[:n_heldout], folder / "fold0")


# 4. Models


def models_folder() -> Path:
    return Path(tempfile.gettempdir()) / MODELS_FOLDER


def make_tiny(folder: Path) -> None:
    """A tiny model as the tests make it, if `folder` is named as one (encoder-roberta) and does not exist."""
    family, _, kind = folder.name.partition("-")
    if folder.parent != models_folder() or family not in ("encoder", "decoder") or is_saved(folder):
        return
    with saving(folder) as unfinished:
        if family == "encoder":
            from tiny_encoders import save_encoder

            save_encoder(kind, unfinished)
        else:
            from tiny_decoders import save_tiny_decoder

            save_tiny_decoder(unfinished, kind)


def make_real(check: Check, name: str, texts: tuple[str, ...]) -> Path:
    """Random weights of a real size (a name in train_speed_models.MODELS) and a tokenizer of the texts."""
    import torch
    from train_speed_models import MODELS, fill_vocabulary
    from transformers import AutoModel, AutoModelForCausalLM, Qwen2Tokenizer

    folder = models_folder() / f"{'small' if check.tiny else 'real'}-{name}"
    if is_saved(folder):
        return folder
    kind, configure = MODELS[name]
    config = shrink(configure()) if check.tiny else configure()
    tokenizer = word_pieces(texts) if kind == "encoder" else Qwen2Tokenizer().train_new_from_iterator(texts, 30000)
    if kind == "encoder":
        config.pad_token_id = tokenizer.pad_token_id
    made, dtype = (AutoModel, torch.float32) if kind == "encoder" else (AutoModelForCausalLM, torch.bfloat16)
    with saving(folder) as unfinished:
        torch.manual_seed(0)
        with torch.device(check.device):
            made.from_config(config, dtype=dtype).save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        fill_vocabulary(unfinished)
    free_memory()
    return folder


def shrink(config):
    """The same architecture, tiny."""
    sizes = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2} if hasattr(config, "num_key_value_heads") else {}
    kept = {key: value for key, value in config.to_dict().items() if key != "layer_types"}
    return type(config).from_dict({**kept, **sizes})


def word_pieces(texts: tuple[str, ...]):
    """BERT's kind of tokenizer, trained on the texts."""
    from tokenizers import BertWordPieceTokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    bare = BertWordPieceTokenizer()
    bare.train_from_iterator(texts, vocab_size=30000, show_progress=False)
    ids = [(piece, bare.token_to_id(piece)) for piece in ("[CLS]", "[SEP]")]
    bare._tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    names = {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "CLS", "SEP", "UNK", "MASK")}
    return PreTrainedTokenizerFast(tokenizer_object=bare._tokenizer, **names)


def is_saved(folder: Path) -> bool:
    return (folder / "config.json").exists()


@contextlib.contextmanager
def saving(folder: Path) -> Iterator[Path]:
    """A folder that gets its name when all of it is written, so that a part that is killed leaves no half model."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent))
    yield unfinished
    try:
        unfinished.rename(folder)
    except OSError:  # another process was first
        shutil.rmtree(unfinished)
