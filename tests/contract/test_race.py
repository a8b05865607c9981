"""32 processes that promote, roll back, pin and unpin at random, in a folder and on S3; some are killed."""

import json
import math
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import pytest

from saeops.adapters.s3 import S3Store
from saeops.adapters.stores import LocalStore, open_store
from saeops.dictionary.bundle import Bundle
from saeops.errors import LostRace, VersionPinned, VersionUnknown
from saeops.promotion import keys
from saeops.promotion.state import State
from saeops.sealed import MANIFEST
from saeops.stages import registry, rollback
from saeops.stages.transfer import verify_stored
from saeops.stages.walk import Moved, Registry, Untold, settle
from tests.bundles import NAME, author
from tests.forks import FORK, forked
from tests.shelves import named_bundle, put_through

PROCESSES = 32
SECONDS = float(os.environ.get("RACE_SECONDS", "60"))
SECONDS_IN_A_FOLDER = SECONDS / 6
KILLED = 6
"""So many are killed while they race, and others take their places."""
LETTERS = "abcdef"
BEGINS, DONE, NOTHING = "begins", "done", "nothing changed"


@dataclass(frozen=True)
class Track:
    """Where the race takes place."""

    store: LocalStore | S3Store
    """Of the racers alone: on S3 without a connection until they are forked, as they would all speak on it."""
    bundles: dict[str, Bundle]
    told: Path
    """A folder with one file a racer: what it was about to do, and what it was told."""
    seconds: float
    end: "Synchronized[float]" = field(default_factory=lambda: FORK.Value("d", math.inf))
    """By the monotonic clock, which all processes share; set when all have started."""


class Racer:
    """One process of the race."""

    def __init__(self, track: Track, me: int) -> None:
        self.track, self.me, self.chance = track, me, random.Random(me)
        self.house = Registry(track.store, Untold(), patience_s=1)
        self.out = (track.told / f"{me}").open("w", buffering=1)

    def run(self) -> None:
        turn = 0
        while time.monotonic() < self.track.end.value:
            turn += 1
            act = self.chance.choices([self.promote, self.roll_back, self.pin, self.unpin], [4, 4, 1, 1])[0]
            self.say(f"{self.me}-{turn}", act.__name__, BEGINS)
            self.say(f"{self.me}-{turn}", act.__name__, self.told(act, f"{self.me}-{turn}"))

    def told(self, act: Callable[[str], Moved | str], operation: str) -> str:
        try:
            moved = act(operation)
        except (LostRace, VersionPinned, VersionUnknown) as error:
            return type(error).__name__
        return NOTHING if isinstance(moved, Moved) and moved.entry is None else DONE

    def say(self, *words: str) -> None:
        self.out.write(json.dumps(words) + "\n")

    def promote(self, operation: str) -> Moved:
        bundle = self.track.bundles[self.chance.choice(LETTERS)]
        try:
            return put_through(self.house, bundle, operation)
        except VersionPinned:
            registry.unpin(self.house, NAME, bundle.digest, author=author(operation))
            raise

    def roll_back(self, operation: str) -> Moved:
        to = self.chance.choice(
            ["previous", "1", "2", "3", self.track.bundles[self.chance.choice(LETTERS)].digest]
        )
        return rollback.run(NAME, to=to, registry=self.house, author=author(operation), reason="it misfires")

    def pin(self, operation: str) -> str:
        return registry.pin(self.track.store, NAME, own(self.me), author=author(operation), reason="mine")

    def unpin(self, operation: str) -> str:
        return registry.unpin(self.house, NAME, own(self.me), author=author(operation))


def own(me: int) -> str:
    """Digest of what one process alone pins and unpins."""
    return f"{me:064x}"


@dataclass(frozen=True)
class Told:
    """One turn of a racer."""

    me: int
    operation: str
    act: str
    answer: str
    """`begins`: it was killed before it had one."""


def race(track: Track) -> list[Told]:
    """Let them race, kill some; everything they were told."""

    def start(me: int) -> BaseProcess:
        return forked(lambda: Racer(track, me).run())

    racers = [start(me) for me in range(PROCESSES)]
    started = time.monotonic()
    track.end.value = started + track.seconds
    for victim in range(KILLED):
        time.sleep(max(0, started + track.seconds * (victim + 1) / (KILLED + 1) - time.monotonic()))
        racers[victim].kill()
        racers.append(start(PROCESSES + victim))
    for racer in racers:
        racer.join()
    assert {racer.exitcode for racer in racers[:KILLED]} <= {-signal.SIGKILL, 0}
    assert {racer.exitcode for racer in racers[KILLED:]} == {0}
    return [told for me in range(len(racers)) for told in _told(track.told / f"{me}", me)]


def _told(path: Path, me: int) -> Iterator[Told]:
    last: dict[str, Told] = {}
    for line in path.read_text().splitlines():
        operation, act, answer = json.loads(line)
        last[operation] = Told(me, operation, act, answer)
    yield from last.values()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["local", "s3"])
def test_a_race_leaves_one_linear_history_that_tells_every_success_once(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
):
    address = str(tmp_path / "store") if place == "local" else request.getfixturevalue("s3_address")
    store, theirs = open_store(address), open_store(address)
    seconds = SECONDS
    if isinstance(theirs, S3Store):
        assert theirs.client, "made once, here"
    else:
        seconds = SECONDS_IN_A_FOLDER
    bundles = {letter: named_bundle(tmp_path / letter, letter) for letter in LETTERS}
    for letter, bundle in bundles.items():
        put_through(Registry(store, Untold()), bundle, letter)
    for me in range(PROCESSES + KILLED):
        store.put(keys.bundle_key(own(me), MANIFEST), b"")
    (tmp_path / "told").mkdir()
    told = race(Track(theirs, bundles, tmp_path / "told", seconds))
    state = settle(Registry(store, Untold(), patience_s=0), NAME, author("the last"))
    registry.history(store, NAME, verify=True)
    check_line(state)
    verify_stored(store, state.champion)
    check_answers(state, told)
    check_own_pins(state, told)


def check_line(state: State) -> None:
    """Each done entry starts from the champion that the one before it made; the pointer names the last."""
    champion = None
    for sequence, step in enumerate(state.journal.steps, start=1):
        assert step.entry.sequence == sequence
        assert step.entry.from_digest == champion
        if step.done:
            champion = step.entry.to_digest
    last = state.journal.done[-1]
    assert state.pointer is not None
    assert (state.pointer.digest, state.pointer.sequence) == (champion, last.entry.sequence)
    assert (state.pointer.operation, state.pointer.entry) == (last.entry.operation, last.entry_sha256)


def check_answers(state: State, told: list[Told]) -> None:
    """The journal tells what a racer was told of as done, once, and else only what somebody finished later."""
    moves = {one.operation: one.answer for one in told if one.act in ("promote", "roll_back")}
    told_done = {operation for operation, answer in moves.items() if answer == DONE}
    assert told_done, "nobody got through"
    entries = [step.entry.operation for step in state.journal.steps[len(LETTERS) :]]
    assert len(entries) == len(set(entries))
    assert set(entries) <= moves.keys()
    done = {step.entry.operation: step for step in state.journal.done[len(LETTERS) :]}
    assert told_done <= done.keys()
    for operation in done.keys() - told_done:
        assert moves[operation] in (BEGINS, LostRace.__name__)
        closing = done[operation].closing
        assert moves[operation] == BEGINS or closing.note.startswith("finished later"), operation


def check_own_pins(state: State, told: list[Told]) -> None:
    """What a racer alone pins and unpins is as it was last told, whatever the others did to the pins meanwhile."""
    for me in range(PROCESSES + KILLED):
        mine = [one for one in told if one.me == me and one.act in ("pin", "unpin")]
        sure = [one for one in mine if one.answer == DONE]
        if sure and mine[-1] is sure[-1]:
            assert (own(me) in state.pins.pins) == (sure[-1].act == "pin")
