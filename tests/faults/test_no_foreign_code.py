"""Weights are read as safetensors, and code that comes with a model is never run."""

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch

SRC = Path(__file__).resolve().parents[2] / "src"
UNSAFE = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}


def calls():
    """(file, call) of every call in src/."""
    for path in sorted(SRC.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield path.relative_to(SRC), node


def name_of(call):
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def test_every_load_of_a_pretrained_thing_refuses_its_code_and_the_network():
    loads = [(path, call) for path, call in calls() if name_of(call) == "from_pretrained"]
    assert len(loads) >= 4
    for path, call in loads:
        given = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
        assert given.get("trust_remote_code") is False and given.get("local_files_only") is True, (path, call.lineno)
        if "Model" in ast.unparse(call.func) or "model" in ast.unparse(call.func):
            assert given.get("use_safetensors") is True, (path, call.lineno)
    assert not [path for path, call in calls() for word in call.keywords if word.arg == "trust_remote_code"
                and getattr(word.value, "value", None) is not False]  # fmt: skip


def test_nothing_is_unpickled_or_evaluated():
    for path, call in calls():
        said = ast.unparse(call.func)
        assert said not in ("eval", "exec", "torch.load", "yaml.unsafe_load", "os.system"), (path, call.lineno)
        if said in ("np.load", "numpy.load"):
            assert "allow_pickle=False" in ast.unparse(call), (path, call.lineno)
        assert not any(word.arg == "shell" for word in call.keywords), (path, call.lineno)
    for path in SRC.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & UNSAFE, path


@pytest.fixture
def model_folder(tiny_bert, tmp_path):
    return Path(shutil.copytree(tiny_bert, tmp_path / "model"))


@pytest.mark.usefixtures("fresh_accelerate")
@pytest.mark.parametrize("model_type", ["bert", "of_its_own"])
def test_code_in_a_models_folder_is_not_run(paths, toy_competition, run_command, model_folder, model_type):
    """With a known architecture the library's own code is used; with another one there is nothing to use."""
    mark = model_folder.parent / "hacked"
    (model_folder / "mine.py").write_text(f"open({str(mark)!r}, 'w')\nclass Mine: pass\n")
    config = json.loads((model_folder / "config.json").read_text())
    config |= {"model_type": model_type, "auto_map": {"AutoConfig": "mine.Mine", "AutoModel": "mine.Mine"}}
    (model_folder / "config.json").write_text(json.dumps(config))
    tokenizer = model_folder / "tokenizer_config.json"
    said = json.loads(tokenizer.read_text()) | {"auto_map": {"AutoTokenizer": ["mine.Mine", None]}}
    tokenizer.write_text(json.dumps(said))
    flags = ["--run", "tiny", "--fold", "0", "--training.epochs", "1", "--model.name", str(model_folder)]
    status, _, error = run_command("train", *flags)
    assert not mark.exists() and status == (0 if model_type == "bert" else 2)
    assert model_type == "bert" or "error: " in error


@pytest.mark.usefixtures("fresh_accelerate")
def test_pickled_weights_are_refused(paths, toy_competition, run_command, model_folder):
    from safetensors.torch import load_file

    weights = model_folder / "model.safetensors"
    torch.save(load_file(weights), model_folder / "pytorch_model.bin")
    weights.unlink()
    flags = ["--run", "tiny", "--fold", "0", "--model.name", str(model_folder)]
    status, _, error = run_command("train", *flags)
    assert status == 2 and "safetensors" in error
