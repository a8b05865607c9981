"""What became of each latent: matched, split, merged, vanished; and which are new.

    matched   an assigned pair of score ≥ `matched`, beyond the permuted null
    split     a latent of A and at least two of B: it is the nearest of each of them, with a score ≥ `part` beyond
              the null, and together they make it up:
                  R²(d; d_1 … d_m) = 1 − min_{a ≥ 0} ‖d − Σ a_i d_i‖²  ≥  `whole`
                  R² − max_i R²(d; d_i)  ≥  `gain`
    merged    the same with A and B exchanged: several of A that one of B makes up
    vanished  any other latent of A
    new       any other latent of B

Splitting was described by Bricken et al. 2023 (Towards Monosemanticity); that a latent of one dictionary is a sum
of several of another, by Leask et al. 2025 (arXiv 2502.04878). The least squares over a ≥ 0, since activations are
never negative, are ours. Splits come before merges, and both before matches: of a latent that was split, the
nearest part alone is no match.

# F latent of A, G latent of B, M part, E width of a decoder row
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from torch import Tensor

from saeops.drift.matching.assign import NOBODY, Assignment, Nearest
from saeops.drift.matching.config import MatchConfig

Array = np.ndarray
Kind = Literal["matched", "split", "merged", "vanished", "new"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MOST_PARTS = 32


@dataclass(frozen=True)
class Group:
    """One latent, and those of the other side that make it up, best first."""

    whole: int
    parts: tuple[int, ...]
    explained: float
    """R² of the whole by all parts."""


@dataclass(frozen=True)
class Kinds:
    """The kind of every latent of both sides, by place."""

    first_F: Array
    second_G: Array
    splits: tuple[Group, ...]
    """Wholes in A, parts in B."""
    merges: tuple[Group, ...]
    """Wholes in B, parts in A."""


def kinds(
    found: Assignment,
    first: Float[Tensor, "F E"],
    second: Float[Tensor, "G E"],
    config: MatchConfig,
    *,
    null: float,
) -> Kinds:
    """Sort the latents.

    Args:
        first, second: decoder rows of unit norm.
        null: score that `config.beyond_null` of the null do not exceed.
    """
    first_F = np.full(len(first), "vanished", dtype=object)
    second_G = np.full(len(second), "new", dtype=object)
    least = max(config.part, null)
    splits = tuple(_groups(first, second, found.of_columns, config, least=least))
    _mark(splits, "split", first_F, second_G)
    merges = tuple(
        group
        for group in _groups(second, first, found.of_rows, config, least=least)
        if second_G[group.whole] == "new" and all(first_F[part] == "vanished" for part in group.parts)
    )
    _mark(merges, "merged", second_G, first_F)
    least = max(config.matched, null)
    for row in np.flatnonzero(found.column_F != NOBODY):
        column = found.column_F[row]
        if found.score_F[row] >= least and first_F[row] == "vanished" and second_G[column] == "new":
            first_F[row] = second_G[column] = "matched"
    return Kinds(first_F, second_G, splits, merges)


def _mark(groups: tuple[Group, ...], kind: Kind, whole_F: Array, part_G: Array) -> None:
    for group in groups:
        whole_F[group.whole] = kind
        part_G[list(group.parts)] = kind


def _groups(
    whole_FE: Tensor, part_GE: Tensor, nearest: Nearest, config: MatchConfig, *, least: float
) -> Iterator[Group]:
    """Rows that their parts make up. A part belongs to the row it is nearest to, so no part has two."""
    close = np.flatnonzero(nearest.score_F >= least)
    close = close[np.lexsort((-nearest.score_F[close], nearest.index_F[close]))]
    owner, start = np.unique(nearest.index_F[close], return_index=True)
    for whole, begin, count in zip(owner, start, np.diff([*start, len(close)]), strict=True):
        parts = close[begin : begin + min(count, MOST_PARTS)]
        if len(parts) < 2:
            continue
        direction_E = whole_FE[int(whole)].double().numpy()
        part_ME = part_GE[parts].double().numpy()
        alone = float(np.clip(part_ME @ direction_E, 0, 1).max() ** 2)
        together = explained(direction_E, part_ME)
        if together >= config.whole and together - alone >= config.gain:
            yield Group(int(whole), tuple(int(part) for part in parts), together)


def explained(direction_E: Float[Array, " E"], part_ME: Float[Array, "M E"]) -> float:
    """R² = 1 − min over a ≥ 0 of ‖d − Σ a_m d_m‖², d of unit norm (Lawson & Hanson 1974)."""
    from scipy.optimize import nnls

    _, residual = nnls(part_ME.T, direction_E)
    return float(1 - min(residual, 1.0) ** 2)
