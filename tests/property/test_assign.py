"""The sparse assignment is the dense one, and its bound is a bound, whatever the scores."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from saeops.drift.matching import assign as room
from saeops.drift.matching.assign import NOBODY, Dense, assign, assign_dense

# Few values, so that many scores are equal and many rows want the same column.
SCORES = st.one_of(
    arrays(np.float32, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.floats(-1, 1, width=32)),
    arrays(
        np.float32,
        st.tuples(st.integers(1, 14), st.integers(1, 14)),
        elements=st.sampled_from([np.float32(value) for value in (-1, 0, 0.25, 0.5, 0.5625, 1)]),
    ),
)
FLOORS = st.sampled_from([-1.0, 0.0, 0.1, 0.5])


def worth(score_FG: np.ndarray, column_F: np.ndarray, floor: float) -> float:
    rows = np.flatnonzero(column_F != NOBODY)
    assert len(set(column_F[rows])) == len(rows), "no column has two rows"
    return float((score_FG[rows, column_F[rows]].astype(np.float64) - floor).sum())


@given(SCORES, FLOORS, st.integers(1, 5))
def test_it_is_worth_as_much_as_the_dense_one(score_FG: np.ndarray, floor: float, candidates: int) -> None:
    found = assign(Dense(torch.from_numpy(score_FG)), floor=floor, candidates=candidates)
    dense = worth(score_FG, assign_dense(score_FG, floor=floor), floor)
    assert np.isclose(worth(score_FG, found.column_F, floor), found.value, atol=1e-9)
    # Breaches below fp32's rounding are not looked at.
    assert abs(found.value - dense) <= 2e-6 * len(score_FG)
    assert found.gap <= 2e-6 * len(score_FG)


@given(SCORES, FLOORS)
def test_the_bound_holds_however_early_it_stops(score_FG: np.ndarray, floor: float) -> None:
    found = assign(Dense(torch.from_numpy(score_FG)), floor=floor, candidates=1, max_rounds=1)
    dense = worth(score_FG, assign_dense(score_FG, floor=floor), floor)
    slack = 2e-6 * len(score_FG)
    assert found.value - slack <= dense <= found.bound + slack


@given(SCORES)
def test_blocks_change_nothing(score_FG: np.ndarray) -> None:
    whole = assign(Dense(torch.from_numpy(score_FG)), floor=0.0, candidates=2)
    held, room.BLOCK_VALUES = room.BLOCK_VALUES, 1
    try:
        blocked = assign(Dense(torch.from_numpy(score_FG)), floor=0.0, candidates=2)
    finally:
        room.BLOCK_VALUES = held
    assert np.array_equal(whole.column_F, blocked.column_F)
    assert np.array_equal(whole.of_columns.index_F, blocked.of_columns.index_F)


@given(SCORES)
def test_nearest_and_next_are_those_of_the_matrix(score_FG: np.ndarray) -> None:
    found = assign(Dense(torch.from_numpy(score_FG)), floor=0.0, candidates=1)
    assert np.array_equal(found.of_rows.score_F, score_FG.max(axis=1))
    assert np.array_equal(found.of_columns.score_F, score_FG.max(axis=0))
    if score_FG.shape[1] > 1:
        assert np.array_equal(found.next_F, np.sort(score_FG, axis=1)[:, -2])


def test_candidates_grow_where_everybody_wants_the_same_few() -> None:
    """The first two columns are everybody's best two; the rest must be looked up row by row."""
    generator = np.random.default_rng(0)
    score_FG = generator.uniform(0, 0.5, (40, 40)).astype(np.float32)
    score_FG[:, :2] += 0.5
    found = assign(Dense(torch.from_numpy(score_FG)), floor=0.0, candidates=2)
    assert found.rounds > 1
    assert found.gap == 0
    assert np.isclose(found.value, worth(score_FG, assign_dense(score_FG, floor=0.0), 0.0), atol=1e-6)
