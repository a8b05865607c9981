"""Promotion and rollback on a real S3 server, which is killed and started again in the middle."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from saeops.adapters.projection import MemoryProjection
from saeops.adapters.s3 import S3Store, open_s3
from saeops.adapters.s3_client import Patience
from saeops.dictionary.bundle import Bundle
from saeops.errors import FolderDamaged, LostRace, StoreUnreachable, VersionPinned
from saeops.ports import ObjectStore
from saeops.stages import promote, registry, rollback
from saeops.stages.records import read_state
from saeops.stages.transfer import fetch, verify_stored
from saeops.stages.walk import Moved, Registry
from tests.bundles import NAME, author, tiny_bundle, verdict_on
from tests.seaweed import BUCKET, Seaweed, running

PATIENT = Patience(connect_s=2, read_s=10, again_s=60)
HASTY = Patience(connect_s=1, read_s=5, again_s=0.5)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    return {name: tiny_bundle(tmp_path_factory.mktemp(name), seed) for seed, name in enumerate("abc")}


def house(store: ObjectStore) -> Registry:
    return Registry(store, MemoryProjection(), patience_s=0)


def put_up(store: ObjectStore, bundle: Bundle, operation: str) -> Moved:
    champion = read_state(store, NAME).champion
    verdict = verdict_on(bundle, None if champion == bundle.digest else champion)
    return promote.run(bundle.path, verdict, registry=house(store), author=author(operation))


def back(store: ObjectStore, operation: str) -> Moved:
    return rollback.run(NAME, registry=house(store), author=author(operation), reason="it misfires")


def check_whole(store: ObjectStore) -> list[str]:
    """The operations that the journal calls done; nothing is open, broken or missing."""
    rows = registry.history(store, NAME, verify=True)
    assert [row.sequence for row in rows] == list(range(1, len(rows) + 1))
    assert "open" not in {row.outcome for row in rows}
    state = read_state(store, NAME)
    assert state.champion is not None
    verify_stored(store, state.champion)
    done = [step.entry.operation for step in state.journal.steps if step.done]
    assert len(done) == len(set(done))
    return done


def test_promote_and_roll_back_and_load(s3_address: str, bundles: dict[str, Bundle], tmp_path: Path):
    store = open_s3(s3_address)
    for name in "abc":
        put_up(store, bundles[name], f"op-{name}")
    assert back(store, "back").plan.to_digest == bundles["b"].digest
    found = registry.status(store, NAME)
    assert (found.champion, found.action) == (bundles["b"].digest, "rollback")
    assert set(found.pinned) == {bundles["c"].digest}
    assert check_whole(store) == ["op-a", "op-b", "op-c", "back"]
    copy = fetch(store, found.champion, tmp_path)
    assert {p.name for p in copy.iterdir()} == {p.name for p in bundles["b"].path.iterdir()}


def test_a_changed_byte_is_found_and_the_champion_stands(s3_address: str, bundles: dict[str, Bundle]):
    store = open_s3(s3_address)
    put_up(store, bundles["a"], "op1")
    put_up(store, bundles["b"], "op2")
    key = f"bundles/{bundles['a'].digest}/sae/sae.json"
    data = store.get(key).data
    store.put(key, bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(FolderDamaged, match=r"s3://.*sae/sae\.json: changed"):
        back(store, "op3")
    assert registry.status(store, NAME).champion == bundles["b"].digest


# ── death of the server ─────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def mortal() -> Iterator[Seaweed]:
    """A server that these tests may kill."""
    with running() as server:
        yield server


@pytest.fixture
def place(mortal: Seaweed, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in mortal.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{request.node.name[:20]}-{id(request)}"


class Striking(S3Store):
    """Does something at the start of one of its requests."""

    def __init__(self, address: str, patience: Patience, at: int, strike: Callable[[], None]) -> None:
        like = open_s3(address)
        super().__init__(like.bucket, like.prefix, patience)
        self.requests, self.at, self.strike = 0, at, strike
        self.client.meta.events.register("before-send.s3", self._count)

    def _count(self, **_kwargs: object) -> None:
        self.requests += 1
        if self.requests == self.at:
            self.strike()


def requests_of_a_promotion(address: str, bundles: dict[str, Bundle]) -> int:
    store = Striking(address, PATIENT, 0, lambda: None)
    put_up(store, bundles["a"], "count")
    return store.requests


@pytest.mark.slow
def test_a_caller_finishes_while_the_server_is_killed_and_started_again(
    mortal: Seaweed, place: str, bundles: dict[str, Bundle]
):
    total = requests_of_a_promotion(f"{place}/count", bundles)
    starting: list[threading.Thread] = []

    def strike() -> None:
        mortal.kill()
        starting.append(threading.Thread(target=mortal.start))
        starting[-1].start()

    for part in (0.3, 0.7, 0.95):
        address = f"{place}/{part}"
        put_up(open_s3(address), bundles["b"], "before")
        put_up(Striking(address, PATIENT, int(total * part), strike), bundles["a"], "struck")
        starting[-1].join()
        assert check_whole(open_s3(address)) == ["before", "struck"]
        assert back(open_s3(address), "back").plan.to_digest == bundles["b"].digest
    assert len(starting) == 3


@pytest.mark.slow
def test_a_caller_whose_server_is_gone_says_so_and_the_next_one_finishes_or_voids(
    mortal: Seaweed, place: str, bundles: dict[str, Bundle]
):
    total = requests_of_a_promotion(f"{place}/count", bundles)
    champions = set()
    for part in (0.3, 0.9, 0.97):
        address = f"{place}/{part}"
        put_up(open_s3(address), bundles["b"], "before")
        store = Striking(address, HASTY, int(total * part), mortal.kill)
        with pytest.raises(StoreUnreachable, match="does not answer"):
            put_up(store, bundles["a"], "struck")
        mortal.start()
        seen = read_state(open_s3(address), NAME).champion
        champions.add(seen)
        verify_stored(open_s3(address), seen)
        put_up(open_s3(address), bundles["a"], "repeated")
        done = check_whole(open_s3(address))
        assert done in (["before", "struck"], ["before", "repeated"])
        assert registry.status(open_s3(address), NAME).champion == bundles["a"].digest
    assert champions <= {bundles["a"].digest, bundles["b"].digest}


@pytest.mark.slow
def test_callers_that_race_while_the_server_dies_thrice_lose_nothing(
    mortal: Seaweed, place: str, bundles: dict[str, Bundle]
):
    for name in "abc":
        put_up(open_s3(place), bundles[name], f"op-{name}")
    over = threading.Event()
    claimed: list[str] = []

    def quarrel(me: int) -> None:
        store = open_s3(place, Patience(connect_s=1, read_s=5, again_s=2))
        for turn in itertools.count():
            if over.is_set():
                return
            # Pinned: a rollback came between the unpin and the promotion.
            with contextlib.suppress(LostRace, StoreUnreachable, VersionPinned):
                moved = back(store, f"{me}-{turn}") if turn % 2 else _unpinned(store, bundles, me, turn)
                if moved.entry is not None:
                    claimed.append(moved.entry.operation)

    callers = [threading.Thread(target=quarrel, args=(me,)) for me in range(3)]
    for caller in callers:
        caller.start()
    for _ in range(3):
        over.wait(2)
        mortal.kill()
        mortal.start()
    over.wait(1)
    over.set()
    for caller in callers:
        caller.join(60)
        assert not caller.is_alive()
    _unpinned(open_s3(place, PATIENT), bundles, 9, 0)
    done = set(check_whole(open_s3(place)))
    assert claimed, "nobody got through"
    assert set(claimed) <= done


def _unpinned(store: ObjectStore, bundles: dict[str, Bundle], me: int, turn: int) -> Moved:
    target = bundles["abc"[(me + turn // 2) % 3]]
    registry.unpin(house(store), NAME, target.digest, author=author(f"{me}-{turn}"))
    return put_up(store, target, f"{me}-{turn}")
