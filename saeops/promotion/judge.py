"""The judge: evidence and policy in, verdict out. Pure; bounds, not points; missing means fail."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from saeops.digests import digest_json
from saeops.metrics import Better
from saeops.promotion.evidence import Evidence
from saeops.promotion.policy import Gate, PromotePolicy
from saeops.promotion.verdict import GateOutcome, GateResult, Verdict, overall
from saeops.review.outcome import ReviewOutcome
from saeops.stats import Interval, wilson


def judge(
    candidate: Evidence, champion: Evidence | None, policy: PromotePolicy, directions: Mapping[str, Better]
) -> Verdict:
    """Judge a candidate by every gate and by its review.

    Args:
        champion: None at the first promotion: what is relative to it is then listed as not applicable.
        directions: metric → which way is better, from the rooms' registries.
    """
    results = [r for gate in policy.gates for r in _judge_gate(gate, candidate, champion, directions)]
    results += _judge_review(candidate, policy)
    return Verdict(
        outcome=overall(results),
        bundle=candidate.bundle,
        champion=champion.bundle if champion else None,
        gates=tuple(results),
        evidence=digest_json([candidate.to_json(), champion.to_json() if champion else None]),
        policy=policy,
    )


@dataclass(frozen=True)
class _Compared:
    outcome: GateOutcome
    bound: float | None
    reason: str


def _judge_gate(
    gate: Gate, candidate: Evidence, champion: Evidence | None, directions: Mapping[str, Better]
) -> Iterator[GateResult]:
    value = candidate.metrics.get(gate.metric)
    if gate.at_least is not None:
        words = f"{gate.metric} at least {gate.at_least:g}"
        yield _result(gate.metric, words, value, _floor(value, gate.at_least))
    if gate.at_most is not None:
        words = f"{gate.metric} at most {gate.at_most:g}"
        yield _result(gate.metric, words, value, _ceiling(value, gate.at_most))
    if gate.not_worse_than_champion_by is not None:
        words = f"{gate.metric} not worse than the champion's by more than {gate.not_worse_than_champion_by:g}"
        better = directions.get(gate.metric, "none")
        compared = _beside_champion(value, champion, gate.metric, gate.not_worse_than_champion_by, better)
        yield _result(gate.metric, words, value, compared)


def _floor(value: Interval | None, least: float) -> _Compared:
    """`low` must reach `least`."""
    unusable = _unusable(value)
    if unusable or value is None or value.low is None or value.high is None:
        return _Compared("fail", None, unusable)
    if value.low >= least:
        return _Compared("pass", value.low, f"lower bound {value.low:.4g} ≥ {least:g}")
    if value.high < least:
        return _Compared("fail", value.high, f"even the upper bound {value.high:.4g} is below {least:g}")
    return _Compared("inconclusive", value.low, f"{value} straddles {least:g}: more data would tell")


def _ceiling(value: Interval | None, most: float) -> _Compared:
    """`high` must not exceed `most`."""
    unusable = _unusable(value)
    if unusable or value is None or value.low is None or value.high is None:
        return _Compared("fail", None, unusable)
    if value.high <= most:
        return _Compared("pass", value.high, f"upper bound {value.high:.4g} ≤ {most:g}")
    if value.low > most:
        return _Compared("fail", value.low, f"even the lower bound {value.low:.4g} is above {most:g}")
    return _Compared("inconclusive", value.high, f"{value} straddles {most:g}: more data would tell")


def _beside_champion(
    value: Interval | None, champion: Evidence | None, metric: str, margin: float, better: Better
) -> _Compared:
    if champion is None:
        return _Compared("not applicable", None, "first promotion: there is no champion to compare with")
    theirs = champion.metrics.get(metric)
    if theirs is None:
        return _Compared("fail", None, "the champion lacks this figure, so nothing shows that it is no worse")
    if better == "none":
        return _Compared("fail", None, "this metric has no better direction: gate it by at_least or at_most")
    if better == "higher":
        compared = _floor(value, theirs.point - margin)
    else:
        compared = _ceiling(value, theirs.point + margin)
    return _Compared(compared.outcome, compared.bound, f"champion {theirs.point:.4g}; {compared.reason}")


def _judge_review(candidate: Evidence, policy: PromotePolicy) -> Iterator[GateResult]:
    review, required = candidate.review, policy.review == "required"
    words = "every queued label decided on by a person"
    if review.pending and required:
        reason = f"{len(review.pending)} of {review.queued} labels wait: `saeops review queue` lists them"
        yield GateResult("review", words, None, None, "inconclusive", reason)
    else:
        reason = f"{review.decided} of {review.queued} decided" + ("" if required else " (review is optional)")
        yield GateResult("review", words, None, None, "pass" if required else "not applicable", reason)
    yield _judge_acceptance(review, policy)


def _judge_acceptance(review: ReviewOutcome, policy: PromotePolicy) -> GateResult:
    least = policy.min_review_acceptance
    words = f"review_acceptance at least {least:g}"
    value = review.acceptance
    if value.n == 0 and review.complete:
        # No random sample was queued, because so few labels exist or params say so: judge by all that were.
        value = wilson(review.accepted + review.edited, review.decided, unit="reviewed labels")
    compared = _floor(value, least)
    if review.queued == 0 and policy.review == "required":
        compared = _Compared("fail", None, "no label could be queued, so nobody vouches for any")
    elif policy.review == "optional" and compared.outcome == "inconclusive":
        compared = _Compared("not applicable", None, f"{value}; review is optional")
    return _result("review_acceptance", words, value, compared)


def _unusable(value: Interval | None) -> str:
    if value is None:
        return "the figure is missing, and missing means fail"
    if value.low is None or value.high is None:
        return f"the figure has no interval ({value.note or 'no reason given'}), and missing means fail"
    return ""


def _result(metric: str, words: str, value: Interval | None, compared: _Compared) -> GateResult:
    return GateResult(metric, words, value, compared.bound, compared.outcome, compared.reason)
