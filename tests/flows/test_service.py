"""The service on real components: killed in the middle of a retrain, it goes on and ends with a new champion."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from flows.deployments import deployment_name
from flows.promote import WAITING
from saeops.params import load_params, overlay_on
from saeops.services import Services
from saeops.settings import Settings
from saeops.stages.drift_records import read_models, read_retraining
from saeops.stages.records import read_state
from tests.flows.serving import processes_of, serving, until
from tests.flows.test_whole_build import accept_everything, fresh_checkout
from tests.tiny import TINY, save_tiny_model

pytestmark = pytest.mark.slow

WITHIN_S = 300.0
NAME = TINY["name"]
HELD: Mapping[str, object] = {
    "model": {"ref": "models/v1"},
    "controls": {"random_model_tokens": 0, "seeds": 0},
    "label": {"llm_latents": 0},
    "promote": {"gates": [{"metric": "explained_variance", "at_least": -10.0}], "min_review_acceptance": 0.0},
    "audit": {
        "documents": 16,
        "fidelity_documents": 8,
        "null_documents": 8,
        "effect_latents": 0,
        "resamples": 100,
    },
    "retrain": {"sources": [{"kind": "folder", "path": "models"}], "on_outcome": "warn"},
    "serve": {"watch": None, "audit": None, "retrain": None},
}
STAGES = ("harvest", "train", "controls", "diagnose", "label", "bench", "bundle")


@pytest.fixture
def checkout(tmp_path: Path, tiny_corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a champion on the first version of its model."""
    root = tmp_path / "checkout"
    root.mkdir()
    monkeypatch.setenv("SAEOPS_CACHE", str(root / "cache"))
    monkeypatch.setenv("SAEOPS_TRACKING", "none")
    monkeypatch.setenv("SAEOPS_USER", "ada")
    fresh_checkout(root, save_tiny_model(root / "models" / "v1"), tiny_corpus)
    values = overlay_on(yaml.safe_load((root / "params.yaml").read_text()), HELD)
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    params, services = load_params(root), services_of(root)
    for stage in STAGES:
        getattr(services, stage)(params)
    services.promote(params, force=True, reason="the first one")
    return root


def services_of(root: Path) -> Services:
    return Services(Settings.from_environment(root), quiet=True)


def test_a_killed_retrain_goes_on_after_restart_up_to_a_new_champion(checkout: Path, tmp_path: Path) -> None:
    log = tmp_path / "serve.log"
    env = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_API")}
    env |= {"PREFECT_HOME": str(tmp_path / "home"), "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    store, name = services_of(checkout).store, deployment_name(NAME)
    first = read_state(store, NAME).champion
    # Long enough to be killed in the middle.
    (checkout / "profile.yaml").write_text("profile: default\nset: [train.tokens=150000]\n")
    checkpoints = checkout / "artifacts" / ".work"

    with serving(checkout, env, log) as before:
        save_tiny_model(checkout / "models" / "v2", seed=1)
        # A folder counts once two looks showed the same.
        services_of(checkout).watch(load_params(checkout))
        before.start_by_hand("watch", name)
        until(lambda: any(checkpoints.rglob("*.safetensors")) and step(checkout) == "train", WITHIN_S)
        before.kill()
    until(lambda: not processes_of(checkout), 30)
    killed = read_retraining(store, NAME)[0]
    assert killed is not None
    assert (killed.outcome, killed.step) == ("none", "train")
    harvested = stamps(checkout / "artifacts" / "activations")

    with serving(checkout, env, log) as after:
        (run,) = after.runs("retrain")
        until(lambda: after.runs("retrain")[0]["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED"), WITHIN_S)
        (ended,) = after.runs("retrain")
        assert (ended["id"], ended["state"]["name"]) == (run["id"], WAITING), ended["state"]["message"]
        assert stamps(checkout / "artifacts" / "activations") == harvested, "what was finished was made again"
        assert "going on after step" in log.read_text()
        accept_everything(checkout)
        after.start_by_hand("watch", name)
        until(lambda: read_state(store, NAME).champion != first, WITHIN_S)
        until(lambda: after.runs("promote")[0]["state"]["name"] == "Promoted", WITHIN_S)
    assert not processes_of(checkout)
    assert "stopped; what ran goes on" in log.read_text()
    (seen,) = read_models(store, NAME)
    done = read_retraining(store, NAME)[0]
    assert done is not None
    assert (done.operation, done.attempt, done.outcome, done.model) == (killed.operation, 2, "done", seen.digest)


def step(root: Path) -> str:
    run, _ = read_retraining(services_of(root).store, NAME)
    return run.step if run else ""


def stamps(folder: Path) -> dict[str, int]:
    """When each file was last written."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
