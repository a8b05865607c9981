"""A verdict explained: gate by gate, what was asked, what was seen, why, and what would have to change."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from saeops.promotion.verdict import GateOutcome, GateResult, Verdict
from saeops.stats import Interval

MOST_TIMES = 1000
"""No sample that is so many times larger is worth a number."""
REVIEW = "review"


@dataclass(frozen=True)
class ExplainedGate:
    """One gate in words."""

    outcome: GateOutcome
    dry_run: bool
    told: str
    """The outcome, and whether it counted."""
    requirement: str
    seen: str
    """The judged figure, or the difference that was judged, with its bounds."""
    n: str
    level: str
    """How often such an interval holds the truth."""
    to_spare: str
    """Distance of the hardest bound from what is asked; negative where it falls short."""
    reason: str
    change: str
    """What would have to change for a pass; empty where nothing must."""


@dataclass(frozen=True)
class Explanation:
    """A whole verdict in words."""

    outcome: str
    sentence: str
    gates: tuple[ExplainedGate, ...]
    errors: str
    """How often a verdict like this one is wrong."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def explain(verdict: Verdict) -> Explanation:
    """Say a verdict in words."""
    return Explanation(
        verdict.outcome, _sentence(verdict), tuple(map(explain_gate, verdict.gates)), _errors(verdict)
    )


def explain_gate(gate: GateResult) -> ExplainedGate:
    """Say one gate in words."""
    judged = gate.judged or gate.value
    return ExplainedGate(
        outcome=gate.outcome,
        dry_run=gate.dry_run,
        told=gate.told,
        requirement=gate.requirement,
        seen=_seen(gate, judged),
        n=f"{judged.n:,} {judged.unit}" if judged else "",
        level="" if gate.level is None else f"{100 * gate.level:.4g} %",
        to_spare="" if gate.to_spare is None else f"{gate.to_spare:+.3g}",
        reason=gate.reason,
        change=_change(gate),
    )


def samples_needed(gate: GateResult) -> int | None:
    """About how many samples in all would bring the hardest bound to the limit, if the figure stays where it is.

    Half-widths shrink as 1/√n. None where no sample would do: the figure itself is on the wrong side.
    """
    judged, spare = gate.judged, gate.to_spare
    if judged is None or spare is None or gate.limit is None:
        return None
    distance = judged.point - gate.limit if gate.side == "at least" else gate.limit - judged.point
    if distance <= 0:
        return None
    return math.ceil(judged.n * ((distance - spare) / distance) ** 2)


def _seen(gate: GateResult, judged: Interval | None) -> str:
    if judged is None:
        return "" if gate.metric == REVIEW else "missing"
    bounds = "no interval" if judged.low is None else f"[{judged.low:.4g}, {judged.high:.4g}]"
    return f"{'difference ' if gate.difference else ''}{judged.point:.4g} {bounds}"


def _change(gate: GateResult) -> str:
    if gate.outcome in ("pass", "not applicable"):
        return ""
    if gate.metric == REVIEW:
        return "decide on what waits: `saeops review decide`"
    if gate.outcome == "inconclusive" and gate.judged is None:
        return "a person must decide: `saeops promote --force --reason …`"
    if gate.judged is None:
        return "measure the figure on both sides that the gate compares, or mend the gate in params.yaml"
    if gate.to_spare is None:
        return "measure on more data: an interval needs more samples"
    needed = samples_needed(gate)
    if needed is None:
        way = "rise" if gate.side == "at least" else "fall"
        what = "the difference" if gate.difference else "the figure"
        return f"{what} itself is on the wrong side: for a pass its bound must {way} by {-gate.to_spare:.3g}"
    n, unit = gate.judged.n, gate.judged.unit
    if needed > MOST_TIMES * n:
        return f"the figure lies so near the limit that no feasible number of {unit} would tell"
    return f"if the figure stays where it is, about {needed:,} {unit} would show it; {n:,} were measured"


def _sentence(verdict: Verdict) -> str:
    asked = [gate for gate in verdict.counted if gate.outcome != "not applicable"]
    said = {
        outcome: [gate.requirement for gate in asked if gate.outcome == outcome]
        for outcome in ("fail", "inconclusive")
    }
    held = sum(gate.outcome == "pass" for gate in asked)
    beside = f"beside champion {verdict.champion[:12]}" if verdict.champion else "with no champion to compare with"
    match verdict.outcome:
        case "pass":
            return f"{held} of {len(asked)} requirements hold, {beside}"
        case "fail":
            return f"{len(said['fail'])} of {len(asked)} requirements do not hold, {beside}"
        case "inconclusive":
            return f"nothing fails, but {len(said['inconclusive'])} of {len(asked)} cannot be told yet, {beside}"


def _errors(verdict: Verdict) -> str:
    return (
        "A bundle that breaks a requirement passes at most "
        f"{100 * verdict.wrongly_passed:.2g} times in a hundred, however many gates there are; "
        f"one that meets all of them fails at most {100 * verdict.wrongly_failed:.2g} times in a hundred. "
        "Budget (promote.family_error): any of the differences from champion and nulls misses its interval "
        f"at most {100 * verdict.policy.family_error:.2g} times in a hundred."
    )
