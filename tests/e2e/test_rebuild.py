"""A promoted version, restored and built again: from its parts by DVC, and from its documents on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from saeops.dictionary.bundle import open_bundle, seal_reviews
from saeops.params import load_params
from saeops.refs import Workspace
from saeops.sealed import open_sealed
from saeops.services import Services
from saeops.settings import Settings
from tests.tiny import tiny_params

REPOSITORY = Path(__file__).parents[2]
STAGES = ["harvest", "train", "controls", "diagnose", "label", "bench", "bundle"]
BUILD = f"""
from pathlib import Path
from saeops.params import load_params
from saeops.services import Services
from saeops.settings import Settings
services = Services(Settings.from_environment(Path()), quiet=True)
for stage in {STAGES}:
    getattr(services, stage)(load_params(Path()))
"""
KINDS = ["activations", "sae", "controls", "diagnostics", "catalog", "labels", "effects", "bundle"]


def git(root: Path, *arguments: str) -> None:
    who = ["-c", "user.name=tester", "-c", "user.email=tester@example.invalid"]
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


def run(root: Path, *arguments: str, store: Path) -> str:
    """Python with the code of one checkout, whatever is installed; what it prints."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(root),
        "SAEOPS_TRACKING": "none",
        "SAEOPS_STORE": str(store),
    }
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fresh_checkout(root: Path, model: Path, corpus: Path) -> None:
    root.mkdir()
    for name in ["dvc.yaml", ".dvcignore", ".gitignore", "profile.yaml", "requirements.lock"]:
        shutil.copy(REPOSITORY / name, root / name)
    (root / ".dvc").mkdir()
    for name in ["config", ".gitignore"]:
        shutil.copy(REPOSITORY / ".dvc" / name, root / ".dvc" / name)
    for name in ["profiles", "saeops"]:
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    params = tiny_params(
        model={"ref": str(model), "device": "cpu"},
        corpus={"path": str(corpus)},
        controls={"random_model_tokens": 0, "seeds": 0},
        label={"llm_latents": 0},
    )
    (root / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json")))
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "start")


def digests(root: Path) -> dict[str, str]:
    return {kind: open_sealed(root / "artifacts" / kind, kind=kind).digest for kind in KINDS}


def promote_reviewed(root: Path, store: Path) -> str:
    """One decision on the built bundle, and on to champion; gives the version's digest."""
    settings = Settings.from_environment(root, {"SAEOPS_STORE": str(store), "SAEOPS_TRACKING": "none"})
    services, params = Services(settings, quiet=True), load_params(root)
    services.decide(services.review(params).rows[0].latent, "accept", reason="read its contexts")
    moved = services.promote(params, force=True, reason="the tiny model's labels are nonsense")
    return moved.plan.to_digest


@pytest.mark.slow
def test_a_version_is_restored_and_built_again_to_the_same_digest(
    tmp_path: Path, tiny_model_folder: Path, tiny_corpus: Path
) -> None:
    root, folder, store = tmp_path / "root", tmp_path / "restored", tmp_path / "store"
    fresh_checkout(root, tiny_model_folder, tiny_corpus)
    code = root / "saeops" / "stages" / "bundle.py"
    committed = code.read_text()
    code.write_text(f"{committed}\n# What somebody tried out and never committed.\n")
    run(root, "-c", BUILD, store=store)
    run(root, "-m", "dvc", "commit", "--force", store=store)
    run(root, "-m", "dvc", "push", store=store)
    built, version = digests(root), promote_reviewed(root, store)
    assert version != built["bundle"], "the decision is in it"
    code.write_text(committed)
    (root / "params.yaml").write_text(yaml.safe_dump(tiny_params(seed=5).model_dump(mode="json")))
    shutil.rmtree(root / "artifacts")

    verb = ("-m", "saeops.cli", "checkout", f"{tiny_params().name}@1", "--into", str(folder))
    said = run(root, *verb, store=store)

    assert "saeops/stages/bundle.py: not as in the commit" in said
    assert digests(folder) == built
    space = Workspace(root=folder)
    reviews = open_bundle(space.reviewed).reviews()
    shutil.rmtree(space.bundle)
    run(folder, "-m", "dvc", "repro", "--force", "--single-item", "bundle", store=store)
    assert digests(folder) == built
    shutil.rmtree(folder / "artifacts")
    run(folder, "-c", BUILD, store=store)
    assert digests(folder) == built
    assert seal_reviews(space.bundle, reviews, space.reviewed).digest == version
