"""Rollback: make an earlier version champion again. No gates, always integrity."""

import re

from saeops.errors import UsageError, VersionUnknown
from saeops.ports import ObjectStore
from saeops.promotion import keys
from saeops.promotion.plan import plan_rollback
from saeops.promotion.protocol import Author, intent
from saeops.promotion.state import State
from saeops.stages.records import read_state
from saeops.stages.transfer import verify_stored
from saeops.stages.walk import Moved, Registry, Untold, move, settle


def run(
    name: str, *, to: str = "previous", registry: Registry, author: Author, reason: str = "", dry_run: bool = False
) -> Moved:
    """Make the version that `to` means champion again, and pin the one left behind; safe to repeat.

    Args:
        to: `previous`, a journal sequence number, or (at least eight digits of) a digest.
        reason: required unless this is a dry run.
        dry_run: check all of it, the target's bytes included, and change nothing.

    Raises:
        NameUnknown: there is no champion.
        VersionUnknown: `to` was never champion here, or there is nothing to go back to; lists what was.
        VersionPinned: the target is pinned.
        LostRace: somebody else moved the champion first.
        IntegrityError: the target is not whole in the store; the champion is not touched.
        UsageError: no reason.
    """
    if not dry_run and not reason.strip():
        raise UsageError("a rollback needs a reason", hint='add --reason "what went wrong": the journal keeps it')
    state = read_state(registry.store, name) if dry_run else settle(registry, name, author)
    told = not isinstance(registry.projection, Untold)
    plan = plan_rollback(state, _version(registry.store, state, to), projected=told)
    if plan.unchanged:
        return Moved(plan, None)
    if dry_run:
        verify_stored(registry.store, plan.to_digest)
        return Moved(plan, None)
    entry = intent(state, author, action="rollback", to_digest=plan.to_digest, reason=reason.strip())
    return move(registry, state, plan, entry, author)


def _version(store: ObjectStore, state: State, to: str) -> str:
    """`to`, unless it means a bundle of another dictionary.

    Raises:
        VersionUnknown: it does; names that dictionary.
    """
    if state.champion is None or not re.fullmatch(r"[0-9a-f]{8,64}", to) or state.knows(to):
        return to
    for owner in keys.all_names(store.list("names/")):
        if owner != state.name and read_state(store, owner).knows(to):
            raise VersionUnknown(f"{state.name}: {to!r} is a version of {owner}", hint=state.known_versions())
    return to
