import pytest

from foldblend.bundling.hours import RunSpeed, measure_speed, plan_lines, read_speeds, too_long
from foldblend.errors import UserError


def test_speed_is_told_from_loading():
    speed, loading = measure_speed(lambda n: 3 + n / 50, 16, 256)
    assert speed == pytest.approx(50) and loading == pytest.approx(3)
    assert measure_speed(lambda n: 2.0, 16, 256) == (128, 0)  # no difference: all of it counts as predicting
    assert measure_speed(lambda n: 2.0, 5, 5) == (2.5, 0)
    assert measure_speed(lambda n: 0.0, 16, 256)[1] == 0


def test_hours_are_those_of_all_models_their_loading_and_the_parity_check():
    run = RunSpeed("net", models=5, folds=5, rows_per_second=10, load_seconds=30, source="given")
    assert run.seconds(36_000, has_parity=False) == pytest.approx(5 * (30 + 3600))
    assert run.seconds(36_000, has_parity=True) == pytest.approx(5 * (30 + 3600) + 5 * (30 + 6.4))
    *_, total = plan_lines([run], 36_000, 9, has_parity=False)
    assert total == "36,000 rows take about 5.12 h of 9 h, start of 5 minutes (a guess) included"


def test_a_notebook_beyond_the_limit_is_said_with_what_to_do():
    slow, fast = RunSpeed("slow", 5, 5, 10, 0, ""), RunSpeed("fast", 5, 5, 1000, 0, "")
    assert not too_long([slow, fast], 36_000, 9, False)
    near = too_long([slow, fast], 36_000, 6, False)
    assert near.startswith("the notebook leaves little time for a slower machine: about 5.1 h of 6 h.")
    over = too_long([slow, fast], 36_000, 5, False)
    assert "takes too long: about 5.1 h of 5 h. Predict with one model per run: --average_folds. Or blend" in over
    assert "without slow, which takes 5.0 h" in over
    assert "--average_folds" not in too_long([RunSpeed("one", 1, 5, 1, 0, "")], 36_000, 5, False)


@pytest.mark.parametrize("word", ["net", "=3", "net=", "net=fast", "net=0", "net=-1", "net=inf", "net=nan"])
def test_speeds_that_are_none_are_refused(word):
    with pytest.raises(UserError, match=r"expected NAME=ROWS, as in net=350"):
        read_speeds([word], ["net"])


def test_speeds_are_of_runs_of_the_blend():
    assert read_speeds(["a=b=2", "net=1.5"], ["a=b", "net"]) == {"a=b": 2, "net": 1.5}
    with pytest.raises(UserError, match="names run nett; the runs of the blend are net"):
        read_speeds(["nett=1"], ["net"])
