"""The state of a name: a pure function of the registry's records and the time. Drawn in docs/retraining.md.

The first that holds:
    retraining          somebody retrains
    candidate waiting   a retrained bundle, not refused by the judge, waits to be promoted
    audit due           a model version was seen on which the champion was never audited
    drifting            the champion's last audit calls for a retrain
    audit due           the champion's last audit, or it without one, is too old
    promoted            the champion was never audited
    healthy             its last audit found nothing that calls for a retrain
"""

import datetime
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

from saeops.drift.audit.record import AuditRecord
from saeops.drift.policy.config import RetrainConfig
from saeops.drift.policy.facts import Facts, moment
from saeops.drift.policy.records import Retraining
from saeops.promotion.state import SHORT

StateName = Literal["promoted", "healthy", "audit due", "drifting", "retraining", "candidate waiting"]
STATES: tuple[StateName, ...] = get_args(StateName)


@dataclass(frozen=True)
class Finding:
    """A state with its reason."""

    state: StateName
    why: str
    """One sentence for people."""
    next: str
    """What to do about it."""


@dataclass(frozen=True)
class Spell:
    """A time spent in one state."""

    state: StateName
    since: datetime.datetime
    until: datetime.datetime
    """The next state's `since`; for the last one, now."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "since": self.since.isoformat(), "until": self.until.isoformat()}


@dataclass(frozen=True)
class Situation:
    """Where a name stands."""

    facts: Facts
    finding: Finding
    spells: tuple[Spell, ...]
    """All states in order, without gaps, as far as the records tell."""

    @property
    def since(self) -> datetime.datetime:
        return self.spells[-1].since

    def to_json(self) -> dict[str, Any]:
        spells = [spell.to_json() for spell in self.spells]
        return {**asdict(self.finding), "since": self.since.isoformat(), "spells": spells}


def situation(facts: Facts, policy: RetrainConfig, now: datetime.datetime) -> Situation:
    """State, reason and history of a name.

    A record from the future, by a clock that is ahead, counts as from now.
    """
    now = max(now, *_stamps(facts))
    return Situation(facts, find_state(facts, policy, now), spells(facts, policy, now))


def find_state(facts: Facts, policy: RetrainConfig, now: datetime.datetime) -> Finding:
    """The one state that the records and the time give."""
    run, audit, model = facts.retraining, facts.last_audit, facts.unaudited_model
    if run is not None and run.outcome == "none":
        return _retraining(run, policy, now)
    if run is not None and waits(run, facts):
        return _waiting(run)
    if model is not None:
        why = f"model {model.digest[:SHORT]} ({model.source}) was seen {_day(model.at)} and not audited"
        return Finding("audit due", why, f"saeops audit {facts.name} --model {model.ref}")
    if audit is not None and calls_for_retrain(audit, policy):
        return _drifting(audit, facts)
    due = audit_due(facts, policy)
    if due is not None and due <= now:
        last = "never audited" if audit is None else f"last audited {_day(audit.at)}"
        why = f"{last}; an audit is due every {policy.audit_every_days:g} days"
        return Finding("audit due", why, f"saeops audit {facts.name} --model {_model_to_audit(facts)}")
    soon = f"nothing; the next audit is due {due.date()}" if due else "nothing"
    if audit is None:
        change = facts.champion
        return Finding("promoted", f"champion by {change.action} {change.sequence}, never audited", soon)
    return Finding("healthy", f"the audit of {_day(audit.at)} says {audit.outcome}", soon)


def spells(facts: Facts, policy: RetrainConfig, now: datetime.datetime) -> tuple[Spell, ...]:
    """The states of the name in order, without gaps, as far as the records tell; the last one is now's."""
    found: list[tuple[StateName, datetime.datetime]] = []
    for at in _moments(facts, policy, now):
        then = facts.as_of(at)
        assert then is not None, "the first moment is that of the first champion"
        state = find_state(then, policy, at).state
        if not found or found[-1][0] != state:
            found.append((state, at))
    ends = [*(since for _, since in found[1:]), now]
    return tuple(Spell(state, since, until) for (state, since), until in zip(found, ends, strict=True))


def calls_for_retrain(audit: AuditRecord, policy: RetrainConfig) -> bool:
    return audit.outcome == "drift" or (audit.outcome == "warn" and policy.on_outcome == "warn")


def waits(run: Retraining, facts: Facts) -> bool:
    """Whether a finished retrain's candidate may still become champion.

    Any promotion since then was of it, with people's decisions sealed in, or passed it over.
    """
    if run.outcome != "done" or run.candidate is None or run.finished is None or run.verdict_outcome == "fail":
        return False
    finished = moment(run.finished)
    passed = any(change.action == "promote" and change.at >= finished for change in facts.changes)
    return not passed and run.candidate != facts.champion.digest and run.candidate not in facts.pinned


def audit_due(facts: Facts, policy: RetrainConfig) -> datetime.datetime | None:
    """When the champion's next audit falls due by the calendar."""
    if policy.audit_every_days is None:
        return None
    audit = facts.last_audit
    last = facts.champion.at if audit is None else max(facts.champion.at, moment(audit.at))
    return last + datetime.timedelta(days=policy.audit_every_days)


def silent(run: Retraining, policy: RetrainConfig, now: datetime.datetime) -> bool:
    """Whether a running retrain has lost its lease: no sign of life for too long."""
    return run.outcome == "none" and now >= lease_end(run, policy)


def lease_end(run: Retraining, policy: RetrainConfig) -> datetime.datetime:
    return moment(run.heartbeat) + datetime.timedelta(minutes=policy.lease_minutes)


def _stamps(facts: Facts) -> set[datetime.datetime]:
    run = facts.retraining
    stamps = [*(audit.at for audit in facts.audits), *(model.at for model in facts.models)]
    stamps += [at for at in (run.started, run.finished, run.judged) if at] if run else []
    return {*(change.at for change in facts.changes), *map(moment, stamps), *facts.pinned.values()}


def _moments(facts: Facts, policy: RetrainConfig, now: datetime.datetime) -> list[datetime.datetime]:
    """Every moment at which the state can have changed: records, and audits that fell due in between."""
    first = facts.changes[0].at
    records = sorted(at for at in _stamps(facts) if first <= at <= now)
    due = set()
    for at, until in pairwise([*records, now]):
        then = facts.as_of(at)
        when = audit_due(then, policy) if then else None
        if when is not None and at < when <= until:
            due.add(when)
    return sorted({*records, *due})


def _retraining(run: Retraining, policy: RetrainConfig, now: datetime.datetime) -> Finding:
    at_what = f" at {run.step}" if run.step else ""
    why = f"{run.holder} retrains for model {run.model[:SHORT]}{at_what}"
    if silent(run, policy, now):
        why += f", without a sign of life since {run.heartbeat}"
        return Finding(
            "retraining", why, f"start the retrain again: it goes on with operation {run.operation[:SHORT]}"
        )
    return Finding("retraining", why, "wait")


def _waiting(run: Retraining) -> Finding:
    assert run.candidate is not None
    judged = f", judged {run.verdict_outcome}" if run.verdict_outcome else ""
    why = f"candidate {run.candidate[:SHORT]} for model {run.model[:SHORT]} is made{judged}"
    todo = "saeops promote" if run.verdict_outcome == "pass" else "saeops review queue, then saeops promote"
    return Finding("candidate waiting", why, todo)


def _drifting(audit: AuditRecord, facts: Facts) -> Finding:
    reasons = "; ".join(audit.reasons) or f"outcome {audit.outcome}"
    why = f"the audit of {_day(audit.at)} on model {audit.model[:SHORT]}: {reasons}"
    ended = how_retrain_ended(facts, audit)
    if ended:
        return Finding(
            "drifting", f"{why}; {ended}", "change what has to change in params.yaml, and retrain by hand"
        )
    return Finding("drifting", why, f"python -m flows retrain, for model {audit.model_ref}")


def how_retrain_ended(facts: Facts, audit: AuditRecord) -> str:
    """How a retrain for the audited model ended, in words; empty where there was none since the audit."""
    run = facts.retraining
    if run is None or run.outcome == "none" or run.model != audit.model or moment(run.started) < moment(audit.at):
        return ""
    if run.outcome == "failed":
        return f"the retrain failed: {run.note}"
    short = run.candidate[:SHORT] if run.candidate else "none"
    if run.verdict_outcome == "fail":
        return f"the judge refused the retrained candidate {short} (saeops explain {short})"
    return f"the retrained candidate {short} is not champion"


def _model_to_audit(facts: Facts) -> str:
    model = facts.last_model
    return model.ref if model else "REF (the model in use)"


def _day(at: str) -> str:
    return at[:10]
