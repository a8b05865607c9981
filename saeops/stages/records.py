"""Reading and writing one name's records in the object store: journal, pointer, pins."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, takewhile

from saeops.errors import LostRace
from saeops.ports import Found, ObjectStore
from saeops.promotion import keys
from saeops.promotion.journal import Closing, Entry, Journal, Step, broken, chain, parse_record, parse_step
from saeops.promotion.state import Pins, Pointer, State, check_state

TRIES = 50
"""Reads of a moving champion, or writes of contended pins, before giving up."""
MANY = 16
"""Entries from which on a journal is read several at a time: each is a round trip or two, to a store far away."""
AT_ONCE = 16


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

    A listing is no snapshot: so entries are asked for until there are no more, and
    the listing, taken first, only says how far they must reach.

    Raises:
        JournalBroken: a gap, an edit, or an entry out of its place.
    """
    last = keys.last_sequence(store.list(keys.journal_prefix(name)), name)
    steps: list[Step] = []
    for step in _steps(store, name, listed=last):
        if steps and steps[-1].closing is None:
            # It was open when it was read, and must have been closed before this entry was written.
            steps[-1] = _settled_step(store, name, len(steps))
        steps.append(step)
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


def _steps(store: ObjectStore, name: str, *, listed: int) -> Iterator[Step]:
    """Entries with their closings in order, up to the first that is not there; long journals several at a time."""
    first = 1
    if listed >= MANY:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = list(pool.map(lambda sequence: _read_step(store, name, sequence), range(1, listed + 1)))
        whole = list(takewhile(lambda step: step is not None, found))
        yield from (step for step in whole if step is not None)
        if len(whole) < listed:
            return
        first = listed + 1
    for sequence in count(first):
        step = _read_step(store, name, sequence)
        if step is None:
            return
        yield step


def _settled_step(store: ObjectStore, name: str, sequence: int) -> Step:
    step = _read_step(store, name, sequence)
    if step is None:
        raise broken(f"{name}: journal entry {sequence}", "vanished while it was read")
    return step


def _read_step(store: ObjectStore, name: str, sequence: int) -> Step | None:
    entry = store.get(keys.entry_key(name, sequence))
    if entry is None:
        return None
    closing = store.get(keys.closing_key(name, sequence))
    return parse_step(name, sequence, entry.data, closing.data if closing else None)


def _pointer(name: str, found: Found | None) -> Pointer | None:
    return None if found is None else parse_record(Pointer, found.data, f"{name}: champion.json")


def _etag(found: Found | None) -> str | None:
    return found.etag if found else None
