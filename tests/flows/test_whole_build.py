"""The flows on real components: a tiny model, real DVC, real MLflow; nothing scripted."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flows.build import build
from flows.promote import WAITING, promote
from flows.rollback import rollback
from saeops.params import Params, Selection, load_params
from saeops.sealed import open_sealed
from saeops.services import Services
from saeops.settings import Settings
from tests.flows.conftest import ROOT
from tests.tiny import TINY, tiny_params

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_api")]


@pytest.fixture(scope="module")
def checkout(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, tiny_corpus: Path
) -> Iterator[Path]:
    """A git checkout of this repository at tiny params, with services of its own."""
    root = fresh_checkout(tmp_path_factory.mktemp("checkout"), tiny_model_folder, tiny_corpus)
    before = dict(os.environ)
    os.environ.update(SAEOPS_CACHE=str(root / "cache"), SAEOPS_USER="ada")
    yield root
    os.environ.clear()
    os.environ.update(before)


def fresh_checkout(root: Path, model: Path, corpus: Path) -> Path:
    for name in ["dvc.yaml", ".dvcignore", ".gitignore", "profile.yaml", "requirements.lock"]:
        shutil.copy(ROOT / name, root / name)
    (root / ".dvc").mkdir()
    for name in ["config", ".gitignore"]:
        shutil.copy(ROOT / ".dvc" / name, root / ".dvc" / name)
    for name in ["profiles", "saeops"]:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    local = {"model": {"ref": str(model)}, "corpus": {"path": str(corpus)}}
    (root / "params.yaml").write_text(yaml.safe_dump(tiny_params(**local).model_dump(mode="json")))
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    return root


@pytest.fixture(scope="module")
def waiting(checkout: Path) -> str | None:
    """The name of the state in which the first build ended."""
    return build(checkout, Selection(), return_state=True).name


def services(root: Path) -> Services:
    return Services(Settings.from_environment(root), quiet=True)


def params(root: Path) -> Params:
    return load_params(root)


def accept_everything(root: Path) -> None:
    at_work = services(root)
    for row in at_work.review(params(root)).rows:
        at_work.decide(row.latent, "accept", reason="read its contexts")


def test_the_first_build_waits_with_everything_versioned_and_tracked(checkout: Path, waiting: str) -> None:
    assert waiting == WAITING
    at_work = services(checkout)
    assert at_work.data_versions.is_clean()
    name = params(checkout).name
    assert set(at_work.projection.aliases(name)) == {"candidate"}
    assert list(at_work.space.report.glob("*.html"))
    connection = at_work.tracker._connection
    runs = {r.info.run_name: r for r in connection.client.search_runs([connection.experiment_id])}
    assert {"build", "harvest", "train", "controls", "diagnose", "label", "bench", "bundle"} <= set(runs)
    parents = {r.data.tags.get("mlflow.parentRunId") for stage, r in runs.items() if stage != "build"}
    assert parents == {runs["build"].info.run_id}
    assert {r.info.status for r in runs.values()} == {"FINISHED"}
    assert runs["build"].data.params["train.k"] == str(TINY["train"]["k"])


@pytest.mark.usefixtures("waiting")
def test_after_review_promote_makes_it_champion_and_building_again_changes_nothing(checkout: Path) -> None:
    before = services(checkout).candidate().digest
    accept_everything(checkout)
    state = promote(checkout, force=True, reason="the tiny model's labels are nonsense", return_state=True)
    assert state.name == "Promoted"
    at_work = services(checkout)
    reviewed = at_work.candidate().digest
    assert reviewed != before, "the decisions are in the bundle"
    assert at_work.projection.aliases(params(checkout).name) == {"champion": reviewed}
    again = build(checkout, Selection(), return_state=True)
    assert again.name == "Kept"
    assert at_work.data_versions.is_clean()


@pytest.mark.usefixtures("waiting")
def test_rollback_without_an_earlier_champion_is_refused(checkout: Path) -> None:
    state = rollback(params(checkout).name, reason="try", root=checkout, return_state=True)
    assert state.is_failed()
    assert "nothing to go back to" in str(state.result(raise_on_failure=False))


def digests(root: Path) -> dict[str, str]:
    kinds = ["activations", "sae", "controls", "diagnostics", "catalog", "labels", "effects", "bundle"]
    return {kind: open_sealed(root / "artifacts" / kind, kind=kind).digest for kind in kinds}


@pytest.mark.usefixtures("waiting")
def test_dvc_repro_in_a_clean_checkout_gives_the_same_bundle(
    checkout: Path, tmp_path: Path, tiny_model_folder: Path, tiny_corpus: Path
) -> None:
    other = fresh_checkout(tmp_path, tiny_model_folder, tiny_corpus)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=other,
        env={**os.environ, "PATH": path, "SAEOPS_TRACKING": "none"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert digests(other) == digests(checkout)
    assert services(other).data_versions._changes() == {}
