"""A dry rollback prints each key that the real one writes, wherever somebody before was cut off."""

import pytest

from saeops.adapters.stores import MemoryStore
from saeops.stages import rollback
from saeops.stages.walk import Moved, Registry, Untold
from tests.bundles import NAME, author
from tests.killing import Killed
from tests.shelves import InterruptedStore, put_up, small_bundle

OPERATIONS_AT_MOST = 100


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A registry in which a, b, c were promoted, as objects."""
    folder, store = tmp_path_factory.mktemp("shelf"), MemoryStore()
    for letter in "abc":
        small_bundle(folder / letter, letter)
        put_up(Registry(store, Untold(), patience_s=0), NAME, folder / letter, f"op-{letter}")
    return objects(store)


def objects(store: MemoryStore) -> dict[str, bytes]:
    return {key: store.get(key).data for key in store.list("")}


def back(store: MemoryStore | InterruptedStore, to: str, operation: str, *, dry_run: bool = False) -> Moved:
    house = Registry(store, Untold(), patience_s=0)
    return rollback.run(NAME, to=to, registry=house, author=author(operation), reason="x", dry_run=dry_run)


@pytest.mark.parametrize("to", ["previous", "1"])
@pytest.mark.parametrize("killed", ["a rollback to the previous version", "a rollback further back", "nobody"])
def test_what_a_dry_rollback_prints_is_what_the_real_one_writes(promoted: dict[str, bytes], to: str, killed: str):
    before = {"a rollback to the previous version": "previous", "a rollback further back": "1", "nobody": ""}[
        killed
    ]
    for at in range(1, OPERATIONS_AT_MOST):
        store = MemoryStore()
        for key, data in promoted.items():
            store.put(key, data)
        if before:
            cut_off(store, before, at)
        found = objects(store)
        plan = back(store, to, "looks", dry_run=True).plan
        assert objects(store) == found
        done = back(store, to, "does").plan
        assert (plan.to_digest, bool(plan.unchanged)) == (done.to_digest, bool(done.unchanged))
        changed = {key for key, data in objects(store).items() if found.get(key) != data}
        assert changed == {line.split(": ")[0] for line in plan.changes}, f"killed at {at}"
        if before == "" or over(found):
            return
    pytest.fail("it never came to its end")


def cut_off(store: MemoryStore, to: str, at: int) -> None:
    dying = InterruptedStore(store)
    dying.interrupt(at, dying.die)
    try:
        back(dying, to, "killed")
    except Killed:
        return


def over(found: dict[str, bytes]) -> bool:
    """The one that was to be killed had closed its entry."""
    return f"names/{NAME}/journal/00000004.closed.json" in found
