"""Retention: what must stay stays, whoever promotes or rolls back meanwhile and wherever it is cut off."""

import contextlib
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from saeops.adapters.projection import MemoryProjection
from saeops.adapters.stores import MemoryStore
from saeops.errors import JournalBroken, LostRace, NameUnknown, UsageError, VersionUnknown
from saeops.ports import ObjectStore
from saeops.promotion import keys
from saeops.promotion.protocol import intent
from saeops.sealed import MANIFEST
from saeops.stages import gc, registry, rollback
from saeops.stages.records import append, read_state
from saeops.stages.removals import read_mark
from saeops.stages.transfer import upload, verify_stored
from saeops.stages.walk import Registry
from tests.bundles import author
from tests.killing import Killed
from tests.shelves import InterruptedStore, put_up, small_bundle, whole

NAME, OTHER = "tiny/blocks.1.resid_post", "other/blocks.0.mlp_out"
INTERRUPTIONS_AT_MOST = 300


class Shelf:
    """Seven bundles; a, b, c, d were promoted under NAME in this order."""

    def __init__(self, folder: Path) -> None:
        self.folder = {letter: folder / letter for letter in "abcdefg"}
        self.digest = {letter: small_bundle(path, letter) for letter, path in self.folder.items()}

    def filled(self, letters: str = "abcd") -> Registry:
        house = Registry(MemoryStore(), MemoryProjection(), patience_s=0)
        for letter in letters:
            put_up(house, NAME, self.folder[letter], f"op-{letter}")
        return house

    def letters(self, digests: Iterable[str | None]) -> str:
        named = set(digests)
        return "".join(letter for letter, digest in self.digest.items() if digest in named)

    def on(self, store: ObjectStore) -> str:
        """The letters of the bundles that are whole in the store."""
        return "".join(letter for letter, digest in self.digest.items() if whole(store, digest))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("shelf"))


def collect(house: Registry, *, keep: int = 0, name: str | None = NAME, operation: str = "gc") -> gc.Collected:
    return gc.run(house, gc.plan(house.store, name, keep=keep), author(operation))


def back(house: Registry, to: str = "previous", operation: str = "back") -> None:
    rollback.run(NAME, to=to, registry=house, author=author(operation), reason="it misfires")


def forked(house: Registry) -> Registry:
    store = MemoryStore()
    for key in house.store.list(""):
        found = house.store.get(key)
        assert found is not None
        store.put(key, found.data)
    return Registry(store, MemoryProjection(), patience_s=0)


def test_champion_and_previous_stay_and_the_rest_goes(shelf: Shelf):
    house = shelf.filled()
    done = collect(house)
    assert shelf.letters(v.digest for v in done.removed) == "ab"
    assert shelf.on(house.store) == "cd"
    assert [k for k in house.store.list("bundles/") if shelf.digest["a"] in k] == []
    assert len(registry.history(house.store, NAME, verify=True)) == 4, "the journal stays whole"


def test_the_newest_champions_stay_in_the_order_in_which_they_were_champion_last(shelf: Shelf):
    house = shelf.filled()
    back(house, to="1")
    registry.unpin(house, NAME, shelf.digest["d"], author=author("op"))
    collect(house, keep=3)
    assert shelf.on(house.store) == "acd"


def test_a_plan_says_what_it_would_remove_why_and_how_large(shelf: Shelf):
    house = shelf.filled()
    registry.pin(house.store, NAME, "1", author=author("op"), reason="the paper cites it")
    before = house.store.list("")
    plan = gc.plan(house.store, NAME, keep=0)
    [victim] = plan.victims
    held = sum(len(house.store.get(key).data) for key in before if victim.digest in key and MANIFEST not in key)
    assert (victim.digest, victim.name, victim.files) == (shelf.digest["b"], NAME, 3)
    assert victim.bytes == held
    assert victim.why == "champion by entry 2, 2026-03-01"
    whys = {shelf.letters([k.digest]): k.why for k in plan.kept}
    assert whys == {"a": "pinned: the paper cites it", "c": "previous", "d": "champion"}
    assert house.store.list("") == before


def test_what_an_open_intent_aims_at_stays(shelf: Shelf):
    house = shelf.filled()
    state = read_state(house.store, NAME)
    entry = intent(state, author("slow", who="bob"), action="rollback", to_digest=shelf.digest["a"], reason="x")
    append(house.store, entry)
    collect(house)
    assert shelf.on(house.store) == "acd"


def test_pinned_bundles_stay_also_under_a_name_that_has_no_champion(shelf: Shelf):
    house = shelf.filled()
    upload(house.store, shelf.folder["e"], shelf.digest["e"])
    registry.pin(house.store, OTHER, shelf.digest["e"], author=author("op"), reason="licence")
    collect(house, name=None)
    assert shelf.on(house.store) == "cde"


def test_the_first_promotion_of_a_name_protects_its_bundle_before_there_is_a_pointer(shelf: Shelf):
    house = shelf.filled()
    upload(house.store, shelf.folder["e"], shelf.digest["e"])
    state = read_state(house.store, OTHER)
    append(house.store, intent(state, author("slow"), action="promote", to_digest=shelf.digest["e"], reason=""))
    collect(house, name=None)
    assert shelf.on(house.store) == "cde"


def test_one_name_s_collection_leaves_others_and_strays_alone_and_all_takes_them(shelf: Shelf):
    house = shelf.filled()
    for letter in "efg":
        put_up(house, OTHER, shelf.folder[letter], f"op-{letter}")
    stray = keys.bundle_key("0" * 64, "sae/weights.bin")
    house.store.put(stray, b"cut off")
    collect(house)
    assert shelf.on(house.store) == "cdefg"
    done = collect(house, name=None)
    assert shelf.on(house.store) == "cdfg"
    assert {v.digest: (v.why, v.bytes) for v in done.removed}["0" * 64] == ("no journal names it", 7)
    assert house.store.get(stray) is None


def test_a_repeated_collection_finds_nothing(shelf: Shelf):
    house = shelf.filled()
    collect(house)
    assert gc.plan(house.store, NAME, keep=0).victims == ()


def test_rollback_to_a_removed_version_says_who_removed_it_and_writes_nothing(shelf: Shelf):
    house = shelf.filled()
    collect(house)
    before = house.store.list("")
    with pytest.raises(VersionUnknown, match="was removed from the store by ada at 2026-03-01"):
        back(house, to="1")
    assert house.store.list("") == before


def test_a_removed_bundle_can_be_promoted_again(shelf: Shelf):
    house = shelf.filled()
    collect(house)
    put_up(house, NAME, shelf.folder["a"], "again")
    assert registry.verify(house.store, NAME).digest == shelf.digest["a"]
    assert collect(house, operation="gc2").spared == ()
    assert shelf.on(house.store) == "ad"


def test_a_negative_keep_and_an_unknown_name_are_refused(shelf: Shelf):
    house = shelf.filled("a")
    with pytest.raises(UsageError, match="--keep -1"):
        gc.plan(house.store, NAME, keep=-1)
    with pytest.raises(NameUnknown, match="has no champion"):
        gc.plan(house.store, OTHER)


def test_nothing_is_removed_while_any_name_s_journal_is_broken(shelf: Shelf):
    house = shelf.filled()
    put_up(house, OTHER, shelf.folder["e"], "op-e")
    house.store.delete(keys.closing_key(OTHER, 1))
    house.store.delete(keys.entry_key(OTHER, 1))
    with pytest.raises(JournalBroken, match=OTHER):
        gc.plan(house.store, NAME, keep=0)
    assert shelf.on(house.store) == "abcde"


def test_a_damaged_bundle_that_nothing_keeps_can_be_removed(shelf: Shelf):
    house = shelf.filled()
    house.store.put(keys.bundle_key(shelf.digest["a"], MANIFEST), b"{")
    collect(house)
    assert shelf.on(house.store) == "cd"


# ── cut off, and at the same time ───────────────────────────────────────────


def check(house: Registry) -> None:
    """Readers see one whole champion, and the way back from it."""
    state = read_state(house.store, NAME)
    assert state.champion is not None
    verify_stored(house.store, state.champion)
    assert state.previous is not None
    verify_stored(house.store, state.previous)


def interruptions(
    shelf: Shelf, act: Callable[[Registry], object], meanwhile: Callable[[Registry], object]
) -> list[Registry]:
    """`act`, once for each of its store operations with `meanwhile` run at the start of that operation."""
    houses = []
    ready = shelf.filled()
    for at in range(1, INTERRUPTIONS_AT_MOST):
        quiet = forked(ready)
        store = InterruptedStore(quiet.store)  # type: ignore[arg-type]
        store.interrupt(at, lambda quiet=quiet: attempt(meanwhile, quiet))
        attempt(act, Registry(store, MemoryProjection(), patience_s=0))
        check(quiet)
        houses.append(quiet)
        if store.operations < at:
            return houses
    pytest.fail("it never came to its end")


def attempt(act: Callable[[Registry], object], house: Registry) -> None:
    with contextlib.suppress(LostRace, VersionUnknown):
        act(house)


def to_a(house: Registry) -> None:
    back(house, to="1")


def again_a(shelf: Shelf) -> Callable[[Registry], object]:
    return lambda house: put_up(house, NAME, shelf.folder["a"], "again")


@pytest.mark.parametrize("what", ["rollback", "promotion"])
def test_a_collection_at_any_moment_of_a_rollback_or_promotion_leaves_a_whole_champion(shelf: Shelf, what: str):
    act = to_a if what == "rollback" else again_a(shelf)
    houses = interruptions(shelf, act, collect)
    assert len(houses) > 20
    assert {shelf.letters([read_state(h.store, NAME).champion]) for h in houses} == {"a", "d"}


@pytest.mark.parametrize("what", ["rollback", "promotion"])
def test_a_rollback_or_promotion_at_any_moment_of_a_collection_leaves_a_whole_champion(shelf: Shelf, what: str):
    act = to_a if what == "rollback" else again_a(shelf)
    houses = interruptions(shelf, collect, act)
    assert len(houses) > 20
    assert {shelf.letters([read_state(h.store, NAME).champion]) for h in houses} == {"a", "d"}


def in_turns(ready: Registry, at: int, until: int) -> tuple[Registry, bool, bool]:
    """A rollback up to one operation, a collection up to another, the rollback's rest, the collection's rest."""
    house = forked(ready)
    rolling, collecting = InterruptedStore(house.store), InterruptedStore(house.store)  # type: ignore[arg-type]
    paused, finished = threading.Event(), threading.Event()

    def others_turn() -> None:
        paused.set()
        finished.wait(10)

    def collection() -> None:
        attempt(collect, Registry(collecting, MemoryProjection(), patience_s=0))
        paused.set()

    other = threading.Thread(target=collection)

    def start() -> None:
        other.start()
        paused.wait(10)

    collecting.interrupt(until, others_turn)
    rolling.interrupt(at, start)
    attempt(to_a, Registry(rolling, MemoryProjection(), patience_s=0))
    finished.set()
    if other.ident is not None:
        other.join(10)
    return house, rolling.operations >= at, collecting.operations >= until


@pytest.mark.slow
def test_a_rollback_and_a_collection_that_take_turns_leave_a_whole_champion(shelf: Shelf):
    ready = shelf.filled()
    at, seen = 1, set()
    while True:
        until = 1
        while True:
            house, began, reached = in_turns(ready, at, until)
            check(house)
            seen.add(shelf.letters([read_state(house.store, NAME).champion]))
            until += 3
            if not reached:
                break
        at += 1
        if not began:
            break
    assert at > 20
    assert seen == {"a", "d"}


def test_two_collections_at_once_remove_the_same_and_nothing_else(shelf: Shelf):
    for house in interruptions(shelf, collect, lambda house: collect(house, operation="gc2")):
        collect(house, operation="gc3")
        assert shelf.on(house.store) == "cd"
        assert {read_mark(house.store, shelf.digest[x]).removal.phase for x in "ab"} == {"removed"}


def test_a_collection_killed_at_any_operation_is_finished_by_the_next(shelf: Shelf):
    ready = shelf.filled()
    for at in range(1, INTERRUPTIONS_AT_MOST):
        house = forked(ready)
        store = InterruptedStore(house.store)  # type: ignore[arg-type]
        store.interrupt(at, store.die)
        try:
            collect(Registry(store, MemoryProjection(), patience_s=0))
        except Killed:
            check(house)
            attempt(to_a, house)
            check(house)
            collect(house, operation="gc2")
            check(house)
            champion = shelf.letters([read_state(house.store, NAME).champion])
            # After a rollback to a: a is champion, d previous and pinned; else c and d stay.
            assert shelf.on(house.store) == {"a": "ad", "d": "cd"}[champion]
            assert len(house.store.list("bundles/")) == 6, "no file of a removed bundle is left"
        else:
            break
    assert at > 20


def test_a_promotion_of_what_a_killed_collection_left_works_once_it_was_finished(shelf: Shelf):
    house = shelf.filled()
    store = InterruptedStore(house.store)  # type: ignore[arg-type]
    plan = gc.plan(store, NAME, keep=0)
    first_delete = next(
        at
        for at in range(1, INTERRUPTIONS_AT_MOST)
        if not whole(killed_collection(forked(house), plan, at), shelf.digest["a"])
    )
    killed_collection(house, plan, first_delete)
    with pytest.raises(LostRace, match=f"being removed from the store by ada.*\n.*saeops gc {NAME}"):
        put_up(house, NAME, shelf.folder["a"], "again")
    collect(house, operation="gc2")
    put_up(house, NAME, shelf.folder["a"], "again")
    verify_stored(house.store, shelf.digest["a"])


def killed_collection(house: Registry, plan: gc.Collection, at: int) -> ObjectStore:
    store = InterruptedStore(house.store)  # type: ignore[arg-type]
    store.interrupt(at, store.die)
    with contextlib.suppress(Killed):
        gc.run(Registry(store, MemoryProjection(), patience_s=0), plan, author("gc"))
    return house.store


def test_a_pin_set_while_the_bundle_is_being_removed_says_so(shelf: Shelf):
    house = shelf.filled()
    plan = gc.plan(house.store, NAME, keep=0)
    registry.pin(house.store, NAME, "1", author=author("op"), reason="wanted")
    done = gc.run(house, plan, author("gc"))
    assert [(shelf.letters([v.digest]), why) for v, why in done.spared] == [("a", "pinned: wanted")]
    assert shelf.on(house.store) == "acd"
