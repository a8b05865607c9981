"""Retention: what a journal names stays, whoever promotes or rolls back meanwhile and wherever it is cut off."""

import contextlib
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from saeops.adapters.projection import MemoryProjection
from saeops.adapters.stores import MemoryStore
from saeops.errors import JournalBroken, LostRace
from saeops.ports import ObjectStore
from saeops.promotion import keys
from saeops.promotion.protocol import intent
from saeops.promotion.retention import removal
from saeops.sealed import MANIFEST
from saeops.stages import gc, registry, rollback
from saeops.stages.records import append, read_state
from saeops.stages.removals import put_mark, read_mark
from saeops.stages.transfer import upload, verify_stored
from saeops.stages.walk import Registry
from tests.bundles import author
from tests.killing import Killed
from tests.shelves import InterruptedStore, put_up, small_bundle, whole

NAME, OTHER = "tiny/blocks.1.resid_post", "other/blocks.0.mlp_out"
INTERRUPTIONS_AT_MOST = 300


class Shelf:
    """Seven bundles."""

    def __init__(self, folder: Path) -> None:
        self.folder = {letter: folder / letter for letter in "abcdefg"}
        self.digest = {letter: small_bundle(path, letter) for letter, path in self.folder.items()}

    def filled(self, *, strays: str = "ef") -> Registry:
        """A registry where a, b, c were promoted under NAME in this order, and others were uploaded only."""
        house = Registry(MemoryStore(), MemoryProjection(), patience_s=0)
        for letter in "abc":
            put_up(house, NAME, self.folder[letter], f"op-{letter}")
        for letter in strays:
            self.put(house, letter)
        return house

    def put(self, house: Registry, letter: str) -> None:
        upload(house.store, self.folder[letter], self.digest[letter])

    def letters(self, digests: Iterable[str | None]) -> str:
        named = set(digests)
        return "".join(letter for letter, digest in self.digest.items() if digest in named)

    def on(self, store: ObjectStore) -> str:
        """The letters of the bundles that are whole in the store."""
        return "".join(letter for letter, digest in self.digest.items() if whole(store, digest))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("shelf"))


def collect(house: Registry, *, operation: str = "gc") -> gc.Collected:
    return gc.run(house, gc.plan(house.store), author(operation))


def back(house: Registry, to: str = "previous", operation: str = "back") -> None:
    rollback.run(NAME, to=to, registry=house, author=author(operation), reason="it misfires")


def forked(house: Registry) -> Registry:
    store = MemoryStore()
    for key in house.store.list(""):
        found = house.store.get(key)
        assert found is not None
        store.put(key, found.data)
    return Registry(store, MemoryProjection(), patience_s=0)


def test_every_version_that_was_ever_champion_stays_and_what_no_journal_names_goes(shelf: Shelf):
    house = shelf.filled()
    done = collect(house)
    assert shelf.letters(v.digest for v in done.removed) == "ef"
    assert shelf.on(house.store) == "abc"
    assert [k for k in house.store.list("bundles/") if shelf.digest["e"] in k] == []
    assert len(registry.history(house.store, NAME, verify=True)) == 3
    for version in ("1", "2", "3"):
        registry.verify(house.store, f"{NAME}@{version}")


def test_a_plan_says_what_it_would_remove_why_and_how_large_and_reads_no_weights(shelf: Shelf):
    house = shelf.filled(strays="defg")
    registry.pin(house.store, NAME, "1", author=author("op"), reason="the paper cites it")
    registry.pin(house.store, NAME, shelf.digest["g"], author=author("op"), reason="wanted")
    house.store.delete(keys.bundle_key(shelf.digest["f"], MANIFEST))
    house.store.put(keys.bundle_key(shelf.digest["e"], "provenance.json"), b"{")
    leave_open(house, shelf.digest["d"])
    before = house.store.list("")
    plan = gc.plan(house.store)
    e, f = (next(v for v in plan.victims if v.digest == shelf.digest[letter]) for letter in "ef")
    held = sum(size for key, size in house.store.sizes("").items() if e.digest in key)
    assert (e.name, e.files, e.bytes, e.why) == (None, 3, held, "no journal names it")
    assert (f.name, f.files, f.why) == ("f", 2, "unfinished, and no journal names it")
    assert {shelf.letters([k.digest]): (k.name, k.why) for k in plan.kept} == {
        "a": (NAME, "pinned: the paper cites it"),
        "b": (NAME, "previous"),
        "c": (NAME, "champion"),
        "d": (NAME, "journal entry 4, open, 2026-03-01"),
        "g": (NAME, "pinned: wanted"),
    }
    assert house.store.list("") == before


def leave_open(house: Registry, digest: str, name: str = NAME) -> None:
    state = read_state(house.store, name)
    append(house.store, intent(state, author("slow", who="bob"), action="promote", to_digest=digest, reason="x"))


def test_what_an_open_or_a_voided_entry_names_stays(shelf: Shelf):
    house = shelf.filled()
    leave_open(house, shelf.digest["e"])
    collect(house)
    assert shelf.on(house.store) == "abce"
    registry.unpin(house, NAME, "1", author=author("settles it"))
    assert [row.outcome for row in registry.history(house.store, NAME)][-1] == "void"
    collect(house)
    assert shelf.on(house.store) == "abce"


def test_pinned_bundles_stay_also_under_a_name_that_has_no_champion(shelf: Shelf):
    house = shelf.filled()
    registry.pin(house.store, OTHER, shelf.digest["e"], author=author("op"), reason="licence")
    collect(house)
    assert shelf.on(house.store) == "abce"


def test_the_first_promotion_of_a_name_protects_its_bundle_before_there_is_a_pointer(shelf: Shelf):
    house = shelf.filled()
    leave_open(house, shelf.digest["e"], name=OTHER)
    collect(house)
    assert shelf.on(house.store) == "abce"


def test_every_name_s_versions_stay(shelf: Shelf):
    house = shelf.filled()
    for letter in "fg":
        put_up(house, OTHER, shelf.folder[letter], f"op-{letter}")
    collect(house)
    assert shelf.on(house.store) == "abcfg"


def test_a_repeated_collection_finds_nothing(shelf: Shelf):
    house = shelf.filled()
    assert not gc.plan(house.store).idle
    collect(house)
    assert gc.plan(house.store).idle


def test_a_removed_bundle_can_be_promoted(shelf: Shelf):
    house = shelf.filled()
    collect(house)
    put_up(house, NAME, shelf.folder["e"], "again")
    assert registry.verify(house.store, NAME).digest == shelf.digest["e"]
    assert collect(house, operation="gc2").spared == ()
    assert shelf.on(house.store) == "abce"


def test_nothing_is_removed_while_any_name_s_journal_is_broken(shelf: Shelf):
    house = shelf.filled()
    put_up(house, OTHER, shelf.folder["g"], "op-g")
    house.store.delete(keys.closing_key(OTHER, 1))
    house.store.delete(keys.entry_key(OTHER, 1))
    with pytest.raises(JournalBroken, match=OTHER):
        gc.plan(house.store)
    assert shelf.on(house.store) == "abcefg"


def test_a_mark_that_a_killed_collection_left_on_what_stays_is_taken_back(shelf: Shelf):
    house = shelf.filled(strays="")
    put_mark(house.store, removal(shelf.digest["a"], author("killed"), "marked"), over=None)
    back(house, to="1", operation="rollback does not ask")
    registry.unpin(house, NAME, "3", author=author("op"))
    back(house, to="3", operation="there again")
    registry.unpin(house, NAME, "1", author=author("op"))
    with pytest.raises(LostRace, match=r"being removed from the store by ada.*\n.*saeops gc"):
        put_up(house, NAME, shelf.folder["a"], "a promotion does")
    plan = gc.plan(house.store)
    assert not plan.idle
    assert [shelf.letters([k.digest]) for k in plan.kept if k.marked] == ["a"]
    collect(house)
    assert gc.plan(house.store).idle
    put_up(house, NAME, shelf.folder["a"], "again")
    assert shelf.on(house.store) == "abc"


# ── cut off, and at the same time ───────────────────────────────────────────


def check(house: Registry) -> None:
    """Readers see one whole champion, and every version before it is whole."""
    for step in read_state(house.store, NAME).settled:
        verify_stored(house.store, step.entry.to_digest)


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
    with contextlib.suppress(LostRace):
        act(house)


def to_a(house: Registry) -> None:
    back(house, to="1")


def promotion_of_e(shelf: Shelf) -> Callable[[Registry], object]:
    return lambda house: put_up(house, NAME, shelf.folder["e"], "up")


@pytest.mark.parametrize("what", ["rollback", "promotion"])
def test_a_collection_at_any_moment_of_a_rollback_or_promotion_leaves_a_whole_champion(shelf: Shelf, what: str):
    act = to_a if what == "rollback" else promotion_of_e(shelf)
    houses = interruptions(shelf, act, collect)
    assert len(houses) > 20
    champions = {shelf.letters([read_state(h.store, NAME).champion]) for h in houses}
    assert champions == ({"a"} if what == "rollback" else {"c", "e"})


@pytest.mark.parametrize("what", ["rollback", "promotion"])
def test_a_rollback_or_promotion_at_any_moment_of_a_collection_leaves_a_whole_champion(shelf: Shelf, what: str):
    act = to_a if what == "rollback" else promotion_of_e(shelf)
    houses = interruptions(shelf, collect, act)
    assert len(houses) > 20
    # The last was over before anybody came in between.
    champions = [shelf.letters([read_state(h.store, NAME).champion]) for h in houses]
    assert champions[-1] == "c"
    assert set(champions[:-1]) == ({"a"} if what == "rollback" else {"c", "e"})


def in_turns(
    ready: Registry, act: Callable[[Registry], object], at: int, until: int
) -> tuple[Registry, bool, bool]:
    """A promotion up to one operation, a collection up to another; the rest of either."""
    house = forked(ready)
    promoting, collecting = InterruptedStore(house.store), InterruptedStore(house.store)  # type: ignore[arg-type]
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
    promoting.interrupt(at, start)
    attempt(act, Registry(promoting, MemoryProjection(), patience_s=0))
    finished.set()
    if other.ident is not None:
        other.join(10)
    return house, promoting.operations >= at, collecting.operations >= until


@pytest.mark.slow
def test_a_promotion_and_a_collection_that_take_turns_leave_a_whole_champion(shelf: Shelf):
    ready = shelf.filled()
    at, seen = 1, set()
    while True:
        until = 1
        while True:
            house, began, reached = in_turns(ready, promotion_of_e(shelf), at, until)
            check(house)
            seen.add(shelf.letters([read_state(house.store, NAME).champion]))
            until += 3
            if not reached:
                break
        at += 1
        if not began:
            break
    assert at > 20
    assert seen == {"c", "e"}


def test_two_collections_at_once_remove_the_same_and_nothing_else(shelf: Shelf):
    for house in interruptions(shelf, collect, lambda house: collect(house, operation="gc2")):
        collect(house, operation="gc3")
        assert shelf.on(house.store) == "abc"
        assert {read_mark(house.store, shelf.digest[x]).removal.phase for x in "ef"} == {"removed"}


def test_a_collection_killed_at_any_operation_is_finished_by_the_next(shelf: Shelf):
    ready = shelf.filled()
    for at in range(1, INTERRUPTIONS_AT_MOST):
        house = forked(ready)
        store = InterruptedStore(house.store)  # type: ignore[arg-type]
        store.interrupt(at, store.die)
        try:
            collect(Registry(store, MemoryProjection(), patience_s=0))
        except Killed:
            to_a(house)
            check(house)
            collect(house, operation="gc2")
            check(house)
            assert shelf.on(house.store) == "abc"
            assert len(house.store.list("bundles/")) == 9, "no file of a removed bundle is left"
        else:
            break
    assert at > 20


def test_a_promotion_of_what_a_killed_collection_left_works_once_it_was_finished(shelf: Shelf):
    house = shelf.filled()
    plan = gc.plan(house.store)
    first_delete = next(
        at
        for at in range(1, INTERRUPTIONS_AT_MOST)
        if not whole(killed_collection(forked(house), plan, at), plan.victims[0].digest)
    )
    killed_collection(house, plan, first_delete)
    victim = shelf.folder[shelf.letters([plan.victims[0].digest])]
    with pytest.raises(LostRace, match=r"being removed from the store by ada.*\n.*saeops gc"):
        put_up(house, NAME, victim, "again")
    collect(house, operation="gc2")
    put_up(house, NAME, victim, "again")
    verify_stored(house.store, plan.victims[0].digest)


def killed_collection(house: Registry, plan: gc.Collection, at: int) -> ObjectStore:
    store = InterruptedStore(house.store)  # type: ignore[arg-type]
    store.interrupt(at, store.die)
    with contextlib.suppress(Killed):
        gc.run(Registry(store, MemoryProjection(), patience_s=0), plan, author("gc"))
    return house.store


def test_what_became_a_version_since_it_was_shown_is_spared_and_said_to_be(shelf: Shelf):
    house = shelf.filled()
    plan = gc.plan(house.store)
    registry.pin(house.store, NAME, shelf.digest["f"], author=author("op"), reason="wanted")
    put_up(house, NAME, shelf.folder["e"], "up")
    done = gc.run(house, plan, author("gc"))
    assert {shelf.letters([v.digest]): why for v, why in done.spared} == {"e": "champion", "f": "pinned: wanted"}
    assert shelf.on(house.store) == "abcef"
    registry.verify(house.store, NAME)
