"""Plans: exactly what an operation would change, decided before anything is touched."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from saeops.errors import VersionPinned, VersionUnknown
from saeops.promotion import keys
from saeops.promotion.journal import Action
from saeops.promotion.protocol import next_step
from saeops.promotion.state import SHORT, Pin, State, no_champion, pin_owed


@dataclass(frozen=True)
class Plan:
    """What would change, key by key."""

    name: str
    action: Action
    from_digest: str | None
    to_digest: str
    changes: tuple[str, ...]
    """One line each, in the order in which they happen."""
    unchanged: str = ""
    """Why the champion stays; then `changes` only settle what somebody left open."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "changes": list(self.changes)}


def plan_promotion(state: State, digest: str) -> Plan:
    """Make `digest` champion.

    Raises:
        VersionPinned: it is pinned.
    """
    if state.champion == digest:
        return _nothing(state, "promote", f"{digest[:SHORT]} is champion of {state.name} already")
    _refuse_pinned(state, digest)
    return _plan(state, "promote", digest)


def plan_rollback(state: State, to: str, *, projected: bool = True) -> Plan:
    """Make the version that `to` means champion again. `previous` is undone once, never back and forth.

    Args:
        projected: the readable copy's aliases follow at once.

    Raises:
        NameUnknown: there is no champion.
        VersionUnknown: `to` was never promoted here, or there is nothing before the first version.
        VersionPinned: it is pinned.
    """
    last = state.made_champion
    if last is None:
        raise no_champion(state.name)
    if to == "previous" and state.previous is None:
        raise VersionUnknown(
            f"{state.name}: nothing to go back to, {last.entry.to_digest[:SHORT]} is its first champion",
            hint="promote another bundle; " + state.known_versions(),
        )
    target = state.resolve(to)
    pin = state.pinned.get(target)
    if to == "previous" and pin is not None and pin.sequence == last.entry.sequence:
        return _nothing(state, "rollback", _already_rolled_back(state))
    if target == state.champion:
        return _nothing(state, "rollback", f"{target[:SHORT]} is champion of {state.name} already")
    _refuse_pinned(state, target)
    return _plan(state, "rollback", target, projected=projected)


def settling(state: State) -> tuple[str, ...]:
    """What happens first when somebody left an intent open."""
    step = state.journal.open
    if step is None:
        return ()
    entry = step.entry
    outcome = "close it as done" if next_step(state) == "finish" else "void it"
    left = f"{entry.who} left a {entry.action} open at {entry.at}"
    return (f"{keys.closing_key(state.name, entry.sequence)}: {left}; {outcome}",)


def _settled_first(state: State) -> tuple[str, ...]:
    """Every key that settling an open intent writes, in order."""
    step = state.journal.open
    if step is None:
        return ()
    if next_step(state) == "fence":
        fence = f"{keys.champion_key(state.name)}: the same champion, closed to {step.entry.who}'s operation"
        return (fence, *settling(state))
    owed = pin_owed(step)
    if state.pins.and_also(owed) == state.pins:
        return settling(state)
    pins = (f"{keys.pins_key(state.name)}: pin {_short(digest)} against promotion" for digest in owed)
    return (*pins, *settling(state))


def _plan(state: State, action: Action, target: str, *, projected: bool = True) -> Plan:
    sequence = state.journal.next_sequence
    left = state.champion
    changes = [
        *_settled_first(state),
        f"{keys.entry_key(state.name, sequence)}: new entry, {action}",
        f"{keys.champion_key(state.name)}: {_short(left)} → {target[:SHORT]}",
    ]
    if action == "rollback":
        changes.append(f"{keys.pins_key(state.name)}: pin {_short(left)} against promotion")
    if projected:
        changes.append(f"alias champion: {_short(left)} → {target[:SHORT]}")
    if projected and left is not None:
        changes.append(f"alias previous: → {left[:SHORT]}")
    changes.append(f"{keys.closing_key(state.name, sequence)}: done")
    return Plan(state.name, action, left, target, tuple(changes))


def _nothing(state: State, action: Action, why: str) -> Plan:
    assert state.champion is not None
    return Plan(state.name, action, state.champion, state.champion, _settled_first(state), unchanged=why)


def _already_rolled_back(state: State) -> str:
    last = state.made_champion
    assert last is not None
    further = _version_below(state)
    advice = (
        f"`saeops rollback {state.name} --to {further} --reason …`" if further else "there is no older version"
    )
    return (
        f"{state.name} was rolled back already, to {last.entry.to_digest[:SHORT]} by entry {last.entry.sequence}; "
        f"to go back further: {advice}"
    )


def _version_below(state: State) -> int | None:
    """Sequence of the newest version that came before the champion's own promotion and is not pinned."""
    earliest = next(s.entry.sequence for s in state.settled if s.entry.to_digest == state.champion)
    free = [s.entry.sequence for s in state.settled if s.entry.to_digest not in state.pinned]
    return max((sequence for sequence in free if sequence < earliest), default=None)


def _refuse_pinned(state: State, digest: str) -> None:
    pins: Mapping[str, Pin] = state.pinned
    if digest in pins:
        pin = pins[digest]
        by = f"rollback {pin.sequence}" if pin.sequence else pin.who
        raise VersionPinned(
            f"{digest[:SHORT]} is pinned under {state.name} since {pin.at} by {by}: {pin.reason}",
            hint=f"if it may be champion again: `saeops unpin {state.name} {digest[:SHORT]}`, then repeat",
        )


def _short(digest: str | None) -> str:
    return digest[:SHORT] if digest else "nothing"
