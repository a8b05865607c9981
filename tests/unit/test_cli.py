"""The verbs: what they print for people and for machines, and the exit codes they end with."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.bundles import NAME, tiny_bundle, tiny_params

PARAMS = {
    "name": NAME,
    "model": {"ref": "nowhere"},
    "harvest": {"sites": ["blocks.1.resid_post"]},
    "train": {"site": "blocks.1.resid_post", "variant": "topk", "k": 4},
    "review": {"by_priority": 3, "at_random": 3},
    "promote": {"review": "optional", "gates": [{"metric": "explained_variance", "at_least": 0.5}]},
}


@dataclass(frozen=True)
class Said:
    """What a verb said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Checkout:
    """A checkout whose verbs run in processes of their own, as people run them."""

    root: Path
    environment: Mapping[str, str]

    def run(self, *arguments: str) -> Said:
        done = subprocess.run(
            [sys.executable, "-m", "saeops.cli", *arguments],
            cwd=self.root,
            env={**self.environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def build(self, seed: int, *, ev: float = 0.8) -> str:
        """A finished bundle under the checkout's own params; gives its digest."""
        shutil.rmtree(self.root / "artifacts", ignore_errors=True)
        params = tiny_params(**{k: v for k, v in PARAMS.items() if k in ("promote", "model", "review")}, seed=seed)
        return tiny_bundle(self.root, seed=seed, params=params, ev=ev).digest


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    here = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "PYTHONPATH": str(here),
        "SAEOPS_TRACKING": "none",
        "SAEOPS_CACHE": str(tmp_path / "cache"),
        "SAEOPS_USER": "ada",
    }
    return Checkout(tmp_path, environment)


def test_a_champion_is_promoted_inspected_and_rolled_back_by_verbs_alone(checkout: Checkout) -> None:
    first = checkout.build(seed=1)
    assert checkout.run("promote", "--json").json["to_digest"] == first
    recorded = checkout.run("judge", "--json").json
    assert (recorded["bundle"], recorded["champion"]) == (first, None), "a champion is not judged beside itself"
    second = checkout.build(seed=2)
    plan = checkout.run("promote", "--dry-run")
    assert plan.code == 0, plan.err
    assert "would change:" in plan.out
    assert checkout.run("promote").code == 0
    assert checkout.run("status", NAME, "--json").json[0]["champion"] == second
    assert checkout.run("rollback", NAME, "--reason", "try").code == 0
    status = checkout.run("status", NAME)
    assert first in status.out
    assert "try" in status.out
    assert checkout.run("verify", NAME, "--json").json["digest"] == first
    history = checkout.run("history", NAME, "--verify", "--json").json
    assert [row["action"] for row in history] == ["promote", "promote", "rollback"]
    assert checkout.run("reconcile", NAME).code == 0


def test_a_bundle_below_a_gate_ends_with_3_and_says_which(checkout: Checkout) -> None:
    checkout.build(seed=1, ev=0.2)
    judged = checkout.run("judge", "--json").json
    assert judged["outcome"] == "fail"
    refused = checkout.run("promote")
    assert refused.code == 3
    assert "explained_variance at least 0.5" in refused.err
    explained = checkout.run("explain", NAME)
    assert "even the upper bound" in explained.out
    assert "none: it was refused" in explained.out
    assert checkout.run("explain", NAME, "--json").json[0]["verdict"] == judged
    forced = checkout.run("promote", "--force")
    assert forced.code == 2
    assert "reason" in forced.err
    assert checkout.run("promote", "--force", "--reason", "known").code == 0
    assert "FORCED" in checkout.run("status").out


def test_pins_hold_until_they_are_taken_away(checkout: Checkout) -> None:
    digest = checkout.build(seed=1)
    checkout.run("promote")
    second = checkout.build(seed=2)
    checkout.run("promote")
    assert checkout.run("pin", NAME, "1", "--reason", "bad labels").code == 0
    pinned = checkout.run("rollback", NAME, "--reason", "try")
    assert pinned.code == 3
    assert "bad labels" in pinned.err
    assert checkout.run("unpin", NAME, digest).code == 0
    assert checkout.run("rollback", NAME, "--reason", "try").code == 0
    assert second in checkout.run("status", NAME, "--json").json[0]["pinned"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("status", "no/such"), 2, "no champion"),
        (("rollback", "no/such", "--reason", "x"), 2, "no champion"),
        (("history", "no/such"), 2, "no champion"),
        (("verify", "deadbeefdeadbeef"), 2, "no bundle"),
        (("train",), 2, "saeops harvest"),
        (("bundle",), 2, "run `saeops"),
        (("judge",), 2, "saeops bundle"),
        (("harvest",), 2, "model.ref"),
        (("harvest", "--set", "train.k=none"), 2, "train.k"),
        (("harvest", "--profile", "huge"), 2, "profile"),
        (("review", "decide", "3"), 2, "accept|edit|reject"),
        (("nonsense",), 2, "No such command"),
    ],
)
def test_a_mistake_ends_with_its_exit_code_and_one_clear_error(
    checkout: Checkout, arguments: tuple[str, ...], code: int, words: str
) -> None:
    said = checkout.run(*arguments)
    assert (said.code, words in said.err) == (code, True), said
    assert "Traceback" not in said.err


def test_an_error_is_json_where_json_was_asked_for(checkout: Checkout) -> None:
    said = checkout.run("status", "no/such", "--json")
    assert said.json["error"] == "NameUnknown"
    assert said.json["hint"]


def test_a_damaged_bundle_ends_with_5(checkout: Checkout) -> None:
    checkout.build(seed=1)
    victim = checkout.root / "artifacts" / "bundle" / "provenance.json"
    victim.write_bytes(victim.read_bytes().replace(b"tiny", b"tinx", 1))
    said = checkout.run("promote")
    assert said.code == 5
    assert "provenance.json" in said.err


def test_a_store_that_cannot_be_written_ends_with_6(checkout: Checkout) -> None:
    checkout.build(seed=1)
    blocked = Checkout(checkout.root, {**checkout.environment, "SAEOPS_STORE": "/proc/nowhere"})
    said = blocked.run("promote")
    assert said.code == 6, said
    assert "/proc/nowhere" in said.err


def test_params_prints_each_choice_with_its_meaning(checkout: Checkout) -> None:
    said = checkout.run("params")
    assert "train.k: 4" in said.out
    assert "# Latents that fire on each token." in said.out
    assert checkout.run("params", "--json").json["train"]["k"] == 4


def test_what_a_stage_is_told_is_remembered(checkout: Checkout) -> None:
    checkout.run("train", "--set", "train.k=3")
    assert checkout.run("params", "--json").json["train"]["k"] == 3
    checkout.run("params", "--set", "train.k=2")
    assert checkout.run("params", "--json").json["train"]["k"] == 3, "looking changes nothing"


def test_doctor_tells_machines_what_is_wrong(checkout: Checkout) -> None:
    blocked = Checkout(checkout.root, {**checkout.environment, "SAEOPS_CACHE": "/proc/nowhere"})
    said = blocked.run("doctor", "--json")
    assert said.code == 6
    states = {check["what"]: check for check in said.json}
    assert states["torch"]["state"] == "ok"
    assert states["model cache"]["state"] == "broken"
    assert "SAEOPS_CACHE" in states["model cache"]["fix"]


def test_doctor_and_status_tell_of_an_s3_store(checkout: Checkout, s3_address: str) -> None:
    # The fixture's environment leads to a real server.
    environment = {**checkout.environment, **os.environ, "SAEOPS_STORE": s3_address}
    states = {check["what"]: check for check in Checkout(checkout.root, environment).run("doctor", "--json").json}
    assert states["registry store"]["state"] == "ok"
    assert "conditional writes hold" in states["registry store"]["found"]
    denied = Checkout(checkout.root, {**environment, "AWS_SECRET_ACCESS_KEY": "not-the-secret"})
    states = {check["what"]: check for check in denied.run("doctor", "--json").json}
    assert states["registry store"]["state"] == "broken"
    said = denied.run("status", NAME)
    assert said.code == 6
    assert "does not accept these credentials" in said.err
    assert "not-the-secret" not in said.err
