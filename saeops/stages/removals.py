"""The marks of removals in the store, and how a promotion gives way to them.

A rollback need not look: it only goes to what the journal names, and that is never removed.
"""

from dataclasses import dataclass

from saeops.errors import LostRace
from saeops.ports import ObjectStore
from saeops.promotion import keys
from saeops.promotion.journal import parse_record
from saeops.promotion.protocol import Author
from saeops.promotion.retention import Removal, removal
from saeops.promotion.state import SHORT


@dataclass(frozen=True)
class Mark:
    """A removal as it stands in the store."""

    removal: Removal
    etag: str


def read_mark(store: ObjectStore, digest: str) -> Mark | None:
    """The mark on a bundle, if there ever was one.

    Raises:
        JournalBroken, FormatUnknown: it cannot be read.
    """
    found = store.get(keys.removal_key(digest))
    if found is None:
        return None
    return Mark(parse_record(Removal, found.data, keys.removal_key(digest)), found.etag)


def put_mark(store: ObjectStore, mark: Removal, *, over: Mark | None) -> Mark | None:
    """Write a mark if what it replaces is still there; None where it is not."""
    key, data = keys.removal_key(mark.digest), mark.to_bytes()
    store.put(key, data, if_match=over.etag if over else None, if_absent=over is None)
    # Read back whatever the store said: a refusal can be the echo of our own write.
    found = read_mark(store, mark.digest)
    return found if found is not None and found.removal == mark else None


def give_way(store: ObjectStore, digest: str, seen: Mark | None, author: Author) -> bool:
    """Whether a removal of the target has come in between; asked once the intent stands in the journal.

    Args:
        seen: the mark before the bundle was uploaded, or chosen. If it still says `removed`, the bundle
            was uploaded whole since, and the mark is withdrawn.
    """
    mark = read_mark(store, digest)
    if mark is None or mark.removal.phase == "withdrawn":
        return False
    if mark.removal.phase == "removed" and seen is not None and seen.etag == mark.etag:
        return put_mark(store, removal(digest, author, "withdrawn"), over=mark) is None
    return True


def being_removed(mark: Mark | None, name: str) -> LostRace:
    """The error for a target that a removal has its hands on."""
    by = f" by {mark.removal.who} since {mark.removal.at}" if mark else ""
    what = f"{mark.removal.digest[:SHORT]}" if mark else "the target"
    return LostRace(
        f"{name}: {what} is being removed from the store{by}",
        hint="`saeops gc` finishes what a killed one left; then run the same command again",
    )
