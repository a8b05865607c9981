"""Restoring a version with the real git and the real DVC, from a folder and from an S3 server."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from saeops.adapters.dvc import DvcCli
from saeops.adapters.git import GitCli
from saeops.adapters.stores import LocalStore, open_store
from saeops.dictionary.bundle import open_bundle, seal_reviews
from saeops.digests import digest_file
from saeops.errors import (
    CommitMissing,
    DataDamaged,
    DataMissing,
    DataVersionsFailed,
    FolderInUse,
    JournalBroken,
    ModelMismatch,
    RecipeMissing,
    UsageError,
    VersionUnknown,
)
from saeops.params import load_params
from saeops.ports import DataVersions, ObjectStore
from saeops.promotion import keys
from saeops.promotion.recipe import Recipe
from saeops.refs import Workspace
from saeops.sealed import open_sealed
from saeops.stages import checkout, promote, recipes, registry, rollback
from saeops.stages.walk import Registry, Untold
from tests.bundles import NAME, author, decisions, tiny_bundle, tiny_params, verdict_on

REPOSITORY = Path(__file__).parents[2]
COPIED = ["dvc.yaml", ".dvcignore", ".gitignore", "requirements.lock", "pyproject.toml"]


def git(root: Path, *arguments: str) -> str:
    who = ["-c", "user.name=tester", "-c", "user.email=tester@example.invalid"]
    done = subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def dvc(root: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, check=True, capture_output=True)


def new_checkout(root: Path) -> Path:
    """What git and DVC see of this repository, at the params of the tiny bundles; nothing is built."""
    root.mkdir()
    for name in COPIED:
        shutil.copy(REPOSITORY / name, root / name)
    (root / ".dvc").mkdir()
    for name in ["config", ".gitignore"]:
        shutil.copy(REPOSITORY / ".dvc" / name, root / ".dvc" / name)
    shutil.copytree(REPOSITORY / "profiles", root / "profiles")
    shutil.copytree(REPOSITORY / "saeops", root / "saeops", ignore=shutil.ignore_patterns("__pycache__"))
    write_params(root)
    (root / "profile.yaml").write_text("profile: default\nset: []\n")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "start")
    return root


def write_params(root: Path, **sections: Any) -> None:
    (root / "params.yaml").write_text(yaml.safe_dump(tiny_params(**sections).model_dump(mode="json")))


def version(data: DvcCli) -> None:
    data.commit()
    data.push()


def build(root: Path, seed: int) -> None:
    shutil.rmtree(root / "artifacts", ignore_errors=True)
    tiny_bundle(root, seed, params=load_params(root))


def candidate(root: Path) -> Path:
    return Workspace(root=root).bundle


def keep(store: ObjectStore, root: Path, bundle: Path | None = None) -> Recipe:
    found = open_bundle(bundle or candidate(root))
    return recipes.keep(store, found, root=root, sources=GitCli(root), data=DvcCli(root))


def crown(store: ObjectStore, bundle: Path, operation: str) -> str:
    """Promote a bundle under a verdict that passes; gives its digest."""
    found = open_bundle(bundle)
    verdict = verdict_on(found, registry.read_state(store, NAME).champion)
    promote.run(bundle, verdict, registry=Registry(store, Untold()), author=author(operation))
    return found.digest


def restore(store: ObjectStore, root: Path, reference: str, folder: Path) -> checkout.CheckedOut:
    found = checkout.find(reference, store=store)
    return checkout.run(found, folder=folder, sources=GitCli(root), data=DvcCli(root))


class World:
    """Up to three journal entries: a candidate; one that people reviewed, from uncommitted code; back again."""

    def __init__(self, base: Path, store: ObjectStore) -> None:
        self.store, self.root = store, new_checkout(base / "root")
        self.house = Registry(store, Untold())

    def promote_candidate(self) -> None:
        build(self.root, 0)
        version(DvcCli(self.root))
        keep(self.store, self.root)
        self.first = crown(self.store, candidate(self.root), "op-1")
        self.first_commit = git(self.root, "rev-parse", "HEAD")

    def promote_reviewed(self) -> None:
        write_params(self.root, seed=7)
        (self.root / "profile.yaml").write_text("profile: default\nset: [review.by_priority=2]\n")
        (self.root / "saeops" / "interventions" / "panel.yaml").write_text("tried: out\n")
        (self.root / "saeops" / "interventions" / "effects.yml").write_text("never: committed\n")
        build(self.root, 1)
        version(DvcCli(self.root))
        self.candidate = keep(self.store, self.root).candidate
        said = decisions(self.candidate, [(1, "accept", None), (2, "edit", "colons")])
        reviewed = seal_reviews(candidate(self.root), said, Workspace(root=self.root).reviewed)
        keep(self.store, self.root, reviewed.path)
        self.second = crown(self.store, reviewed.path, "op-2")

    def roll_back(self) -> None:
        rollback.run(NAME, registry=self.house, author=author("op-3"), reason="the first has better labels")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> World:
    """On a store and a remote that are folders; tests that change it copy it first."""
    base = tmp_path_factory.mktemp("world")
    world = World(base, LocalStore(base / "store"))
    world.promote_candidate()
    world.promote_reviewed()
    world.roll_back()
    return world


@pytest.fixture
def world(shared: World, tmp_path: Path) -> World:
    """A world of its own, to be damaged."""
    mine = object.__new__(World)
    mine.__dict__.update(shared.__dict__)
    mine.root, mine.store = tmp_path / "root", LocalStore(tmp_path / "store")
    shutil.copytree(shared.root, mine.root)
    shutil.copytree(Path(shared.store.address), tmp_path / "store")
    return mine


@pytest.fixture(scope="module")
def one(shared: World, tmp_path_factory: pytest.TempPathFactory) -> checkout.CheckedOut:
    """Version 1, restored; to be looked at only."""
    return restore(shared.store, shared.root, f"{NAME}@1", tmp_path_factory.mktemp("restored") / "one")


def test_a_version_comes_back_with_its_params_lock_and_data(shared: World, one: checkout.CheckedOut) -> None:
    done = one
    assert (done.version, done.candidate, done.commit) == (shared.first, shared.first, shared.first_commit)
    assert done.uncommitted == ()
    assert done.same_code
    assert done.same_environment
    assert load_params(done.folder).seed == 0, "the checkout has gone on to seed 7"
    assert git(done.folder, "rev-parse", "HEAD") == shared.first_commit
    assert git(done.folder, "status", "--porcelain") == "?? dvc.lock"
    assert open_bundle(candidate(done.folder)).digest == shared.first
    assert not (done.folder / checkout.MARK).exists()


def test_a_reviewed_version_comes_back_with_decisions_and_what_no_commit_held(
    shared: World, tmp_path: Path
) -> None:
    done = restore(shared.store, shared.root, f"{NAME}@2", tmp_path / "two")
    assert (done.version, done.candidate, done.decisions) == (shared.second, shared.candidate, 2)
    assert open_bundle(Workspace(root=done.folder).reviewed).digest == shared.second
    assert done.uncommitted == ("saeops/interventions/effects.yml", "saeops/interventions/panel.yaml")
    assert (done.folder / "saeops/interventions/panel.yaml").read_text() == "tried: out\n"
    assert (load_params(done.folder).seed, load_params(done.folder).review.by_priority) == (7, 2)
    assert DvcCli(done.folder).is_clean()


@pytest.mark.parametrize("version", ["1", "3", "champion", "first"])
def test_every_way_to_name_a_version_leads_to_its_recipe(shared: World, version: str) -> None:
    meant = shared.first if version == "first" else f"{NAME}@{version}"
    assert checkout.find(meant, store=shared.store).bundle == shared.first
    assert checkout.find(f"{NAME}@previous", store=shared.store).bundle == shared.second


@pytest.mark.slow
def test_a_version_that_retention_took_can_still_be_restored(world: World, tmp_path: Path) -> None:
    for key in world.store.list(keys.bundle_key(world.second)):
        world.store.delete(key)
    assert restore(world.store, world.root, f"{NAME}@2", tmp_path / "two").version == world.second


def test_status_and_history_say_which_versions_can_be_restored(world: World) -> None:
    assert registry.status(world.store, NAME).recoverable
    world.store.delete(keys.recipe_key(world.first))
    assert not registry.status(world.store, NAME).recoverable
    assert [row.recoverable for row in registry.history(world.store, NAME)] == [False, True, False]


def test_a_version_without_recipe_an_unknown_one_and_an_edited_recipe_are_named(world: World) -> None:
    with pytest.raises(VersionUnknown, match="'9' was never promoted"):
        checkout.find(f"{NAME}@9", store=world.store)
    path = Path(world.store.address) / keys.recipe_key(world.second)
    path.write_bytes(path.read_bytes().replace(b"colons", b"commas"))
    with pytest.raises(JournalBroken, match=f"recipe of {world.second[:12]} was changed"):
        checkout.find(f"{NAME}@2", store=world.store)
    path.unlink()
    with pytest.raises(RecipeMissing, match=r"data were not in DVC's remote(.|\n)*dvc push"):
        checkout.find(f"{NAME}@2", store=world.store)
    shutil.copy(Path(world.store.address) / keys.recipe_key(world.first), path)
    with pytest.raises(JournalBroken, match=f"is that of {world.first[:12]}"):
        checkout.find(f"{NAME}@2", store=world.store)


def test_a_folder_that_holds_something_else_is_not_touched(
    shared: World, one: checkout.CheckedOut, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FolderInUse, match="holds something else"):
        restore(shared.store, shared.root, f"{NAME}@1", folder)
    git(tmp_path, "init", "--quiet", "alien")
    with pytest.raises(FolderInUse, match="holds something else"):
        restore(shared.store, shared.root, f"{NAME}@1", tmp_path / "alien")
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    with pytest.raises(FolderInUse, match="git worktree remove"):
        restore(shared.store, shared.root, f"{NAME}@2", one.folder)


def test_a_commit_that_is_not_here_is_named(world: World, tmp_path: Path) -> None:
    gone = checkout.find(f"{NAME}@1", store=world.store).model_copy(update={"commit": "c" * 40})
    with pytest.raises(CommitMissing, match="does not have the commit cccccccccccc"):
        checkout.run(gone, folder=tmp_path / "one", sources=GitCli(world.root), data=DvcCli(world.root))
    assert not (tmp_path / "one").exists()


def test_without_a_default_remote_it_says_how_to_add_one(world: World, tmp_path: Path) -> None:
    (world.root / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    with pytest.raises(UsageError, match=r"no default remote(.|\n)*dvc remote add"):
        restore(world.store, world.root, f"{NAME}@1", tmp_path / "one")


@pytest.fixture
def weights(world: World) -> Path:
    """The SAE's weights in the remote, of the version that the checkout is at."""
    return in_remote(world.root, digest_file(_weights(world.root)[0], "md5"))


def in_remote(root: Path, md5: str) -> Path:
    return root / "var/dvc-remote/files/md5" / md5[:2] / md5[2:]


def _weights(root: Path) -> list[Path]:
    return sorted((root / "artifacts" / "sae").glob("*.safetensors"))


def test_a_changed_byte_in_the_remote_is_found_and_a_restored_remote_lets_it_go_on(
    world: World, weights: Path, tmp_path: Path
) -> None:
    whole = weights.read_bytes()
    weights.chmod(0o644)
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataDamaged, match=r"holds other bytes than dvc.lock names: artifacts/\w+/.*safetensors"):
        restore(world.store, world.root, f"{NAME}@2", tmp_path / "two")
    assert weights.exists(), "what is damaged stays where it is, as evidence"
    weights.write_bytes(whole)
    assert restore(world.store, world.root, f"{NAME}@2", tmp_path / "two").version == world.second


@pytest.mark.slow
def test_a_changed_listing_in_the_remote_is_found_although_dvc_believes_it(world: World, tmp_path: Path) -> None:
    lock = yaml.safe_load((world.root / "dvc.lock").read_text())
    listing = in_remote(world.root, lock["stages"]["controls"]["outs"][0]["md5"])
    listing.chmod(0o644)
    listing.write_text("[]")
    with pytest.raises(DataDamaged, match="not what was sealed"):
        restore(world.store, world.root, f"{NAME}@2", tmp_path / "two")


@pytest.mark.slow
def test_data_that_were_never_pushed_are_named(world: World, weights: Path, tmp_path: Path) -> None:
    weights.unlink()
    with pytest.raises(DataMissing, match=r"does not have .*artifacts/\S+safetensors(.|\n)*dvc push"):
        restore(world.store, world.root, f"{NAME}@2", tmp_path / "two")
    shutil.rmtree(world.root / "var" / "dvc-remote")
    with pytest.raises(DataMissing, match="and 3 more"):
        restore(world.store, world.root, f"{NAME}@1", tmp_path / "one")


@pytest.mark.slow
def test_no_recipe_is_kept_of_what_somebody_else_could_not_build(world: World) -> None:
    root, empty = world.root, LocalStore(world.root.parent / "empty")
    (root / "dvc.lock").rename(root / "kept.lock")
    with pytest.raises(UsageError, match=r"no dvc.lock(.|\n)*dvc push"):
        keep(empty, root)
    (root / "kept.lock").rename(root / "dvc.lock")
    shutil.rmtree(root / "var" / "dvc-remote")
    with pytest.raises(DataMissing, match="remote lacks data"):
        keep(empty, root)
    version(DvcCli(root))
    code = root / "saeops" / "errors.py"
    before = code.read_text()
    code.write_text("")
    with pytest.raises(ModelMismatch, match="no longer the code"):
        keep(empty, root)
    code.write_text(before)
    shutil.rmtree(root / ".git")
    with pytest.raises(UsageError, match="in no git repository"):
        keep(empty, root)
    git(root, "init", "--quiet")
    with pytest.raises(UsageError, match="no git commit yet"):
        keep(empty, root)
    assert empty.list("recipes/") == []


@pytest.mark.slow
def test_a_recipe_is_kept_once_and_never_changed(world: World) -> None:
    before = world.store.get(keys.recipe_key(world.candidate))
    git(world.root, "add", ".")
    git(world.root, "commit", "--quiet", "--message", "later")
    keep(world.store, world.root)
    assert world.store.get(keys.recipe_key(world.candidate)) == before


class Dying:
    """DVC whose caller is killed once its data were fetched."""

    def __init__(self, real: DataVersions, *, before: bool) -> None:
        self._real, self._before = real, before

    def restore(self, folder: Path) -> None:
        if not self._before:
            self._real.restore(folder)
        raise KeyboardInterrupt

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return getattr(self._real, name)


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False])
def test_cut_off_it_goes_on_where_it_was(shared: World, tmp_path: Path, before: bool) -> None:
    found, folder = checkout.find(f"{NAME}@1", store=shared.store), tmp_path / "one"
    sources, data = GitCli(shared.root), DvcCli(shared.root)
    with pytest.raises(KeyboardInterrupt):
        checkout.run(found, folder=folder, sources=sources, data=Dying(data, before=before))  # type: ignore[arg-type]
    (folder / "params.yaml").write_text("half")
    with pytest.raises(FolderInUse):
        restore(shared.store, shared.root, f"{NAME}@2", folder)
    assert checkout.run(found, folder=folder, sources=sources, data=data).version == shared.first


@pytest.mark.slow
def test_killed_between_git_and_the_mark_it_goes_on(shared: World, tmp_path: Path) -> None:
    found, folder = checkout.find(f"{NAME}@1", store=shared.store), tmp_path / "one"
    GitCli(shared.root).place(folder, found.commit)
    assert restore(shared.store, shared.root, f"{NAME}@1", folder).version == shared.first
    shutil.rmtree(folder)
    assert restore(shared.store, shared.root, f"{NAME}@1", folder).version == shared.first


@pytest.mark.slow
def test_killed_at_any_moment_the_verb_goes_on(shared: World, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    verb = [sys.executable, "-m", "saeops.cli", "checkout", f"{NAME}@2", "--into", str(folder), "--json"]
    command = [*verb, "--root", str(shared.root)]
    environment = {**os.environ, "SAEOPS_STORE": shared.store.address}
    for wait_s in (1.0, 1.6, 2.4, 3.2):
        child = subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(wait_s)
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if folder.exists() and not (folder / checkout.MARK).exists() and (folder / "artifacts").exists():
            shutil.rmtree(folder)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["version"] == shared.second


@pytest.mark.slow
def test_from_an_s3_server_to_an_s3_server(s3_address: str, tmp_path: Path) -> None:
    world = World(tmp_path, open_store(f"{s3_address}/store"))
    config = f"[core]\n    remote = far\n['remote \"far\"']\n    url = {s3_address}/dvc\n"
    (world.root / ".dvc" / "config.local").write_text(config)
    world.promote_candidate()
    assert not (world.root / "var" / "dvc-remote").exists()
    done = restore(world.store, world.root, NAME, tmp_path / "one")
    assert open_sealed(candidate(done.folder), kind="bundle").digest == world.first
    bucket, (weights, *_) = open_store(f"{s3_address}/dvc"), _weights(world.root)
    md5 = digest_file(weights, "md5")
    key = f"files/md5/{md5[:2]}/{md5[2:]}"
    bucket.put(key, b"?" + weights.read_bytes()[1:])
    with pytest.raises(DataDamaged, match="holds other bytes"):
        restore(world.store, world.root, NAME, tmp_path / "damaged")
    bucket.delete(key)
    with pytest.raises(DataMissing, match="does not have artifacts"):
        restore(world.store, world.root, NAME, tmp_path / "missing")
    found = checkout.find(NAME, store=world.store)
    with pytest.MonkeyPatch.context() as stranger:
        stranger.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(DataVersionsFailed, match=r"403|Forbidden"):
            checkout.run(found, folder=tmp_path / "denied", sources=GitCli(world.root), data=DvcCli(world.root))
