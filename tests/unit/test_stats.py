"""Intervals: known values and edges. How often they cover: tests/property/test_coverage.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saeops.stats import (
    MIN_UNITS,
    Interval,
    UnitSums,
    difference_interval,
    ratio_interval,
    resample_counts,
    rule_of_three,
    unpaired_difference,
    wilson,
)


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


def sums(seed: int = 0, n: int = 40) -> UnitSums:
    generator = np.random.default_rng(seed)
    lengths = generator.uniform(20, 60, n)
    return UnitSums(generator.normal(2.0, 1.0, n) * lengths, lengths)


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_units_of_measurement_change_nothing(above: float, below: float) -> None:
    plain = ratio_interval(*sums(), resamples=200, seed=0)
    scaled = ratio_interval(sums().numerator * above, sums().denominator * below, resamples=200, seed=0)
    for bound in ("low", "high"):
        assert getattr(scaled, bound) == pytest.approx(getattr(plain, bound) * above / below, rel=1e-6)


@given(st.integers(0, 1000), st.floats(-10, 10))
def test_a_shift_of_every_unit_shifts_the_interval(seed: int, shift: float) -> None:
    above, below = sums(seed)
    plain = ratio_interval(above, below, resamples=200, seed=0)
    shifted = ratio_interval(above + shift * below, below, resamples=200, seed=0)
    assert plain.low is not None
    assert shifted.low == pytest.approx(plain.low + shift, abs=1e-6)


def test_resampling_in_blocks_draws_the_same_units(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = resample_counts(10, resamples=50, seed=1)
    monkeypatch.setattr("saeops.stats.BLOCK", 70)
    assert (resample_counts(10, resamples=50, seed=1) == whole).all()
    assert (whole.sum(axis=1) == 10).all()


def test_units_all_alike_have_an_interval_of_no_width_that_says_why() -> None:
    lengths = np.arange(1.0, 31.0)
    interval = ratio_interval(0.1 * lengths, lengths, resamples=100, seed=0)
    assert interval.low == interval.high == interval.point == pytest.approx(0.1)
    assert interval.note == "all documents alike"


def test_a_denominator_that_may_be_zero_gives_no_bounds() -> None:
    generator = np.random.default_rng(0)
    noise = ratio_interval(np.ones(40), generator.normal(0.05, 1, 40), resamples=200, seed=0)
    alone = ratio_interval(np.ones(10), np.array([5.0] + [0.0] * 9), resamples=200, seed=0)
    assert noise.low is noise.high is alone.low is alone.high is None
    assert "may as well be 0" in noise.note
    assert "may as well be 0" in alone.note


def test_values_that_are_nearly_all_zero_still_give_finite_bounds() -> None:
    interval = ratio_interval(np.array([1.0] + [0.0] * 39), np.ones(40), resamples=200, seed=0)
    assert interval.low is not None
    assert interval.high is not None
    assert interval.high > 0.05


def test_a_paired_difference_is_far_narrower_than_an_unpaired_one() -> None:
    first = sums(n=60)
    second = UnitSums(first.numerator + 0.05 * first.denominator, first.denominator)
    second.numerator[::2] += 0.5
    paired = difference_interval(second, first, resamples=500, seed=0)
    apart = unpaired_difference(
        ratio_interval(*second, resamples=500, seed=0), ratio_interval(*first, resamples=500, seed=0)
    )
    assert paired.point == pytest.approx(apart.point)
    assert paired.low is not None
    assert apart.low is not None
    assert paired.low > 0 > apart.low


def test_swapping_sides_turns_a_difference_round() -> None:
    there = difference_interval(sums(1), sums(2), resamples=300, seed=5)
    back = difference_interval(sums(2), sums(1), resamples=300, seed=5)
    assert there.low is not None
    assert there.high is not None
    assert (back.point, back.low, back.high) == pytest.approx((-there.point, -there.high, -there.low))


def test_nothing_differs_from_itself() -> None:
    same = difference_interval(sums(), sums(), resamples=100, seed=0)
    assert (same.low, same.point, same.high) == (0.0, 0.0, 0.0)


def test_a_higher_level_is_wider() -> None:
    narrow, wide = (difference_interval(sums(1), sums(2), resamples=4000, seed=0, level=x) for x in (0.95, 0.998))
    assert wide.low is not None
    assert wide.high is not None
    assert wide.low < (narrow.low or 0) < (narrow.high or 0) < wide.high


def test_an_unpaired_difference_of_normals_is_the_textbooks() -> None:
    # Half-widths 3 and 4 give 5.
    one, other = Interval(10.0, 7.0, 13.0, 20, "documents"), Interval(2.0, -2.0, 6.0, 30, "documents")
    found = unpaired_difference(one, other)
    assert (found.point, found.low, found.high, found.n) == (8.0, pytest.approx(3), pytest.approx(13), 20)
    wider = unpaired_difference(one, other, level=0.9973)
    assert wider.high == pytest.approx(8 + 5 * 3 / 1.96, rel=1e-3)


def test_an_unpaired_difference_needs_both_intervals() -> None:
    found = unpaired_difference(
        Interval(1.0, None, None, 3, "documents", note="few"), Interval(0.5, 0.4, 0.6, 9, "documents")
    )
    assert (found.point, found.low, found.note) == (0.5, None, "few")


def test_intervals_survive_json() -> None:
    interval = Interval(1.0, None, 2.0, 3, "documents", note="why")
    assert Interval.from_json(interval.to_json()) == interval
