"""SIGKILL at every store operation of promote and rollback, and inside every write."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from saeops.adapters.projection import MemoryProjection
from saeops.adapters.stores import LocalStore
from saeops.dictionary.bundle import Bundle
from saeops.errors import LostRace, VersionPinned
from saeops.ports import Found
from saeops.stages import promote, registry, rollback
from saeops.stages.records import read_state
from saeops.stages.transfer import verify_stored
from saeops.stages.walk import Registry
from tests.bundles import NAME, author, tiny_bundle, verdict_on

OPERATIONS_AT_MOST = 400


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DyingStore(LocalStore):
    """Kills its own process at the start of operation number `at`, or in the middle of write number `at`."""

    def __init__(self, root: Path, *, at: int, inside: bool) -> None:
        super().__init__(root)
        self.at, self.inside = at, inside
        self.operations = self.writes = 0

    def _operation(self) -> None:
        self.operations += 1
        if not self.inside and self.operations == self.at:
            die()

    def get(self, key: str) -> Found | None:
        self._operation()
        return super().get(key)

    def put(self, key: str, data: bytes, **conditions: object) -> str | None:
        self._operation()
        return super().put(key, data, **conditions)

    def pieces(self, key: str) -> Iterator[bytes] | None:
        self._operation()
        return super().pieces(key)

    def put_file(self, key: str, path: Path, sha256: str) -> None:
        self._operation()
        self._write_begins(self.root / f".incoming-{sha256}", path.read_bytes())
        super().put_file(key, path, sha256)

    def list(self, prefix: str) -> "list[str]":
        self._operation()
        return super().list(prefix)

    def _write(self, path: Path, data: bytes) -> None:
        self._write_begins(self.root / ".incoming", data)
        super()._write(path, data)

    def _write_begins(self, incoming: Path, data: bytes) -> None:
        self.writes += 1
        if self.inside and self.writes == self.at:
            incoming.write_bytes(data[: len(data) // 2])
            die()


def killed(act: Callable[[DyingStore], object], root: Path, *, at: int, inside: bool) -> bool:
    """Whether `act` was killed at that point, in a process of its own; False: it came to its end before."""
    child = os.fork()
    if child == 0:
        try:
            act(DyingStore(root, at=at, inside=inside))
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0, "the operation failed before it could be killed"
    return False


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses nothing it wrote; fsync guards against power cuts, which no test here makes."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


def house(store: LocalStore) -> Registry:
    return Registry(store, MemoryProjection(), patience_s=0)


def put_up(store: LocalStore, bundle: Bundle, operation: str) -> None:
    verdict = verdict_on(bundle, read_state(store, NAME).champion)
    if verdict.champion == bundle.digest:
        verdict = verdict_on(bundle, None)
    promote.run(bundle.path, verdict, registry=house(store), author=author(operation))


def back(store: LocalStore, operation: str) -> None:
    rollback.run(NAME, registry=house(store), author=author(operation), reason="it misfires")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    return {name: tiny_bundle(tmp_path_factory.mktemp(name), seed) for seed, name in enumerate("abc")}


def readers_see(store: LocalStore, expected: set[str | None]) -> str | None:
    """The champion, checked to be one of those expected and whole."""
    champion = read_state(store, NAME).champion
    assert champion in expected
    if champion is not None:
        assert registry.status(store, NAME).champion == champion
        verify_stored(store, champion)
    return champion


def check_history(store: LocalStore, target: str, *, action: str) -> None:
    """Nothing is open, nothing is missing, and the operation stands in the journal as done exactly once."""
    rows = registry.history(store, NAME, verify=True)
    assert [row.sequence for row in rows] == list(range(1, len(rows) + 1))
    assert "open" not in {row.outcome for row in rows}
    done = [row for row in rows if (row.action, row.to_digest, row.outcome) == (action, target, "done")]
    assert len(done) == 1


@pytest.mark.slow
@pytest.mark.parametrize("inside", [False, True], ids=["at every operation", "inside every write"])
@pytest.mark.parametrize("first", [True, False], ids=["first promotion", "second promotion"])
def test_a_promotion_killed_anywhere_leaves_a_whole_champion_and_can_be_repeated(
    tmp_path: Path, bundles: dict[str, Bundle], first: bool, inside: bool
):
    ready, target = tmp_path / "ready", bundles["b"]
    ready.mkdir()
    if not first:
        put_up(LocalStore(ready), bundles["a"], "op1")
    before = read_state(LocalStore(ready), NAME).champion
    seen = set()
    for at in range(1, OPERATIONS_AT_MOST):
        root = shutil.copytree(ready, tmp_path / f"{at}")
        was_killed = killed(lambda store: put_up(store, target, "dies"), root, at=at, inside=inside)
        store = LocalStore(root)
        seen.add(readers_see(store, {before, target.digest}))
        put_up(store, target, "repeats")
        assert readers_see(store, {target.digest}) == target.digest
        check_history(store, target.digest, action="promote")
        shutil.rmtree(root)
        if not was_killed:
            break
    else:
        pytest.fail("the promotion never came to its end")
    assert at > (15 if inside else 40)
    assert seen == {before, target.digest}


@pytest.mark.parametrize(
    "inside",
    [
        pytest.param(False, id="at every operation", marks=pytest.mark.slow),
        pytest.param(True, id="inside every write"),
    ],
)
def test_a_rollback_killed_anywhere_can_be_repeated_and_goes_back_one_version_only(
    tmp_path: Path, bundles: dict[str, Bundle], inside: bool
):
    ready = tmp_path / "ready"
    for name in "abc":
        put_up(LocalStore(ready), bundles[name], f"op-{name}")
    old, new = bundles["c"].digest, bundles["b"].digest
    seen = set()
    for at in range(1, OPERATIONS_AT_MOST):
        root = shutil.copytree(ready, tmp_path / f"{at}")
        was_killed = killed(lambda store: back(store, "dies"), root, at=at, inside=inside)
        store = LocalStore(root)
        seen.add(readers_see(store, {old, new}))
        back(store, "repeats")
        assert readers_see(store, {new}) == new
        assert set(registry.status(store, NAME).pinned) == {old}
        check_history(store, new, action="rollback")
        shutil.rmtree(root)
        if not was_killed:
            break
    else:
        pytest.fail("the rollback never came to its end")
    assert at > (3 if inside else 30)
    assert seen == {old, new}


def quarrel(root: Path, me: int, bundles: dict[str, Bundle]) -> list[str]:
    """Promote and roll back against others; the operations that were told to have moved the champion."""
    mine = Registry(LocalStore(root), MemoryProjection(), patience_s=1)
    moved = []
    for turn in range(6):
        who = author(f"{me}-{turn}", who=f"worker {me}")
        target = bundles["abc"[(me + turn) % 3]]
        try:
            if turn % 3 == 2:
                entry = rollback.run(NAME, registry=mine, author=who, reason="turn").entry
            else:
                registry.unpin(mine, NAME, target.digest, author=who)
                verdict = verdict_on(target, read_state(mine.store, NAME).champion)
                entry = promote.run(target.path, verdict, registry=mine, author=who).entry
        except (LostRace, VersionPinned):
            continue
        if entry is not None:
            moved.append(who.operation)
    return moved


def in_a_child(run: Callable[[], list[str]]) -> tuple[int, int]:
    """Process id, and the end of a pipe on which the words come back."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, " ".join(run()).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(write)
    return child, read


@pytest.mark.slow
def test_processes_that_promote_and_roll_back_at_once_leave_one_linear_history(
    tmp_path: Path, bundles: dict[str, Bundle]
):
    store = LocalStore(tmp_path / "store")
    for name in "abc":
        put_up(store, bundles[name], f"op-{name}")
    children = [in_a_child(lambda me=me: quarrel(store.root, me, bundles)) for me in range(4)]
    claimed: set[str] = set()
    for child, read in children:
        with os.fdopen(read, "rb") as pipe:
            claimed |= set(pipe.read().decode().split())
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    steps = read_state(store, NAME).journal.steps[3:]
    done = [step.entry.operation for step in steps if step.done]
    assert claimed, "nobody got through"
    assert sorted(done) == sorted(claimed)
    registry.history(store, NAME, verify=True)
