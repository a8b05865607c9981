"""The verdict on a dictionary: ok, warn or drift, with reasons, and whether a retrain should start afresh."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from saeops.drift.audit.config import AuditConfig, Limit
from saeops.drift.audit.record import AuditOutcome
from saeops.stats import Interval

_RANK: Mapping[AuditOutcome, int] = {"ok": 0, "warn": 1, "drift": 2}


@dataclass(frozen=True)
class Finding:
    """One thing that was judged."""

    outcome: AuditOutcome
    reason: str


@dataclass(frozen=True)
class DictionaryVerdict:
    """What the findings add up to: the worst of them."""

    outcome: AuditOutcome
    fresh_start: bool
    reasons: tuple[str, ...]


def judge_dictionary(
    metrics: Mapping[str, Interval], config: AuditConfig, *, l0: float, tokenizer_changed: bool = False
) -> DictionaryVerdict:
    """Judge the bound nearest to no change: only what surely lies beyond a limit counts.

    Args:
        metrics: the audit's figures, by name.
        l0: of the old model, which the change of L0 is a share of.
    """
    findings = [found for found in _findings(metrics, config, l0) if found is not None]
    if tokenizer_changed:
        reason = "the tokenizer changed: latents are compared document by document, not token by token"
        findings.append(Finding("warn", reason))
    outcome: AuditOutcome = max((found.outcome for found in findings), key=_RANK.__getitem__, default="ok")
    gone = metrics["latents_gone"]
    fresh = gone.low is not None and gone.n > 0 and gone.low >= config.fresh_start_gone
    reasons = [found.reason for found in findings]
    if fresh:
        reasons.append(
            f"so much changed (at least {gone.low:.0%} of the latents) that a retrain should start afresh"
        )
    return DictionaryVerdict(outcome, fresh, tuple(reasons))


def width_changed(site: str, old: int, new: int) -> DictionaryVerdict:
    """The verdict where the dictionary cannot be applied at all."""
    reason = f"the new model's activations at {site} are {new} wide, the dictionary's {old}: it cannot be applied"
    return DictionaryVerdict("drift", True, (reason, "a retrain must start afresh"))


def _findings(metrics: Mapping[str, Interval], config: AuditConfig, l0: float) -> Iterator[Finding | None]:
    gone = metrics["latents_gone"]
    if gone.n == 0:
        yield Finding("warn", "no latent fires often enough to tell: raise audit.documents or audit.windows")
    else:
        said = f"{gone.point:.1%} of {gone.n} latents that fire often enough are weakened, changed or lost"
        yield _beyond(gone.low or 0.0, config.gone, f"{said} (at least {gone.low:.1%})")
    ev = metrics["explained_variance_change"]
    yield _beyond(_surely(ev, -1), config.explained_variance_drop, f"explained variance changed by {ev}")
    ce = metrics.get("delta_ce_change_nats")
    if ce is not None:
        yield _beyond(_surely(ce, 1), config.delta_ce_rise_nats, f"ΔCE changed by {ce} nats")
    fired = metrics["l0_change"]
    share = max(_surely(fired, 1), _surely(fired, -1)) / l0 if l0 > 0 else 0.0
    yield _beyond(share, config.l0_change, f"L0, which was {l0:.4g}, changed by {fired}")


def _surely(change: Interval, sign: int) -> float:
    """How far the change surely goes in a direction; 0 where its interval holds 0, or there is none."""
    if change.low is None or change.high is None:
        return 0.0
    return max(0.0, change.low if sign > 0 else -change.high)


def _beyond(amount: float, limit: Limit, reason: str) -> Finding | None:
    if amount > limit.drift:
        return Finding("drift", reason)
    return Finding("warn", reason) if amount > limit.warn else None
