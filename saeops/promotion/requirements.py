"""Requirements: the gates of a policy, taken apart into single questions that have one answer each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

from saeops.promotion.evidence import Evidence, Slice
from saeops.promotion.policy import Gate
from saeops.stats import Interval


@dataclass(frozen=True)
class Floor:
    """The figure reaches a number."""

    least: float


@dataclass(frozen=True)
class Ceiling:
    """The figure does not exceed a number."""

    most: float


@dataclass(frozen=True)
class BesideChampion:
    """The figure is worse than the champion's by at most `margin`."""

    margin: float


@dataclass(frozen=True)
class BesideNull:
    """The figure is better than the null's by at least `by`."""

    null: str
    by: float


Requirement = Floor | Ceiling | BesideChampion | BesideNull


@dataclass(frozen=True)
class Question:
    """One requirement on one figure."""

    metric: str
    requirement: Requirement
    slice: str | None = None
    bucket: str | None = None
    dry_run: bool = False

    @property
    def words(self) -> str:
        """`explained_variance at least 0.7 where token_frequency is under 0.01 %`."""
        where = f" where {self.slice} is {self.bucket or 'anything'}" if self.slice else ""
        return f"{self.metric} {_asked(self.requirement)}{where}"

    def answer(self, evidence: Evidence) -> Interval | None:
        """The figure in question, if it was measured."""
        if self.slice is None:
            return evidence.metrics.get(self.metric)
        return evidence.slices.get(Slice(self.slice, self.bucket or "", self.metric))


def questions(gates: Sequence[Gate], candidate: Evidence, champion: Evidence | None) -> tuple[Question, ...]:
    """Every question that the gates ask, in their order.

    A slice without a bucket asks for each bucket in which the candidate was
    measured; beside the champion, for those of the champion as well, so that
    none is lost unseen.
    """
    return tuple(
        Question(gate.metric, requirement, gate.slice, bucket, gate.dry_run)
        for gate in gates
        for requirement in _requirements(gate)
        for bucket in _buckets(gate, requirement, candidate, champion)
    )


def _requirements(gate: Gate) -> Iterator[Requirement]:
    if gate.at_least is not None:
        yield Floor(gate.at_least)
    if gate.at_most is not None:
        yield Ceiling(gate.at_most)
    if gate.not_worse_than_champion_by is not None:
        yield BesideChampion(gate.not_worse_than_champion_by)
    for null, by in gate.beats.items():
        yield BesideNull(null, by)


def _buckets(
    gate: Gate, requirement: Requirement, candidate: Evidence, champion: Evidence | None
) -> list[str] | list[None] | list[str | None]:
    if gate.slice is None or gate.bucket is not None:
        return [gate.bucket]
    found = candidate.buckets(gate.slice, gate.metric)
    if champion is not None and isinstance(requirement, BesideChampion):
        found += [name for name in champion.buckets(gate.slice, gate.metric) if name not in found]
    # A slice that was not measured at all is one missing figure, not none.
    return found or [None]


def _asked(requirement: Requirement) -> str:
    match requirement:
        case Floor(least):
            return f"at least {least:g}"
        case Ceiling(most):
            return f"at most {most:g}"
        case BesideChampion(margin):
            return f"not worse than the champion's by more than {margin:g}"
        case BesideNull(null, by):
            return f"better than {null} by at least {by:g}" if by else f"better than {null}"
        case _:
            assert_never(requirement)
