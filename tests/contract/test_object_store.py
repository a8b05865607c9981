"""What every object store must do; a new adapter joins by one line in `STORES`."""

import errno
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from saeops.adapters.stores import LocalStore, MemoryStore, open_store
from saeops.errors import StoreDenied, StoreUnreachable, UsageError
from saeops.ports import ObjectStore

STORES: dict[str, Callable[[Path], ObjectStore]] = {
    "local": lambda tmp: LocalStore(tmp / "store"),
    "memory": lambda _: MemoryStore(),
}


@pytest.fixture(params=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return STORES[request.param](tmp_path)


def test_an_empty_store_has_nothing_and_says_so_without_being_made(store: ObjectStore):
    assert store.get("names/a/champion.json") is None
    assert store.list("") == store.list("names/") == []
    store.delete("names/a/champion.json")


def test_what_was_put_is_got_with_the_etag_that_put_gave(store: ObjectStore):
    etag = store.put("a/b.json", b"one")
    found = store.get("a/b.json")
    assert found is not None
    assert (found.data, found.etag) == (b"one", etag)
    assert store.get("a") is None


def test_empty_and_binary_bytes_come_back_as_they_were(store: ObjectStore):
    for data in (b"", bytes(range(256)) * 5000):
        store.put("x", data)
        assert store.get("x").data == data


def test_if_absent_writes_once(store: ObjectStore):
    assert store.put("k", b"first", if_absent=True) is not None
    assert store.put("k", b"second", if_absent=True) is None
    assert store.get("k").data == b"first"


def test_if_match_writes_only_over_the_bytes_it_names(store: ObjectStore):
    assert store.put("k", b"x", if_match="0" * 64) is None
    assert store.get("k") is None
    first = store.put("k", b"first")
    second = store.put("k", b"second", if_match=first)
    assert second not in (None, first)
    assert store.put("k", b"third", if_match=first) is None
    assert store.get("k").data == b"second"


def test_list_gives_sorted_keys_under_any_prefix(store: ObjectStore):
    for key in ("b/2", "b/10", "b/c/1", "bc", "a"):
        store.put(key, b"")
    assert store.list("b/") == ["b/10", "b/2", "b/c/1"]
    assert store.list("b/1") == ["b/10"]
    assert store.list("b") == ["b/10", "b/2", "b/c/1", "bc"]
    assert store.list("") == ["a", "b/10", "b/2", "b/c/1", "bc"]
    assert store.list("nothing/") == []


def test_a_deleted_key_is_gone_and_can_be_written_if_absent(store: ObjectStore):
    store.put("k", b"x")
    store.delete("k")
    assert store.get("k") is None
    assert store.put("k", b"y", if_absent=True) is not None


@pytest.mark.parametrize("key", ["../outside", "a//b", "/a", "a/../b", ".lock", "a/.hidden", ""])
def test_a_key_that_leaves_the_store_is_refused(store: ObjectStore, key: str):
    with pytest.raises(UsageError, match="cannot be a key"):
        store.put(key, b"x")


# ── the folder store alone ──────────────────────────────────────────────────


def _count_up(root: str, times: int) -> None:
    store = LocalStore(Path(root))
    for _ in range(times):
        while True:
            found = store.get("counter")
            if store.put("counter", b"%d" % (int(found.data) + 1), if_match=found.etag) is not None:
                break


def test_processes_that_compare_and_swap_at_once_lose_no_update(tmp_path: Path):
    store = LocalStore(tmp_path / "store")
    store.put("counter", b"0")
    spawn = multiprocessing.get_context("fork")
    workers = [spawn.Process(target=_count_up, args=(str(store.root), 25)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert store.get("counter").data == b"100"


def _claim(root: str, me: int, won: "multiprocessing.Queue[int]") -> None:
    store = LocalStore(Path(root))
    for k in range(20):
        if store.put(f"slot/{k}", b"%d" % me, if_absent=True) is not None:
            won.put(k)


def test_processes_that_put_if_absent_at_once_have_one_winner_a_key(tmp_path: Path):
    fork = multiprocessing.get_context("fork")
    won: multiprocessing.Queue[int] = fork.Queue()
    workers = [fork.Process(target=_claim, args=(str(tmp_path / "store"), me, won)) for me in range(4)]
    for worker in workers:
        worker.start()
    assert sorted(won.get(timeout=30) for _ in range(20)) == list(range(20))
    for worker in workers:
        worker.join(30)
    assert won.empty()


def test_what_a_killed_writer_left_is_not_listed_and_the_next_write_takes_its_place(tmp_path: Path):
    store = LocalStore(tmp_path)
    (tmp_path / ".incoming").write_bytes(b"half of someth")
    store.put("k", b"whole")
    assert store.list("") == ["k"]
    assert store.get("k").data == b"whole"
    assert not (tmp_path / ".incoming").exists()


def test_a_store_folder_without_write_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = LocalStore(tmp_path / "store")
    real = os.open

    def refuse(path, flags, *args, **more):
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreDenied, match=f"no permission to write in the store folder {tmp_path / 'store'}"):
        store.put("k", b"x")


def test_a_store_that_is_no_folder_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreUnreachable, match="does not answer"):
        LocalStore(tmp_path / "file").put("k", b"x")
    with pytest.raises(StoreUnreachable, match="does not answer"):
        LocalStore(tmp_path / "file").get("k")


def test_an_address_that_is_no_folder_is_refused():
    with pytest.raises(UsageError, match="registry in a folder"):
        open_store("s3://bucket/prefix")
