import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tiny_tokenizers import WORDS, bert, decoder, decoder_with_bos

from foldblend.learners.tokens.batches import Augmentation, join_texts
from foldblend.learners.tokens.tokens import Tokens, tokenize
from foldblend.settings.nets import AugmentationSettings

RNG = np.random.default_rng
KINDS = [bert, decoder, decoder_with_bos]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
N = 60


def make(kind, tmp_path, task="multilabel", train=range(10, N), **changed):
    """60 texts of 0 to 11 words, the first of which is its row's own; 3 labels."""
    rng = RNG(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(0, 12))) for _ in range(N)]
    tokens = tokenize(kind(tmp_path), texts, 14)
    targets = torch.from_numpy((rng.random((N, 3)) < 0.3).astype(np.float32))
    return Augmentation(AugmentationSettings(**changed), tokens, targets, np.array(train), task)


def rows_of(batch):
    return [ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"])]


def text_of(augmentation, row):
    before, after = augmentation.tokens.frame
    ids = augmentation.tokens.row(row).tolist()
    return ids[before : len(ids) - after]


@kinds
def test_all_off_is_the_plain_batch(kind, tmp_path):
    augmentation, rows = make(kind, tmp_path), np.arange(20, 40)
    batch, targets = augmentation.batch(rows, RNG(0))
    plain = augmentation.tokens.batch(rows)
    assert all(torch.equal(batch[name], plain[name]) for name in plain) and batch.keys() == plain.keys()
    assert torch.equal(targets, augmentation.targets[rows])


@kinds
def test_a_chance_too_small_to_happen_is_the_plain_batch_too(kind, tmp_path):
    augmentation, rows = make(kind, tmp_path, mix_probability=1e-12, token_dropout=1e-12), np.arange(20, 40)
    batch, targets = augmentation.batch(rows, RNG(0))
    plain = augmentation.tokens.batch(rows)
    assert all(torch.equal(batch[name], plain[name]) for name in plain)
    assert torch.equal(targets, augmentation.targets[rows])


@kinds
def test_two_texts_joined_have_the_labels_of_both(kind, tmp_path):
    """Every row is its own text, then a training row's, inside one frame; the targets are the union."""
    augmentation, rows = make(kind, tmp_path, mix_probability=1.0), np.arange(20, 40)
    before, after = augmentation.tokens.frame
    given = augmentation.targets.clone()
    batch, targets = augmentation.batch(rows, RNG(0))
    for row, ids, target in zip(rows, rows_of(batch), targets):
        framed = augmentation.tokens.row(row).tolist()
        assert ids[:before] == framed[:before] and ids[len(ids) - after :] == framed[len(framed) - after :]
        own, body = np.array(text_of(augmentation, row)), np.array(ids[before : len(ids) - after])
        possible = [
            partner
            for partner in range(10, N)
            if np.array_equal(
                body, join_texts(own, np.array(text_of(augmentation, partner), dtype=int), 14 - before - after)
            )
            and torch.equal(target, torch.maximum(given[row], given[partner]))
        ]
        assert possible and len(ids) <= 14
    assert torch.equal(augmentation.targets, given), "the table of targets stays as it is"
    assert (targets != given[rows]).any()


def test_what_is_mixed_in_comes_from_the_training_rows(tmp_path):
    """Held-out rows share one label that no training row has; it must never come up."""
    augmentation = make(bert, tmp_path, mix_probability=1.0)
    augmentation.targets[:10], augmentation.targets[10:, 2] = torch.tensor([0.0, 0.0, 1.0]), 0
    seen = [augmentation.batch(np.arange(10, N), RNG(seed))[1] for seed in range(20)]
    assert torch.cat(seen)[:, 2].max() == 0 and torch.cat(seen)[:, :2].max() == 1


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 20))
def test_joined_texts_share_the_room(first, second, room):
    joined = join_texts(np.arange(first), 100 + np.arange(second), room)
    n_first, n_second = int((joined < 100).sum()), int((joined >= 100).sum())
    assert len(joined) == min(room, first + second)
    assert joined.tolist() == [*range(n_first), *range(100, 100 + n_second)]
    assert n_first >= min(first, room // 2) and n_second >= min(second, room // 2)


def test_masked_tokens_are_never_special(tmp_path):
    augmentation = make(bert, tmp_path, token_dropout=0.5)
    rows, mask_id = np.arange(10, N), augmentation.tokens.mask_id
    batch, targets = augmentation.batch(rows, RNG(0))
    masked = total = 0
    for row, ids in zip(rows, rows_of(batch)):
        given_ids = augmentation.tokens.row(row).tolist()
        assert len(ids) == len(given_ids) and (ids[0], ids[-1]) == (given_ids[0], given_ids[-1])
        assert all(a in (b, mask_id) for a, b in zip(ids, given_ids))
        masked, total = masked + ids.count(mask_id), total + len(ids) - 2
    assert 0.4 < masked / total < 0.6 and torch.equal(targets, augmentation.targets[rows])


@pytest.mark.parametrize("kind, share", [(decoder, 0.5), (decoder_with_bos, 0.5), (decoder, 0.999)])
def test_without_a_mask_token_they_are_left_out_but_not_all(kind, share, tmp_path):
    augmentation, rows = make(kind, tmp_path, token_dropout=share), np.arange(10, N)
    batch, _ = augmentation.batch(rows, RNG(0))
    before, _ = augmentation.tokens.frame
    left = total = 0
    for row, ids in zip(rows, rows_of(batch)):
        given_ids = iter(augmentation.tokens.row(row).tolist())
        assert all(any(a == b for b in given_ids) for a in ids), "what is left stays in order"
        assert ids[:before] == augmentation.tokens.row(row).tolist()[:before]
        text = text_of(augmentation, row)
        assert len(ids) > before or not text
        left, total = left + len(ids) - before, total + len(text)
    assert share > 0.9 or 0.4 < left / total < 0.65


@hypothesis_settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_the_same_draws_again(seed):
    augmentation, rows = SHARED, np.arange(20, 40)
    (one, one_targets), (two, two_targets) = (augmentation.batch(rows, RNG(seed)) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one) and torch.equal(one_targets, two_targets)
    other, _ = augmentation.batch(rows, RNG(seed + 1))
    assert rows_of(other) != rows_of(one)


SHARED = make(decoder, None, mix_probability=0.5, token_dropout=0.2)


def test_one_label_a_row_cannot_be_mixed(tmp_path):
    with pytest.raises(ValueError, match="mix_probability joins the labels of two rows; here each row has exactly one"):
        make(bert, tmp_path, task="multiclass", mix_probability=0.1)
    make(bert, tmp_path, task="multiclass", token_dropout=0.1)


def test_tokens_of_unknown_frame_are_refused():
    tokens = Tokens(np.arange(4, dtype=np.int32), np.array([0, 2, 4]), 0)
    with pytest.raises(ValueError, match="need one text per row; these rows have two"):
        Augmentation(AugmentationSettings(token_dropout=0.1), tokens, torch.zeros(2, 3), np.arange(2), "multilabel")
    Augmentation(AugmentationSettings(), tokens, torch.zeros(2, 3), np.arange(2), "multilabel")
