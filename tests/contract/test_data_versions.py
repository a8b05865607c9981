"""DVC through its command line, on this repository's own dvc.yaml and configuration."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from saeops.adapters.dvc import DvcCli, NoDataVersions
from saeops.digests import digest_file, dvc_directory_md5
from saeops.errors import DataVersionsFailed, UsageError

REPOSITORY = Path(__file__).parents[2]
FOLDERS = ["activations", "sae", "controls", "diagnostics", "catalog", "labels", "effects", "bundle"]


def git(root: Path, *arguments: str) -> None:
    who = ["-c", "user.name=tester", "-c", "user.email=tester@example.invalid"]
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


def dvc(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def fill(root: Path, *folders: str) -> None:
    for name in folders:
        folder = root / "artifacts" / name
        (folder / "inner").mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").write_text(f'{{"kind": "{name}"}}')
        (folder / "inner" / "data.safetensors").write_bytes(name.encode() * 100)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout with what DVC reads of this repository, and nothing built."""
    for name in ["dvc.yaml", ".dvcignore", ".gitignore", "params.yaml", "requirements.lock"]:
        shutil.copy(REPOSITORY / name, tmp_path / name)
    (tmp_path / "profile.yaml").write_text("profile: small\nset: [train.k=16]\n")
    shutil.copytree(REPOSITORY / "profiles", tmp_path / "profiles")
    panel = Path("saeops", "interventions", "panel.yaml")
    (tmp_path / panel).parent.mkdir(parents=True)
    shutil.copy(REPOSITORY / panel, tmp_path / panel)
    (tmp_path / ".dvc").mkdir()
    for name in ["config", ".gitignore"]:
        shutil.copy(REPOSITORY / ".dvc" / name, tmp_path / ".dvc" / name)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "start")
    return tmp_path


def test_after_commit_and_push_everything_is_clean_and_lies_in_the_remote(checkout: Path) -> None:
    fill(checkout, *FOLDERS)
    versions = DvcCli(checkout)
    assert not versions.is_clean()
    versions.commit()
    assert not versions.is_clean(), "recorded, but the remote does not have it yet"
    versions.push()
    assert versions.is_clean()
    lock = yaml.safe_load((checkout / "dvc.lock").read_text())
    (out,) = lock["stages"]["bundle"]["outs"]
    assert out["md5"] == dvc_directory_md5(checkout / "artifacts" / "bundle")
    assert (checkout / "var" / "dvc-remote" / "files" / "md5" / out["md5"][:2] / out["md5"][2:]).exists()


def test_what_changes_after_a_commit_is_noticed(checkout: Path) -> None:
    fill(checkout, *FOLDERS)
    versions = DvcCli(checkout)
    versions.commit()
    versions.push()
    (checkout / "profiles" / "small.yaml").write_text("seed: 7\n")
    assert not versions.is_clean()
    versions.commit()
    versions.push()
    assert versions.is_clean()
    (checkout / "artifacts" / "sae" / "manifest.json").write_text("{}")
    assert not versions.is_clean()


def test_unfinished_stages_are_left_alone(checkout: Path) -> None:
    fill(checkout, "activations", "sae", "diagnostics")
    DvcCli(checkout).commit()
    lock = yaml.safe_load((checkout / "dvc.lock").read_text())
    assert set(lock["stages"]) == {"harvest", "train"}


def test_with_nothing_finished_there_is_nothing_to_record(checkout: Path) -> None:
    DvcCli(checkout).commit()
    assert not (checkout / "dvc.lock").exists()


def test_a_tampered_remote_is_not_believed(checkout: Path) -> None:
    fill(checkout, *FOLDERS)
    versions = DvcCli(checkout)
    versions.commit()
    versions.push()
    md5 = digest_file(checkout / "artifacts/sae/inner/data.safetensors", "md5")
    pushed = checkout / "var/dvc-remote/files/md5" / md5[:2] / md5[2:]
    pushed.chmod(0o644)
    pushed.write_bytes(b"not the weights")
    shutil.rmtree(checkout / ".dvc" / "cache")
    shutil.rmtree(checkout / "artifacts" / "sae")
    assert dvc(checkout, "pull", "train").returncode != 0
    assert not (checkout / "artifacts/sae/inner/data.safetensors").exists()


def test_a_folder_that_is_no_checkout_is_named(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {one: {cmd: x, outs: [out]}}\n")
    with pytest.raises(UsageError, match="dvc init"):
        DvcCli(tmp_path).push()
    (tmp_path / ".dvc").mkdir()
    with pytest.raises(UsageError, match="git init"):
        DvcCli(tmp_path).push()


def test_a_param_that_a_stage_needs_and_the_file_lacks_is_named(checkout: Path) -> None:
    fill(checkout, *FOLDERS)
    params = yaml.safe_load((checkout / "params.yaml").read_text())
    del params["seed"]
    (checkout / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(UsageError, match=r"'seed' are missing(.|\n)*saeops params"):
        DvcCli(checkout).commit()


def test_a_busy_checkout_says_to_wait(checkout: Path) -> None:
    fill(checkout, *FOLDERS)
    holder = (
        "import time\nfrom dvc.repo import Repo\n"
        "with Repo().lock:\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", holder], cwd=checkout, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == b"held"
        with pytest.raises(DataVersionsFailed, match="another dvc command"):
            DvcCli(checkout).commit()
        child.kill()


def test_the_fake_is_clean_only_after_commit_and_push() -> None:
    fake = NoDataVersions()
    assert not fake.is_clean()
    fake.commit()
    fake.push()
    assert fake.is_clean()
