"""The registry's and the bundle's formats: golden files, unknown versions, and each single byte."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saeops.adapters.projection import MemoryProjection
from saeops.adapters.stores import MemoryStore
from saeops.dictionary.bundle import Bundle, open_bundle
from saeops.digests import digest_json
from saeops.errors import FormatUnknown, IntegrityError, SaeopsError
from saeops.ports import ObjectStore
from saeops.promotion import keys
from saeops.sealed import MANIFEST
from saeops.stages import load, promote, registry, rollback
from saeops.stages.records import read_state
from saeops.stages.removals import read_mark
from saeops.stages.walk import Registry
from tests import golden_registry
from tests.bundles import NAME, author, tiny_bundle, verdict_on
from tests.golden_registry import GOLDEN

REMOVED = "7fb4d19db403dd104f655e746ca124ac96d5b9f6cd3119ba1878db197a742d62"


# ── golden files ────────────────────────────────────────────────────────────


def test_the_golden_registry_is_read_as_it_was_meant():
    store = golden_registry.read()
    rows = registry.history(store, NAME, verify=True)
    assert [(row.sequence, row.who, row.action, row.outcome, row.to_digest[:4]) for row in rows] == [
        (1, "ada", "promote", "done", "9f1c"),
        (2, "ada", "promote", "done", "7fb4"),
        (3, "bob", "promote", "void", "b720"),
        (4, "ada", "rollback", "done", "9f1c"),
        (5, "ada", "promote", "done", "b720"),
        (6, "ada", "promote", "done", rows[-1].to_digest[:4]),
    ]
    assert (rows[2].reason, rows[3].at) == ("Grüße", "2026-03-01T12:09:00+00:00")
    found = registry.status(store, NAME)
    assert (found.sequence, found.previous) == (6, rows[4].to_digest)
    assert found.pinned == {rows[0].to_digest: "the paper cites it"}
    assert read_state(store, NAME).pins.lifted == {REMOVED: 4}
    mark = read_mark(store, REMOVED)
    assert mark is not None
    assert (mark.removal.phase, mark.removal.operation) == ("removed", "op-9")
    for version in ("1", "5", "champion"):
        registry.verify(store, f"{NAME}@{version}")


def test_the_same_operations_still_write_the_golden_bytes(tmp_path: Path):
    assert objects(golden_registry.build(tmp_path)) == objects(golden_registry.read())


def objects(store: ObjectStore) -> dict[str, bytes]:
    return {key: data_of(store, key) for key in store.list("")}


def data_of(store: ObjectStore, key: str) -> bytes:
    found = store.get(key)
    assert found is not None
    return found.data


RECORDS = [key for key in golden_registry.read().list("") if not key.startswith("bundles/")]


@pytest.mark.parametrize("key", RECORDS)
def test_a_record_of_another_version_is_refused_by_name(key: str):
    for version in (0, 2, "1", None):
        store = golden_registry.read()
        values = json.loads(data_of(store, key)) | {"format": version}
        del values["seal"]
        store.put(key, json.dumps(values | {"seal": digest_json(values)}).encode())
        with pytest.raises(FormatUnknown, match=f"format {version}, this saeops reads format 1"):
            read_all(store)


def read_all(store: ObjectStore) -> None:
    registry.history(store, NAME, verify=True)
    read_mark(store, REMOVED)


@pytest.mark.parametrize(("field", "words"), [("seal", "sealed in version 2"), ("version", "bundle in format 2")])
def test_a_bundle_of_another_version_is_refused_by_everybody(tmp_path: Path, field: str, words: str):
    store, digest = golden_registry.read(), registry.status(golden_registry.read(), NAME).champion
    manifest = json.loads(data_of(store, keys.bundle_key(digest, MANIFEST))) | {field: 2}
    del manifest["digest"]
    manifest["digest"] = digest_json(manifest)
    newer = json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n"
    folder = tmp_path / "bundle"
    shutil.copytree(GOLDEN / "bundles" / digest, folder)
    (folder / MANIFEST).write_bytes(newer)
    for key in store.list(keys.bundle_key(digest)):
        store.put(keys.bundle_key(manifest["digest"], key.rsplit(digest + "/")[1]), data_of(store, key))
    store.put(keys.bundle_key(manifest["digest"], MANIFEST), newer)
    for attempt in (
        lambda: registry.verify(store, manifest["digest"]),
        lambda: load.find(manifest["digest"], store=store, cache=tmp_path / "cache"),
        lambda: open_bundle(folder),
    ):
        with pytest.raises(FormatUnknown, match=words):
            attempt()


# ── bytes of the registry ───────────────────────────────────────────────────


def damages(good: bytes) -> Iterator[bytes]:
    """Every byte changed, every truncation, a byte more."""
    for at in range(len(good)):
        yield good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        yield good[:at]
    yield good + b"\n"
    yield b" " + good


@pytest.mark.parametrize("key", RECORDS)
def test_every_changed_byte_and_every_truncation_of_a_record_is_found(key: str):
    store = golden_registry.read()
    for bad in damages(data_of(store, key)):
        store.put(key, bad)
        with pytest.raises(IntegrityError):
            read_all(store)


# Without its last closing an operation is merely unfinished, and shown so; a lost removal protects the bundle.
LOST = [key for key in RECORDS if not key.startswith("removals/") and key != keys.closing_key(NAME, 6)]


@pytest.mark.parametrize("key", LOST)
def test_every_missing_record_is_found(key: str):
    store = golden_registry.read()
    store.delete(key)
    with pytest.raises(IntegrityError, match=NAME):
        read_all(store)


def test_a_voided_entry_cut_off_at_the_end_is_missed_by_its_fence():
    store = golden_registry.read()
    house = Registry(store, MemoryProjection(), patience_s=0)
    before = set(store.list(""))
    golden_registry.leave_open(store, "f" * 64, "op-10")
    registry.unpin(house, NAME, "1", author=author("settles"))
    for key in set(store.list("")) - before:
        store.delete(key)
    with pytest.raises(IntegrityError, match="fences operation"):
        read_all(store)


# ── bytes of a bundle ───────────────────────────────────────────────────────


def test_every_changed_byte_and_every_truncation_of_a_small_stored_bundle_is_found():
    store = golden_registry.read()
    digest = registry.status(store, NAME).champion
    for key in store.list(keys.bundle_key(digest)):
        good = data_of(store, key)
        for bad in damages(good):
            store.put(key, bad)
            with pytest.raises(IntegrityError):
                registry.verify(store, NAME)
        store.put(key, good)
    registry.verify(store, NAME)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    return {name: tiny_bundle(tmp_path_factory.mktemp(name), seed) for seed, name in enumerate("ab")}


@pytest.fixture(scope="module")
def promoted(bundles: dict[str, Bundle]) -> dict[str, bytes]:
    """A registry of two real bundles, as objects: a, then b."""
    house = Registry(MemoryStore(), MemoryProjection(), patience_s=0)
    for name in "ab":
        put_up(house, bundles[name], name)
    return objects(house.store)


def put_up(house: Registry, bundle: Bundle, operation: str) -> None:
    verdict = verdict_on(bundle, read_state(house.store, NAME).champion)
    promote.run(bundle.path, verdict, registry=house, author=author(operation))


def house_of(contents: dict[str, bytes]) -> Registry:
    store = MemoryStore()
    for key, data in contents.items():
        store.put(key, data)
    return Registry(store, MemoryProjection(), patience_s=0)


SPOILT: dict[str, Callable[[ObjectStore, str], object]] = {
    "missing": lambda store, key: store.delete(key),
    "emptied": lambda store, key: store.put(key, b""),
    "cut": lambda store, key: store.put(key, data_of(store, key)[:-1]),
    "longer": lambda store, key: store.put(key, data_of(store, key) + b"\0"),
    "beside another": lambda store, key: store.put(f"{key}.bak", b""),
}


@pytest.mark.parametrize("how", list(SPOILT))
def test_a_spoilt_file_of_a_real_bundle_is_refused_by_verify_load_rollback_and_promote(
    bundles: dict[str, Bundle], promoted: dict[str, bytes], tmp_path: Path, how: str
):
    a, b = bundles["a"], bundles["b"]
    for key in [key for key in promoted if key.startswith(keys.bundle_key(a.digest))]:
        house = house_of(promoted)
        SPOILT[how](house.store, key)
        if objects(house.store) == promoted:
            continue  # reviews.jsonl is empty already
        name = key.removeprefix(keys.bundle_key(a.digest))
        again = [] if (name, how) == (MANIFEST, "missing") else [lambda house=house: put_up(house, a, "again")]
        for attempt in (
            lambda house=house: registry.verify(house.store, a.digest),
            lambda house=house: load.find(a.digest, store=house.store, cache=tmp_path / "cache"),
            lambda house=house: go_back(house, dry_run=True),
            lambda house=house: go_back(house),
            *again,
        ):
            with pytest.raises(IntegrityError, match=name):
                attempt()
        assert registry.status(house.store, NAME).champion == b.digest
        registry.history(house.store, NAME, verify=True)
    assert not list((tmp_path / "cache").glob("bundles/*"))


def go_back(house: Registry, *, dry_run: bool = False) -> None:
    rollback.run(NAME, registry=house, author=author("back"), reason="it misfires", dry_run=dry_run)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_byte_changed_in_a_real_stored_bundle_is_found(
    bundles: dict[str, Bundle], promoted: dict[str, bytes], data: st.DataObject
):
    digest = bundles["a"].digest
    files = [key for key in promoted if key.startswith(keys.bundle_key(digest)) and promoted[key]]
    key = data.draw(st.sampled_from(files), label="file")
    at = data.draw(st.integers(0, len(promoted[key]) - 1), label="byte")
    flip = data.draw(st.integers(1, 255), label="flip")
    house = house_of(promoted)
    good = promoted[key]
    house.store.put(key, good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :])
    with pytest.raises(SaeopsError) as found:
        registry.verify(house.store, digest)
    assert isinstance(found.value, IntegrityError)
