"""What the policy does next about a name. Decided here, acted on by stages and flows."""

import datetime
from dataclasses import dataclass

from saeops.digests import digest_json
from saeops.drift.policy.config import RetrainConfig
from saeops.drift.policy.facts import Facts, moment
from saeops.drift.policy.machine import find_state, how_retrain_ended, silent
from saeops.drift.policy.records import Retraining
from saeops.promotion.state import SHORT


@dataclass(frozen=True)
class AuditNow:
    """Audit the champion."""

    model_ref: str | None
    """On this model; None: on the champion's own."""
    why: str


@dataclass(frozen=True)
class RetrainNow:
    """Retrain for a model, or go on with it where a killed run left off."""

    operation: str
    model: str
    """Digest."""
    model_ref: str
    fresh_start: bool
    """Too much changed for a warm start from the champion."""
    why: str


@dataclass(frozen=True)
class RollBackNow:
    """Go back to the champion before, and pin this one."""

    leave: str
    """Digest of the champion that fails."""
    to: str
    """Digest."""
    why: str


@dataclass(frozen=True)
class Stay:
    """Nothing to do, or nothing without a person."""

    why: str


Action = AuditNow | RetrainNow | RollBackNow | Stay


def decide(facts: Facts, policy: RetrainConfig, now: datetime.datetime, *, holder: str | None = None) -> Action:
    """The next step for a name.

    No model is retrained for twice by itself: what came of the first time is a person's to judge.

    Args:
        holder: who asks, and retrains nothing at the moment: a retrain that it holds was interrupted, and goes on.
    """
    back = rollback_due(facts, policy)
    if back is not None:
        return back
    finding = find_state(facts, policy, now)
    match finding.state:
        case "audit due":
            model = facts.unaudited_model or facts.last_model
            return AuditNow(model.ref if model else None, finding.why)
        case "drifting":
            return _retrain(facts, finding.why)
        case "retraining":
            assert facts.retraining is not None
            if silent(facts.retraining, policy, now) or facts.retraining.holder == holder:
                return _go_on(facts, facts.retraining, finding.why)
            return Stay(finding.why)
        case "candidate waiting" | "promoted" | "healthy":
            return Stay(finding.why)


def operation_id(name: str, champion: str, model: str) -> str:
    """Names the retrain of a champion for a model: however often it is asked for, it is the same one."""
    return digest_json({"retrain": name, "champion": champion, "model": model})[:32]


def rollback_due(facts: Facts, policy: RetrainConfig) -> RollBackNow | None:
    """The rollback that the policy wants, if it wants one.

    A promotion is rolled back for what was known when it was promoted: drift on
    a model that came later is no fault of it, and the version before knows that model no better.
    """
    champion, audit = facts.champion, facts.last_audit
    if not policy.rollback_on_drift or champion.action != "promote" or audit is None or audit.outcome != "drift":
        return None
    if champion.previous is None or champion.previous in facts.pinned:
        return None
    within = datetime.timedelta(days=policy.rollback_within_days)
    if not champion.at <= moment(audit.at) <= champion.at + within:
        return None
    came_later = any(m.digest == audit.model and moment(m.at) > champion.at for m in facts.models)
    if came_later and not audit.same_model:
        return None
    reasons = "; ".join(audit.reasons) or "the outcome is drift"
    why = f"the audit of {audit.at} on model {audit.model[:SHORT]} failed after the promotion: {reasons}"
    return RollBackNow(champion.digest, champion.previous, why)


def _retrain(facts: Facts, why: str) -> Action:
    audit = facts.last_audit
    assert audit is not None, "drifting is what an audit says"
    if ended := how_retrain_ended(facts, audit):
        return Stay(f"{ended}: a person decides")
    operation = operation_id(facts.name, facts.champion.digest, audit.model)
    return RetrainNow(operation, audit.model, audit.model_ref, audit.fresh_start, why)


def _go_on(facts: Facts, run: Retraining, why: str) -> RetrainNow:
    fresh = any(audit.model == run.model and audit.fresh_start for audit in facts.audits)
    return RetrainNow(run.operation, run.model, run.model_ref, fresh, why)
