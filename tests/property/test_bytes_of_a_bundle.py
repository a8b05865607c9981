"""Any byte changed, any file cut, missing or added: found by verify and load, refused as a target; both stores."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saeops.adapters.projection import MemoryProjection
from saeops.adapters.s3 import SHA256, open_s3
from saeops.adapters.s3_client import Patience
from saeops.adapters.stores import LocalStore, MemoryStore, open_store
from saeops.errors import IntegrityError
from saeops.ports import ObjectStore
from saeops.promotion import keys
from saeops.stages import load, registry, rollback
from saeops.stages.records import read_state
from saeops.stages.walk import Registry
from tests.bundles import NAME, author
from tests.shelves import put_up, small_bundle

HASTY = Patience(again_s=0.2)
Damage = tuple[str, bytes | None]
"""A file of the bundle, and the bytes in its place; None: it is gone."""


class Shelf:
    """Two bundles of three files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.digest = {letter: small_bundle(folder / letter, letter) for letter in "ab"}
        self.files = {
            path.relative_to(folder / "a").as_posix(): path.read_bytes()
            for path in sorted((folder / "a").rglob("*"))
            if path.is_file()
        }

    def promote_both(self, store: ObjectStore) -> None:
        for letter in "ab":
            put_up(house(store), NAME, self.folder / letter, f"op-{letter}")

    def put(self, store: ObjectStore, damage: Damage) -> None:
        name, data = damage
        key = keys.bundle_key(self.digest["a"], name)
        if data is None:
            store.delete(key)
        else:
            store.put(key, data)

    def mend(self, store: ObjectStore, damage: Damage) -> None:
        name, _ = damage
        self.put(store, (name, self.files.get(name)))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("shelf"))


def house(store: ObjectStore) -> Registry:
    return Registry(store, MemoryProjection(), patience_s=0)


def every_damage(files: dict[str, bytes]) -> Iterator[Damage]:
    """Each byte changed; each file cut, gone and longer; and one file more."""
    for name, good in files.items():
        for at in range(len(good)):
            yield name, good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        for at in range(0, len(good), 16):
            yield name, good[:at]
        yield name, good + b"\n"
        yield name, None
    yield "sae/more.json", b""
    yield "reviews.jsonl", b"{}"


def refused_by_all(shelf: Shelf, store: ObjectStore, damage: Damage, cache: Path) -> None:
    """Verify and load name the file; rollback, dry or not, and promotion refuse to move."""
    digest = shelf.digest["a"]
    # A changed version number is told as another version of this bundle.
    name = f"{damage[0]}|{digest} is "
    for find in (
        lambda: registry.verify(store, digest),
        lambda: registry.verify(store, f"{NAME}@previous"),
        lambda: load.find(f"{NAME}@1", store=store, cache=cache),
        lambda: back(store, dry_run=True),
        lambda: back(store),
    ):
        with pytest.raises(IntegrityError, match=name):
            find()
    if damage != ("manifest.json", None):  # then nothing was uploaded whole yet, and a promotion uploads it
        with pytest.raises(IntegrityError, match=name):
            put_up(house(store), NAME, shelf.folder / "a", "again")
    assert read_state(store, NAME).champion == shelf.digest["b"]
    assert not list(cache.glob("bundles/*"))


def back(store: ObjectStore, *, dry_run: bool = False) -> None:
    rollback.run(NAME, registry=house(store), author=author("back"), reason="it misfires", dry_run=dry_run)


def test_every_damage_of_a_small_bundle_is_found_by_verify_and_load_and_refused_by_rollback_and_promote(
    shelf: Shelf, tmp_path: Path
):
    whole = MemoryStore()
    shelf.promote_both(whole)
    objects = {key: whole.get(key).data for key in whole.list("")}
    tried = 0
    for damage in every_damage(shelf.files):
        store = MemoryStore()
        for key, data in objects.items():
            store.put(key, data)
        shelf.put(store, damage)
        refused_by_all(shelf, store, damage, tmp_path / "cache")
        tried += 1
    assert tried > sum(map(len, shelf.files.values()))


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, shelf: Shelf) -> ObjectStore:
    """A registry where a was promoted, then b."""
    local = request.param == "local"
    store = LocalStore(tmp_path / "store") if local else open_store(request.getfixturevalue("s3_address"))
    shelf.promote_both(store)
    return store


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_found_and_refused_on_a_folder_and_on_a_real_server(
    shelf: Shelf, store: ObjectStore, tmp_path: Path, data: st.DataObject
):
    damage = data.draw(damages(shelf.files), label="damage")
    shelf.put(store, damage)
    try:
        refused_by_all(shelf, store, damage, tmp_path / "cache")
    finally:
        shelf.mend(store, damage)
    registry.verify(store, shelf.digest["a"])


@st.composite
def damages(draw: st.DrawFn, files: dict[str, bytes]) -> Damage:
    name = draw(st.sampled_from(sorted(files)))
    good = files[name]
    at = draw(st.integers(0, len(good) - 1))
    flip = draw(st.integers(1, 255))
    return draw(
        st.sampled_from(
            [
                (name, good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :]),
                (name, good[:at]),
                (name, good + bytes([flip])),
                (name, None),
                ("sae/more.bin", bytes([flip])),
            ]
        )
    )


@pytest.mark.parametrize("name", ["manifest.json", "provenance.json", "sae/weights.bin"])
def test_bytes_that_only_the_server_knows_to_be_others_are_found(
    shelf: Shelf, s3_address: str, tmp_path: Path, name: str
):
    """As a disk loses them: the object still says the sha256 that was put with it."""
    store = open_s3(s3_address, HASTY)
    shelf.promote_both(store)
    key, good = keys.bundle_key(shelf.digest["a"], name), shelf.files[name]
    bad, told = good[:-1] + b"?", {SHA256: hashlib.sha256(good).hexdigest()}
    store.client.put_object(Bucket=store.bucket, Key=store.prefix + key, Body=bad, Metadata=told)
    refused_by_all(shelf, store, (name, bad), tmp_path / "cache")
