"""The line through local and public scores, and the finals, against references and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldblend.scoring.finals import (
    ScoredSubmission,
    choose_finals,
    comparison_lines,
    disagreement,
    finals_lines,
    fit_line,
)

NONE = (None, None)


@given(st.lists(st.tuples(st.floats(0.1, 0.9), st.floats(0.1, 0.9)), min_size=3, max_size=20))
def test_the_line_is_numpys(points):
    x, y = np.array(points).T
    line = fit_line(x, y)
    if np.ptp(x) == 0:
        assert line is None
    elif np.ptp(x) > 1e-3:
        slope, intercept = np.polyfit(x, y, 1)
        residuals = y - intercept - slope * x
        assert (line.slope, line.intercept) == pytest.approx((slope, intercept), rel=1e-5, abs=1e-6)
        assert line.spread == pytest.approx(np.sqrt((residuals**2).sum() / (len(x) - 2)), rel=1e-5, abs=1e-6)


def test_two_points_make_no_line():
    assert fit_line([0.1, 0.2], [0.1, 0.2]) is None


@pytest.mark.parametrize("count, said", [(0, "there are 0"), (2, "there are 2"), (3, "public = -0.1000 +1.0000 x")])
def test_the_line_is_printed_from_three_scored_submissions_on(count, said):
    rows = [(f"{k}.csv", (0.9, 0.5 + k / 10, 0.6, 0.4 + k / 10, None)) for k in range(count)]
    lines = comparison_lines(
        [*rows, ("pending.csv", (0.9, 0.8, 0.7, *NONE)), ("by_hand.csv", (None, *NONE, 0.5, None))], False
    )
    assert said in "\n".join(lines[count + 4 :])
    assert "private" not in lines[0] and max(map(len, lines)) <= 80


def test_equal_local_scores_and_the_private_column():
    rows = [(f"{k}.csv", (0.9, 0.5, 0.6, 0.4 + k / 10, 0.3)) for k in range(3)]
    lines = comparison_lines(rows, True)
    assert lines[-1] == "No line is fitted: all cross-fitted scores are equal"
    assert "private" in lines[0] and "0.3000" in lines[1] and "-0.2000" in lines[1]


def candidate(name, expected, answers, error=0.02):
    return ScoredSubmission(name, expected, error, np.asarray(answers))


def answers(*flipped, n=10):
    rows = np.zeros((n, 2), bool)
    rows[list(flipped)] = True
    return rows


def test_finals_are_the_best_and_the_most_different_good_one():
    pool = [
        candidate("near", 0.699, answers(0)),
        candidate("best", 0.700, answers()),
        candidate("far", 0.685, answers(*range(5))),
        candidate("bad", 0.650, answers(*range(10))),
    ]
    finals, good = choose_finals(pool, 2, True)
    assert [final.submission.name for final in finals] == ["best", "far"]
    assert finals[1].disagreement == 0.5
    assert [one.name for one in good] == ["best", "near", "far"]
    assert max(map(len, finals_lines(finals, good, len(pool)))) <= 80
    text = "\n".join(finals_lines(finals, good, len(pool)))
    assert "3 of 4" in text and "one standard error (0.0200)" in text and "50.0% of its rows differ" in text


def test_where_less_is_better_the_order_turns():
    pool = [
        candidate("worse", 0.31, answers(1)),
        candidate("best", 0.30, answers()),
        candidate("bad", 0.35, answers(2)),
    ]
    finals, good = choose_finals(pool, 2, False)
    assert [final.submission.name for final in finals] == ["best", "worse"] and len(good) == 2


def test_a_twin_of_a_chosen_one_is_no_second_final():
    finals, _ = choose_finals([candidate("a", 0.7, answers()), candidate("b", 0.7, answers())], 2, True)
    assert [final.submission.name for final in finals] == ["a"]


def test_a_third_final_is_far_from_both():
    pool = [
        candidate("a", 0.7, answers()),
        candidate("b", 0.69, answers(*range(6))),
        candidate("c", 0.69, answers(*range(5))),
    ]
    pool.append(candidate("d", 0.69, answers(7, 8, 9)))
    assert [final.submission.name for final in choose_finals(pool, 3, True)[0]] == ["a", "b", "d"]


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_against_brute_force(seed, count):
    rng = np.random.default_rng(seed)
    pool = [candidate(str(k), float(rng.normal(0.7, 0.02)), rng.random((12, 2)) < 0.5) for k in range(6)]
    finals, good = choose_finals(pool, count, True)
    best = max(one.expected for one in pool)
    assert finals[0].submission.expected == best
    assert {one.name for one in good} == {one.name for one in pool if one.expected >= best - 0.02}
    fill = [one.submission.expected for one in finals if not one.is_good]
    assert fill == sorted(fill, reverse=True) and all(value < best - 0.02 for value in fill)
    for at, final in enumerate([one for one in finals if one.is_good][1:], 1):
        before = [one.submission.answers for one in finals[:at]]
        rest = [one for one in good if one.name not in {other.submission.name for other in finals[:at]}]
        assert final.disagreement == max(min(disagreement(one.answers, seen) for seen in before) for one in rest)


def test_probabilities_differ_by_their_distance():
    one, other = np.full((4, 2), 0.5), np.full((4, 2), 0.25)
    assert disagreement(one, other) == 0.25
    finals, good = choose_finals([candidate("a", 0.7, one), candidate("b", 0.7, other)], 2, True)
    assert "differ by 0.2500 on average" in finals_lines(finals, good, 2)[-1]
