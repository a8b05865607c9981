"""Explaining: the stored verdicts behind a champion, a journal entry, or a bundle that was refused."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from saeops.errors import UsageError, VersionUnknown
from saeops.ports import ObjectStore
from saeops.promotion import keys
from saeops.promotion.explain import explain
from saeops.promotion.journal import Entry
from saeops.promotion.state import SHORT, State, no_champion
from saeops.promotion.verdict import Verdict
from saeops.stages.records import read_state
from saeops.stages.verdicts import read_verdict

_VERDICT = re.compile(r"names/(.+)/verdicts/([0-9a-f]{64})\.json")
_DIGEST = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class Given:
    """A verdict as it was given, and what followed."""

    name: str
    digest: str
    """The verdict's own."""
    verdict: Verdict
    entry: Entry | None
    """The promotion that was made on it; None where it was refused."""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "digest": self.digest,
            "entry": self.entry.model_dump(mode="json") if self.entry else None,
            "verdict": self.verdict.to_json(),
            "explanation": explain(self.verdict).to_json(),
        }


def run(store: ObjectStore, reference: str, *, sequence: int | None = None) -> list[Given]:
    """The verdicts that a reference means.

    Args:
        reference: a name: the verdict by which its champion is champion, or where it has none, those that were
            refused. Or (at least eight digits of) a digest: all that were given on this bundle, or this verdict.
        sequence: with a name, the verdict of this journal entry.

    Raises:
        NameUnknown: nothing was ever judged for promotion under this name.
        VersionUnknown: no such entry, or no verdict on such a bundle.
        UsageError: a sequence number without a name.
        JournalBroken: a verdict is missing or was changed, or the journal cannot be trusted.
    """
    if _DIGEST.fullmatch(reference):
        if sequence is not None:
            raise UsageError("--seq counts the entries of one name", hint="say `saeops explain NAME --seq N`")
        return _on_digest(store, reference)
    state = read_state(store, reference)
    if sequence is not None:
        return [_of_entry(store, state, sequence)]
    if state.champion is not None:
        return [_of_entry(store, state, state.promotion_of(state.champion).entry.sequence)]
    refused = [_given(store, state, digest) for name, digest in _stored(store, reference) if name == reference]
    if not refused:
        raise no_champion(reference)
    return refused


def _of_entry(store: ObjectStore, state: State, sequence: int) -> Given:
    steps = state.journal.steps
    if not 1 <= sequence <= len(steps):
        raise VersionUnknown(
            f"{state.name} has no journal entry {sequence}",
            hint=f"`saeops history {state.name}` lists {len(steps)}",
        )
    entry = steps[sequence - 1].entry
    if entry.verdict is None:
        older = f"`saeops explain {state.name} --seq {state.promotion_of(entry.to_digest).entry.sequence}`"
        raise VersionUnknown(
            f"{state.name}: entry {sequence} is a rollback, and no rollback is judged",
            hint=f"by what right its target was champion before: {older}",
        )
    return Given(state.name, entry.verdict, read_verdict(store, state.name, entry.verdict), entry)


def _on_digest(store: ObjectStore, digest: str) -> list[Given]:
    states: dict[str, State] = {}
    found = []
    for name, verdict in _stored(store, ""):
        if name not in states:
            states[name] = read_state(store, name)
        given = _given(store, states[name], verdict)
        if given.verdict.bundle.startswith(digest) or verdict.startswith(digest):
            found.append(given)
    if not found:
        raise VersionUnknown(
            f"no verdict was given on a bundle {digest[:SHORT]}, nor is it a verdict",
            hint="a verdict is kept once a promotion is attempted; `saeops judge` judges the built bundle",
        )
    return found


def _given(store: ObjectStore, state: State, digest: str) -> Given:
    entries = [step.entry for step in state.journal.steps if step.entry.verdict == digest]
    return Given(state.name, digest, read_verdict(store, state.name, digest), entries[-1] if entries else None)


def _stored(store: ObjectStore, name: str) -> Iterator[tuple[str, str]]:
    """Name and digest of every stored verdict."""
    prefix = f"names/{keys.check_name(name)}/verdicts/" if name else "names/"
    for key in store.list(prefix):
        if found := _VERDICT.fullmatch(key):
            yield found[1], found[2]
