"""Pins under contention: an unpin and a rollback that meet, and a person's pin beside a rollback's."""

from pathlib import Path

import pytest

from saeops.adapters.projection import MemoryProjection
from saeops.adapters.stores import MemoryStore
from saeops.errors import LostRace
from saeops.promotion.protocol import intent
from saeops.promotion.state import Pin, Pins
from saeops.stages import registry, rollback
from saeops.stages.records import append, close, read_state
from saeops.stages.walk import Registry, closing, settle
from tests.bundles import NAME, author
from tests.shelves import InterruptedStore, put_up, small_bundle


@pytest.fixture
def digest(tmp_path: Path) -> dict[str, str]:
    return {letter: small_bundle(tmp_path / letter, letter) for letter in "ab"}


@pytest.fixture
def shelf(tmp_path: Path, digest: dict[str, str]) -> MemoryStore:
    """The registry after promotions of a and b."""
    store = MemoryStore()
    for letter in digest:
        put_up(house(store), NAME, tmp_path / letter, letter)
    return store


def house(store: MemoryStore | InterruptedStore) -> Registry:
    return Registry(store, MemoryProjection(), patience_s=0)


def back(store: MemoryStore) -> None:
    rollback.run(NAME, registry=house(store), author=author("back"), reason="it misfires")


def test_an_unpin_that_meets_a_rollback_never_takes_its_pin_unseen(shelf: MemoryStore, digest: dict[str, str]):
    told = set()
    for at in range(1, 30):
        store = InterruptedStore(_copy(shelf))
        registry.pin(store.shelf, NAME, "champion", author=author("pin"), reason="wait for the review")
        store.interrupt(at, lambda store=store: back(store.shelf))
        try:
            registry.unpin(house(store), NAME, digest["b"], author=author("unpin"))
            told.add("free")
        except LostRace as error:
            told.add(error.message.split(": ")[1][:21])
        if store.operations < at:
            break
        registry.history(store.shelf, NAME, verify=True)
        state = read_state(store.shelf, NAME)
        assert (digest["b"] in state.pinned) == (state.pins.lifted.get(digest["b"], 0) < 3)
    assert at > 10
    assert told == {"free", "rollback 3 has pinned"}


def _copy(store: MemoryStore) -> MemoryStore:
    copy = MemoryStore()
    for key in store.list(""):
        copy.put(key, store.get(key).data)
    return copy


def test_a_person_who_pins_what_a_rollback_left_does_not_make_the_rollback_look_undone(
    shelf: MemoryStore, digest: dict[str, str]
):
    back(shelf)
    registry.pin(shelf, NAME, digest["b"], author=author("pin"), reason="evidence")
    assert read_state(shelf, NAME).pinned[digest["b"]].reason == "evidence"
    again = rollback.run(NAME, registry=house(shelf), author=author("again"), reason="it misfires")
    assert "was rolled back already" in again.plan.unchanged
    registry.unpin(house(shelf), NAME, digest["b"], author=author("unpin"))
    registry.history(shelf, NAME, verify=True)


def test_a_late_pin_of_an_earlier_rollback_does_not_hide_the_later_one():
    def pin(sequence: int) -> dict[str, Pin]:
        return {"d" * 64: Pin(reason=f"rollback {sequence}", who="ada", at="", sequence=sequence)}

    pins = Pins().and_also(pin(7)).and_also(pin(3))
    assert pins.pins["d" * 64].sequence == 7
    assert pins.without("d" * 64, sequence=5) == pins
    assert pins.without("d" * 64, sequence=7).pins == {}


def test_each_open_intent_is_given_the_whole_patience(shelf: MemoryStore, digest: dict[str, str]):
    """The first is closed while it is waited for; another stands in its place, whose owner is alive as well."""

    def leave_open(operation: str) -> None:
        entry = intent(
            read_state(shelf, NAME), author(operation), action="rollback", to_digest=digest["a"], reason="x"
        )
        steps.append(append(shelf, entry))

    steps, waited = [], []
    leave_open("first")

    def pause(seconds: float) -> None:
        waited.append(seconds)
        if len(steps) == 1 and sum(waited) > 0.8:
            close(shelf, NAME, closing(steps[0], "void", author("first"), "its owner"))
            leave_open("second")
            waited.clear()

    settle(Registry(shelf, MemoryProjection(), patience_s=1, pause=pause), NAME, author("next"))
    assert len(steps) == 2
    assert sum(waited) >= 1
