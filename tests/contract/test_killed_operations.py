"""SIGKILL at every store operation of promote and rollback: before it, inside it, after it; folder and S3."""

import contextlib
import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import pytest

from saeops.adapters.projection import MemoryProjection
from saeops.adapters.s3 import S3Store, open_s3
from saeops.adapters.stores import LocalStore, MemoryStore
from saeops.dictionary.bundle import Bundle
from saeops.errors import LostRace
from saeops.ports import ObjectStore
from saeops.promotion.journal import Action
from saeops.promotion.state import State
from saeops.stages import registry, rollback
from saeops.stages.records import read_state
from saeops.stages.transfer import verify_stored
from saeops.stages.walk import Registry, settle
from tests.bundles import NAME, author
from tests.dying import Moment, killed
from tests.shelves import named_bundle, put_through

LETTERS = "abcd"
DIES, REPEATS = "dies", "repeats"
TRIES = 5

Bundles = dict[str, Bundle]


class Places(Protocol):
    """Fresh handles on the store of that name, for this process or for one that is forked from it."""

    def __call__(self, name: str, *, for_: Literal["this", "another"] = "this") -> LocalStore | S3Store: ...


@dataclass(frozen=True)
class Case:
    """An operation that is killed, and what it finds."""

    action: Action
    champions: str
    """The bundles that were promoted before, in order; the first of several is pinned by hand."""
    target: str
    pinned: str
    """What is pinned when it is over."""
    fewest: dict[Moment, int]
    """At so many operations it must have been killed, lest the test miss them unnoticed."""


CASES = {
    "first promotion": Case("promote", "", "d", "", {"before": 20, "inside": 7, "after": 20}),
    "promotion": Case("promote", "abc", "d", "a", {"before": 40, "inside": 7, "after": 40}),
    "rollback": Case("rollback", "abc", "b", "ac", {"before": 30, "inside": 4, "after": 30}),
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    return {letter: named_bundle(tmp_path_factory.mktemp(letter), letter) for letter in LETTERS}


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def places(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    if request.param == "local":
        # A killed process loses nothing it wrote; fsync guards against power cuts, which no test here makes.
        monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
        return lambda name, **_: LocalStore(tmp_path / name)
    address = request.getfixturevalue("s3_address")
    # Making a client takes longer than all its requests here. The one for others never connects in this process.
    clients = {"this": open_s3(address).client, "another": open_s3(address).client}

    def on_s3(name: str, *, for_: Literal["this", "another"] = "this") -> S3Store:
        store = open_s3(f"{address}/{name}")
        store.client = clients[for_]
        return store

    return on_s3


@pytest.mark.parametrize("moment", ["before", "inside", "after"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_operation_killed_anywhere_leaves_a_whole_champion_and_can_be_settled_and_repeated(
    places: Places, bundles: Bundles, case: Case, moment: Moment
):
    ready = registry_before(case, bundles)
    old, new = read_state(ready, NAME).champion, bundles[case.target].digest
    found = set()
    for at in itertools.count(1):
        store, dying = places(f"{at}"), places(f"{at}", for_="another")
        fill(store, ready)
        was_killed = killed(operate, dying, case, bundles, DIES, at=at, moment=moment)
        left = readers_see(store, {old, new}).champion
        settled = settled_by_the_next(store, {left, new})
        found.add(settled)
        operate_again(store, case, bundles)
        check_end(store, case, bundles, dead=settled[1])
        if not was_killed:
            break
    assert at > case.fewest[moment]
    assert found == {(old, "unwritten"), (old, "void"), (new, "done")}


def registry_before(case: Case, bundles: Bundles) -> MemoryStore:
    store = MemoryStore()
    for letter in case.champions:
        put_through(house(store), bundles[letter], letter)
    if case.champions:
        first = bundles[case.champions[0]].digest
        registry.pin(store, NAME, first, author=author("pin"), reason="it misfires")
    return store


def fill(store: ObjectStore, ready: MemoryStore) -> None:
    for key in ready.list(""):
        found = ready.get(key)
        assert found is not None
        store.put(key, found.data)


def operate(store: ObjectStore, case: Case, bundles: Bundles, operation: str) -> None:
    if case.action == "promote":
        put_through(house(store), bundles[case.target], operation)
    else:
        rollback.run(NAME, registry=house(store), author=author(operation), reason="it misfires")


def house(store: ObjectStore) -> Registry:
    return Registry(store, MemoryProjection(), patience_s=0)


def readers_see(store: ObjectStore, expected: set[str | None]) -> State:
    """What readers get, checked to name one of those expected as champion, whole."""
    state = read_state(store, NAME)
    assert state.champion in expected
    if state.champion is not None:
        verify_stored(store, state.champion)
    return state


def settled_by_the_next(store: ObjectStore, expected: set[str | None]) -> tuple[str | None, str]:
    """The champion, and what became of the dead one's intent, once somebody else has come along."""
    state = settle(house(store), NAME, author("passes by", who="bob"))
    assert state.journal.open is None
    assert state.champion in expected
    closings = {step.entry.operation: step.closing for step in state.journal.steps}
    closing = closings.get(DIES)
    return state.champion, closing.outcome if closing else "unwritten"


def operate_again(store: ObjectStore, case: Case, bundles: Bundles) -> None:
    """As the message of a lost race says. The last request of a dead process may still have been under way."""
    for _ in range(TRIES):
        with contextlib.suppress(LostRace):
            operate(store, case, bundles, REPEATS)
            return
    pytest.fail("it never went through")


def check_end(store: ObjectStore, case: Case, bundles: Bundles, *, dead: str) -> None:
    """What was wished for, pinned as it should be, in a journal that tells each success once."""
    new = bundles[case.target].digest
    state = readers_see(store, {new})
    assert state.pins.pins.keys() == {bundles[letter].digest for letter in case.pinned}
    assert state.journal.done[-1].entry.operation == (DIES if dead == "done" else REPEATS)
    rows = registry.history(store, NAME, verify=True)
    assert [row.sequence for row in rows] == list(range(1, len(rows) + 1))
    ours = rows[len(case.champions) :]
    assert {(row.action, row.to_digest) for row in ours} == {(case.action, new)}
    assert [row.outcome for row in ours] in (["done"], ["void", "done"])
