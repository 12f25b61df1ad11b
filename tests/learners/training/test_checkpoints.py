import json
import os

import pytest
import torch
from safetensors import safe_open

from foldblend.learners.training import checkpoints
from foldblend.learners.training.checkpoints import (
    TrainState,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from foldblend.settings.records import settings_of
from foldblend.settings.run import RunSettings

IDENTITY = {"optimizer": {"lr": 1e-5}, "grams": (1, 2), "data_sha256": "ab"}


@pytest.fixture
def saved(tmp_path):
    tensors = {"model.w": torch.arange(6.0).reshape(2, 3), "optimizer.0.step": torch.tensor(3.0)}
    state = TrainState(1, 7, 0.25, 12.5, [{"macro_f1": 0.5}], {})
    save_checkpoint(tmp_path / "fold0" / "c.safetensors", tensors, state, IDENTITY)
    return tmp_path / "fold0" / "c.safetensors", tensors, state


def test_what_is_saved_comes_back(saved):
    path, tensors, state = saved
    loaded, loaded_state = load_checkpoint(path, IDENTITY)
    assert loaded_state == state
    assert loaded.keys() == tensors.keys() and all(torch.equal(loaded[k], tensors[k]) for k in tensors)
    assert os.listdir(path.parent) == [path.name]


def test_the_metadata_of_earlier_releases_stays(saved):
    """A fold that an earlier release began goes on: these names are in its file."""
    with safe_open(saved[0], framework="pt") as file:
        metadata = file.metadata()
    assert metadata.keys() == {"place", "identity", "crc32"}
    assert json.loads(metadata["place"]).keys() == {"epoch", "step", "mean_loss", "seconds", "history", "scaler"}


def test_frozen_names_are_collected_once_however_many_are_missing(monkeypatch):
    calls, frozen = [], checkpoints._frozen
    monkeypatch.setattr(checkpoints, "_frozen", lambda model: calls.append(1) or frozen(model))
    model = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(30))).requires_grad_(False)
    model[0].requires_grad_(True)
    tensors = {name: value.detach() + 1 for name, value in checkpoints.model_tensors(model).items()}
    calls.clear()
    checkpoints.restore_model(model, tensors)
    assert len(calls) == 1 and torch.equal(model[0].weight, tensors["model.0.weight"])


def test_no_file_is_no_checkpoint(tmp_path):
    assert load_checkpoint(tmp_path / "none.safetensors", IDENTITY) is None


def test_other_settings_are_refused_by_name(saved):
    with pytest.raises(ValueError, match=r"optimizer.lr was 1e-05, is now 3e-05.*--overwrite.*--name"):
        load_checkpoint(saved[0], {**IDENTITY, "optimizer": {"lr": 3e-5}})


def test_a_training_of_an_older_release_goes_on(tmp_path):
    """What has become a setting since had its default then; anything else is another training."""
    identity = {**settings_of(RunSettings("encoder")), "data_sha256": "ab"}
    older = {**identity, "optimizer": {k: v for k, v in identity["optimizer"].items() if k != "state_precision"}}
    save_checkpoint(tmp_path / "c.safetensors", {"model.w": torch.ones(2)}, TrainState(1), older)
    assert load_checkpoint(tmp_path / "c.safetensors", identity)[1].epoch == 1
    with pytest.raises(ValueError, match=r"optimizer.state_precision was float32, is now 8bit"):
        now = {**identity, "optimizer": {**identity["optimizer"], "state_precision": "8bit"}}
        load_checkpoint(tmp_path / "c.safetensors", now)


@pytest.mark.parametrize("position", [0, 20, 200, -1, -10])
def test_one_flipped_bit_is_found(saved, position):
    data = bytearray(saved[0].read_bytes())
    data[position] ^= 4
    saved[0].write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged|another training"):
        load_checkpoint(saved[0], IDENTITY)


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_a_cut_file_is_found(saved, size):
    saved[0].write_bytes(saved[0].read_bytes()[:size])
    with pytest.raises(ValueError, match=r"is damaged .*rm "):
        load_checkpoint(saved[0], IDENTITY)


def test_a_foreign_safetensors_file_is_refused(saved):
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(2)}, saved[0])
    with pytest.raises(ValueError, match="is damaged"):
        load_checkpoint(saved[0], IDENTITY)


def test_a_failed_save_leaves_the_earlier_file(saved, monkeypatch):
    path, tensors, _ = saved
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("foldblend.files.os.replace", fail)
    with pytest.raises(OSError, match="not written: no space is left there. Free some"):
        save_checkpoint(path, {"model.w": torch.zeros(9)}, TrainState(), IDENTITY)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_adamw_goes_on_as_if_never_saved():
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(3))]
    gradients = [[torch.randn_like(w) for w in weights] for _ in range(4)]

    def step(parameters, optimizer, gradient):
        for parameter, value in zip(parameters, gradient, strict=True):
            parameter.grad = value.clone()
        optimizer.step()

    optimizer = torch.optim.AdamW(weights, lr=0.1, fused=True)
    for gradient in gradients[:2]:
        step(weights, optimizer, gradient)
    copies = [torch.nn.Parameter(w.detach().clone()) for w in weights]
    other = torch.optim.AdamW(copies, lr=0.1, fused=True)
    restore_optimizer(other, {k: v.clone() for k, v in optimizer_tensors(optimizer).items()})
    for gradient in gradients[2:]:
        step(weights, optimizer, gradient)
        step(copies, other, gradient)
    assert all(torch.equal(a, b) for a, b in zip(weights, copies, strict=True))
