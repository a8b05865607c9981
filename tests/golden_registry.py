"""The registry in tests/golden/registry-1: how it was made, and how to make the next version's.

python -m tests.golden_registry      writes it again; for a new format only, into a folder of its own
"""

import sys
import tempfile
from pathlib import Path

from saeops.adapters.projection import MemoryProjection
from saeops.adapters.stores import MemoryStore
from saeops.promotion import keys
from saeops.promotion.protocol import intent
from saeops.promotion.retention import removal
from saeops.stages import registry, rollback
from saeops.stages.records import append, read_state
from saeops.stages.removals import put_mark
from saeops.stages.walk import Registry
from tests.bundles import author
from tests.shelves import put_up, small_bundle

NAME = "tiny/blocks.1.resid_post"
GOLDEN = Path(__file__).parent / "golden" / "registry-1"


def build(work: Path) -> MemoryStore:
    """Every kind of record: promotions, a void one, a rollback, pins, a lifted pin, a removal."""
    digest = {letter: small_bundle(work / letter, letter) for letter in "abcd"}
    store = MemoryStore()
    house = Registry(store, MemoryProjection(), patience_s=0)
    put_up(house, NAME, work / "a", "op-1")
    put_up(house, NAME, work / "b", "op-2")
    leave_open(store, digest["c"], "op-3")
    rollback.run(NAME, registry=house, author=author("op-4", minutes=9), reason="it fires on every sentence")
    registry.unpin(house, NAME, "2", author=author("op-5"))
    put_up(house, NAME, work / "c", "op-6")
    put_up(house, NAME, work / "d", "op-7")
    registry.pin(store, NAME, "1", author=author("op-8"), reason="the paper cites it")
    as_removed(store, digest["b"], "op-9")
    return store


def as_removed(store: MemoryStore, digest: str, operation: str) -> None:
    """A bundle as retention leaves one."""
    put_mark(store, removal(digest, author(operation), "removed"), over=None)
    for key in store.list(keys.bundle_key(digest)):
        store.delete(key)


def leave_open(store: MemoryStore, digest: str, operation: str) -> None:
    """An intent whose owner is gone."""
    left = author(operation, who="bob")
    append(store, intent(read_state(store, NAME), left, action="promote", to_digest=digest, reason="Grüße"))


def read(folder: Path = GOLDEN) -> MemoryStore:
    """The golden files as a store."""
    store = MemoryStore()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        store.put(path.relative_to(folder).as_posix(), path.read_bytes())
    return store


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        store = build(Path(work))
    for key in store.list(""):
        found = store.get(key)
        assert found is not None
        path = GOLDEN / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(found.data)
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
