"""Verdicts as they stand in the store."""

import json

from saeops.digests import digest_bytes
from saeops.ports import ObjectStore
from saeops.promotion import keys
from saeops.promotion.journal import broken
from saeops.promotion.state import SHORT
from saeops.promotion.verdict import Verdict


def read_verdict(store: ObjectStore, name: str, digest: str) -> Verdict:
    """A verdict as it was given.

    Raises:
        JournalBroken: it is missing, or was changed.
        FormatUnknown: written by a newer saeops.
    """
    where = f"{name}: the verdict {digest[:SHORT]}"
    found = store.get(keys.verdict_key(name, digest))
    if found is None:
        raise broken(where, "is missing")
    if digest_bytes(found.data) != digest:
        raise broken(where, "was changed after it was given")
    return Verdict.from_json(json.loads(found.data))
