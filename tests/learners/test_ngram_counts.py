"""N-gram counts are shared by folds, runs and processes through the cache, and are the same bits."""

from multiprocessing import get_context

import numpy as np
import pytest
from toy_corpus import make_corpus

from foldblend.learners import tfidf as module
from foldblend.learners.tfidf import Ngrams
from foldblend.settings.run import TfidfSettings

TEXTS = (*make_corpus(60).texts, "Ünseen 日本 😀", "half \ud800 pair")


@pytest.fixture(autouse=True)
def any_size(monkeypatch):
    monkeypatch.setattr(module, "WORTHWHILE_CHARACTERS", 0)


def same(one, other):
    return all(
        names.tolist() == others.tolist()
        and part.shape == there.shape
        and all(np.array_equal(getattr(part, a), getattr(there, a)) for a in ("data", "indices", "indptr"))
        for (names, part), (others, there) in zip(one, other, strict=True)
    )


def test_counted_once(tmp_path, monkeypatch):
    fresh = Ngrams(TEXTS, TfidfSettings()).counted
    assert same(Ngrams(TEXTS, TfidfSettings(), tmp_path).counted, fresh)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]
    monkeypatch.setattr(Ngrams, "_count", lambda _: pytest.fail("counted again"))
    read = Ngrams(TEXTS, TfidfSettings(min_rows=7, max_features=9), tmp_path).counted  # they choose among the same
    assert same(read, fresh) and read[0][1].data.dtype == np.float32


@pytest.mark.parametrize(
    "texts, settings",
    [(TEXTS[1:], TfidfSettings()), (TEXTS, TfidfSettings(strip_accents=True)), (TEXTS, TfidfSettings((1, 1)))],
)
def test_other_texts_or_settings_are_counted_anew(tmp_path, texts, settings):
    Ngrams(TEXTS, TfidfSettings(), tmp_path).counted  # noqa: B018
    assert same(Ngrams(texts, settings, tmp_path).counted, Ngrams(texts, settings).counted)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("harm", [lambda d: d[:-40], lambda d: b"", lambda d: d[:400] + b"x" * 50 + d[450:]])
def test_a_damaged_cache_costs_time_only(tmp_path, harm):
    fresh = Ngrams(TEXTS, TfidfSettings(), tmp_path).counted
    (path,) = tmp_path.iterdir()
    path.write_bytes(harm(path.read_bytes()))
    assert same(Ngrams(TEXTS, TfidfSettings(), tmp_path).counted, fresh)


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path):
    (tmp_path / "file").write_text("")
    assert same(Ngrams(TEXTS, TfidfSettings(), tmp_path / "file").counted, Ngrams(TEXTS, TfidfSettings()).counted)


def _count(folder):
    return float(Ngrams(TEXTS, TfidfSettings(), folder).counts[0].sum())


def test_processes_that_start_at_once_agree(tmp_path):
    with get_context("fork").Pool(3) as pool:
        assert len(set(pool.map(_count, [tmp_path] * 6))) == 1
    assert len(list(tmp_path.iterdir())) == 1
