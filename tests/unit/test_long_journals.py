"""Journals so long that they are read several entries at a time: the same is found as one after the other."""

import pytest

from saeops.adapters.projection import MemoryProjection
from saeops.adapters.stores import MemoryStore
from saeops.errors import JournalBroken, StoreUnreachable
from saeops.ports import Found
from saeops.promotion import keys
from saeops.promotion.journal import Journal
from saeops.stages import records, registry, rollback
from saeops.stages.records import read_journal, read_state
from saeops.stages.walk import Registry
from tests.bundles import NAME, author
from tests.shelves import put_up, small_bundle

ENTRIES = 2 * records.MANY


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> MemoryStore:
    """A name that was promoted so many times."""
    store = MemoryStore()
    house = Registry(store, MemoryProjection(), patience_s=0)
    for number in range(ENTRIES):
        folder = tmp_path_factory.mktemp("bundle") / str(number)
        small_bundle(folder, str(number))
        put_up(house, NAME, folder, f"op-{number}")
    return store


@pytest.fixture
def store(shelf: MemoryStore) -> MemoryStore:
    copy = MemoryStore()
    for key in shelf.list(""):
        copy.put(key, shelf.get(key).data)
    return copy


def one_by_one(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> Journal:
    with monkeypatch.context() as patched:
        patched.setattr(records, "MANY", 10**9)
        return read_journal(store, NAME)


def test_what_is_read_at_once_is_what_is_read_one_by_one(store: MemoryStore, monkeypatch: pytest.MonkeyPatch):
    assert read_journal(store, NAME) == one_by_one(store, monkeypatch)
    assert len(read_journal(store, NAME).steps) == ENTRIES


@pytest.mark.parametrize("missing", [1, 7, ENTRIES - 1])
def test_a_gap_is_found(store: MemoryStore, missing: int):
    store.delete(keys.entry_key(NAME, missing))
    with pytest.raises(JournalBroken, match=f"journal entry {missing} is missing"):
        read_state(store, NAME)


def test_an_entry_that_is_open_though_later_ones_stand_is_found(store: MemoryStore):
    store.delete(keys.closing_key(NAME, 5))
    with pytest.raises(JournalBroken, match="5"):
        read_state(store, NAME)


def test_an_entry_that_comes_while_it_is_read_is_read_with_it(
    store: MemoryStore, shelf: MemoryStore, monkeypatch: pytest.MonkeyPatch
):
    late = [keys.entry_key(NAME, ENTRIES), keys.closing_key(NAME, ENTRIES)]
    for key in late:
        store.delete(key)
    listed = store.list

    def then_another_comes(prefix: str) -> list[str]:
        found = listed(prefix)
        for key in late:
            store.put(key, shelf.get(key).data)
        return found

    monkeypatch.setattr(store, "list", then_another_comes)
    assert len(read_journal(store, NAME).steps) == ENTRIES


def test_a_store_that_goes_away_in_the_middle_is_told(store: MemoryStore, monkeypatch: pytest.MonkeyPatch):
    get = store.get

    def away(key: str) -> Found | None:
        if key == keys.entry_key(NAME, 20):
            raise StoreUnreachable("the store does not answer", hint="wait")
        return get(key)

    monkeypatch.setattr(store, "get", away)
    with pytest.raises(StoreUnreachable):
        read_state(store, NAME)


def test_a_rollback_on_a_long_journal_is_one_more_entry(store: MemoryStore):
    house = Registry(store, MemoryProjection(), patience_s=0)
    rollback.run(NAME, registry=house, author=author("back"), reason="it misfires")
    rows = registry.history(store, NAME, verify=True)
    assert [row.sequence for row in rows] == list(range(1, ENTRIES + 2))
