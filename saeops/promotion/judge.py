"""The judge: evidence and policy in, verdict out. Pure; bounds, not points; missing means fail.

The rule, the margins and the errors that it can make: docs/decisions/judging.md.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from saeops.diagnostics.metrics import BY_DOCUMENT, RECONSTRUCTION
from saeops.dictionary.compare import RESAMPLES, paired_difference
from saeops.digests import digest_json
from saeops.metrics import Better
from saeops.promotion.evidence import Evidence
from saeops.promotion.policy import PromotePolicy
from saeops.promotion.requirements import BesideChampion, BesideNull, Ceiling, Floor, Question, questions
from saeops.promotion.verdict import GateOutcome, GateResult, Side, Verdict, overall
from saeops.review.outcome import ReviewOutcome
from saeops.stats import MIN_UNITS, Bootstrap, Interval, unpaired_difference, wilson

DRAW = Bootstrap(RESAMPLES, seed=0)


def judge(
    candidate: Evidence, champion: Evidence | None, policy: PromotePolicy, directions: Mapping[str, Better]
) -> Verdict:
    """Judge a candidate by every gate and by its review.

    Args:
        champion: None at the first promotion: what is relative to it is then listed as not applicable.
        directions: metric → which way is better, from the rooms' registries.
    """
    asked = questions(policy.gates, candidate, champion)
    court = _Court(candidate, champion, directions, _level(asked, candidate, champion, policy))
    results = [replace(court.answer(question), dry_run=question.dry_run) for question in asked]
    results += _judge_review(candidate, policy)
    return Verdict(
        outcome=overall(results),
        bundle=candidate.bundle,
        champion=champion.bundle if champion else None,
        gates=tuple(results),
        evidence=digest_json([candidate.to_json(), champion.to_json() if champion else None]),
        policy=policy,
    )


def _level(
    asked: Iterable[Question], candidate: Evidence, champion: Evidence | None, policy: PromotePolicy
) -> float:
    """Level of each difference drawn here: the family's error, shared among those that count (Bonferroni)."""
    drawn = sum(_is_drawn(question, candidate, champion) for question in asked if not question.dry_run)
    return 1 - policy.family_error / max(drawn, 1)


def _is_drawn(question: Question, candidate: Evidence, champion: Evidence | None) -> bool:
    match question.requirement:
        case Floor() | Ceiling():
            return False
        case BesideChampion():
            return champion is not None
        case BesideNull(null, _):
            return candidate.beyond_null(null, question.metric) is None
        case _:
            assert_never(question.requirement)


@dataclass(frozen=True)
class _Court:
    candidate: Evidence
    champion: Evidence | None
    directions: Mapping[str, Better]
    level: float

    def answer(self, question: Question) -> GateResult:
        value = question.answer(self.candidate)
        why = self.candidate.inapplicable.get(question.metric)
        if value is None and why is not None:
            return _unruled(question, None, "not applicable", why)
        match question.requirement:
            case Floor(least):
                return _ruled(question, value, "at least", least)
            case Ceiling(most):
                return _ruled(question, value, "at most", most)
            case BesideChampion(margin):
                return self._beside_champion(question, value, margin)
            case BesideNull(null, by):
                return self._beside_null(question, value, null, by)
            case _:
                assert_never(question.requirement)

    def _beside_champion(self, question: Question, value: Interval | None, margin: float) -> GateResult:
        if self.champion is None:
            why = "first promotion: there is no champion to compare with"
            return _unruled(question, value, "not applicable", why)
        unlike = _unlike(question.metric, self.candidate, self.champion)
        if unlike:
            return _unruled(question, value, "inconclusive", unlike)
        theirs = question.answer(self.champion)
        if theirs is None:
            why = "the champion lacks this figure, so nothing shows that it is no worse"
            return _unruled(question, value, "fail", why)
        if value is None:
            return _unruled(question, value, "fail", MISSING)
        difference, how = self._difference(question, value, theirs, self.champion)
        told = f"champion {theirs.point:.4g}, difference {difference.point:.4g}, {how}"
        return self._compared(question, value, theirs, difference, -margin, told)

    def _difference(
        self, question: Question, value: Interval, theirs: Interval, champion: Evidence
    ) -> tuple[Interval, str]:
        ours = self.candidate.documents
        if question.slice is None:
            paired = paired_difference(question.metric, champion.documents, ours, DRAW, level=self.level)
            if paired is not None:
                return paired, "paired by document"
        how = f"unpaired, since {_why_unpaired(question, ours is None or champion.documents is None)}"
        return unpaired_difference(value, theirs, level=self.level), how

    def _beside_null(self, question: Question, value: Interval | None, null: str, by: float) -> GateResult:
        if value is None:
            return _unruled(question, value, "fail", MISSING)
        paired = self.candidate.beyond_null(null, question.metric)
        if paired is not None:
            told = f"difference {paired.point:.4g}, paired by the bench"
            return self._compared(question, value, None, paired, by, told)
        theirs = self.candidate.null(null, question.metric)
        if theirs is None:
            measured = sorted(name for name, found in self.candidate.nulls.items() if question.metric in found)
            why = f"the null {null} was not measured on this figure; measured: {', '.join(measured) or 'none'}"
            return _unruled(question, value, "fail", why)
        difference = unpaired_difference(value, theirs, level=self.level)
        told = f"{null} {theirs.point:.4g}, difference {difference.point:.4g}, from both intervals"
        return self._compared(question, value, theirs, difference, by, told)

    def _compared(
        self,
        question: Question,
        value: Interval,
        beside: Interval | None,
        difference: Interval,
        least: float,
        told: str,
    ) -> GateResult:
        """Judge a difference that must be better than 0 by `least`, whichever way is better."""
        better = self.directions.get(question.metric, "none")
        if better == "none":
            why = "this metric has no better direction: gate it by at_least or at_most"
            return _unruled(question, value, "fail", why)
        side: Side = "at least" if better == "higher" else "at most"
        ruled = _ruled(question, difference, side, least if better == "higher" else -least)
        return replace(ruled, value=value, beside=beside, difference=difference, reason=f"{told}: {ruled.reason}")


MISSING = "the figure is missing, and missing means fail"


def _ruled(question: Question, judged: Interval | None, side: Side, limit: float) -> GateResult:
    outcome, bound, reason = _rule(judged, side, limit)
    return GateResult(question.metric, question.words, judged, bound, outcome, reason, side, limit)


def _unruled(question: Question, value: Interval | None, outcome: GateOutcome, reason: str) -> GateResult:
    return GateResult(question.metric, question.words, value, None, outcome, reason)


def _rule(judged: Interval | None, side: Side, limit: float) -> tuple[GateOutcome, float | None, str]:
    """Pass where the whole interval is on the right side, fail where none of it is, else inconclusive."""
    if judged is None:
        return "fail", None, MISSING
    if judged.low is None or judged.high is None:
        why = judged.note or "no reason given"
        return "fail", None, f"the figure has no interval ({why}), and missing means fail"
    if side == "at least":
        if judged.low >= limit:
            return "pass", judged.low, f"lower bound {judged.low:.4g} ≥ {limit:g}"
        if judged.high < limit:
            return "fail", judged.high, f"even the upper bound {judged.high:.4g} is below {limit:g}"
        return "inconclusive", judged.low, f"{judged} straddles {limit:g}: more data would tell"
    if judged.high <= limit:
        return "pass", judged.high, f"upper bound {judged.high:.4g} ≤ {limit:g}"
    if judged.low > limit:
        return "fail", judged.low, f"even the lower bound {judged.low:.4g} is above {limit:g}"
    return "inconclusive", judged.high, f"{judged} straddles {limit:g}: more data would tell"


def _unlike(metric: str, candidate: Evidence, champion: Evidence) -> str:
    """Why the two figures speak of different things; empty where they do not."""
    ours, theirs = candidate.basis, champion.basis
    if ours is None or theirs is None or ours == theirs:
        return ""
    if ours.model != theirs.model:
        return (
            f"the champion was measured on model {theirs.model[:12]}, this one on {ours.model[:12]}:"
            " `saeops beside` measures the champion on this one's model"
        )
    if ours.policy != theirs.policy:
        apart = "other tokens: harvest.policy differs"
    elif metric in {figure.name for figure in RECONSTRUCTION}:
        apart = f"{theirs.sites}, this one on {ours.sites}"
    else:
        return ""
    return f"the champion was measured on {apart}; the figures cannot be compared, a person must decide"


def _why_unpaired(question: Question, documents_missing: bool) -> str:
    if question.slice is not None:
        return "slices keep no sums by document"
    if question.metric not in {figure.name for figure in BY_DOCUMENT}:
        return "it is no sum over documents"
    if documents_missing:
        return "one of the bundles keeps no sums by document"
    return f"fewer than {MIN_UNITS} documents are shared"


# ── review ──────────────────────────────────────────────────────────────────


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
    value = review.acceptance
    if value.n == 0 and review.complete:
        # No random sample was queued, because so few labels exist or params say so: judge by all that were.
        value = wilson(review.accepted + review.edited, review.decided, unit="reviewed labels")
    question = Question("review_acceptance", Floor(least))
    if review.queued == 0 and policy.review == "required":
        return _unruled(question, value, "fail", "no label could be queued, so nobody vouches for any")
    ruled = _ruled(question, value, "at least", least)
    if policy.review == "optional" and ruled.outcome == "inconclusive":
        return _unruled(question, value, "not applicable", f"{value}; review is optional")
    return ruled
