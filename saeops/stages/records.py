"""Reading and writing one name's records in the object store: journal, pointer, pins."""

from collections.abc import Callable

from saeops.errors import LostRace
from saeops.ports import Found, ObjectStore
from saeops.promotion import keys
from saeops.promotion.journal import Closing, Entry, Journal, Step, broken, chain, parse_record, parse_step
from saeops.promotion.state import Pins, Pointer, State, check_state

TRIES = 50
"""Reads of a moving champion, or writes of contended pins, before giving up."""


def read_state(store: ObjectStore, name: str) -> State:
    """Journal, pointer and pins that belong together.

    Raises:
        JournalBroken: the journal has a gap or an edit, or the pointer tells another story.
        FormatUnknown: written by a newer saeops.
        LostRace: the champion kept moving while it was read.
    """
    before = store.get(keys.champion_key(name))
    for _ in range(TRIES):
        journal = read_journal(store, name)
        after = store.get(keys.champion_key(name))
        # Every pointer ever written has an etag of its own, so equal etags mean that nothing moved in between.
        if _etag(before) == _etag(after):
            pins = read_pins(store, name)
            return check_state(State(journal, _pointer(name, after), _etag(after), pins))
        before = after
    raise LostRace(f"the champion of {name} moves faster than it can be read", hint="run the same command again")


def read_journal(store: ObjectStore, name: str) -> Journal:
    """Every entry with its closing, chain checked.

    A listing is no snapshot: so entries are asked for one after the other, and
    the listing, taken first, only says how far they must reach.

    Raises:
        JournalBroken: a gap, an edit, or an entry out of its place.
    """
    last = keys.last_sequence(store.list(keys.journal_prefix(name)), name)
    steps: list[Step] = []
    while (entry := store.get(keys.entry_key(name, len(steps) + 1))) is not None:
        if steps and steps[-1].closing is None:
            # It was open when it was read, and must have been closed before this entry was written.
            steps[-1] = _read_step(store, name, len(steps))
        steps.append(_step(store, name, len(steps) + 1, entry.data))
    if len(steps) < last:
        raise broken(f"{name}: journal entry {len(steps) + 1}", "is missing although later ones are there")
    return chain(name, steps)


def append(store: ObjectStore, entry: Entry) -> Step | None:
    """Write an intent; None when somebody else took its place in the journal."""
    key, data = keys.entry_key(entry.name, entry.sequence), entry.to_bytes()
    if store.put(key, data, if_absent=True) is None:
        # A refusal can be the echo of our own write, arrived before its answer was lost.
        found = store.get(key)
        if found is None or found.data != data:
            return None
    return parse_step(entry.name, entry.sequence, data, None)


def close(store: ObjectStore, name: str, closing: Closing) -> Closing:
    """Write a closing, unless there is one; the one that stands is given back."""
    key = keys.closing_key(name, closing.sequence)
    if store.put(key, closing.to_bytes(), if_absent=True) is not None:
        return closing
    found = store.get(key)
    assert found is not None, "a closing is never deleted"
    return parse_record(Closing, found.data, key)


def read_pointer(store: ObjectStore, name: str) -> Pointer | None:
    return _pointer(name, store.get(keys.champion_key(name)))


def put_pointer(store: ObjectStore, pointer: Pointer, *, etag: str | None) -> bool:
    """Move the pointer if it is still at `etag` (None: if there is none)."""
    key, data = keys.champion_key(pointer.name), pointer.to_bytes()
    return store.put(key, data, if_match=etag, if_absent=etag is None) is not None


def read_pins(store: ObjectStore, name: str) -> Pins:
    found = store.get(keys.pins_key(name))
    return Pins() if found is None else parse_record(Pins, found.data, f"{name}: pins.json")


def change_pins(store: ObjectStore, name: str, change: Callable[[Pins], Pins]) -> Pins:
    """Apply a change to the pins, whoever else is changing them.

    Raises:
        LostRace: somebody else kept changing them.
    """
    key = keys.pins_key(name)
    for _ in range(TRIES):
        found = store.get(key)
        pins = Pins() if found is None else parse_record(Pins, found.data, f"{name}: pins.json")
        changed = change(pins)
        if changed == pins:
            return pins
        if store.put(key, changed.to_bytes(), if_match=_etag(found), if_absent=found is None) is not None:
            return changed
    raise LostRace(f"the pins of {name} keep changing", hint="run the same command again")


def _read_step(store: ObjectStore, name: str, sequence: int) -> Step:
    entry = store.get(keys.entry_key(name, sequence))
    if entry is None:
        raise broken(f"{name}: journal entry {sequence}", "vanished while it was read")
    return _step(store, name, sequence, entry.data)


def _step(store: ObjectStore, name: str, sequence: int, entry: bytes) -> Step:
    closing = store.get(keys.closing_key(name, sequence))
    return parse_step(name, sequence, entry, closing.data if closing else None)


def _pointer(name: str, found: Found | None) -> Pointer | None:
    return None if found is None else parse_record(Pointer, found.data, f"{name}: champion.json")


def _etag(found: Found | None) -> str | None:
    return found.etag if found else None
