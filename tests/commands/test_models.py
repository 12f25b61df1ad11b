"""Pretrained models that are not what they should be, as the commands meet them (cases model_*), and cut texts."""

import re
import shutil

import pytest

from foldblend.commands import blend, guard, predict, train
from foldblend.ledger.records import read_record

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture
def model(tiny_bert, tmp_path):
    return shutil.copytree(tiny_bert, tmp_path / "model")


def arguments(*more):
    return ["--competition", "toy", "--run", "tiny", *map(str, more)]


def refused(capsys, *more):
    assert guard(lambda: train.main(arguments("--name", "x", "--fold", "0", *more))) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("name", ["/kaggle/input/roberta-base", "./models/roberta", "~/models/roberta"])
def test_a_model_path_to_nothing(paths, toy_competition, capsys, name):
    said = refused(capsys, "--model.name", name)
    assert f"model.name '{name}': no such folder" in said and "Repo id" not in said and "Traceback" not in said


def test_a_model_folder_without_its_tokenizer(paths, toy_competition, model, capsys):
    for path in model.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    assert "No tokenizer in" in refused(capsys, "--model.name", model)
    assert not list(paths.oof("toy").rglob("*.npz"))


def test_a_model_folder_of_pickled_weights(paths, toy_competition, model, capsys):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    said = refused(capsys, "--model.name", model)
    assert "pytorch_model.bin" in said and "save_pretrained" in said and "Traceback" not in said


def test_a_model_folder_that_moved(paths, toy_competition, model, tmp_path, capsys):
    """README: an encoder's fold holds the whole model."""
    train.main(arguments("--name", "tg", "--model.name", model, "--training.epochs", 1))
    blend.main(["--competition", "toy", "--runs", "tg"])
    question = ["--competition", "toy", "--input", str(paths.data("toy") / "test.csv"), "--output"]
    predict.main([*question, str(tmp_path / "before.csv")])
    model.rename(tmp_path / "moved")
    predict.main([*question, str(tmp_path / "after.csv")])
    assert (tmp_path / "before.csv").read_bytes() == (tmp_path / "after.csv").read_bytes()


def test_files_that_are_shared_hold_no_absolute_folder(paths, toy_competition, model, tmp_path, monkeypatch):
    """Records name the model's folder from the project's, and are read so wherever a command starts."""
    train.main(arguments("--name", "tg", "--model.name", model, "--training.epochs", 1, "--fold", 0))
    record = read_record(paths.oof("toy") / "tg" / "fold0.json")
    assert (paths.root / record["settings"]["model"]["name"]).resolve() == model
    monkeypatch.chdir("/")
    train.main(["--competition", "toy", "--run", "tg", "--fold", "1"])  # goes by the record
    for path in (*paths.oof("toy").rglob("*"), *paths.checkpoints("toy", "tg").rglob("*")):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes(), path


def test_cut_texts_are_said_before_training_in_a_plan_and_in_the_record(paths, toy_competition, capsys):
    short = ("--model.max_length_tokens", 6, "--fold", 0, "--name", "short")
    train.main(arguments("--plan", *short))  # ten steps per epoch: a plan of a small set takes several epochs
    line = (
        r"(\d+) % of the texts are longer than model.max_length_tokens 6; \d+ % of all tokens are cut off and not read"
    )
    shown = capsys.readouterr().out
    assert int(re.search(line, shown)[1]) > 80 and "--model.max_length_tokens 32 reads" in shown and "memory" in shown
    train.main(arguments(*short, "--training.epochs", 1))
    assert re.search(line, capsys.readouterr().out)
    cut = read_record(paths.oof("toy") / "short" / "fold0.json")["truncation"]
    assert cut["max_length_tokens"] == 6 and cut["texts_cut"] > 0.8 and 0 < cut["tokens_cut"] < 1
