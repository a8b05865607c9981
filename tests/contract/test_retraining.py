"""One retrain at a time: the lease, on memory, a folder, and S3 on a real server."""

import datetime
import os
import signal
import threading
import time
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import pytest

from saeops.adapters.stores import LocalStore, MemoryStore, open_store
from saeops.drift.policy.lease import Busy, Ended, Taken
from saeops.errors import JournalBroken, LostRace
from saeops.ports import Found, ObjectStore
from saeops.promotion import keys
from saeops.stages import retraining
from saeops.stages.drift_records import read_retraining
from tests.bundles import verdict_on
from tests.changing import NAME, POLICY, at, wanted
from tests.forks import FORK, forked

LEASE = POLICY.lease_minutes


@pytest.fixture(params=["local", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a store that several processes can open."""
    return str(tmp_path / "store") if request.param == "local" else request.getfixturevalue("s3_address")


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    match request.param:
        case "local":
            return LocalStore(tmp_path / "store")
        case "memory":
            return MemoryStore()
        case _:
            return open_store(request.getfixturevalue("s3_address"))


def taken(store: ObjectStore, holder: str = "ada", *, operation: str = "op", minutes: float = 0) -> Taken:
    taking = retraining.acquire(store, wanted(operation, holder), POLICY, at(minutes))
    assert isinstance(taking, Taken)
    return taking


def busy(store: ObjectStore, holder: str, *, operation: str = "other", minutes: float = 0) -> Busy:
    taking = retraining.acquire(store, wanted(operation, holder), POLICY, at(minutes))
    assert isinstance(taking, Busy)
    return taking


def test_two_retrains_at_once_one_runs_and_the_other_says_that_it_waits(store: ObjectStore) -> None:
    run = taken(store).run
    retraining.heartbeat(store, run, at(1), "train")
    said = retraining.describe_wait(busy(store, "bob", minutes=2))
    assert "ada retrains" in said
    assert "at train" in said
    assert "waiting" in said
    assert at(1 + LEASE).isoformat() in said


def test_the_same_operation_elsewhere_waits_too_while_its_holder_lives(store: ObjectStore) -> None:
    taken(store)
    busy(store, "bob", operation="op", minutes=LEASE - 1)


def test_a_holder_that_comes_back_goes_on_at_once_where_it_was(store: ObjectStore) -> None:
    first = taken(store).run
    retraining.heartbeat(store, first, at(1), "train")
    again = taken(store, minutes=2)
    assert again.resumed
    assert (again.run.operation, again.run.step, again.run.started) == ("op", "train", first.started)
    with pytest.raises(LostRace, match="lost the retrain"):
        retraining.heartbeat(store, first, at(3))


def test_a_killed_holders_lease_runs_out_and_the_same_operation_goes_on(store: ObjectStore) -> None:
    first = taken(store).run
    retraining.heartbeat(store, first, at(1), "label")
    busy(store, "bob", operation="op", minutes=1 + LEASE - 0.1)
    later = taken(store, "bob", minutes=1 + LEASE)
    assert later.resumed
    assert (later.run.step, later.run.holder, later.run.attempt) == ("label", "bob", 2)


def test_a_heartbeat_keeps_the_lease(store: ObjectStore) -> None:
    run = taken(store).run
    for beat in range(5):
        retraining.heartbeat(store, run, at(beat * LEASE * 0.9))
    busy(store, "bob", minutes=4.5 * LEASE)


def test_another_operation_takes_over_what_died_and_starts_anew(store: ObjectStore) -> None:
    taken(store)
    other = taken(store, "bob", operation="other", minutes=LEASE)
    assert not other.resumed
    assert (other.run.step, other.run.started) == ("", at(LEASE).isoformat())


def test_what_is_done_is_not_done_again_and_frees_the_lease(store: ObjectStore) -> None:
    run = taken(store).run
    retraining.finish(store, run, at(5), candidate="c" * 64)
    again = retraining.acquire(store, wanted("op", "bob"), POLICY, at(6))
    assert isinstance(again, Ended)
    assert "c" * 12 in retraining.describe_wait(again)
    assert not taken(store, "bob", operation="next", minutes=6).resumed


def test_what_failed_can_be_tried_again(store: ObjectStore) -> None:
    retraining.fail(store, taken(store).run, at(5), note="no room left")
    found, _ = read_retraining(store, NAME)
    assert found is not None
    assert (found.outcome, found.note) == ("failed", "no room left")
    assert taken(store, minutes=6).run.attempt == 2


def test_who_lost_the_lease_can_neither_beat_finish_nor_fail(store: ObjectStore) -> None:
    first = taken(store).run
    taken(store, "bob", operation="other", minutes=LEASE)
    with pytest.raises(LostRace, match="bob has it"):
        retraining.heartbeat(store, first, at(LEASE + 1))
    with pytest.raises(LostRace):
        retraining.finish(store, first, at(LEASE + 1), candidate="c" * 64)
    with pytest.raises(LostRace):
        retraining.fail(store, first, at(LEASE + 1), note="late")


def test_a_verdict_is_kept_with_the_candidate_it_is_on_and_with_no_other(store: ObjectStore) -> None:
    class Built:
        digest = "c" * 64

    verdict = verdict_on(Built(), None, "fail")  # type: ignore[arg-type]
    retraining.finish(store, taken(store).run, at(5), candidate=Built.digest)
    assert retraining.note_verdict(store, NAME, "d" * 64, verdict, at(6)) is None
    noted = retraining.note_verdict(store, NAME, Built.digest, verdict, at(6))
    assert noted is not None
    assert (noted.verdict, noted.verdict_outcome, noted.judged) == (verdict.digest, "fail", at(6).isoformat())


def test_an_edited_record_is_refused(store: ObjectStore) -> None:
    taken(store)
    key = keys.retraining_key(NAME)
    found = store.get(key)
    assert found is not None
    store.put(key, found.data.replace(b'"ada"', b'"eve"'))
    with pytest.raises(JournalBroken, match="changed after it was written"):
        taken(store, minutes=1)


def test_a_write_whose_answer_was_lost_is_believed() -> None:
    class Echoing(MemoryStore):
        """Writes, and then says that the condition did not hold: a retry's answer."""

        lost = False

        def put(
            self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False
        ) -> str | None:
            etag = super().put(key, data, if_match=if_match, if_absent=if_absent)
            return None if self.lost else etag

        def get(self, key: str) -> Found | None:
            return super().get(key)

    store = Echoing()
    run = taken(store).run
    store.lost = True
    assert retraining.heartbeat(store, run, at(1), "train").step == "train"
    assert retraining.finish(store, run, at(2), candidate="c" * 64).outcome == "done"


def test_a_heart_beats_while_the_block_works_and_the_block_hears_that_it_lost(store: ObjectStore) -> None:
    beats = threading.Event()
    clock_minutes = iter(range(10**6))

    def clock() -> datetime.datetime:
        minutes = next(clock_minutes)
        if minutes > 3:
            beats.set()
        return at(minutes)

    run = taken(store).run
    with retraining.kept_alive(store, run, every_s=0.01, clock=clock) as beating:
        beating.step("train")
        assert beats.wait(60)
        found, etag = read_retraining(store, NAME)
        assert found is not None
        assert (found.step, found.attempt) == ("train", 1)
        assert found.heartbeat > run.heartbeat
        stolen = found.model_copy(update={"attempt": 2, "holder": "bob"})
        while store.put(keys.retraining_key(NAME), stolen.to_bytes(), if_match=etag) is None:
            _, etag = read_retraining(store, NAME)
        with pytest.raises(LostRace):
            beating.step("label")
    assert read_retraining(store, NAME)[0] == stolen


def test_a_store_that_is_away_for_a_while_does_not_end_the_retrain() -> None:
    from saeops.errors import StoreUnreachable

    class Away(MemoryStore):
        away = False
        asked = threading.Semaphore(0)

        def get(self, key: str) -> Found | None:
            if self.away:
                self.asked.release()
                raise StoreUnreachable("gone for lunch")
            return super().get(key)

    store = Away()
    with retraining.kept_alive(store, taken(store).run, every_s=0.01, clock=lambda: at(1)) as beating:
        store.away = True
        for _ in range(3):
            assert store.asked.acquire(timeout=60)
        store.away = False
        beating.step("train")
    assert read_retraining(store, NAME)[0].step == "train"  # type: ignore[union-attr]


# ── processes that race ─────────────────────────────────────────────────────

RACERS, ROUNDS = 6, 8


def enter_and_leave(address: str, room: str, who: str, entered: "SimpleQueue[str]") -> None:
    """Retrain so many times; whoever meets somebody in the room says so."""
    store = open_store(address)
    for number in range(ROUNDS):
        asked = wanted(f"{who}-{number}", who)
        while not isinstance(taking := retraining.acquire(store, asked, POLICY, at()), Taken):
            time.sleep(0.002)
        try:
            os.close(os.open(room, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            entered.put(f"{who} met somebody")
            return
        retraining.heartbeat(store, taking.run, at(), "train")
        Path(room).unlink()
        retraining.finish(store, taking.run, at(), candidate="c" * 64)
    entered.put(who)


def test_of_processes_that_race_exactly_one_retrains_at_a_time(address: str, tmp_path: Path) -> None:
    entered: SimpleQueue[str] = FORK.SimpleQueue()
    room = str(tmp_path / "room")
    racers = [forked(enter_and_leave, address, room, f"r{i}", entered) for i in range(RACERS)]
    for racer in racers:
        racer.join(120)
    assert [racer.exitcode for racer in racers] == [0] * RACERS
    assert sorted(entered.get() for _ in racers) == [f"r{i}" for i in range(RACERS)]
    found, _ = read_retraining(open_store(address), NAME)
    assert found is not None
    assert found.attempt >= RACERS * ROUNDS


def steal(address: str, who: str, won: "SimpleQueue[str]") -> None:
    taking = retraining.acquire(open_store(address), wanted("op", who), POLICY, at(LEASE))
    won.put(who if isinstance(taking, Taken) else "")


def test_exactly_one_of_many_takes_over_what_a_killed_process_left(address: str) -> None:
    def hold(ready: "SimpleQueue[str]") -> None:
        taken(open_store(address), "killed")
        ready.put("ready")
        signal.pause()

    ready: SimpleQueue[str] = FORK.SimpleQueue()
    holder = forked(hold, ready)
    ready.get()
    holder.kill()
    holder.join(60)
    won: SimpleQueue[str] = FORK.SimpleQueue()
    thieves = [forked(steal, address, f"t{i}", won) for i in range(RACERS)]
    for thief in thieves:
        thief.join(60)
    winners = [who for who in (won.get() for _ in thieves) if who]
    found, _ = read_retraining(open_store(address), NAME)
    assert found is not None
    assert [found.holder] == winners
    assert found.attempt == 2
