"""The local cache: many processes at once, kills, a store that is away, and a champion that moves."""

import datetime
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from saeops import sealed
from saeops.adapters.projection import MemoryProjection
from saeops.adapters.stores import LocalStore
from saeops.dictionary.bundle import Bundle, open_bundle
from saeops.dictionary.format import KIND
from saeops.errors import JournalBroken, StaleAnswer, StoreUnreachable, VersionUnknown
from saeops.ports import Found
from saeops.stages import load, promote, rollback
from saeops.stages.records import read_state
from saeops.stages.transfer import fetch
from saeops.stages.walk import Registry
from tests.bundles import NAME, author, tiny_bundle, verdict_on
from tests.forks import FORK, forked

NOON = datetime.datetime(2026, 3, 1, 12, 0, tzinfo=datetime.UTC)
CHAMPION = f"{NAME}@champion"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    return {name: tiny_bundle(tmp_path_factory.mktemp(name), seed) for seed, name in enumerate("ab")}


class Store(LocalStore):
    """A folder that counts what it is asked for, and can be away."""

    away = False
    asked: list[str]

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked = []

    def get(self, key: str) -> Found | None:
        self._ask(key)
        return super().get(key)

    def pieces(self, key: str) -> Iterator[bytes] | None:
        self._ask(key)
        return super().pieces(key)

    def list(self, prefix: str) -> "list[str]":
        self._ask(prefix)
        return super().list(prefix)

    def _ask(self, key: str) -> None:
        if self.away:
            raise StoreUnreachable("the store does not answer", hint="wait")
        self.asked.append(key)


@pytest.fixture
def store(tmp_path: Path, bundles: dict[str, Bundle]) -> Store:
    """A registry in which a was promoted."""
    store = Store(tmp_path / "registry")
    make_champion(store, bundles["a"])
    store.asked.clear()
    return store


def registry_of(store: LocalStore) -> Registry:
    return Registry(LocalStore(store.root), MemoryProjection(), patience_s=0)


def make_champion(store: LocalStore, bundle: Bundle) -> None:
    house = registry_of(store)
    verdict = verdict_on(bundle, read_state(house.store, NAME).champion)
    promote.run(bundle.path, verdict, registry=house, author=author(bundle.digest[:6]))


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# ── many processes ──────────────────────────────────────────────────────────


class Dying(LocalStore):
    """Kills its process when it is asked for the n-th file of a bundle; `ready` and `go` hold it there."""

    def __init__(self, root: Path, after: int, ready=None, go=None) -> None:
        super().__init__(root)
        self._left, self._ready, self._go = after, ready, go

    def pieces(self, key: str) -> Iterator[bytes] | None:
        if self._left == 0:
            if self._ready is not None:
                self._ready.set()
                self._go.wait(60)
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1
        return super().pieces(key)


def test_eight_processes_at_once_get_a_whole_bundle_though_one_is_killed_in_the_middle(
    store: Store, bundles: dict[str, Bundle], tmp_path: Path
):
    cache, digest = tmp_path / "cache", bundles["a"].digest
    target = cache / "bundles" / digest
    halfway, go, barrier = FORK.Event(), FORK.Event(), FORK.Barrier(8)
    results = FORK.SimpleQueue()

    def die() -> None:
        fetch(Dying(store.root, 5, halfway, go), digest, cache)

    def work() -> None:
        barrier.wait(60)
        found = load.run(CHAMPION, store=LocalStore(store.root), cache=cache)
        results.put((found.digest, len(found.features())))

    victim = forked(die)
    assert halfway.wait(60)
    workers = [forked(work) for _ in range(7)]
    barrier.wait(60)
    # The victim holds half a bundle, and nobody sees it.
    assert files_of(cache / "incoming" / digest)
    assert not target.exists()
    go.set()
    while any(worker.is_alive() for worker in workers):
        if target.exists():
            assert sealed.verify(target, kind=KIND).digest == digest
    for process in [victim, *workers]:
        process.join(60)
    assert victim.exitcode == -signal.SIGKILL
    assert [worker.exitcode for worker in workers] == [0] * 7
    assert {results.get() for _ in workers} == {(digest, 7)}
    assert [path.name for path in (cache / "bundles").iterdir()] == [digest]
    assert list((cache / "incoming").iterdir()) == []


def test_killed_at_any_file_a_fetch_leaves_nothing_visible_and_the_next_is_whole(
    store: Store, bundles: dict[str, Bundle], tmp_path: Path
):
    cache, digest = tmp_path / "cache", bundles["a"].digest
    target = cache / "bundles" / digest
    for after in range(len(sealed.verify(bundles["a"].path, kind=KIND).files)):
        child = forked(fetch, Dying(store.root, after), digest, cache)
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
        assert not target.exists()
    assert open_bundle(fetch(store, digest, cache)).digest == digest
    assert list((cache / "incoming").iterdir()) == []


def test_many_processes_that_find_a_damaged_copy_end_with_one_good_one(
    store: Store, bundles: dict[str, Bundle], tmp_path: Path
):
    cache, digest = tmp_path / "cache", bundles["a"].digest
    damaged = fetch(store, digest, cache) / "sae" / "sae.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    barrier = FORK.Barrier(6)

    def work() -> None:
        barrier.wait(60)
        assert load.find(CHAMPION, store=LocalStore(store.root), cache=cache).digest == digest

    workers = [forked(work) for _ in range(6)]
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 6
    assert files_of(cache / "bundles" / digest) == files_of(bundles["a"].path)
    assert list((cache / "incoming").iterdir()) == []


# ── a store that is away ────────────────────────────────────────────────────


def load_at(store: LocalStore, cache: Path, reference: str, *, hours: float = 0):
    return load.run(reference, store=store, cache=cache, now=lambda: NOON + datetime.timedelta(hours=hours))


@pytest.mark.parametrize("reference", [CHAMPION, f"{NAME}@1", "digest"])
def test_what_was_loaded_before_is_served_while_the_store_is_away_and_says_how_old_it_is(
    store: Store, bundles: dict[str, Bundle], tmp_path: Path, reference: str
):
    cache, digest = tmp_path / "cache", bundles["a"].digest
    load_at(store, cache, CHAMPION)
    load_at(store, cache, f"{NAME}@1")
    store.away = True
    asked = digest if reference == "digest" else reference
    with pytest.warns(StaleAnswer, match=rf"does not answer.*as it was 3 hours ago.*{digest[:12]}"):
        assert load_at(store, cache, asked, hours=3).digest == digest


def test_a_store_folder_that_is_not_mounted_counts_as_away(store: Store, tmp_path: Path):
    load_at(store, tmp_path / "cache", CHAMPION)
    store.root.rename(tmp_path / "elsewhere")
    for reference in (CHAMPION, read_state(LocalStore(tmp_path / "elsewhere"), NAME).champion):
        with pytest.warns(StaleAnswer, match="5 minutes ago"):
            assert load_at(store, tmp_path / "cache", reference, hours=1 / 12).features()


def test_what_was_never_loaded_here_is_not_made_up(store: Store, bundles: dict[str, Bundle], tmp_path: Path):
    load_at(store, tmp_path / "cache", CHAMPION)
    store.away = True
    for reference in (f"{NAME}@previous", bundles["b"].digest):
        with pytest.raises(StoreUnreachable):
            load_at(store, tmp_path / "cache", reference)


def test_another_store_s_answers_are_not_taken(store: Store, tmp_path: Path):
    load_at(store, tmp_path / "cache", CHAMPION)
    other = Store(tmp_path / "other")
    other.away = True
    with pytest.raises(StoreUnreachable):
        load_at(other, tmp_path / "cache", CHAMPION)


def test_a_store_that_answers_is_believed_though_another_answer_is_remembered(store: Store, tmp_path: Path):
    load_at(store, tmp_path / "cache", CHAMPION)
    LocalStore(store.root).delete(f"names/{NAME}/champion.json")
    with pytest.raises(JournalBroken):
        load_at(store, tmp_path / "cache", CHAMPION)


def test_a_damaged_copy_is_not_served_while_the_store_is_away(
    store: Store, bundles: dict[str, Bundle], tmp_path: Path
):
    load_at(store, tmp_path / "cache", CHAMPION)
    copy = tmp_path / "cache" / "bundles" / bundles["a"].digest / "provenance.json"
    copy.write_bytes(copy.read_bytes() + b" ")
    store.away = True
    with pytest.warns(StaleAnswer), pytest.raises(StoreUnreachable):
        load_at(store, tmp_path / "cache", CHAMPION)


# ── refresh ─────────────────────────────────────────────────────────────────


def test_refresh_notices_a_promotion_and_a_rollback_at_one_get_of_the_pointer(
    store: Store, bundles: dict[str, Bundle], tmp_path: Path
):
    a = load_at(store, tmp_path / "cache", CHAMPION)
    store.asked.clear()
    assert a.refresh() is None
    assert store.asked == [f"names/{NAME}/champion.json"]
    make_champion(store, bundles["b"])
    b = a.refresh()
    assert b is not None
    assert b.digest == bundles["b"].digest
    assert b.refresh() is None
    rollback.run(NAME, registry=registry_of(store), author=author("back"), reason="it misfires")
    back = b.refresh()
    assert back is not None
    assert back.digest == a.digest


def test_previous_follows_too_and_what_is_pinned_asks_nothing(
    store: Store, bundles: dict[str, Bundle], tmp_path: Path
):
    make_champion(store, bundles["b"])
    previous = load_at(store, tmp_path / "cache", f"{NAME}@previous")
    pinned = [load_at(store, tmp_path / "cache", reference) for reference in (f"{NAME}@1", bundles["a"].digest)]
    rollback.run(NAME, registry=registry_of(store), author=author("back"), reason="it misfires")
    store.asked.clear()
    assert [each.refresh() for each in pinned] == [None, None]
    assert store.asked == []
    now = previous.refresh()
    assert now is not None
    assert now.digest == bundles["b"].digest


def test_there_and_back_again_is_no_change_and_is_looked_at_once(
    store: Store, bundles: dict[str, Bundle], tmp_path: Path
):
    a = load_at(store, tmp_path / "cache", CHAMPION)
    make_champion(store, bundles["b"])
    rollback.run(NAME, registry=registry_of(store), author=author("back"), reason="it misfires")
    assert a.refresh() is None
    store.asked.clear()
    assert a.refresh() is None
    assert len(store.asked) == 1


def test_a_dictionary_loaded_while_the_store_was_away_catches_up_when_it_is_back(
    store: Store, bundles: dict[str, Bundle], tmp_path: Path
):
    load_at(store, tmp_path / "cache", CHAMPION)
    make_champion(store, bundles["b"])
    store.away = True
    with pytest.warns(StaleAnswer):
        stale = load_at(store, tmp_path / "cache", CHAMPION)
    with pytest.raises(StoreUnreachable):
        stale.refresh()
    store.away = False
    fresh = stale.refresh()
    assert fresh is not None
    assert fresh.digest == bundles["b"].digest


def test_a_wrong_version_stays_an_error(store: Store, tmp_path: Path):
    load_at(store, tmp_path / "cache", CHAMPION)
    with pytest.raises(VersionUnknown):
        load_at(store, tmp_path / "cache", f"{NAME}@9")
