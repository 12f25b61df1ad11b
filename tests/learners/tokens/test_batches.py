import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from foldblend.learners.tokens.batches import BLOCK_STEPS, NO_ROW, plan_epoch, plan_prediction, split_step

lengths_of = st.lists(st.integers(1, 60), min_size=1, max_size=300).map(np.array)


@given(lengths_of, st.integers(1, 40), st.integers(0, 99))
def test_an_epoch_holds_every_row_once(lengths, batch, seed):
    rows = np.arange(len(lengths))
    steps = plan_epoch(rows, lengths, batch, [seed, 0])
    assert np.array_equal(np.sort(np.concatenate(steps)), rows)
    sizes = [len(step) for step in steps]
    assert len(steps) == -(-len(rows) // batch) and sorted(sizes)[1:] == [batch] * (len(sizes) - 1)
    again = plan_epoch(rows, lengths, batch, [seed, 0])
    assert all(np.array_equal(a, b) for a, b in zip(steps, again, strict=True))


def test_epochs_differ_and_padding_is_small():
    lengths = np.random.default_rng(0).integers(3, 60, 4000)
    rows = np.arange(len(lengths))
    first, second = (plan_epoch(rows, lengths, 32, [7, epoch]) for epoch in (0, 1))
    assert not np.array_equal(first[0], second[0])
    padded = sum(lengths[step].max() * len(step) for step in first)
    assert padded < 1.1 * lengths.sum()


def test_lengths_do_not_cycle():
    lengths = np.random.default_rng(0).integers(3, 60, 32 * BLOCK_STEPS * 4)
    means = np.array([lengths[step].mean() for step in plan_epoch(np.arange(len(lengths)), lengths, 32, [0])])
    lagged = [np.corrcoef(means[:-lag], means[lag:])[0, 1] for lag in (1, 2, BLOCK_STEPS)]
    assert np.abs(lagged).max() < 0.3


@given(lengths_of, st.integers(1, 8), st.integers(1, 33), st.none() | st.integers(1, 400))
def test_a_step_is_shared_out_whole(lengths, n_processes, most_rows, most_tokens):
    rows = np.random.default_rng(0).permutation(len(lengths))[: 1 + len(lengths) // 2]
    shares = split_step(rows, lengths, n_processes, most_rows, most_tokens)
    flat = [share for part in shares for share in part]
    assert np.array_equal(np.concatenate(flat), rows)
    sizes = [len(share) for share in flat]
    assert max(sizes) <= most_rows and max(sizes) - min(sizes) <= 1
    assert all(len(part) == n_processes for part in shares)
    if most_tokens is not None:
        assert all(len(share) <= 1 or len(share) * lengths[share].max() <= most_tokens for share in flat)


def test_a_step_is_cut_no_further_than_its_tokens_ask():
    lengths = np.array([10] * 8)
    parts = [len(split_step(np.arange(8), lengths, 1, 8, tokens)) for tokens in (80, 79, 40, 10, 1)]
    assert parts == [1, 2, 2, 8, 8]


@given(lengths_of, st.integers(1, 500), st.integers(1, 4))
def test_prediction_meets_every_row_once_within_its_budget(lengths, budget, n_processes):
    rows = np.arange(len(lengths))
    batches = plan_prediction(rows, lengths, budget, n_processes)
    seen = np.concatenate([batch.ravel() for batch in batches])
    assert np.array_equal(np.sort(seen[seen != NO_ROW]), rows)
    for batch in batches:
        assert batch.shape[0] == n_processes
        longest = lengths[batch[batch != NO_ROW]].max()
        assert batch.shape[1] == 1 or batch.shape[1] * longest <= budget
