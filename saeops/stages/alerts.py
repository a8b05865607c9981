"""Alerts: incidents opened and resolved in the store, and each opening told to every channel once.

Who sends claims the incident first, by compare-and-swap, and records afterwards
which channel took it. Killed in between, the claim runs out and somebody sends
again, under the same event id: at least once sent, once meant.
"""

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from saeops.drift.policy.alerts import alarms, changed
from saeops.drift.policy.config import RetrainConfig
from saeops.drift.policy.facts import moment
from saeops.drift.policy.lease import stamp
from saeops.drift.policy.records import Incident
from saeops.errors import SaeopsError
from saeops.ports import ObjectStore
from saeops.promotion.protocol import Author
from saeops.stages import state
from saeops.stages.drift_records import put_incident, read_incident, read_incidents

CLAIM_S = 120.0
"""How long a sender may take; longer than all tries of a webhook together."""

Channel = Callable[[Incident], None]
"""Tells people of an incident; raises a SaeopsError where it cannot."""


@dataclass(frozen=True)
class Alerted:
    """What one round did."""

    opened: tuple[Incident, ...]
    resolved: tuple[Incident, ...]
    sent: tuple[tuple[str, Incident], ...]
    """Channel, and what it took."""
    undelivered: tuple[tuple[str, Incident, str], ...]
    """Channel, what it did not take, and why; the next round tries again."""


def run(
    name: str,
    *,
    store: ObjectStore,
    policy: RetrainConfig,
    author: Author,
    channels: Mapping[str, Channel],
) -> Alerted:
    """Bring the incidents of a name up to date, and tell every channel of those that it has not taken.

    Args:
        author: its `operation` must be another for every process that runs at the same time.
        channels: by the name under which a delivery is recorded.

    Raises:
        NameUnknown: there is no champion.
        JournalBroken, FormatUnknown: some record cannot be trusted.
    """
    found = state.where(store, name, policy, author.now)
    holding = alarms(found, policy, author.now)
    moved = [
        incident
        for incident in changed(read_incidents(store, name), holding, name=name, now=author.now)
        if _put_over(store, incident)
    ]
    tries = [
        _told(store, incident, channels, author)
        for incident in read_incidents(store, name).values()
        if incident.open
    ]
    return Alerted(
        opened=tuple(incident for incident in moved if incident.open),
        resolved=tuple(incident for incident in moved if not incident.open),
        sent=tuple(each for tried in tries for each in tried.sent),
        undelivered=tuple(each for tried in tries for each in tried.undelivered),
    )


def incidents(store: ObjectStore, name: str) -> tuple[Incident, ...]:
    """All incidents of a name, those that are over included, the newest first."""
    return tuple(sorted(read_incidents(store, name).values(), key=lambda i: (i.opened, i.id), reverse=True))


def _put_over(store: ObjectStore, incident: Incident) -> bool:
    """Open, open again or resolve, unless somebody else did."""
    before, etag = read_incident(store, incident.name, incident.id)
    if before is not None and (before.open == incident.open or before.episode > incident.episode):
        return False
    if before is not None and not incident.open:
        # Somebody may have recorded a delivery since the incidents were read.
        incident = before.model_copy(update={"resolved": incident.resolved})
    return put_incident(store, incident, etag=etag)


def _told(store: ObjectStore, incident: Incident, channels: Mapping[str, Channel], author: Author) -> Alerted:
    sent: list[tuple[str, Incident]] = []
    undelivered: list[tuple[str, Incident, str]] = []
    claimed = _claim(store, incident, channels, author)
    if claimed is not None:
        for channel in sorted(set(channels) - set(claimed.sent)):
            try:
                channels[channel](claimed)
            except SaeopsError as error:
                undelivered.append((channel, claimed, error.message))
            else:
                sent.append((channel, claimed))
        _release(store, claimed, tuple(channel for channel, _ in sent), author)
    return Alerted((), (), tuple(sent), tuple(undelivered))


def _claim(
    store: ObjectStore, incident: Incident, channels: Mapping[str, Channel], author: Author
) -> Incident | None:
    """The incident, ours to send; None where nothing is to be sent, or somebody else is at it."""
    found, etag = read_incident(store, incident.name, incident.id)
    if found is None or not found.open or not set(channels) - set(found.sent):
        return None
    if found.claimed_until is not None and moment(found.claimed_until) > author.now:
        return None
    until = author.now + datetime.timedelta(seconds=CLAIM_S)
    claimed = found.model_copy(update={"claimed_by": author.operation, "claimed_until": stamp(until)})
    return claimed if put_incident(store, claimed, etag=etag) else None


def _release(store: ObjectStore, claimed: Incident, taken: tuple[str, ...], author: Author) -> None:
    found, etag = read_incident(store, claimed.name, claimed.id)
    ours = (claimed.episode, author.operation)
    if found is None or (found.episode, found.claimed_by) != ours:
        # It resolved or opened again meanwhile: that episode is another's to tell.
        return
    sent = {**found.sent, **dict.fromkeys(taken, author.at)}
    put_incident(
        store,
        found.model_copy(update={"sent": sent, "claimed_by": None, "claimed_until": None}),
        etag=etag,
    )
