"""The best assignment of two sets of latents, exact, from a few candidates a row.

    maximise  Σ x_fg · max(s_fg − floor, 0)     each row and each column at most once

Only the best candidates of each row are held. The assignment over them is solved exactly, and its prices u, v
bound the whole problem: for any v ≥ 0, Σ_f max(0, max_g(s_fg − floor − v_g)) + Σ_g v_g is at least the best value
(weak duality, Kuhn 1955). What lies between is the gap. Where a left-out pair is worth more than u + v, it joins
the candidates, and the assignment is solved again (Volgenant 1996, Computers & Operations Research 23:917).

# F row, G column, P pair (candidate), C chosen row of a block
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Array = np.ndarray

NOBODY = -1
"""The partner of a row or column that has none."""
BLOCK_VALUES = 1 << 24
"""Largest block of scores (64 MB of fp32)."""
ROUNDING = 1e-6
"""Scores are fp32: the same pair in another block differs by less."""
STEP = 1e-9
"""Prices that rise by less have arrived."""


class Scores(Protocol):
    """How alike the latents of two dictionaries are: a matrix that is only ever seen in blocks."""

    @property
    def rows(self) -> int: ...

    @property
    def columns(self) -> int: ...

    def block(self, row_C: Int[Tensor, " C"]) -> Float[Tensor, "C G"]:
        """The scores of these rows with every column, fp32."""
        ...


@dataclass(frozen=True)
class Dense:
    """Scores that are held whole."""

    score_FG: Float[Tensor, "F G"]

    @property
    def rows(self) -> int:
        return self.score_FG.shape[0]

    @property
    def columns(self) -> int:
        return self.score_FG.shape[1]

    def block(self, row_C: Int[Tensor, " C"]) -> Float[Tensor, "C G"]:
        return self.score_FG[row_C]


@dataclass(frozen=True)
class Nearest:
    """Each latent's best on the other side, whoever else wants it."""

    index_F: Int[Array, " F"]
    score_F: Float[Array, " F"]


@dataclass(frozen=True)
class Assignment:
    """One-to-one partners, and how far from the best they can be."""

    column_F: Int[Array, " F"]
    """Each row's column; `NOBODY` where it has none."""
    score_F: Float[Array, " F"]
    """The pair's score; NaN without one."""
    value: float
    """Σ (score − floor) over the pairs."""
    bound: float
    """No assignment is worth more."""
    rounds: int
    """How often candidates were added and the assignment solved."""
    candidates: int
    """Pairs that were held."""
    of_rows: Nearest
    """Each row's best column."""
    next_F: Float[Array, " F"]
    """Each row's second best score; −1 where there is one column."""
    of_columns: Nearest
    """Each column's best row."""

    @property
    def gap(self) -> float:
        """bound − value; 0: this is the best there is."""
        return max(0.0, self.bound - self.value)

    def row_G(self, columns: int) -> Int[Array, " G"]:
        """Each column's row; `NOBODY` without one."""
        found = np.full(columns, NOBODY)
        paired = np.flatnonzero(self.column_F != NOBODY)
        found[self.column_F[paired]] = paired
        return found


def assign(scores: Scores, *, floor: float, candidates: int, max_rounds: int = 20) -> Assignment:
    """The one-to-one assignment of largest total score above the floor.

    Memory: one block of scores, and `candidates` pairs a row (more where prices ask for them).

    Args:
        floor: pairs at or below it are no pairs.
        candidates: best columns of each row to begin with.
        max_rounds: solve at most so often; the gap says what is left then.
    """
    assert candidates > 0
    assert max_rounds > 0
    seen = _look(scores, floor=floor, k=candidates)
    held = seen.pairs
    for done in range(1, max_rounds + 1):
        solved = _solve(held, scores.rows, scores.columns)
        missing = _left_out(scores, solved, seen.cut_F, floor=floor, k=candidates)
        if not len(missing.pairs.row):
            break
        if done < max_rounds:
            held = held.and_(missing.pairs)
    value = float(solved.weight_F.sum())
    bound = float(solved.price_F.sum() + missing.excess_F.sum() + solved.price_G.sum())
    # Equal but for the order of summation.
    bound = value if bound - value <= STEP * max(1, scores.rows) else bound
    paired_F = solved.column_F != NOBODY
    score_F = np.where(paired_F, solved.weight_F + floor, np.nan)
    nearest = seen.of_rows, seen.next_F, seen.of_columns
    return Assignment(solved.column_F, score_F, value, bound, done, len(held.row), *nearest)


def assign_dense(score_FG: Float[Array, "F G"], *, floor: float) -> Int[Array, " F"]:
    """The reference: the whole matrix at once, by scipy's Hungarian method (Crouse 2016)."""
    from scipy.optimize import linear_sum_assignment

    weight_FG = np.maximum(score_FG.astype(np.float64) - floor, 0)
    row_P, column_P = linear_sum_assignment(weight_FG, maximize=True)
    column_F = np.full(len(score_FG), NOBODY)
    worth_P = weight_FG[row_P, column_P] > 0
    column_F[row_P[worth_P]] = column_P[worth_P]
    return column_F


@dataclass(frozen=True)
class _Pairs:
    """Candidate pairs of positive weight (score − floor), each once."""

    row: Int[Array, " P"]
    column: Int[Array, " P"]
    weight: Float[Array, " P"]

    def and_(self, others: "_Pairs") -> "_Pairs":
        """Both; the weight held first stands where a pair is in both."""
        row, column, weight = (
            np.concatenate([getattr(self, name), getattr(others, name)]) for name in ("row", "column", "weight")
        )
        order = np.lexsort((column, row))
        fresh = np.ones(len(order), dtype=bool)
        fresh[1:] = (np.diff(row[order]) != 0) | (np.diff(column[order]) != 0)
        kept = order[fresh]
        return _Pairs(row[kept], column[kept], weight[kept])


@dataclass(frozen=True)
class _Solved:
    """The best assignment over the candidates, and prices that prove it."""

    column_F: Int[Array, " F"]
    weight_F: Float[Array, " F"]
    price_F: Float[Array, " F"]
    """u ≥ 0"""
    price_G: Float[Array, " G"]
    """v ≥ 0"""


@dataclass(frozen=True)
class _Missing:
    """Pairs that were left out and break the prices, and by how much each row does."""

    pairs: _Pairs
    excess_F: Float[Array, " F"]


def blocks(rows: Int[Array, " C"], columns: int) -> Iterator[Int[Tensor, " C"]]:
    """The rows in parts, each of whose scores fit in a block."""
    size = max(1, BLOCK_VALUES // max(columns, 1))
    for start in range(0, len(rows), size):
        yield torch.from_numpy(rows[start : start + size])


@dataclass(frozen=True)
class _Seen:
    """What one look at all scores leaves."""

    pairs: _Pairs
    """The k best pairs above the floor of each row."""
    cut_F: Float[Array, " F"]
    """The largest weight that each row may have left out."""
    of_rows: Nearest
    next_F: Float[Array, " F"]
    of_columns: Nearest


def _look(scores: Scores, *, floor: float, k: int) -> _Seen:
    k = min(max(k, 2), scores.columns)
    parts, cut_F, next_F = [], np.zeros(scores.rows), np.full(scores.rows, -1.0)
    index_F, score_F = np.full(scores.rows, NOBODY), np.full(scores.rows, -1.0)
    index_G = torch.full((scores.columns,), NOBODY)
    score_G = torch.full((scores.columns,), -torch.inf)
    for row_C in blocks(np.arange(scores.rows), scores.columns):
        score_CG, rows = scores.block(row_C), row_C.numpy()
        found = score_CG.topk(k, dim=1)
        parts.append(_above(row_C, found.values, found.indices, floor))
        values_CK = found.values.double().numpy()
        index_F[rows], score_F[rows] = found.indices[:, 0].numpy(), values_CK[:, 0]
        if k > 1:
            next_F[rows] = values_CK[:, 1]
        if k < scores.columns:
            cut_F[rows] = np.maximum(values_CK[:, -1] - floor, 0)
        best = score_CG.max(dim=0)
        better_G = best.values > score_G
        score_G = torch.where(better_G, best.values, score_G)
        index_G = torch.where(better_G, row_C[best.indices], index_G)
    of_columns = Nearest(index_G.numpy(), score_G.double().numpy())
    return _Seen(_joined(parts), cut_F, Nearest(index_F, score_F), next_F, of_columns)


def _above(row_C: Tensor, score_CK: Tensor, column_CK: Tensor, floor: float) -> _Pairs:
    # In fp64, so that differences of scores are exact.
    weight_CK = score_CK.double() - floor
    place, nth = (weight_CK > 0).nonzero(as_tuple=True)
    return _Pairs(row_C[place].numpy(), column_CK[place, nth].numpy(), weight_CK[place, nth].numpy())


def _joined(parts: list[_Pairs]) -> _Pairs:
    if not parts:
        return _Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return _Pairs(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("row", "column", "weight"))
    )


def _solve(held: _Pairs, rows: int, columns: int) -> _Solved:
    """Sparse shortest augmenting paths (Jonker & Volgenant 1987, by scipy), each row with a column of its own."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    column_F, weight_F = np.full(rows, NOBODY), np.zeros(rows)
    if not len(held.row):
        return _Solved(column_F, weight_F, np.zeros(rows), np.zeros(columns))
    # scipy takes a stored 0 for no edge, and a full matching costs the same constant more for every row.
    high = float(held.weight.max()) + 1
    own = np.arange(rows)
    cost = np.concatenate([high - held.weight, np.full(rows, high)])
    where = np.concatenate([held.row, own]), np.concatenate([held.column, columns + own])
    row_P, column_P = min_weight_full_bipartite_matching(csr_matrix((cost, where), shape=(rows, columns + rows)))
    real = column_P < columns
    column_F[row_P[real]] = column_P[real]
    chosen = column_F[held.row] == held.column
    weight_F[held.row[chosen]] = held.weight[chosen]
    price_G = _column_prices(held, column_F, weight_F, columns)
    price_F = np.zeros(rows)
    np.maximum.at(price_F, held.row, held.weight - price_G[held.column])
    return _Solved(column_F, weight_F, price_F, price_G)


def _column_prices(
    held: _Pairs, column_F: Int[Array, " F"], weight_F: Float[Array, " F"], columns: int
) -> Float[Array, " G"]:
    """The least prices v ≥ 0 at which every row is content with what it has: longest paths, by Bellman and Ford.

    A row pays its column's price, so a column costs at least what any row would gain by changing to it. The least
    prices of columns go with the largest of rows, and few left-out pairs can break those.
    """
    order = np.argsort(held.column, kind="stable")
    row_P, weight_P = held.row[order], held.weight[order]
    found_G, start = np.unique(held.column[order], return_index=True)
    paired_F = column_F != NOBODY
    own_F = np.where(paired_F, column_F, 0)
    price_G = np.zeros(columns)
    for _ in range(columns + 1):
        price_F = np.where(paired_F, weight_F - price_G[own_F], 0.0)
        risen_G = np.maximum(np.maximum.reduceat(weight_P - price_F[row_P], start), price_G[found_G])
        if (risen_G - price_G[found_G]).max() <= STEP:
            break
        price_G[found_G] = risen_G
    return price_G


def _left_out(scores: Scores, solved: _Solved, cut_F: Float[Array, " F"], *, floor: float, k: int) -> _Missing:
    """The k worst breaches of each row among the pairs that are not held.

    A row whose price is at least all that it may have left out has none, for prices of columns are not negative.
    """
    excess_F, parts = np.zeros(scores.rows), []
    price_G = torch.from_numpy(solved.price_G)
    open_rows = np.flatnonzero(cut_F > solved.price_F + ROUNDING)
    for row_C in blocks(open_rows, scores.columns):
        score_CG = scores.block(row_C)
        gain_CG = score_CG - (price_G.float() + floor)
        best = gain_CG.topk(min(k, scores.columns), dim=1)
        broken_CK = best.values > torch.from_numpy(solved.price_F)[row_C, None] + ROUNDING
        place, nth = broken_CK.nonzero(as_tuple=True)
        column = best.indices[place, nth]
        weight = score_CG[place, column].double() - floor
        parts.append(_Pairs(row_C[place].numpy(), column.numpy(), weight.numpy()))
        over_C = best.values[:, 0].double().numpy() - solved.price_F[row_C.numpy()]
        excess_F[row_C.numpy()] = np.where(over_C > ROUNDING, over_C, 0)
    return _Missing(_joined(parts), excess_F)
