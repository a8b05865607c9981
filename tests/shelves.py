"""Bundles of a few bytes, straight on the shelf of a store: for tests of the registry that need many of them."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from saeops.activations.policy import TokenPolicy
from saeops.adapters.stores import MemoryStore
from saeops.dictionary.bundle import Bundle, open_bundle
from saeops.dictionary.format import KIND, VERSION
from saeops.dictionary.provenance import Provenance
from saeops.ports import Found, ObjectStore
from saeops.promotion import keys
from saeops.promotion.plan import plan_promotion
from saeops.promotion.protocol import intent
from saeops.sealed import MANIFEST, seal
from saeops.stages import promote
from saeops.stages.records import read_pointer
from saeops.stages.removals import being_removed, read_mark
from saeops.stages.transfer import upload
from saeops.stages.walk import Moved, Registry, move, settle
from tests.bundles import NAME, author, verdict_on
from tests.killing import Killed


def small_bundle(folder: Path, text: str) -> str:
    """A sealed folder of kind bundle with two files; gives its digest."""
    (folder / "sae").mkdir(parents=True)
    (folder / "provenance.json").write_text(json.dumps({"name": text}))
    (folder / "sae" / "weights.bin").write_bytes(text.encode() * 3)
    return seal(folder, kind=KIND, version=VERSION, inputs={"text": text}, summary={}).digest


def named_bundle(folder: Path, text: str) -> Bundle:
    """A bundle of three files that `stages.promote` takes: its provenance says `tests.bundles.NAME`."""
    small_bundle(folder, text)
    made = {"model": {}, "corpus": {}, "policy": TokenPolicy(), "params": {}, "code": "", "version": ""}
    provenance = Provenance(name=NAME, **made, lock=None, activations_md5="", upstream={})
    (folder / "provenance.json").write_bytes(provenance.to_bytes())
    seal(folder, kind=KIND, version=VERSION, inputs={"text": text}, summary={})
    return open_bundle(folder)


def put_up(house: Registry, name: str, folder: Path, operation: str, *, forced: bool = False) -> Moved:
    """What `stages.promote` does once the verdict is a pass, without the tables that judging reads."""
    digest = json.loads((folder / MANIFEST).read_bytes())["digest"]
    who = author(operation)
    state = settle(house, name, who)
    plan = plan_promotion(state, digest)
    if plan.unchanged:
        return Moved(plan, None)
    seen = read_mark(house.store, digest)
    if seen is not None and seen.removal.phase == "marked":
        raise being_removed(seen, name)
    upload(house.store, folder, digest, again=seen is not None)
    entry = intent(state, who, action="promote", to_digest=digest, reason="", verdict=None, forced=forced)
    return move(house, state, plan, entry, who, seen=seen)


def put_through(house: Registry, bundle: Bundle, operation: str) -> Moved:
    """A promotion by `stages.promote`, on a verdict without the work of judging."""
    pointer = read_pointer(house.store, NAME)
    verdict = verdict_on(bundle, pointer.digest if pointer else None)
    return promote.run(bundle.path, verdict, registry=house, author=author(operation))


def whole(store: ObjectStore, digest: str) -> bool:
    return store.get(keys.bundle_key(digest, MANIFEST)) is not None


class InterruptedStore:
    """Does something at the start of one operation, once: runs another caller in between, or dies."""

    def __init__(self, shelf: MemoryStore | None = None) -> None:
        self.shelf = shelf or MemoryStore()
        self.address = self.shelf.address
        self._counting = threading.Lock()
        self.operations = 0
        self.at = -1
        self.dead = False
        self.meanwhile: Callable[[], object] = lambda: None

    def interrupt(self, at: int, meanwhile: Callable[[], object]) -> None:
        """Run something at the start of operation number `at` from now."""
        self.operations, self.at, self.meanwhile = 0, at, meanwhile

    def die(self) -> None:
        """Nothing that this process still does reaches the store."""
        self.dead = True
        raise Killed

    def get(self, key: str) -> Found | None:
        return self._next().get(key)

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str | None:
        return self._next().put(key, data, if_match=if_match, if_absent=if_absent)

    def pieces(self, key: str) -> Iterator[bytes] | None:
        return self._next().pieces(key)

    def put_file(self, key: str, path: Path, sha256: str) -> None:
        self._next().put_file(key, path, sha256)

    def list(self, prefix: str) -> "list[str]":
        return self._next().list(prefix)

    def sizes(self, prefix: str) -> dict[str, int]:
        return self._next().sizes(prefix)

    def delete(self, key: str) -> None:
        self._next().delete(key)

    def _next(self) -> MemoryStore:
        if self.dead:
            raise Killed
        # Long journals are read by several threads.
        with self._counting:
            self.operations += 1
            struck = self.operations == self.at
        if struck:
            self.meanwhile()
        return self.shelf
