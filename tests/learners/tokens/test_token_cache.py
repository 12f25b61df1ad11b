from dataclasses import fields
from multiprocessing import get_context

import numpy as np
import pytest
from tiny_tokenizers import bert

from foldblend.learners.tokens.tokens import Tokens, hash_inputs, load_or_make, tokenize

TEXTS = ("happy day", "", "sad " * 40, "Ärger \ud800 x")
SETTINGS = {"max_length_tokens": 12, "tail_fraction": 0.0, "placeholders": []}


def never():
    raise AssertionError("made again")


def make():
    return Tokens(np.arange(9, dtype=np.int32), np.array([0, 4, 9]), 7, (1, 1), 10, 3)


def assert_same(one, other):
    for field in fields(Tokens):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert np.array_equal(a, b) and getattr(a, "dtype", None) == getattr(b, "dtype", None), field.name


def test_made_once_and_mapped_afterwards(tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    tokenizer = bert(weights)
    texts = TEXTS[:3]
    fresh = tokenize(tokenizer, texts, 12)
    first = load_or_make(tmp_path / "cache", weights, texts, SETTINGS, lambda: tokenize(tokenizer, texts, 12))
    again = load_or_make(tmp_path / "cache", weights, texts, SETTINGS, never)
    assert_same(first, fresh)
    assert_same(again, fresh)
    assert isinstance(again.ids, np.memmap) and not again.ids.flags.writeable
    rows = np.array([2, 0, 1])
    for name, tensor in again.batch(rows).items():
        assert tensor.equal(fresh.batch(rows)[name])
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".json", ".npy", ".npy", ".npy"]


def test_no_cache_makes_every_time(tmp_path):
    assert_same(load_or_make(None, tmp_path, TEXTS, SETTINGS, make), make())
    with pytest.raises(AssertionError, match="made again"):
        load_or_make(None, tmp_path, TEXTS, SETTINGS, never)


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
        lambda path: path.write_bytes(path.read_bytes()[::-1]),
    ],
    ids=["gone", "empty", "cut", "flipped", "turned"],
)
@pytest.mark.parametrize("pattern", ["*.ids.npy", "*.starts.npy", "*.json"])
def test_damage_is_made_good(tmp_path, harm, pattern):
    load_or_make(tmp_path, tmp_path, TEXTS, SETTINGS, make)
    (path,) = tmp_path.glob(pattern)
    harm(path)
    assert_same(load_or_make(tmp_path, tmp_path, TEXTS, SETTINGS, make), make())
    assert_same(load_or_make(tmp_path, tmp_path, TEXTS, SETTINGS, never), make())


def test_the_name_follows_texts_settings_and_tokenizer(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_text("weights")
    first = hash_inputs(tmp_path, TEXTS, SETTINGS)
    assert hash_inputs(tmp_path, TEXTS, dict(reversed(SETTINGS.items()))) == first
    assert hash_inputs(tmp_path, ("happy", " day", *TEXTS[1:]), SETTINGS) != first
    assert hash_inputs(tmp_path, TEXTS[::-1], SETTINGS) != first
    assert hash_inputs(tmp_path, TEXTS, {**SETTINGS, "tail_fraction": 0.5}) != first
    (tmp_path / "model.safetensors").write_text("other weights")
    assert hash_inputs(tmp_path, TEXTS, SETTINGS) == first
    (tmp_path / "tokenizer.json").write_text("{ }")
    assert hash_inputs(tmp_path, TEXTS, SETTINGS) != first


@pytest.mark.parametrize("name", ["chat_template.jinja", "additional_chat_templates/rag.jinja"])
def test_the_name_follows_chat_templates(tmp_path, name):
    first = hash_inputs(tmp_path, TEXTS, SETTINGS)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{{ messages }}")
    written = hash_inputs(tmp_path, TEXTS, SETTINGS)
    (tmp_path / name).write_text("{{ messages[0] }}")
    assert len({first, written, hash_inputs(tmp_path, TEXTS, SETTINGS)}) == 3


def _make_in_process(folder):
    return load_or_make(folder, folder, TEXTS, SETTINGS, make).ids.sum()


def test_processes_that_make_at_once_agree(tmp_path):
    with get_context("fork").Pool(4) as pool:
        assert pool.map(_make_in_process, [tmp_path] * 16) == [36] * 16
    assert len(list(tmp_path.iterdir())) == 3
