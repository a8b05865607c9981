"""What a dashboard wants to know of each name, gathered from the store. Meanings: docs/retraining.md."""

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from saeops.drift.policy.config import RetrainConfig
from saeops.drift.policy.facts import moment
from saeops.drift.policy.machine import STATES, Situation
from saeops.errors import SaeopsError
from saeops.ports import ObjectStore
from saeops.promotion.state import State
from saeops.promotion.verdict import Verdict
from saeops.stages.drift_records import read_incidents
from saeops.stages.records import read_state
from saeops.stages.state import where
from saeops.stages.verdicts import read_verdict

HELP = {
    "saeops_registry_readable": "1: the name's records can be trusted; 0: they cannot, and nothing else is told",
    "saeops_champion_age_seconds": "Since the champion was made champion",
    "saeops_state": "1 for the state that the name is in, 0 for the others",
    "saeops_state_age_seconds": "Since the name came into its state",
    "saeops_last_audit_age_seconds": "Since the champion's last audit; absent where it was never audited",
    "saeops_last_audit_outcome": "1 for the outcome of the champion's last audit, 0 for the others",
    "saeops_drift_ratio": "Latents with a verdict over latents that fired often enough to tell, in the last audit",
    "saeops_gate_margin": "How far a gate's hardest bound was on the right side of its limit in the last verdict",
    "saeops_review_backlog": "Labels of the built bundle that wait for a decision",
    "saeops_open_intents": "Promotions and rollbacks that were begun and not closed",
    "saeops_incidents_open": "Incidents that are open, by kind",
}


@dataclass(frozen=True)
class Sample:
    """One figure of one name."""

    gauge: str
    labels: Mapping[str, str]
    value: float


def gather(
    store: ObjectStore,
    names: Iterable[str],
    policy: RetrainConfig,
    now: datetime.datetime,
    *,
    backlog: Mapping[str, int],
) -> tuple[Sample, ...]:
    """Every sample of the names.

    A name that cannot be read is told of by a gauge: it must not hide the others.

    Args:
        backlog: name → labels that wait for a decision, where that is known.
    """
    found: list[Sample] = []
    for name in names:
        try:
            samples = [*_of_name(store, name, policy, now), *_backlog(name, backlog)]
        except SaeopsError:
            found.append(Sample("saeops_registry_readable", {"dictionary": name}, 0))
        else:
            found += [Sample("saeops_registry_readable", {"dictionary": name}, 1), *samples]
    return tuple(found)


def _of_name(store: ObjectStore, name: str, policy: RetrainConfig, now: datetime.datetime) -> list[Sample]:
    state = read_state(store, name)
    found = where(store, name, policy, now, state=state)
    of = {"dictionary": name}
    samples = [
        Sample("saeops_champion_age_seconds", of, _age(found.facts.champion.at, now)),
        Sample("saeops_state_age_seconds", of, _age(found.since, now)),
        Sample("saeops_open_intents", of, float(state.journal.open is not None)),
    ]
    samples += [
        Sample("saeops_state", {**of, "state": each}, float(each == found.finding.state)) for each in STATES
    ]
    kinds = [incident.kind for incident in read_incidents(store, name).values() if incident.open]
    samples += [
        Sample("saeops_incidents_open", {**of, "kind": kind}, float(kinds.count(kind)))
        for kind in sorted(set(kinds))
    ]
    return [*samples, *_of_audit(found, of, now), *_of_gates(store, state, found, of)]


def _of_audit(found: Situation, of: Mapping[str, str], now: datetime.datetime) -> list[Sample]:
    audit = found.facts.last_audit
    if audit is None:
        return []
    counts = {verdict: getattr(audit.latents, verdict) for verdict in ("kept", "weakened", "changed", "lost")}
    told = sum(counts.values())
    return [
        Sample("saeops_last_audit_age_seconds", of, _age(moment(audit.at), now)),
        *(
            Sample("saeops_last_audit_outcome", {**of, "outcome": each}, float(each == audit.outcome))
            for each in ("ok", "warn", "drift")
        ),
        *(
            Sample("saeops_drift_ratio", {**of, "verdict": verdict}, count / told)
            for verdict, count in counts.items()
            if told
        ),
    ]


def _of_gates(store: ObjectStore, state: State, found: Situation, of: Mapping[str, str]) -> list[Sample]:
    verdict = _last_verdict(store, state, found)
    if verdict is None:
        return []
    margins = {gate.requirement: gate.to_spare for gate in verdict.counted}
    return [
        Sample("saeops_gate_margin", {**of, "gate": gate, "bundle": verdict.bundle}, margin)
        for gate, margin in margins.items()
        if margin is not None
    ]


def _last_verdict(store: ObjectStore, state: State, found: Situation) -> Verdict | None:
    """The retrained candidate's where that was judged after the champion came, else the champion's."""
    champion, run = found.facts.champion, found.facts.retraining
    digest = state.promotion_of(champion.digest).entry.verdict
    if run is not None and run.verdict is not None and run.judged is not None and moment(run.judged) > champion.at:
        digest = run.verdict
    return read_verdict(store, state.name, digest) if digest else None


def _backlog(name: str, backlog: Mapping[str, int]) -> list[Sample]:
    if name not in backlog:
        return []
    return [Sample("saeops_review_backlog", {"dictionary": name}, float(backlog[name]))]


def _age(since: datetime.datetime, now: datetime.datetime) -> float:
    """Seconds; never negative, whatever two machines' clocks say."""
    return max(0.0, (now - since).total_seconds())
