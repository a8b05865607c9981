"""Two dictionaries matched: who is who, how sure that is, and what became of the rest.

# F latent of A, G latent of B, P assigned pair
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int

from saeops.drift.matching.assign import NOBODY, Assignment, assign
from saeops.drift.matching.calibrate import Reference, permuted_null, seed_reference
from saeops.drift.matching.config import MatchConfig
from saeops.drift.matching.kinds import Kinds, kinds
from saeops.drift.matching.scores import Likeness, PairScores, Side
from saeops.errors import NotComparable

Array = np.ndarray


@dataclass(frozen=True)
class Matching:
    """B beside A; latents count by their place among the living ones."""

    first: Side
    second: Side
    found: Assignment
    kinds: Kinds
    pairs: PairScores
    """Of the assigned pairs, by row."""
    null: Reference
    """Best scores beside B permuted."""
    seeds: Reference | None
    """Scores of one of the two with a dictionary of another seed; None: there was none."""
    with_activations: bool

    @cached_property
    def row_P(self) -> Int[Array, " P"]:
        """Places in A that have a partner."""
        return np.flatnonzero(self.found.column_F != NOBODY)

    @property
    def column_P(self) -> Int[Array, " P"]:
        """Their partners' places in B."""
        return self.found.column_F[self.row_P]

    def count(self, kind: str) -> int:
        """Latents of A that became so; of B for `new`, and wholes for `merged`."""
        if kind == "merged":
            return len(self.kinds.merges)
        return int(((self.kinds.second_G if kind == "new" else self.kinds.first_F) == kind).sum())


@dataclass(frozen=True)
class Seeds:
    """A dictionary and one of another seed, on the same activations."""

    side: Side
    other: Side


def match(first: Side, second: Side, config: MatchConfig, *, seed: int, seeds: Sequence[Seeds] = ()) -> Matching:
    """Match the living latents of two dictionaries; the same arguments always give the same matching.

    Args:
        seed: draws the permuted null.
        seeds: pairs that differ in nothing but the seed: what two trainings alone do to a dictionary.

    Raises:
        NotComparable: the decoder rows are of other widths, or one side has no living latent.
    """
    _refuse_unlike(first, second)
    likeness = Likeness(first, second, config.activation_weight)
    found = assign(likeness, floor=config.least_score, candidates=config.candidates)
    null = permuted_null(first, second, config, seed=seed)
    became = kinds(found, first.direction, second.direction, config, null=null.quantile(config.beyond_null))
    rows = np.flatnonzero(found.column_F != NOBODY)
    pairs = likeness.pairs(rows, found.column_F[rows])
    beside = [seed_reference(pair.side, pair.other, config).score_N for pair in seeds]
    reference = Reference(np.sort(np.concatenate(beside))) if beside else None
    return Matching(first, second, found, became, pairs, null, reference, likeness.with_activations)


def _refuse_unlike(first: Side, second: Side) -> None:
    widths = first.direction.shape[1], second.direction.shape[1]
    if widths[0] != widths[1]:
        raise NotComparable(
            f"decoder rows of A have width {widths[0]}, those of B {widths[1]}",
            hint="match dictionaries of one site and one width of model: other spaces have no cosine",
        )
    for name, side in (("A", first), ("B", second)):
        if not len(side):
            raise NotComparable(f"{name} has no living latent", hint="train it for more tokens")
