import numpy as np
import pytest

from learners.collapse import CollapseGuard, check_logits, update_mean


def test_a_loss_no_better_than_the_rates_stops_after_the_set_steps():
    guard = CollapseGuard(prior_loss=0.3, check_after_steps=100)
    guard.check_loss(99, 0.5, 0.5)
    guard.check_loss(100, 0.5, 0.29)
    with pytest.raises(ValueError, match=r"step 100.*0.3100.*0.3000.*collapsed.*optimizer.lr"):
        guard.check_loss(100, 0.2, 0.31)


def test_zero_turns_the_check_off():
    CollapseGuard(0.3, 0).check_loss(10_000, 0.5, 0.5)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_at_once(loss):
    with pytest.raises(ValueError, match=r"step 3: the training loss is (nan|inf)"):
        CollapseGuard(0.3, 100).check_loss(3, loss, 0.1)


def test_running_mean_is_the_plain_mean_at_first():
    mean = 0.0
    for step, loss in enumerate([1.0, 2.0, 6.0]):
        mean = update_mean(mean, loss, step)
    assert mean == pytest.approx(3.0)


def test_a_bad_start_is_forgotten_by_the_first_check():
    """A generator's first losses are many times the prior's; 300 steps are 30 reads."""
    mean = 0.0
    for read in range(30):
        mean = update_mean(mean, 20.0 if read < 3 else 1.0, read)
    assert mean < 2.0


def test_constant_and_infinite_logits_are_refused():
    varied = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    check_logits(varied, "held-out rows")
    check_logits(varied[:1], "one row")
    with pytest.raises(ValueError, match="held-out rows: every text gets the same logits"):
        check_logits(np.tile(varied[:1], (20, 1)), "held-out rows")
    varied[3, 1] = np.nan
    with pytest.raises(ValueError, match="1 of 20 rows have logits that are not finite"):
        check_logits(varied, "held-out rows")
