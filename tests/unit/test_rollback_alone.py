"""Rollback needs the store and nothing else; and what `saeops gc` asks before it removes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from saeops.adapters.projection import MemoryProjection
from saeops.adapters.stores import LocalStore, MemoryStore, open_store
from saeops.errors import VersionUnknown
from saeops.stages import registry, rollback
from saeops.stages.records import read_state
from saeops.stages.transfer import upload
from saeops.stages.walk import Registry, Untold
from tests.bundles import NAME, author
from tests.seaweed import Seaweed
from tests.shelves import InterruptedStore, put_up, small_bundle

OTHER = "other/blocks.0.mlp_out"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout whose registry holds a, b, c and d, promoted in this order."""
    fill(Registry(LocalStore(tmp_path / "var" / "registry"), MemoryProjection(), patience_s=0), tmp_path)
    return tmp_path


def fill(house: Registry, folder: Path) -> None:
    for letter in "abcd":
        small_bundle(folder / letter, letter)
        put_up(house, NAME, folder / letter, letter)


def run(root: Path, code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("SAEOPS_", "PREFECT_", "MLFLOW_"))
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={**kept, "PYTHONPATH": str(Path(__file__).parents[2]), "SAEOPS_USER": "ada", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def verb(*arguments: str) -> str:
    return f"import sys; sys.argv = ['saeops', *{arguments!r}]\nfrom saeops.cli import main\nmain()"


ALONE = """
import socket, sys

def nobody(*_, **__):
    raise OSError("the network is down")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = nobody

from saeops.cli import main
sys.argv = ["saeops", "rollback", {name!r}, "--reason", "it misfires"]
try:
    main()
except SystemExit as end:
    heavy = sorted({{"mlflow", "prefect", "torch", "pandas", "dvc"}} & set(sys.modules))
    print("imported:", heavy)
    raise
"""


@pytest.mark.parametrize("tracking", ["http://127.0.0.1:9", "sqlite:////proc/nowhere/mlflow.db", "none"])
def test_rollback_imports_no_mlflow_no_prefect_and_uses_no_network(root: Path, tracking: str):
    done = run(root, ALONE.format(name=NAME), SAEOPS_TRACKING=tracking, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert (done.returncode, done.stderr) == (0, "")
    assert "imported: []" in done.stdout
    told = f"MLflow is not told by a rollback: saeops reconcile {NAME}, when it is up"
    assert (told in done.stdout) == (tracking != "none")
    state = read_state(LocalStore(root / "var" / "registry"), NAME)
    assert state.journal.open is None
    assert state.champion == state.resolve("3")


WATCHED = """
import sys

asked = set()

def watch(event, arguments):
    if event == "import" and arguments[0].partition(".")[0] in {{"mlflow", "prefect", "dvc", "torch"}}:
        raise ImportError(f"rollback imported {{arguments[0]}}")
    if event == "socket.connect":
        asked.add("%s:%s" % arguments[1][:2])
    if event == "socket.getaddrinfo":
        asked.add("%s:%s" % arguments[:2])

sys.addaudithook(watch)
from saeops.cli import main
sys.argv = ["saeops", "rollback", {name!r}, "--reason", "it misfires"]
try:
    main()
finally:
    print("asked:", *sorted(asked))
"""


def test_rollback_on_s3_asks_the_store_and_nobody_else(tmp_path: Path, s3_address: str, s3_server: Seaweed):
    fill(Registry(open_store(s3_address), MemoryProjection(), patience_s=0), tmp_path)
    services = {"SAEOPS_TRACKING": "http://127.0.0.1:9", "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    environment = s3_server.environment() | services | {"SAEOPS_STORE": s3_address}
    done = run(tmp_path, WATCHED.format(name=NAME), **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"asked: {s3_server.endpoint.removeprefix('http://')}\n" in done.stdout
    state = read_state(open_store(s3_address), NAME)
    assert state.champion == state.resolve("3")


def test_rollback_in_a_folder_opens_no_connection(root: Path):
    done = run(root, WATCHED.format(name=NAME), SAEOPS_TRACKING="http://127.0.0.1:9")
    assert (done.returncode, done.stderr) == (0, "")
    assert "asked:\n" in done.stdout


def test_gc_shows_what_goes_and_removes_nothing_unless_somebody_says_yes(root: Path):
    store = LocalStore(root / "var" / "registry")
    stray = small_bundle(root / "stray", "stray")
    upload(store, root / "stray", stray)
    for arguments in (("--dry-run",), (), ("--json",)):
        done = run(root, verb("gc", *arguments), SAEOPS_TRACKING="none")
        shown = done.stdout if "--json" not in arguments else done.stderr
        for words in (stray[:12], "no journal names it", "previous", "champion"):
            assert words in shown
        assert done.returncode == (0 if "--dry-run" in arguments else 2), done.stderr
        registry.verify(store, stray)
    assert "add --yes" in done.stderr
    done = run(root, verb("gc", "--yes"), SAEOPS_TRACKING="none")
    assert done.returncode == 0, done.stderr
    assert done.stdout.index(stray[:12]) < done.stdout.index("removed 1 bundle, ")
    with pytest.raises(VersionUnknown):
        registry.verify(store, stray)
    for version in "1234":
        registry.verify(store, f"{NAME}@{version}")
    assert "nothing to remove: 4 bundles, all kept" in run(root, verb("gc"), SAEOPS_TRACKING="none").stdout


def test_a_version_of_another_name_is_no_target_and_that_name_is_told(tmp_path: Path):
    house = Registry(MemoryStore(), MemoryProjection(), patience_s=0)
    digest = {letter: small_bundle(tmp_path / letter, letter) for letter in "abc"}
    for name, letters in ((NAME, "ab"), (OTHER, "c")):
        for letter in letters:
            put_up(house, name, tmp_path / letter, letter)
    before = house.store.list("")
    with pytest.raises(VersionUnknown, match=f"is a version of {OTHER}"):
        rollback.run(NAME, to=digest["c"][:9], registry=house, author=author("back"), reason="try")
    assert house.store.list("") == before


def operations_of_a_rollback(tmp_path: Path, versions: int) -> int:
    store = InterruptedStore()
    house = Registry(store, Untold(), patience_s=0)
    for number in range(versions):
        folder = tmp_path / f"{versions}-{number}"
        small_bundle(folder, str(number))
        put_up(house, NAME, folder, f"op-{number}")
    store.interrupt(-1, lambda: None)
    rollback.run(NAME, registry=house, author=author("back"), reason="it misfires")
    return store.operations


def test_a_rollback_reads_the_journal_once_and_asks_little_more(tmp_path: Path):
    few, many = (operations_of_a_rollback(tmp_path, versions) for versions in (4, 24))
    # What keeps it under five seconds on a store that answers within some ten milliseconds.
    assert many - few == 2 * 20, "an entry and its closing, once"
    assert few < 2 * 4 + 25
