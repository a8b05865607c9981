"""`saeops.load` on both stores: every reference, a champion that moves, many processes, and no store at all."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import saeops
from saeops.adapters import s3
from saeops.adapters.projection import MemoryProjection
from saeops.adapters.s3_client import Patience
from saeops.adapters.stores import open_store
from saeops.dictionary.bundle import Bundle
from saeops.dictionary.handle import Dictionary
from saeops.errors import FolderDamaged, NameUnknown, StaleAnswer, StoreUnreachable, VersionUnknown
from saeops.promotion import keys
from saeops.stages import promote, rollback
from saeops.stages.records import read_state
from saeops.stages.walk import Registry
from tests.bundles import NAME, author, tiny_bundle, verdict_on
from tests.forks import FORK, forked
from tests.seaweed import BUCKET, Seaweed, running

CHAMPION = f"{NAME}@champion"
HASTY = Patience(connect_s=1, read_s=5, again_s=0.5)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    return {name: tiny_bundle(tmp_path_factory.mktemp(name), seed) for seed, name in enumerate("abc")}


class Place:
    """A registry where a was promoted, then b, and consumers of it that share a cache."""

    def __init__(self, address: str, bundles: dict[str, Bundle]) -> None:
        self.store, self.bundles = open_store(address), bundles
        self.house = Registry(self.store, MemoryProjection(), patience_s=0)
        for letter in "ab":
            self.promote(letter)

    def promote(self, letter: str) -> None:
        bundle = self.bundles[letter]
        verdict = verdict_on(bundle, read_state(self.store, NAME).champion)
        promote.run(bundle.path, verdict, registry=self.house, author=author(f"op-{letter}"))

    def roll_back(self) -> None:
        rollback.run(NAME, registry=self.house, author=author("back"), reason="it misfires")

    def digest(self, letter: str) -> str:
        return self.bundles[letter].digest


@pytest.fixture(params=["local", "s3"])
def place(
    request: pytest.FixtureRequest, bundles: dict[str, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Place:
    local = request.param == "local"
    address = str(tmp_path / "store") if local else request.getfixturevalue("s3_address")
    return settled(address, bundles, tmp_path, monkeypatch)


def settled(address: str, bundles: dict[str, Bundle], root: Path, patch: pytest.MonkeyPatch) -> Place:
    patch.setenv("SAEOPS_STORE", address)
    patch.setenv("SAEOPS_CACHE", str(root / "cache"))
    return Place(address, bundles)


def test_every_form_of_reference_means_its_version(place: Place):
    a, b = place.digest("a"), place.digest("b")
    meant = {CHAMPION: b, NAME: b, f"{NAME}@previous": a, f"{NAME}@1": a, f"{NAME}@{b[:9]}": b, a: a, b[:8]: b}
    assert {reference: saeops.load(reference).digest for reference in meant} == meant


def test_what_means_nothing_is_named(place: Place):
    assert place.store.list("names/")
    for reference, error in {
        "no/such": NameUnknown,
        f"{NAME}@9": VersionUnknown,
        "f" * 64: VersionUnknown,
    }.items():
        with pytest.raises(error, match=reference.partition("@")[0][:12]):
            saeops.load(reference)


def test_refresh_notices_a_promotion_and_a_rollback(place: Place):
    first = saeops.load(CHAMPION)
    previous = saeops.load(f"{NAME}@previous")
    assert first.refresh() is None
    place.promote("c")
    second = moved(first)
    assert (second.digest, moved(previous).digest) == (place.digest("c"), place.digest("b"))
    place.roll_back()
    assert moved(second).digest == place.digest("b") == first.digest
    assert saeops.load(f"{NAME}@1").refresh() is None


def moved(dictionary: Dictionary) -> Dictionary:
    found = dictionary.refresh()
    assert found is not None
    return found


def test_a_byte_changed_in_the_store_is_not_loaded_and_one_changed_in_the_cache_is_fetched_anew(
    place: Place, tmp_path: Path
):
    key = keys.bundle_key(place.digest("b"), "sae/sae.safetensors")
    found = place.store.get(key)
    assert found is not None
    place.store.put(key, found.data[:-1] + bytes([found.data[-1] ^ 1]))
    with pytest.raises(FolderDamaged, match=r"sae/sae\.safetensors"):
        saeops.load(CHAMPION)
    place.store.put(key, found.data)
    assert saeops.load(CHAMPION).digest == place.digest("b")
    copy = tmp_path / "cache" / key
    copy.write_bytes(found.data[:-1])
    assert saeops.load(CHAMPION).digest == place.digest("b")
    assert copy.read_bytes() == found.data


def test_processes_that_load_while_the_champion_moves_get_whole_bundles_of_its_history(place: Place):
    over = FORK.Event()
    results = FORK.SimpleQueue()

    def consume() -> None:
        dictionary, seen = saeops.load(CHAMPION), set()
        while True:
            last = over.is_set()
            dictionary = dictionary.refresh() or dictionary
            assert len(dictionary.features()) == 7
            seen.add(dictionary.digest)
            if last:
                break
            time.sleep(0.01)
        results.put((dictionary.digest, sorted(seen)))

    workers = [forked(consume) for _ in range(4)]
    place.promote("c")
    place.roll_back()
    over.set()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    for _ in workers:
        last, seen = results.get()
        assert last == place.digest("b")
        assert set(seen) <= {place.digest("b"), place.digest("c")}


@pytest.fixture
def mortal() -> Iterator[Seaweed]:
    """A server that this test may kill."""
    with running() as server:
        yield server


@pytest.mark.slow
def test_while_the_server_is_dead_the_cache_serves_and_says_so_and_catches_up_later(
    mortal: Seaweed, bundles: dict[str, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(s3, "Patience", lambda: HASTY)
    for name, value in mortal.environment().items():
        monkeypatch.setenv(name, value)
    place = settled(f"s3://{BUCKET}/loading", bundles, tmp_path, monkeypatch)
    b = place.digest("b")
    for reference in (CHAMPION, f"{NAME}@2"):
        saeops.load(reference)
    mortal.kill()
    for reference in (CHAMPION, f"{NAME}@2", b):
        with pytest.warns(StaleAnswer, match=rf"does not answer.*served from the cache.*{b[:12]}"):
            stale = saeops.load(reference)
        assert len(stale.features()) == 7
    with pytest.raises(StoreUnreachable):
        saeops.load(f"{NAME}@previous")
    with pytest.warns(StaleAnswer):
        stale = saeops.load(CHAMPION)
    with pytest.raises(StoreUnreachable):
        stale.refresh()
    mortal.start()
    assert stale.refresh() is None
    place.roll_back()
    assert moved(stale).digest == place.digest("a")
