"""Verdicts: what the judge said, gate by gate, and what it saw."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from saeops.digests import digest_json
from saeops.promotion.policy import PromotePolicy
from saeops.stats import Interval

GateOutcome = Literal["pass", "fail", "inconclusive", "not applicable"]
VerdictOutcome = Literal["pass", "fail", "inconclusive"]

FORMAT = 1


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

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "value": self.value.to_json() if self.value else None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "GateResult":
        value = Interval.from_json(data["value"]) if data["value"] else None
        return cls(**{**data, "value": value})


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

    def explain(self) -> str:
        """Gate by gate, for people."""
        return "\n".join(f"  {gate.outcome:<14} {gate.requirement}: {gate.reason}" for gate in self.gates)


def overall(gates: Iterable[GateResult]) -> VerdictOutcome:
    """One failure fails; else one open question leaves it open."""
    outcomes = {gate.outcome for gate in gates}
    return "fail" if "fail" in outcomes else "inconclusive" if "inconclusive" in outcomes else "pass"
