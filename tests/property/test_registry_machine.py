"""Promote, roll back, pin, unpin, collect, and die at any store operation: one linear history all the same."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from saeops.adapters.projection import MemoryProjection
from saeops.adapters.stores import MemoryStore
from saeops.errors import LostRace, NameUnknown, VersionPinned, VersionUnknown
from saeops.stages import gc, registry, rollback
from saeops.stages.records import read_state
from saeops.stages.transfer import upload, verify_stored
from saeops.stages.walk import Registry
from tests.bundles import author
from tests.killing import Killed
from tests.shelves import InterruptedStore, put_up, small_bundle, whole

NAME = "tiny/blocks.1.resid_post"
LETTERS = "abcd"
REFUSALS = (LostRace, NameUnknown, VersionPinned, VersionUnknown)

letters = st.sampled_from(LETTERS)
moments = st.none() | st.integers(1, 60)
"""At which store operation the caller dies, or something else comes in between; None: at none."""


@pytest.fixture(scope="module", autouse=True)
def shelf(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("shelf")
    for letter in LETTERS:
        Champions.folder[letter] = folder / letter
        Champions.digest[letter] = small_bundle(folder / letter, letter)


class Champions(RuleBasedStateMachine):
    """Callers that act one inside another, and die."""

    folder: ClassVar[dict[str, Path]] = {}
    digest: ClassVar[dict[str, str]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.shelf = MemoryStore()
        self.operations = 0
        self.journal: list[bytes] = []
        self.claimed: set[str] = set()
        self.forced: set[str] = set()
        self.pinned_by_hand: set[str] = set()

    # ── what callers do ─────────────────────────────────────────────────────

    @rule(letter=letters, forced=st.booleans(), dies=moments)
    def promote(self, letter: str, forced: bool, dies: int | None) -> None:
        self._act(self._promotion(letter, forced=forced), dies)

    @rule(letter=letters, dies=moments)
    def roll_back_to_a_digest(self, letter: str, dies: int | None) -> None:
        self._act(self._rollback(self.digest[letter][:8]), dies)

    @rule(to=st.sampled_from(["previous", "1", "2", "3"]), dies=moments)
    def roll_back(self, to: str, dies: int | None) -> None:
        self._act(self._rollback(to), dies)

    @rule(letter=letters, dies=moments)
    def upload_only(self, letter: str, dies: int | None) -> None:
        def act(house: Registry, _operation: str) -> None:
            upload(house.store, self.folder[letter], self.digest[letter], again=True)

        self._act(act, dies)

    @rule(dies=moments)
    def collect(self, dies: int | None) -> None:
        self._act(self._collection(), dies)

    @rule(letter=letters)
    def pin(self, letter: str) -> None:
        who = author("pin")
        with contextlib.suppress(*REFUSALS):
            registry.pin(self.shelf, NAME, self.digest[letter], author=who, reason="because")
            if whole(self.shelf, self.digest[letter]):
                self.pinned_by_hand.add(self.digest[letter])

    @rule(letter=letters, dies=moments)
    def unpin(self, letter: str, dies: int | None) -> None:
        self.pinned_by_hand.discard(self.digest[letter])
        self._act(self._unpinning(letter), dies)

    @rule(letter=letters, at=st.integers(1, 40), first=st.booleans())
    def an_unpinning_and_a_rollback(self, letter: str, at: int, first: bool) -> None:
        pair = [self._unpinning(letter), self._rollback("previous")]
        outer, inner = pair if first else pair[::-1]
        self.pinned_by_hand.discard(self.digest[letter])
        self._act(outer, at, meanwhile=inner)

    @rule(letter=letters, to=st.sampled_from(["previous", "1", "2"]), at=st.integers(1, 40), first=st.booleans())
    def two_at_once(self, letter: str, to: str, at: int, first: bool) -> None:
        pair = [self._promotion(letter), self._rollback(to)]
        outer, inner = pair if first else pair[::-1]
        self._act(outer, at, meanwhile=inner)

    @rule(letter=letters, at=st.integers(1, 60), first=st.booleans())
    def a_promotion_and_a_collection(self, letter: str, at: int, first: bool) -> None:
        pair = [self._promotion(letter), self._collection()]
        outer, inner = pair if first else pair[::-1]
        self._act(outer, at, meanwhile=inner)

    def _promotion(self, letter: str, *, forced: bool = False) -> "Act":
        def act(house: Registry, operation: str) -> None:
            if forced:
                self.forced.add(operation)
            if put_up(house, NAME, self.folder[letter], operation, forced=forced).entry is not None:
                self.claimed.add(operation)

        return act

    def _unpinning(self, letter: str) -> "Act":
        def act(house: Registry, operation: str) -> None:
            registry.unpin(house, NAME, self.digest[letter], author=author(operation))

        return act

    def _rollback(self, to: str) -> "Act":
        def act(house: Registry, operation: str) -> None:
            moved = rollback.run(NAME, to=to, registry=house, author=author(operation), reason="it misfires")
            if moved.entry is not None:
                self.claimed.add(operation)

        return act

    def _collection(self) -> "Act":
        def act(house: Registry, operation: str) -> None:
            gc.run(house, gc.plan(house.store), author(operation))

        return act

    def _act(self, act: "Act", at: int | None, meanwhile: "Act | None" = None) -> None:
        store = InterruptedStore(self.shelf)
        if at is not None:
            store.interrupt(at, store.die if meanwhile is None else lambda: self._once(meanwhile, self.shelf))
        self._once(act, store)

    def _once(self, act: "Act", store: MemoryStore | InterruptedStore) -> None:
        self.operations += 1
        house = Registry(store, MemoryProjection(), patience_s=0)
        with contextlib.suppress(Killed, *REFUSALS):
            act(house, f"op-{self.operations}")

    # ── what always holds ───────────────────────────────────────────────────

    @invariant()
    def readers_see_a_whole_champion_and_every_version_before_it_is_whole(self) -> None:
        for step in read_state(self.shelf, NAME).settled:
            verify_stored(self.shelf, step.entry.to_digest)

    @invariant()
    def the_journal_only_grows_and_has_no_gap(self) -> None:
        state = read_state(self.shelf, NAME)
        now = [step.entry.to_bytes() for step in state.journal.steps]
        assert now[: len(self.journal)] == self.journal
        assert [step.entry.sequence for step in state.journal.steps] == list(range(1, len(now) + 1))
        self.journal = now

    @invariant()
    def history_is_one_line_and_tells_every_success_once(self) -> None:
        state = read_state(self.shelf, NAME)
        champion = None
        for step in state.settled:
            assert step.entry.from_digest == champion
            champion = step.entry.to_digest
        assert champion == state.champion
        done = [step.entry.operation for step in state.settled]
        assert len(set(done)) == len(done)
        assert self.claimed <= set(done)
        if state.journal.steps:
            registry.history(self.shelf, NAME, verify=True)

    @invariant()
    def a_forced_champion_shows_for_as_long_as_it_is_one(self) -> None:
        state = read_state(self.shelf, NAME)
        if state.champion is not None:
            shown = registry.status(self.shelf, NAME).forced
            assert shown == (state.promotion_of(state.champion).entry.operation in self.forced)

    @invariant()
    def what_a_person_pinned_stays_pinned_and_was_not_removed_since(self) -> None:
        pinned = read_state(self.shelf, NAME).pinned
        for digest in self.pinned_by_hand:
            assert digest in pinned
            assert whole(self.shelf, digest)

    @invariant()
    def a_rollback_leaves_its_pin(self) -> None:
        state = read_state(self.shelf, NAME)
        last = state.made_champion
        if last is not None and last.entry.action == "rollback" and last.entry.from_digest is not None:
            lifted = state.pins.lifted.get(last.entry.from_digest, 0)
            assert last.entry.from_digest in state.pinned or lifted >= last.entry.sequence


Act = Callable[[Registry, str], None]

TestChampions = Champions.TestCase
TestChampions.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


class TestManyMore(Champions.TestCase):
    """The same machine for longer."""

    settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
    pytestmark = pytest.mark.slow
