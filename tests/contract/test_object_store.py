"""What every object store must do: a folder, memory, and S3 on a real server."""

import errno
import os
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import pytest

from saeops.adapters import stores
from saeops.adapters.conditions import prove
from saeops.adapters.s3 import PART_BYTES
from saeops.adapters.stores import LocalStore, MemoryStore, open_store
from saeops.digests import digest_bytes, digest_file
from saeops.errors import DiskFull, FolderDamaged, StoreDenied, StoreUnreachable, UsageError
from saeops.ports import ObjectStore
from tests.forks import FORK, forked


@pytest.fixture(params=["local", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a store that several processes can open."""
    return str(tmp_path / "store") if request.param == "local" else request.getfixturevalue("s3_address")


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    match request.param:
        case "local":
            return LocalStore(tmp_path / "store")
        case "memory":
            return MemoryStore()
        case _:
            return open_store(request.getfixturevalue("s3_address"))


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


def test_sizes_are_told_without_reading(store: ObjectStore):
    for key, data in {"b/2": b"two", "b/c/1": b"", "bc": bytes(1000), "a": b"x"}.items():
        store.put(key, data)
    assert store.sizes("b/") == {"b/2": 3, "b/c/1": 0}
    assert store.sizes("") == {"a": 1, "b/2": 3, "b/c/1": 0, "bc": 1000}
    assert store.sizes("nothing/") == {}


def test_a_deleted_key_is_gone_and_can_be_written_if_absent(store: ObjectStore):
    store.put("k", b"x")
    store.delete("k")
    assert store.get("k") is None
    assert store.put("k", b"y", if_absent=True) is not None


@pytest.mark.parametrize("key", ["../outside", "a//b", "/a", "a/../b", ".lock", "a/.hidden", ""])
def test_a_key_that_leaves_the_store_is_refused(store: ObjectStore, key: str):
    with pytest.raises(UsageError, match="cannot be a key"):
        store.put(key, b"x")


# ── large files ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [0, 1, 3 * stores.PIECE_BYTES, PART_BYTES + 1])
def test_a_file_of_any_size_comes_back_piece_by_piece(store: ObjectStore, tmp_path: Path, size: int):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    store.put_file("bundles/a/file", path, digest_file(path))
    pieces = list(store.pieces("bundles/a/file"))
    assert b"".join(pieces) == path.read_bytes()
    assert store.get("bundles/a/file").data == path.read_bytes()
    assert store.list("") == ["bundles/a/file"]


def test_pieces_of_what_is_not_there_are_none(store: ObjectStore):
    store.put("a/b", b"x")
    assert store.pieces("a/c") is None
    assert store.pieces("a") is None


@pytest.mark.parametrize("size", [10, PART_BYTES + 1])
def test_a_file_that_is_not_the_one_named_is_not_put(store: ObjectStore, tmp_path: Path, size: int):
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    with pytest.raises(FolderDamaged, match="file: changed since it was sealed"):
        store.put_file("k", path, "0" * 64)
    assert store.get("k") is None
    assert store.list("") == []


def test_a_file_put_again_takes_the_place_of_what_was_there(store: ObjectStore, tmp_path: Path):
    path = tmp_path / "file"
    for data in (b"one", b"two"):
        path.write_bytes(data)
        store.put_file("k", path, digest_bytes(data))
        assert store.get("k").data == data


# ── several processes ───────────────────────────────────────────────────────


def test_conditions_hold_when_writers_race(store: ObjectStore):
    prove(store)
    assert store.list("") == []


def _count_up(address: str, times: int) -> None:
    store = open_store(address)
    for _ in range(times):
        while True:
            found = store.get("counter")
            if store.put("counter", b"%d" % (int(found.data) + 1), if_match=found.etag) is not None:
                break


def test_processes_that_compare_and_swap_at_once_lose_no_update(address: str):
    store = open_store(address)
    store.put("counter", b"0")
    workers = [forked(_count_up, address, 25) for _ in range(4)]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert store.get("counter").data == b"100"


def _claim(address: str, me: int, won: "SimpleQueue[int]") -> None:
    store = open_store(address)
    for k in range(20):
        if store.put(f"slot/{k}", b"%d" % me, if_absent=True) is not None:
            won.put(k)


def test_processes_that_put_if_absent_at_once_have_one_winner_a_key(address: str):
    won: SimpleQueue[int] = FORK.SimpleQueue()
    workers = [forked(_claim, address, me, won) for me in range(4)]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert sorted(won.get() for _ in range(20)) == list(range(20))
    assert won.empty()


# ── the folder store alone ──────────────────────────────────────────────────


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


def test_what_a_killed_upload_left_is_not_listed_and_the_next_one_takes_its_place(tmp_path: Path):
    store, path = LocalStore(tmp_path / "store"), tmp_path / "file"
    path.write_bytes(b"whole")
    store.put("other", b"x")
    left = tmp_path / "store" / f".incoming-{digest_bytes(b'whole')}"
    left.write_bytes(b"more than whole, but cut of")
    assert store.list("") == ["other"]
    store.put_file("k", path, digest_bytes(b"whole"))
    assert store.get("k").data == b"whole"
    assert not left.exists()


def _upload(root: str, path: str, times: int) -> None:
    for _ in range(times):
        LocalStore(Path(root)).put_file("k", Path(path), digest_file(Path(path)))


def test_processes_that_put_the_same_file_at_once_leave_it_whole(tmp_path: Path):
    path, root = tmp_path / "file", tmp_path / "store"
    path.write_bytes(os.urandom(100_000))
    workers = [forked(_upload, str(root), str(path), 10) for _ in range(4)]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert LocalStore(root).get("k").data == path.read_bytes()
    assert not list(root.glob(".incoming*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here, the disk that is always full")
def test_a_full_disk_is_named_and_what_stood_there_stands(tmp_path: Path):
    store = LocalStore(tmp_path)
    store.put("k", b"old")
    (tmp_path / ".incoming").symlink_to("/dev/full")
    with pytest.raises(DiskFull, match=f"no room left while writing {tmp_path}"):
        store.put("k", b"new")
    assert store.get("k").data == b"old"


@pytest.mark.parametrize("address", ["https://bucket/prefix", "gs://bucket"])
def test_an_address_that_is_no_store_s_is_refused(address: str):
    with pytest.raises(UsageError, match="no store that saeops knows"):
        open_store(address)
