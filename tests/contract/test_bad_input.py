"""Bad input of every kind, through the program: one clear error with its exit code, a server's from a server."""

import datetime
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import botocore.auth
import pytest
import yaml

from saeops.adapters import s3, stores
from saeops.adapters.projection import MemoryProjection
from saeops.adapters.s3_client import Patience
from saeops.adapters.stores import MemoryStore
from saeops.cli import app, main
from saeops.errors import SaeopsError
from saeops.ports import ObjectStore
from saeops.promotion import keys
from saeops.promotion.protocol import intent
from saeops.stages import registry
from saeops.stages.records import append, read_state
from saeops.stages.walk import Registry
from tests.bundles import NAME, author, tiny_bundle, tiny_params
from tests.seaweed import ADMIN, BUCKET, BUNDLES_ONLY, Seaweed, running
from tests.shelves import put_up, small_bundle

OTHER, ONLY_ONE, BEGUN = "other/blocks.0.mlp_out", "single/site", "begun/site"
HASTY = Patience(connect_s=1, read_s=5, again_s=0.5)
BACK = ("rollback", NAME, "--reason", "it misfires")


@dataclass(frozen=True)
class Shelf:
    """Four bundles, and a registry: a, then b under one name; c alone under another, d alone under a third."""

    folder: dict[str, Path]
    digest: dict[str, str]
    registry: MemoryStore


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    root = tmp_path_factory.mktemp("shelf")
    folder = {letter: root / letter for letter in "abcd"}
    digest = {letter: small_bundle(path, letter) for letter, path in folder.items()}
    house = Registry(MemoryStore(), MemoryProjection(), patience_s=0)
    for name, letters in ((NAME, "ab"), (OTHER, "c"), (ONLY_ONE, "d")):
        for letter in letters:
            put_up(house, name, folder[letter], f"op-{letter}")
    return Shelf(folder, digest, house.store)  # type: ignore[arg-type]


class World:
    """A checkout and its registry."""

    def __init__(self, root: Path, shelf: Shelf, patch: pytest.MonkeyPatch, ask: pytest.FixtureRequest) -> None:
        self.root, self.shelf, self.patch, self._ask = root, shelf, patch, ask
        self.settle_at(str(root / "registry"))

    def settle_at(self, address: str) -> None:
        """Fill the registry there, and let the program use it."""
        self.store = stores.open_store(address)
        for key in self.shelf.registry.list(""):
            found = self.shelf.registry.get(key)
            assert found is not None
            self.store.put(key, found.data)
        self.patch.setenv("SAEOPS_STORE", address)

    def ask_the_server(self) -> None:
        """Let the program use the real server; nothing is there yet."""
        self.patch.setenv("SAEOPS_STORE", self._ask.getfixturevalue("s3_address"))


@pytest.fixture
def world(tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> World:
    # Only how long it is patient: the server's refusals are its own.
    monkeypatch.setattr(s3, "Patience", lambda: HASTY)
    for name, value in {"TRACKING": "none", "USER": "ada", "CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(f"SAEOPS_{name}", value)
    monkeypatch.delenv("SAEOPS_VAR", raising=False)
    return World(tmp_path, shelf, monkeypatch, request)


# ── how each comes about ────────────────────────────────────────────────────


def as_it_is(world: World) -> None:
    pass


def a_first_promotion_was_begun(world: World) -> None:
    state = read_state(world.store, BEGUN)
    left = author("left", who="bob")
    append(world.store, intent(state, left, action="promote", to_digest=world.shelf.digest["a"], reason=""))


def the_target_is_pinned(world: World) -> None:
    registry.pin(world.store, NAME, "1", author=author("op"), reason="licence")


def the_clock_is_three_hours_fast(world: World) -> None:
    world.ask_the_server()
    now = botocore.auth.get_current_datetime
    fast = datetime.timedelta(hours=3)
    world.patch.setattr(botocore.auth, "get_current_datetime", lambda *a, **k: now(*a, **k) + fast)


def nobody_listens(world: World) -> None:
    world.ask_the_server()
    world.patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")


def the_secret_is_wrong(world: World) -> None:
    world.ask_the_server()
    world.patch.setenv("AWS_SECRET_ACCESS_KEY", "another")


def there_are_no_credentials(world: World) -> None:
    world.ask_the_server()
    for name in ADMIN.environment():
        world.patch.delenv(name)


def the_bucket_is_missing(world: World) -> None:
    world.ask_the_server()
    world.patch.setenv("SAEOPS_STORE", "s3://not-made-yet/prefix")


def the_address_is_malformed(world: World) -> None:
    world.patch.setenv("SAEOPS_STORE", f"s3://key:{ADMIN.secret}@host/bucket")


def only_bundles_may_be_written(world: World) -> None:
    world.ask_the_server()
    world.settle_at(f"s3://{BUCKET}/partly")
    for name, value in BUNDLES_ONLY.environment().items():
        world.patch.setenv(name, value)


def the_disk_is_full(world: World) -> None:
    (world.root / "registry" / ".incoming").symlink_to("/dev/full")


def the_target_has_another_byte(world: World) -> None:
    key = keys.bundle_key(world.shelf.digest["a"], "sae/weights.bin")
    world.store.put(key, b"aab")


def the_target_lacks_a_file(world: World) -> None:
    world.store.delete(keys.bundle_key(world.shelf.digest["a"], "manifest.json"))


def an_entry_was_edited(world: World) -> None:
    key = keys.entry_key(NAME, 1)
    found = world.store.get(key)
    assert found is not None
    world.store.put(key, found.data.replace(b"ada", b"eve"))


def somebody_else_is_quicker(world: World) -> None:
    opened = stores.open_store

    def beaten(address: str) -> ObjectStore:
        store = opened(address)
        put, raced = store.put, []

        def late(key: str, data: bytes, **condition: object) -> str | None:
            if "/journal/" in key and not raced:
                raced.append(key)
                put_up(Registry(world.store, MemoryProjection()), NAME, world.shelf.folder["c"], "quicker")
            return put(key, data, **condition)  # type: ignore[arg-type]

        store.put = late  # type: ignore[method-assign]
        return store

    world.patch.setattr(stores, "open_store", beaten)


def the_built_bundle_is_below_a_gate(world: World) -> None:
    sections = {"promote": {"review": "optional", "gates": [{"metric": "explained_variance", "at_least": 0.5}]}}
    params = tiny_params(name="built/blocks.1.resid_post", **sections)
    (world.root / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json")))
    tiny_bundle(world.root, params=params, ev=0.2)


Row = tuple[Callable[[World], None], tuple[str, ...], str, int, str]
ROWS: list[Row] = [
    (as_it_is, ("status", "no/such"), "NameUnknown", 2, "no/such has no champion"),
    (as_it_is, ("rollback", "no/such", "--reason", "x"), "NameUnknown", 2, "no/such has no champion"),
    (as_it_is, ("verify", "no/such@champion"), "NameUnknown", 2, "no/such has no champion"),
    (as_it_is, ("explain", "no/such"), "NameUnknown", 2, "no/such has no champion"),
    (a_first_promotion_was_begun, ("status", BEGUN), "NameUnknown", 2, f"{BEGUN} has no champion"),
    (a_first_promotion_was_begun, ("rollback", BEGUN, "--dry-run"), "NameUnknown", 2, f"{BEGUN} has no champion"),
    (as_it_is, ("rollback", ONLY_ONE, "--reason", "x"), "VersionUnknown", 2, "nothing to go back to"),
    (as_it_is, (*BACK, "--to", "7"), "VersionUnknown", 2, "'7' was never promoted"),
    (as_it_is, ("rollback", NAME), "UsageError", 2, "a rollback needs a reason"),
    (as_it_is, (*BACK, "--to", "{c}"), "VersionUnknown", 2, f"is a version of {OTHER}"),
    (the_address_is_malformed, ("status",), "UsageError", 2, "is not s3://bucket/prefix"),
    (the_target_is_pinned, BACK, "VersionPinned", 3, "by ada: licence"),
    (the_built_bundle_is_below_a_gate, ("promote",), "GateRefused", 3, "explained_variance at least 0.5"),
    (somebody_else_is_quicker, BACK, "LostRace", 4, "somebody else was first"),
    (the_target_has_another_byte, BACK, "FolderDamaged", 5, "sae/weights.bin: changed"),
    (the_target_has_another_byte, (*BACK, "--dry-run"), "FolderDamaged", 5, "sae/weights.bin: changed"),
    (the_target_lacks_a_file, BACK, "FolderDamaged", 5, "manifest.json: is missing"),
    (an_entry_was_edited, BACK, "JournalBroken", 5, "journal entry 1 was changed"),
    (nobody_listens, BACK, "StoreUnreachable", 6, "http://127.0.0.1:1 does not answer"),
    (the_secret_is_wrong, BACK, "StoreDenied", 6, "does not accept these credentials"),
    (there_are_no_credentials, BACK, "StoreDenied", 6, "no credentials for"),
    (the_bucket_is_missing, BACK, "StoreMissing", 6, "there is no bucket not-made-yet"),
    (only_bundles_may_be_written, BACK, "StoreDenied", 6, "no permission to write names/"),
    (the_clock_is_three_hours_fast, BACK, "ClockSkewed", 6, "clocks are too far apart"),
    (the_disk_is_full, BACK, "DiskFull", 6, "no room left"),
]


def said(world: World, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and standard error of the program."""
    told = [argument.replace("{c}", world.shelf.digest["c"][:12]) for argument in arguments]
    world.patch.setattr(sys, "argv", ["saeops", *told, "--root", str(world.root)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    ("arrange", "arguments", "error", "code", "words"),
    ROWS,
    ids=[f"{row[0].__name__}: {' '.join(row[1])}" for row in ROWS],
)
def test_bad_input_ends_in_one_clear_error_with_its_exit_code(
    world: World,
    capsys: pytest.CaptureFixture[str],
    arrange: Callable[[World], None],
    arguments: tuple[str, ...],
    error: str,
    code: int,
    words: str,
):
    arrange(world)
    ended, err = said(world, arguments, capsys)
    check(err, error, words)
    assert (ended, code_of(error)) == (code, code)
    world.patch.undo()


def check(err: str, error: str, words: str) -> None:
    """One error, named, with a hint, and no secret in it."""
    assert err.startswith(f"error ({error}): "), err
    assert err.count("error (") == 1
    assert err.count("  → ") == 1
    assert words in err
    assert "Traceback" not in err
    for secret in (ADMIN.secret, BUNDLES_ONLY.secret):
        assert secret not in err


def code_of(error: str) -> int:
    from saeops import errors

    found = getattr(errors, error)
    assert issubclass(found, SaeopsError)
    return found.exit_code


@pytest.fixture
def short_server() -> Iterator[Seaweed]:
    with running() as server:
        yield server


@pytest.mark.slow
def test_a_server_without_room_is_told_and_the_champion_stands(
    world: World, short_server: Seaweed, capsys: pytest.CaptureFixture[str]
):
    for name, value in short_server.environment().items():
        world.patch.setenv(name, value)
    world.settle_at(f"s3://{BUCKET}/full")
    assert short_server.process is not None
    # Its files may grow no more: it then answers a write as it does on a full disk.
    resource.prlimit(short_server.process.pid, resource.RLIMIT_FSIZE, (0, 0))
    ended, err = said(world, BACK, capsys)
    check(err, "StoreUnreachable", "fails to write")
    assert "is its disk full?" in err
    assert ended == 6
    assert read_state(world.store, NAME).champion == world.shelf.digest["b"]


def test_what_is_asked_rightly_ends_with_0(world: World, capsys: pytest.CaptureFixture[str]):
    for arguments in (("status",), (*BACK, "--dry-run"), BACK, BACK, ("verify", NAME), ("gc", "--dry-run")):
        assert said(world, arguments, capsys) == (0, ""), arguments


def test_every_exit_code_has_a_row_and_stands_in_the_help_and_in_the_readme():
    codes = {"2 usage", "3 gate refused", "4 lost the race", "5 integrity", "6 something outside does not answer"}
    assert {row[3] for row in ROWS} == {int(code[0]) for code in codes}
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for text in (str(app.info.epilog), readme):
        plain = " ".join(text.split())
        assert all(code in plain for code in codes)
