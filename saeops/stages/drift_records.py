"""A name's records of drift in the object store: audits, seen models, the retraining, incidents."""

from saeops.drift.audit.record import AuditRecord, parse_audit
from saeops.drift.policy.facts import moment
from saeops.drift.policy.records import Incident, ModelSeen, Retraining
from saeops.ports import ObjectStore
from saeops.promotion import keys
from saeops.promotion.journal import broken, parse_record

AUDITS_READ = 32
"""The newest ones: earlier ones decide nothing, and each costs a read."""


def read_audits(store: ObjectStore, name: str, *, newest: int = AUDITS_READ) -> tuple[AuditRecord, ...]:
    """The newest audits, oldest first.

    Raises:
        JournalBroken, FormatUnknown: one of them cannot be trusted.
    """
    found = keys.audits_among(store.list(keys.audits_prefix(name)), name)[-newest:]
    audits = [parse_audit(_bytes(store, key), key) for key in found]
    return tuple(sorted(audits, key=lambda audit: moment(audit.at)))


def read_models(store: ObjectStore, name: str) -> tuple[ModelSeen, ...]:
    """The model versions that were seen, oldest first.

    Raises:
        JournalBroken, FormatUnknown: one of them cannot be trusted.
    """
    prefix = keys.models_prefix(name)
    found = keys.plain_among(store.list(prefix), prefix)
    models = [parse_record(ModelSeen, _bytes(store, key), key) for key in found]
    return tuple(sorted(models, key=lambda model: moment(model.at)))


def read_model(store: ObjectStore, name: str, digest: str) -> ModelSeen | None:
    key = keys.model_key(name, digest)
    found = store.get(key)
    return None if found is None else parse_record(ModelSeen, found.data, key)


def put_model(store: ObjectStore, seen: ModelSeen) -> bool:
    """Write that a model was seen; False where somebody was first."""
    return store.put(keys.model_key(seen.name, seen.digest), seen.to_bytes(), if_absent=True) is not None


def read_retraining(store: ObjectStore, name: str) -> tuple[Retraining | None, str | None]:
    """The record with its etag; neither where nobody ever retrained."""
    key = keys.retraining_key(name)
    found = store.get(key)
    return (None, None) if found is None else (parse_record(Retraining, found.data, key), found.etag)


def put_retraining(store: ObjectStore, run: Retraining, *, etag: str | None) -> bool:
    """Write if the record is still at `etag` (None: if there is none)."""
    key = keys.retraining_key(run.name)
    return store.put(key, run.to_bytes(), if_match=etag, if_absent=etag is None) is not None


def read_incidents(store: ObjectStore, name: str) -> dict[str, Incident]:
    """By id.

    Raises:
        JournalBroken, FormatUnknown: one of them cannot be trusted.
    """
    prefix = keys.incidents_prefix(name)
    found = keys.plain_among(store.list(prefix), prefix)
    incidents = [parse_record(Incident, _bytes(store, key), key) for key in found]
    return {incident.id: incident for incident in incidents}


def read_incident(store: ObjectStore, name: str, incident: str) -> tuple[Incident | None, str | None]:
    """The record with its etag."""
    key = keys.incident_key(name, incident)
    found = store.get(key)
    return (None, None) if found is None else (parse_record(Incident, found.data, key), found.etag)


def put_incident(store: ObjectStore, incident: Incident, *, etag: str | None) -> bool:
    """Write if the record is still at `etag` (None: if there is none)."""
    key = keys.incident_key(incident.name, incident.id)
    return store.put(key, incident.to_bytes(), if_match=etag, if_absent=etag is None) is not None


def _bytes(store: ObjectStore, key: str) -> bytes:
    found = store.get(key)
    if found is None:
        raise broken(key, "vanished while it was read")
    return found.data
