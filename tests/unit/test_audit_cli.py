"""The verb `saeops audit`: what it prints for people and for machines, and the exit codes it ends with."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from saeops.cli import app
from tests import auditing
from tests.auditing import NAME, SWAPPED, World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World.make(tmp_path_factory.mktemp("audit-cli"))
    values = made.params.model_dump(mode="json")
    values["train"].pop("sweep")
    (made.root / "params.yaml").write_text(yaml.safe_dump(values))
    made.version("v2", auditing.swapped)
    return made


def run(world: World, *arguments: str) -> Result:
    environment = {
        "SAEOPS_STORE": world.store.address,
        "SAEOPS_CACHE": str(world.root / "cache"),
        "SAEOPS_TRACKING": "none",
        "SAEOPS_USER": "ada",
    }
    asked = ["audit", NAME, "--model", str(world.root / "v2"), "--root", str(world.root), *arguments]
    return CliRunner().invoke(app, asked, env=environment)


def test_people_see_intervals_nulls_and_latents_drawn_at_random(world: World) -> None:
    said = run(world)
    assert said.exit_code == 0, said.output
    for words in ("warn", "held-out documents", "Latents gone", "null: other documents", "drawn at random"):
        assert words in said.output, words
    assert all(f"  {latent}: changed" in said.output for latent in SWAPPED)


def test_machines_get_the_record_and_ci_an_exit_code(world: World) -> None:
    said = run(world, "--json", "--fail-on", "warn")
    assert said.exit_code == 3
    found = json.loads(said.stdout)
    assert found["record"]["outcome"] == "warn"
    assert found["record"]["author"] == "ada"
    assert {"latents_gone", "latent_correlation"} <= found["metrics"].keys()
    assert world.store.get(found["key"]) is not None
    assert Path(found["path"]).is_dir()


def test_a_warning_does_not_fail_where_only_drift_should(world: World) -> None:
    assert run(world, "--fail-on", "drift").exit_code == 0
