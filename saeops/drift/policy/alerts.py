"""Alerts: what people should know of a name now, and which incidents that opens, keeps and resolves."""

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from saeops.digests import digest_json
from saeops.drift.policy.config import RetrainConfig
from saeops.drift.policy.facts import Facts, moment
from saeops.drift.policy.lease import stamp
from saeops.drift.policy.machine import Situation, audit_due, calls_for_retrain, silent
from saeops.drift.policy.records import Incident, IncidentKind, Retraining
from saeops.promotion.state import SHORT


@dataclass(frozen=True)
class Alarm:
    """Something that holds now and should not."""

    kind: IncidentKind
    subject: str
    """What it is about: the same kind and subject are the same incident."""
    message: str
    hint: str

    @property
    def id(self) -> str:
        return f"{self.kind.replace(' ', '-')}-{digest_json([self.kind, self.subject])[:12]}"


def alarms(found: Situation, policy: RetrainConfig, now: datetime.datetime) -> tuple[Alarm, ...]:
    """All that people should know of a name at this moment."""
    return (*_drift(found.facts, policy), *_run(found.facts, policy, now), *_overdue(found, policy, now))


def changed(
    incidents: Mapping[str, Incident], holding: Iterable[Alarm], *, name: str, now: datetime.datetime
) -> tuple[Incident, ...]:
    """The incidents that open, open again or resolve; those that go on are not among them."""
    at, by_id = stamp(now), {alarm.id: alarm for alarm in holding}
    opened = tuple(
        _opened(incidents.get(each), alarm, name, at)
        for each, alarm in by_id.items()
        if each not in incidents or not incidents[each].open
    )
    resolved = tuple(
        incident.model_copy(update={"resolved": at})
        for each, incident in incidents.items()
        if incident.open and each not in by_id
    )
    return (*opened, *resolved)


def _opened(before: Incident | None, alarm: Alarm, name: str, at: str) -> Incident:
    return Incident(
        name=name,
        id=alarm.id,
        kind=alarm.kind,
        subject=alarm.subject,
        message=alarm.message,
        hint=alarm.hint,
        opened=at,
        episode=before.episode + 1 if before else 1,
    )


def _drift(facts: Facts, policy: RetrainConfig) -> tuple[Alarm, ...]:
    audit = facts.last_audit
    if audit is None or not calls_for_retrain(audit, policy):
        return ()
    reasons = "; ".join(audit.reasons) or f"outcome {audit.outcome}"
    message = f"{facts.name}: the champion {audit.bundle[:SHORT]} drifts on model {audit.model[:SHORT]}: {reasons}"
    return (Alarm("drift", f"{audit.bundle} on {audit.model}", message, f"saeops status {facts.name}"),)


def _run(facts: Facts, policy: RetrainConfig, now: datetime.datetime) -> tuple[Alarm, ...]:
    run = facts.retraining
    if run is None:
        return ()
    if run.verdict_outcome == "fail" and run.candidate is not None:
        message = f"{facts.name}: the judge refused the retrained candidate {run.candidate[:SHORT]}"
        return (Alarm("failed gate", run.candidate, message, f"saeops explain {run.candidate[:SHORT]}"),)
    if run.outcome != "none":
        return ()
    if silent(run, policy, now):
        message = f"{facts.name}: no heartbeat of the retrain by {run.holder} since {run.heartbeat}"
        subject = f"{run.operation} attempt {run.attempt}"
        return (Alarm("missed heartbeat", subject, message, "start the retrain again: it goes on"),)
    return _stuck(run, policy, now)


def _stuck(run: Retraining, policy: RetrainConfig, now: datetime.datetime) -> tuple[Alarm, ...]:
    if now - moment(run.step_since) < datetime.timedelta(hours=policy.stuck_after_hours):
        return ()
    step = run.step or "its first step"
    message = f"{run.name}: the retrain by {run.holder} has been at {step} since {run.step_since}"
    subject = f"{run.operation} attempt {run.attempt} at {run.step}"
    return (Alarm("stuck run", subject, message, "look at that run; end it, and another takes over"),)


def _overdue(found: Situation, policy: RetrainConfig, now: datetime.datetime) -> tuple[Alarm, ...]:
    facts = found.facts
    model, calendar = facts.unaudited_model, audit_due(facts, policy)
    dues = [max(moment(model.at), facts.champion.at)] if model else []
    dues += [calendar] if calendar else []
    if not dues or now < min(dues) + datetime.timedelta(days=policy.overdue_after_days):
        return ()
    message = f"{facts.name}: an audit of champion {facts.champion.digest[:SHORT]} is due since {stamp(min(dues))}"
    subject = f"{facts.champion.digest} due {stamp(min(dues))}"
    hint = f"saeops audit {facts.name} --model {model.ref}" if model else f"saeops status {facts.name}"
    return (Alarm("overdue audit", subject, message, hint),)
