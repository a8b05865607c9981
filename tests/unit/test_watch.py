"""Watching model sources: each new version is reported once, whatever dies in between."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from saeops.adapters.stores import MemoryStore
from saeops.drift.policy.sources import Glimpse, ModelVersion, NotWhole
from saeops.promotion import keys
from saeops.stages import watch
from saeops.stages.drift_records import read_models
from saeops.stages.watch import Known, NewModel, Watched
from tests.bundles import MODEL, NAME, author
from tests.drifting import promoted
from tests.killing import Killed


@dataclass
class ScriptedSource:
    """Shows what it is told to, and counts how often its weights were read."""

    shows: Glimpse | NotWhole
    digest: str = "n" * 64
    address: str = "folder:models/base"
    taken: int = 0
    changes_while_read: bool = False

    def look(self) -> Glimpse | NotWhole:
        return self.shows

    def take(self, glimpse: Glimpse) -> ModelVersion | NotWhole:
        self.taken += 1
        if self.changes_while_read:
            return NotWhole("changed while it was read")
        return ModelVersion("models/base", self.digest)


@dataclass
class World:
    store: MemoryStore
    memory: Path
    events: list[NewModel] = field(default_factory=list)

    def look(self, source: ScriptedSource, minutes: int = 0) -> Watched:
        return watch.run(
            NAME,
            source,
            store=self.store,
            memory=self.memory,
            author=author("op", minutes=minutes),
            emit=self.events.append,
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    store = MemoryStore()
    promoted(store, tmp_path, "a")
    return World(store, tmp_path / "memory")


def test_a_new_version_is_reported_once_and_recorded(world: World) -> None:
    source = ScriptedSource(Glimpse("v2", final=True))
    found = world.look(source)
    assert isinstance(found, NewModel)
    assert [world.look(source, minutes) for minutes in (1, 2)] == [Known("n" * 64, source.address)] * 2
    assert world.events == [found]
    assert read_models(world.store, NAME) == (found.seen,)
    assert (found.seen.ref, found.seen.source) == ("models/base", "folder:models/base")
    assert source.taken == 1


def test_what_can_still_change_is_taken_once_two_looks_showed_the_same(world: World) -> None:
    source = ScriptedSource(Glimpse("1 MB", final=False))
    assert isinstance(world.look(source), NotWhole)
    source.shows = Glimpse("2 MB", final=False)
    assert isinstance(world.look(source), NotWhole)
    source.shows = NotWhole("no config.json")
    assert isinstance(world.look(source), NotWhole)
    source.shows = Glimpse("3 MB", final=False)
    assert isinstance(world.look(source), NotWhole)
    assert source.taken == 0
    assert isinstance(world.look(source), NewModel)


def test_what_changed_while_it_was_read_is_looked_at_again(world: World) -> None:
    source = ScriptedSource(Glimpse("v2", final=True), changes_while_read=True)
    assert isinstance(world.look(source), NotWhole)
    source.changes_while_read = False
    assert isinstance(world.look(source), NewModel)


def test_another_commit_with_the_same_bytes_is_nothing_new(world: World) -> None:
    source = ScriptedSource(Glimpse("v2", final=True))
    world.look(source)
    source.shows = Glimpse("v2, with another README", final=True)
    assert isinstance(world.look(source), Known)
    assert len(world.events) == 1


def test_the_model_that_the_champion_was_built_on_is_nothing_new(world: World) -> None:
    assert isinstance(world.look(ScriptedSource(Glimpse("v1", final=True), digest=MODEL)), Known)
    assert not world.events


def test_killed_between_the_event_and_its_record_the_same_event_is_sent_again(world: World) -> None:
    source = ScriptedSource(Glimpse("v2", final=True))
    key = keys.model_key(NAME, source.digest)
    put = world.store.put

    def dies(where: str, data: bytes, **conditions: object) -> str | None:
        if where == key:
            raise Killed
        return put(where, data, **conditions)  # type: ignore[arg-type]

    world.store.put = dies  # type: ignore[method-assign]
    with pytest.raises(Killed):
        world.look(source)
    world.store.put = put  # type: ignore[method-assign]
    assert read_models(world.store, NAME) == ()
    world.look(source, minutes=5)
    world.look(source, minutes=6)
    first, again = world.events
    assert first.id == again.id


def test_an_event_that_could_not_be_sent_is_not_recorded(world: World) -> None:
    def fails(_: NewModel) -> None:
        raise RuntimeError("the server is down")

    source = ScriptedSource(Glimpse("v2", final=True))
    with pytest.raises(RuntimeError, match="down"):
        watch.run(NAME, source, store=world.store, memory=world.memory, author=author("op"), emit=fails)
    assert read_models(world.store, NAME) == ()
    assert isinstance(world.look(source), NewModel)


def test_events_differ_by_name_and_digest_and_by_nothing_else(world: World, tmp_path: Path) -> None:
    promoted(world.store, tmp_path, "b", name="other/blocks.1.resid_post")
    source = ScriptedSource(Glimpse("v2", final=True))
    world.look(source)
    world.look(ScriptedSource(Glimpse("v3", final=True), digest="o" * 64))
    watch.run(
        "other/blocks.1.resid_post",
        source,
        store=world.store,
        memory=world.memory,
        author=author("op"),
        emit=world.events.append,
    )
    assert len({event.id for event in world.events}) == 3


def test_a_lost_memory_costs_a_look_and_no_event(world: World) -> None:
    source = ScriptedSource(Glimpse("v2", final=False))
    world.look(source)
    assert isinstance(world.look(source), NewModel)
    for path in world.memory.iterdir():
        path.write_bytes(b"\x00 not json")
    assert isinstance(world.look(source), NotWhole)
    assert isinstance(world.look(source), Known)
    assert len(world.events) == 1


def test_a_name_without_a_champion_waits_for_one(tmp_path: Path) -> None:
    world = World(MemoryStore(), tmp_path)
    found = world.look(ScriptedSource(Glimpse("v2", final=True)))
    assert isinstance(found, NotWhole)
    assert "no champion" in watch.describe(found)
    assert not world.events
