"""Folders that are no whole model, and names of none: each is refused before a step, with what to do."""

import json
import os
import re
import shlex
import shutil

import pytest
import torch
from tiny_encoders import byte_merges, save_encoder
from transformers import AutoModel, T5Config

from foldblend.errors import UserError
from foldblend.learners.nets.folders import (
    NOTE,
    OWN_MODEL,
    check_weights,
    find_described,
    keep_own_model,
    note_model,
    read_model_type,
)
from foldblend.learners.nets.pretrained import find_weights, load_pretrained, load_tokenizer


@pytest.fixture
def model(tiny_encoder, tmp_path):
    """A copy of a tiny BERT that a test may harm."""
    return shutil.copytree(tiny_encoder("bert"), tmp_path / "tiny-bert")


def test_a_whole_folder_is_loaded(model):
    assert len(load_tokenizer(model)) > 50 and read_model_type(model) == "bert"
    check_weights(model)


def remove_tokenizer(folder):
    for path in folder.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()


def only_merges_missing(folder):
    remove_tokenizer(folder)
    byte_merges(folder)
    (folder / "merges.txt").unlink()


def of_another_model(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 30522}))


def too_many_words(folder):
    with (folder / "vocab.txt").open("a") as file:
        file.write("\n" + "\n".join(f"word{i}" for i in range(9)))


@pytest.mark.parametrize(
    "harm, message",
    [
        (
            remove_tokenizer,
            r"No tokenizer in .*tiny-bert: expected tokenizer.json, vocab.txt.*save_pretrained\(FOLDER\)",
        ),
        (only_merges_missing, r"No tokenizer in .*It has vocab.json, but no merges.txt"),
        (of_another_model, r"is not this model's: it has \d+ tokens, config.json says vocab_size 30522"),
        (too_many_words, r"is not this model's: it has \d+ tokens, config.json says vocab_size \d+"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), r"tokenizer in .* cannot be read"),
    ],
)
def test_a_tokenizer_that_is_none_or_another_models_is_refused(model, harm, message):
    """Case model_folder_without_tokenizer: transformers makes one of five special tokens, and training goes on."""
    harm(model)
    with pytest.raises(UserError, match=message):
        load_tokenizer(model)


def test_tokens_added_on_top_are_no_other_vocabulary(model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["<URL>"])
    tokenizer.save_pretrained(model)
    assert len(load_tokenizer(model)) == len(tokenizer)


def pickled(folder):
    weights = AutoModel.from_pretrained(folder).state_dict()
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def cut_off(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pointer(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def one_shard_missing(folder):
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def another_width(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))


def of_keras(folder):
    (folder / "model.safetensors").rename(folder / "tf_model.h5")


@pytest.mark.parametrize(
    "harm, message",
    [
        (pickled, r"No safetensors weights in .*pytorch_model.bin, which is Python's pickle.*python -c "),
        (cut_off, "model.safetensors is cut off or damaged"),
        (pointer, "was not downloaded: it is a pointer of git-lfs. Run `git lfs pull`"),
        (one_shard_missing, r"Weights are missing in .*: 1 of 2 files, first model-00002-of-00002"),
        (another_width, "The weights in .* do not fit its config.json"),
        (of_keras, "tf_model.h5 is TensorFlow's format"),
        (lambda folder: (folder / "model.safetensors").unlink(), "No safetensors weights in .*copy model.safetensors"),
    ],
)
def test_weights_that_are_not_whole_safetensors_are_refused(model, harm, message):
    harm(model)
    with pytest.raises(UserError, match=message):
        load_pretrained(model, AutoModel)


def test_the_printed_command_converts_pickled_weights(model, monkeypatch, tmp_path):
    """Case model_folder_bin_only."""
    pickled(model)
    with pytest.raises(UserError) as refused:
        check_weights(model)
    monkeypatch.chdir(tmp_path)
    exec(shlex.split(re.search(r"python -c .*$", str(refused.value))[0])[2], {})
    loaded, _ = load_pretrained(tmp_path / "tiny-bert-safetensors", AutoModel)
    assert loaded.config.model_type == "bert" and len(load_tokenizer(tmp_path / "tiny-bert-safetensors")) > 50


def test_an_encoder_decoder_is_refused_by_name(tmp_path):
    T5Config(architectures=["T5ForConditionalGeneration"]).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"encoder-decoder model \(T5ForConditionalGeneration\), which no learner"):
        read_model_type(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit", "architectures": ["ViTModel"]}')
    with pytest.raises(UserError, match=r"is not a model of texts \(ViTModel\)"):
        read_model_type(tmp_path)


def test_a_folder_without_config_says_what_is_there_instead(model, tmp_path):
    with pytest.raises(UserError, match=rf"No config.json in {tmp_path}; one is in {model}. Set --model.name"):
        read_model_type(tmp_path)
    (model / "config.json").rename(model / "adapter_config.json")
    with pytest.raises(UserError, match="it holds an adapter .*merge_and_unload"):
        read_model_type(model)
    (model / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json is not readable JSON"):
        read_model_type(model)


@pytest.mark.parametrize(
    "name", ["{here}/tiny-bret", "./tiny-bret", "~/tiny-bret", "../{up}/tiny-bret/", "{here}/tiny-bret/v1"]
)
def test_a_path_to_nothing_names_the_nearest_model(model, monkeypatch, tmp_path, name):
    """Case model_path_missing: absolute, relative and home paths; never "Repo id must be"."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    name = name.format(here=tmp_path, up=tmp_path.name)
    with pytest.raises(UserError, match=rf"model.name '{re.escape(name)}': no such folder.*mean '{model}'"):
        find_weights(name, "main")


def test_a_home_folder_is_expanded(model, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_weights("~/tiny-bert", "main")[0] == model


@pytest.mark.parametrize(
    "name, message",
    [
        ("", "model.name is empty"),
        ("https://huggingface.co/FacebookAI/roberta-base/tree/main", "Set --model.name FacebookAI/roberta-base"),
        ("roberta base", "no name that the hub can have. Did you mean 'roberta-base'"),
        ("/nowhere/at/all/x", "no such folder"),
        ("bert;rm", "no name that the hub can have"),
    ],
)
def test_a_name_that_is_no_name(name, message):
    with pytest.raises(UserError, match=message):
        find_weights(name, "main")


def test_a_file_is_not_a_folder(model):
    with pytest.raises(UserError, match=rf"is a file. Set the folder that holds it: --model.name '{model}'"):
        find_weights(str(model / "model.safetensors"), "main")


def test_a_fold_keeps_what_its_weights_need(model, tmp_path):
    fold = tmp_path / "fold0"
    fold.mkdir()
    keep_own_model(model, fold)
    names = {path.name for path in (fold / OWN_MODEL).iterdir()}
    assert {"config.json", "vocab.txt"} <= names and not any(name.endswith(".safetensors") for name in names)
    assert os.listdir(fold) == [OWN_MODEL]
    keep_own_model(model, fold)  # resumed
    assert load_tokenizer(fold / OWN_MODEL)("happy")["input_ids"] == load_tokenizer(model)("happy")["input_ids"]


def test_a_base_that_moved_is_found_by_its_files(model, tmp_path):
    save_encoder("roberta", (tmp_path / "other" / "roberta").mkdir(parents=True) or tmp_path / "other" / "roberta")
    note_model(model, str(model), tmp_path)
    proof = json.loads((tmp_path / NOTE).read_text())["proof"]
    moved = model.rename(tmp_path / "other" / "elsewhere")
    assert find_described(proof, str(tmp_path / "other")) == (moved, 2)
    assert find_described(proof, "") == (None, 0)
