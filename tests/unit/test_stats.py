"""Intervals: known values, edges, and coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saeops.stats import MIN_UNITS, Interval, ratio_interval, rule_of_three, wilson


def test_wilson_matches_the_published_example() -> None:
    # Newcombe 1998 (Stat. Med. 17:857), 81 of 263: 0.2553 to 0.3662.
    interval = wilson(81, 263)
    assert (round(interval.low or 0, 4), round(interval.high or 0, 4)) == (0.2553, 0.3662)


@given(st.integers(0, 200), st.integers(0, 200), st.floats(0.5, 0.999))
def test_wilson_holds_the_point_and_widens_with_the_level(a: int, b: int, level: float) -> None:
    n, k = a + b, a
    narrow, wide = wilson(k, n, level=level), wilson(k, n, level=min(0.9999, level + 0.0005))
    assert narrow.low is not None
    assert narrow.high is not None
    assert 0 <= narrow.low <= narrow.point <= narrow.high <= 1 or n == 0
    assert wide.low is not None
    assert wide.low <= narrow.low + 1e-12


def test_no_trials_say_nothing() -> None:
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)


def test_the_rule_of_three_is_about_three_over_n() -> None:
    assert rule_of_three(1000) == pytest.approx(3 / 1000, rel=0.01)
    assert rule_of_three(0) == 1.0


def test_few_documents_give_an_interval_that_says_so() -> None:
    few = np.ones(MIN_UNITS - 1)
    interval = ratio_interval(few, few, resamples=100, seed=0)
    assert interval.low is None
    assert "fewer than" in interval.note
    assert "no interval" in str(interval)


def test_the_same_seed_gives_the_same_interval() -> None:
    x = np.random.default_rng(0).normal(size=50)
    assert ratio_interval(x, np.ones(50), resamples=200, seed=3) == ratio_interval(
        x, np.ones(50), resamples=200, seed=3
    )


def test_a_ratio_of_sums_weighs_by_document_length() -> None:
    interval = ratio_interval(np.array([1.0] * 10 + [90.0]), np.array([1.0] * 10 + [30.0]), resamples=100, seed=0)
    assert interval.point == pytest.approx(100 / 40)


def test_intervals_cover_the_truth_about_as_often_as_they_claim() -> None:
    generator = np.random.default_rng(1)
    trials, hits = 400, 0
    for trial in range(trials):
        lengths = generator.integers(20, 60, size=60).astype(float)
        sums = generator.normal(2.0, 1.0, size=60) * lengths
        interval = ratio_interval(sums, lengths, resamples=300, seed=trial)
        assert interval.low is not None
        assert interval.high is not None
        hits += interval.low <= 2.0 <= interval.high
    assert 0.91 <= hits / trials <= 0.98


def test_intervals_survive_json() -> None:
    interval = Interval(1.0, None, 2.0, 3, "documents", note="why")
    assert Interval.from_json(interval.to_json()) == interval
