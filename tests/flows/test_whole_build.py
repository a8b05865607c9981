"""The flows on real components: a tiny model, real DVC, real MLflow; nothing scripted."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flows.build import build
from flows.promote import WAITING, promote
from flows.rollback import rollback
from saeops.params import Params, Selection, load_params, overlay_on
from saeops.services import Services
from saeops.settings import Settings
from tests.flows.conftest import ROOT
from tests.tiny import TINY

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_api")]


@pytest.fixture(scope="module")
def checkout(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, tiny_corpus: Path
) -> Iterator[Path]:
    """A git checkout of this repository at tiny params, with services of its own."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ["dvc.yaml", ".dvcignore", ".gitignore", "profile.yaml", "requirements.lock"]:
        shutil.copy(ROOT / name, root / name)
    (root / ".dvc").mkdir()
    for name in ["config", ".gitignore"]:
        shutil.copy(ROOT / ".dvc" / name, root / ".dvc" / name)
    for name in ["profiles", "saeops"]:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    local = {"model": {"ref": str(tiny_model_folder)}, "corpus": {"path": str(tiny_corpus)}}
    (root / "params.yaml").write_text(yaml.safe_dump(overlay_on(TINY, local)))
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    before = dict(os.environ)
    os.environ.update(SAEOPS_CACHE=str(root / "cache"), SAEOPS_USER="ada")
    yield root
    os.environ.clear()
    os.environ.update(before)


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
    assert (at_work.space.report / "index.html").exists() or list(at_work.space.report.glob("*.html"))
    connection = at_work.tracker._connection
    runs = {r.info.run_name: r for r in connection.client.search_runs([connection.experiment_id])}
    assert {"build", "harvest", "train", "diagnose", "label", "bench", "bundle"} <= set(runs)
    parents = {r.data.tags.get("mlflow.parentRunId") for stage, r in runs.items() if stage != "build"}
    assert parents == {runs["build"].info.run_id}
    assert {r.info.status for r in runs.values()} == {"FINISHED"}
    assert runs["build"].data.params["train.k"] == str(TINY["train"]["k"])


def test_after_review_promote_makes_it_champion_and_building_again_changes_nothing(
    checkout: Path, waiting: str
) -> None:
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


def test_rollback_without_an_earlier_champion_is_refused(checkout: Path, waiting: str) -> None:
    state = rollback(params(checkout).name, reason="try", root=checkout, return_state=True)
    assert state.is_failed()
    assert "nothing to go back to" in str(state.result(raise_on_failure=False))
