"""A folder that should hold a pretrained model: what it holds, what it lacks, and where the right one may be."""

import difflib
import hashlib
import json
import os
import re
import shlex
from pathlib import Path

from safetensors import SafetensorError, safe_open

from foldblend.errors import UserError
from foldblend.files import write_atomically
from foldblend.settings.records import relative_folder

# 1. The parts of a model: config, weights, tokenizer

INDEX = "model.safetensors.index.json"
"""There if the weights are split over several files."""
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
OTHER_FORMATS = {"*.h5": "TensorFlow's", "*.msgpack": "Flax's", "*.gguf": "llama.cpp's", "*.onnx": "ONNX's"}
VOCABULARIES = ("tokenizer.json", "vocab.txt", "*.model", "*.tiktoken", "tekken.json")
"""Any of these is a whole vocabulary; `vocab.json` needs `merges.txt` beside it."""
WITHOUT_VOCABULARY = ("CanineTokenizer", "ByT5Tokenizer", "PerceiverTokenizer")
"""Tokenizers of letters or bytes, which need no file."""
POINTER = b"version https://git-lfs"
"""How a file begins that git has not fetched: `git clone` without git-lfs leaves it in place of a large file."""

ENCODER_DECODERS = {
    "t5",
    "mt5",
    "umt5",
    "longt5",
    "switch_transformers",
    "bart",
    "mbart",
    "pegasus",
    "pegasus_x",
    "led",
}
ENCODER_DECODERS |= {"marian", "m2m_100", "blenderbot", "blenderbot-small", "prophetnet", "bigbird_pegasus", "t5gemma"}
NOT_OF_TEXT = {"vit", "clip", "siglip", "beit", "deit", "swin", "convnext", "resnet", "dinov2", "whisper", "wav2vec2"}
NOT_OF_TEXT |= {"hubert", "wavlm"}


def missing_parts(folder: Path, weights: bool = True) -> list[str]:
    """What a folder lacks of a model, as names; empty if it is whole. Args: weights: whether they must be there."""
    names = ["config.json", *(weight_files(folder) if weights else [])]
    missing = [name for name in names if not (folder / name).exists()]
    return missing + ([] if has_tokenizer(folder) else ["a tokenizer (tokenizer.json, or vocab.txt or the like)"])


def weight_files(folder: Path) -> list[str]:
    """Names of the files that the weights should be in. Raises UserError: the list of a split model is damaged."""
    if not (folder / INDEX).exists():
        return ["model.safetensors"]
    index = _read_json(folder / INDEX)
    return sorted(set(index.get("weight_map", {}).values()))


def has_tokenizer(folder: Path) -> bool:
    """Whether the vocabulary of a tokenizer is there, or it is of a kind that needs none."""
    if any(next(folder.glob(pattern), None) for pattern in VOCABULARIES):
        return True
    if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        return True
    settings = folder / "tokenizer_config.json"
    named = _read_json(settings).get("tokenizer_class") if settings.exists() else None
    return named in WITHOUT_VOCABULARY


def read_model_type(folder: Path) -> str:
    """Read the architecture that config.json names, such as `deberta-v2`.

    Raises: UserError: there is no config, it names no architecture, or one that no learner can train.
    """
    path = folder / "config.json"
    if not path.exists():
        raise UserError(f"No config.json in {folder}{_instead_of_config(folder)}")
    config = _read_json(path)
    model_type = config.get("model_type")
    if model_type is None:
        raise UserError(f"{path} names no model_type; save the model with transformers' save_pretrained")
    named = ", ".join(config.get("architectures") or []) or model_type
    if config.get("is_encoder_decoder") or model_type in ENCODER_DECODERS:
        raise UserError(
            f"{folder} is an encoder-decoder model ({named}), which no learner trains. Set model.name to an encoder "
            "such as microsoft/deberta-v3-base, or to a decoder such as Qwen/Qwen3-0.6B with learner decoder or "
            "generator"
        )
    if model_type in NOT_OF_TEXT:
        raise UserError(f"{folder} is not a model of texts ({named}). Set model.name to one that reads text")
    return model_type


def _instead_of_config(folder: Path) -> str:
    """What to do about a folder without config.json, by what is there instead."""
    if (folder / "adapter_config.json").exists():
        return (
            ": it holds an adapter (adapter_config.json), not a model. Merge it into its base with peft's "
            "merge_and_unload and save_pretrained, and set model.name to that folder"
        )
    inside = [path.parent for path in _configs_below(folder)]
    if inside:
        return f"; one is in {inside[0]}. Set --model.name '{inside[0]}'"
    return "; set model.name to a hub name, or to a folder that save_pretrained wrote"


def check_weights(folder: Path) -> None:
    """Raise UserError if weights are missing, in a format that is not loaded, not fetched or cut off."""
    names = weight_files(folder)
    missing = [name for name in names if not (folder / name).exists()]
    if missing and len(missing) < len(names):
        raise UserError(
            f"Weights are missing in {folder}: {len(missing)} of {len(names)} files, first {missing[0]}. Copy or "
            "download the whole folder again"
        )
    if missing:
        raise UserError(f"No safetensors weights in {folder}{_instead_of_weights(folder)}")
    for name in names:
        _check_tensors(folder / name)


def _instead_of_weights(folder: Path) -> str:
    pickled = sorted(
        path.name for pattern in PICKLED for path in folder.glob(pattern) if path.name != "training_args.bin"
    )
    if pickled:
        new = f"{folder.resolve().name}-safetensors"
        code = (
            "from transformers import AutoModel, AutoTokenizer; "
            f"old, new = {json.dumps(str(folder))}, {json.dumps(new)}; "
            "AutoModel.from_pretrained(old).save_pretrained(new); "
            "AutoTokenizer.from_pretrained(old).save_pretrained(new)"
        )
        command = f"python -c {shlex.quote(code)}"
        return (
            f": they are in {pickled[0]}, which is Python's pickle and can run code when it is loaded, so it is not. "
            f"If you trust it, convert it once and set --model.name {new}: {command}"
        )
    for pattern, owner in OTHER_FORMATS.items():
        if found := sorted(path.name for path in folder.glob(pattern)):
            return f": {found[0]} is {owner} format. Save the model with transformers' save_pretrained"
    return "; copy model.safetensors there, or save the model again with transformers' save_pretrained"


def _check_tensors(path: Path) -> None:
    """Only the header is read, which says how long the file should be."""
    _refuse_pointer(path)
    try:
        with safe_open(path, framework="np") as file:
            file.keys()
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{path} is cut off or damaged ({error}). Copy or download it again") from error


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise UserError(
                f"{path} was not downloaded: it is a pointer of git-lfs. Run `git lfs pull` in its repository, or "
                "download the file itself"
            )


def _read_json(path: Path) -> dict:
    _refuse_pointer(path)
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is not readable JSON ({error}). Copy or download it again") from error


# 2. What a trained fold keeps of its model, so that it predicts after the folder has moved

NEEDED = (
    *("config.json", "generation_config.json", "*.safetensors.index.json"),
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "*vocab*.json", "*vocab*.txt", "merges.txt"),
    *("dict.txt", "bpe.codes", "*.model", "*.spm", "*.tiktoken", "*.jinja", "additional_chat_templates/*.jinja"),
    *("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "chat_template.json"),
)
"""Files that say how a model is built and reads texts. What else is in its folder, such as notes or credentials, is
not the model's and does not travel."""
MODEL_WEIGHTS = "model*.safetensors"
"""Its weights, in one file or several."""
OWN_MODEL = "model"
"""In the folder of a trained encoder's fold: the config and the tokenizer that it was trained with."""
NOTE = "pretrained.json"
"""In the folder of any other fold: the name of the pretrained model that it needs, and what tells it from others."""


def describe_model(folder: Path, with_weights: bool) -> dict[str, str | int]:
    """What tells a copy of a model's folder from another model: its config's sha256, the size of each weights file."""
    proof = {"config_sha256": hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()}
    weights = sorted(folder.glob("*.safetensors")) if with_weights else []
    return {**proof, **{path.name: path.stat().st_size for path in weights}}


def keep_own_model(folder: Path, checkpoint_dir: Path) -> None:
    """Copy what a whole model needs beside its weights into a fold's folder; config.json last, as a sign of the rest.

    Raises: FileError: the disk refused.
    """
    target = checkpoint_dir / OWN_MODEL
    if (target / "config.json").exists():
        return
    names = {path for pattern in NEEDED for path in folder.glob(pattern) if not path.name.endswith(INDEX)}
    for path in sorted(names, key=lambda path: (path.name == "config.json", path)):
        write_atomically(target / path.relative_to(folder), path.read_bytes())


def note_model(folder: Path, name: str, checkpoint_dir: Path) -> None:
    """Write into a fold's folder which pretrained model it needs."""
    note = {"name": relative_folder(name), "proof": describe_model(folder, True)}
    write_atomically(checkpoint_dir / NOTE, (json.dumps(note, indent=1) + "\n").encode())


def find_described(proof: dict, searched: str) -> tuple[Path | None, int]:
    """A folder at or below `searched` that is the described model, if there is one; how many models were looked at."""
    configs = sorted(Path(searched).expanduser().rglob("config.json")) if searched else []
    found = next((path.parent for path in configs if describe_model(path.parent, True) == proof), None)
    return found, len(configs)


# 3. Names of models: folders and hub names that do not exist, with the nearest that does

COMMON = (
    *("FacebookAI/roberta-base", "FacebookAI/roberta-large", "FacebookAI/xlm-roberta-base", "roberta-base"),
    *("FacebookAI/xlm-roberta-large", "xlm-roberta-base", "google-bert/bert-base-uncased", "bert-base-uncased"),
    *("google-bert/bert-base-cased", "google-bert/bert-base-multilingual-cased", "bert-base-multilingual-cased"),
    *("microsoft/deberta-v3-small", "microsoft/deberta-v3-base", "microsoft/deberta-v3-large"),
    *("microsoft/mdeberta-v3-base", "distilbert/distilbert-base-uncased", "distilbert-base-uncased"),
    *("answerdotai/ModernBERT-base", "answerdotai/ModernBERT-large", "google/electra-base-discriminator"),
    *("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-mpnet-base-v2", "vinai/bertweet-base"),
    *("Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B", "Qwen/Qwen3-8B", "google/gemma-3-1b-it", "meta-llama/Llama-3.2-1B"),
)
"""Models that are often named: a misspelt name is compared with them."""
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
MOST_CONFIGS = 200
"""Folders looked at below another one."""


def is_path(name: str) -> bool:
    """Whether a model's name can only be a folder: hub names have one slash at most, and begin with a letter."""
    return name.startswith(("/", ".", "~")) or "\\" in name or name.count("/") > 1 or name.endswith("/")


def check_folder_name(name: str) -> None:
    """Raise UserError for a name that is a path to nothing, an address or no hub name, with the nearest right one."""
    if not name.strip():
        raise UserError("model.name is empty; set a hub name such as roberta-base, or a folder")
    if "://" in name:
        repository = "/".join(name.split("://", 1)[1].split("/")[1:3]).split("?")[0]
        raise UserError(f"model.name {name!r} is an address. Set --model.name {repository or 'OWNER/NAME'}")
    path = Path(name).expanduser()
    if path.is_file():
        raise UserError(f"model.name {name!r} is a file. Set the folder that holds it: --model.name '{path.parent}'")
    if is_path(name):
        raise UserError(f"model.name {name!r}: no such folder{_read_as(name, path)}. {nearest_folder(path)}")
    if not HUB_NAME.fullmatch(name) or "--" in name or ".." in name:
        hint = difflib.get_close_matches(name.strip(), known_models(), 1)
        meant = f"Did you mean {hint[0]!r}?" if hint else "A hub name is OWNER/NAME, of letters, digits, - _ and ."
        raise UserError(f"model.name {name!r}: no such folder, and no name that the hub can have. {meant}")


def _read_as(name: str, path: Path) -> str:
    """The whole path of a name that does not show it."""
    if os.path.isabs(name):
        return ""
    return f" (read as {path if path.is_absolute() else Path.cwd() / path})"


def nearest_folder(path: Path) -> str:
    """A sentence that names the existing folder of a model that a missing path probably means."""
    here = Path(os.path.abspath(path))
    parent = next(each for each in here.parents if each.is_dir())
    wanted = here.relative_to(parent).parts[0]
    whole_disk = parent == Path(parent.anchor)
    models = [] if whole_disk else list(dict.fromkeys(config.parent for config in _configs_below(parent)))
    by_name = {str(each.relative_to(parent)): each for each in models}
    firsts = {name.split(os.sep)[0]: name for name in reversed(by_name)}
    close = difflib.get_close_matches(wanted, firsts, 1, 0.5) or difflib.get_close_matches(here.name, firsts, 1, 0.5)
    if close:
        return f"Did you mean '{by_name[firsts[close[0]]]}'?"
    if by_name:
        return f"{parent} has models in {', '.join(sorted(by_name)[:5])}"
    return f"Nothing below {parent} is a model (a folder with config.json): copy it there, or set a hub name"


def nearest_model(name: str) -> str:
    """` Did you mean 'microsoft/deberta-v3-base'?` for a hub name that is near a known one; otherwise empty."""
    by_lower = {known.lower(): known for known in reversed(known_models())}
    close = difflib.get_close_matches(name.lower(), by_lower, 1, 0.75)
    return f" Did you mean {by_lower[close[0]]!r}?" if close and by_lower[close[0]] != name else ""


def known_models() -> list[str]:
    """Names of models in the hub's cache, and the common ones."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cached = (path.name.removeprefix("models--") for path in Path(HF_HUB_CACHE).glob("models--*"))
    return [*(name.replace("--", "/") for name in cached), *COMMON]


def _configs_below(folder: Path) -> list[Path]:
    """config.json files up to five folders below, the nearest first; a few hundred folders are looked at."""
    found, level = [], [folder]
    for _ in range(5):
        below = []
        for each in level[:MOST_CONFIGS]:
            try:
                below += sorted(path for path in each.iterdir() if path.is_dir() and not path.name.startswith("."))
            except OSError:
                continue  # a folder that may not be read
        level = below
        found += [path / "config.json" for path in below if (path / "config.json").is_file()]
    return found
