"""Names whose champions drift, in a store: for tests of what the policy does about it."""

from pathlib import Path

from saeops.adapters.projection import MemoryProjection
from saeops.digests import digest_bytes
from saeops.drift.audit.record import AuditRecord
from saeops.ports import ObjectStore
from saeops.promotion import keys
from saeops.stages import promote
from saeops.stages.records import read_state
from saeops.stages.walk import Registry
from tests.bundles import MODEL, NAME, author, tiny_bundle, tiny_params, verdict_on


def promoted(
    store: ObjectStore, work: Path, letter: str, *, name: str = NAME, minutes: int = 0, model: str = MODEL
) -> str:
    """A real tiny bundle, made champion; gives its digest."""
    folder = work / f"built-{letter}"
    bundle = tiny_bundle(folder, seed=ord(letter), params=tiny_params(name=name), model=model)
    verdict = verdict_on(bundle, read_state(store, name).champion)
    house = Registry(store, MemoryProjection(), patience_s=0)
    who = author(f"op-{letter}", minutes=minutes)
    promote.run(bundle.path, verdict, registry=house, author=who, reason=letter, git_commit=None)
    return bundle.digest


def recorded(store: ObjectStore, audit: AuditRecord) -> AuditRecord:
    """The audit, written as the audit stage writes it."""
    data = audit.to_bytes()
    assert store.put(keys.audit_key(audit.name, audit.at, digest_bytes(data)), data, if_absent=True)
    return audit
