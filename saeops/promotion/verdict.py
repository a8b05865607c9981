"""Verdicts: what the judge said, gate by gate, and what it saw. Format: docs/formats/journal.md."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from saeops.digests import canonical_json, digest_json
from saeops.errors import FormatUnknown
from saeops.promotion.policy import PromotePolicy
from saeops.stats import Interval

GateOutcome = Literal["pass", "fail", "inconclusive", "not applicable"]
VerdictOutcome = Literal["pass", "fail", "inconclusive"]
Side = Literal["at least", "at most"]

FORMAT = 2
_INTERVALS = ("value", "beside", "difference")


@dataclass(frozen=True)
class GateResult:
    """One requirement, judged."""

    metric: str
    requirement: str
    """In words: `explained_variance at least 0.7`."""
    value: Interval | None
    """The candidate's figure; None where it is missing."""
    bound: float | None
    """The bound that was compared."""
    outcome: GateOutcome
    reason: str
    """One sentence for people."""
    side: Side | None = None
    """On which side of `limit` the judged interval must lie; None where no interval is judged."""
    limit: float | None = None
    beside: Interval | None = None
    """The champion's figure, or the null's."""
    difference: Interval | None = None
    """Candidate − champion or null: the judged interval of a gate that compares."""
    dry_run: bool = False
    """Judged and shown, but not counted."""

    @property
    def judged(self) -> Interval | None:
        """The interval whose bound was compared with the limit."""
        return None if self.side is None else self.difference or self.value

    @property
    def told(self) -> str:
        """The outcome for people: a dry run's must not be taken for one that counted."""
        return f"{self.outcome} (dry run)" if self.dry_run else self.outcome

    @property
    def level(self) -> float | None:
        """How often such an interval holds the truth; None where there is no interval."""
        return None if self.judged is None or self.judged.low is None else self.judged.level

    @property
    def to_spare(self) -> float | None:
        """How far the hardest bound lies on the right side of the limit; negative where it does not."""
        if self.judged is None or self.limit is None:
            return None
        bound = self.judged.low if self.side == "at least" else self.judged.high
        if bound is None:
            return None
        return bound - self.limit if self.side == "at least" else self.limit - bound

    def to_json(self) -> dict[str, Any]:
        intervals = {name: getattr(self, name) for name in _INTERVALS}
        return {**self.__dict__, **{name: found.to_json() if found else None for name, found in intervals.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "GateResult":
        intervals = {name: Interval.from_json(data[name]) for name in _INTERVALS if data.get(name)}
        return cls(**{**data, **intervals})


@dataclass(frozen=True)
class Verdict:
    """What the judge said about a bundle."""

    outcome: VerdictOutcome
    bundle: str
    """Digest of the bundle judged."""
    champion: str | None
    """Digest it was compared with; None at the first promotion."""
    gates: tuple[GateResult, ...]
    evidence: str
    """Digest of all that the judge saw."""
    policy: PromotePolicy

    @property
    def first_promotion(self) -> bool:
        """There was no champion: requirements relative to it were not judged."""
        return self.champion is None

    @property
    def counted(self) -> tuple[GateResult, ...]:
        """The gates that decide: all but dry runs."""
        return tuple(gate for gate in self.gates if not gate.dry_run)

    @property
    def wrongly_passed(self) -> float:
        """Most often that a bundle which breaks a requirement passes all gates.

        It must pass the gate that it breaks, so the gates' number does not
        matter (Berger 1982, Technometrics 24:295).
        """
        return max(self._tails(), default=0.0)

    @property
    def wrongly_failed(self) -> float:
        """Most often that a bundle which meets every requirement fails a gate (Bonferroni)."""
        return min(1.0, sum(self._tails()))

    def _tails(self) -> list[float]:
        return [(1 - gate.level) / 2 for gate in self.counted if gate.level is not None]

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "outcome": self.outcome,
            "bundle": self.bundle,
            "champion": self.champion,
            "first_promotion": self.first_promotion,
            "gates": [gate.to_json() for gate in self.gates],
            "evidence": self.evidence,
            "policy": self.policy.model_dump(mode="json"),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Verdict":
        """Read a verdict of this format or an earlier one.

        Raises:
            FormatUnknown: written by a newer saeops.
        """
        if data["format"] not in range(1, FORMAT + 1):
            raise FormatUnknown(
                f"a verdict is in format {data['format']}, this saeops reads formats 1 to {FORMAT}",
                hint="use the saeops release that wrote it, or a newer one",
            )
        return cls(
            outcome=data["outcome"],
            bundle=data["bundle"],
            champion=data["champion"],
            gates=tuple(GateResult.from_json(gate) for gate in data["gates"]),
            evidence=data["evidence"],
            policy=PromotePolicy.model_validate(data["policy"]),
        )

    @cached_property
    def digest(self) -> str:
        """sha256 of the verdict's canonical JSON."""
        # Through JSON once: a figure that came back from a file must give the same digest.
        return digest_json(json.loads(json.dumps(self.to_json())))

    def to_bytes(self) -> bytes:
        """What the registry keeps under the digest."""
        return canonical_json(self.to_json())

    def explain(self) -> str:
        """Gate by gate, for people, a line each; saeops/promotion/explain.py says more."""
        return "\n".join(f"  {gate.told:<14} {gate.requirement}: {gate.reason}" for gate in self.gates)


def overall(gates: Iterable[GateResult]) -> VerdictOutcome:
    """One failure fails; else one open question leaves it open. Dry runs decide nothing."""
    outcomes = {gate.outcome for gate in gates if not gate.dry_run}
    return "fail" if "fail" in outcomes else "inconclusive" if "inconclusive" in outcomes else "pass"
