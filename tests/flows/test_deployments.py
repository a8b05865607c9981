"""What the service deploys, and that infra/prefect.yaml declares the same to work pools."""

import importlib
from pathlib import Path
from typing import Any

import pytest
from prefect.cli.deploy._config import _load_deploy_configs_and_actions
from prefect.cli.deploy._triggers import _initialize_deployment_triggers
from prefect.events import DeploymentEventTrigger
from rich.console import Console

from flows.deployments import Deployed, deployment_name, deployments
from flows.events import resource_of
from flows.watch import EVENTS
from saeops.params import load_params
from tests.flows.conftest import ROOT

FLOWS = ("watch", "audit", "retrain", "promote", "rollback")


@pytest.fixture(scope="module")
def served() -> dict[str, Deployed]:
    return {str(one.deployment.flow_name): one for one in deployments(ROOT, load_params(ROOT))}


@pytest.fixture(scope="module")
def declared() -> dict[str, dict[str, Any]]:
    """Flow name → its deployment in infra/prefect.yaml, as Prefect reads it."""
    console = Console(record=True)
    found, _ = _load_deploy_configs_and_actions(ROOT / "infra" / "prefect.yaml", console=console)
    assert console.export_text() == "", "Prefect's loader has nothing to complain of"
    return {Path(one["entrypoint"].partition(":")[0]).stem: one for one in found}


def triggers_of(one: Deployed) -> list[DeploymentEventTrigger]:
    found = [trigger for trigger in one.deployment.triggers if isinstance(trigger, DeploymentEventTrigger)]
    assert len(found) == len(one.deployment.triggers)
    return found


def test_each_flow_is_deployed_under_the_dictionarys_name(served: dict[str, Deployed]) -> None:
    assert tuple(served) == FLOWS
    name = load_params(ROOT).name
    assert {one.deployment.name for one in served.values()} == {deployment_name(name)}
    for one in served.values():
        assert one.deployment.parameters["root"] == str(ROOT)
        for trigger in triggers_of(one):
            assert trigger.match.root == {"prefect.resource.id": resource_of(name)}


def test_the_schedules_are_those_of_params(served: dict[str, Deployed]) -> None:
    when = load_params(ROOT).serve
    crons = {flow: [s.schedule.cron for s in one.deployment.schedules or []] for flow, one in served.items()}
    wanted = {
        "watch": [when.watch],
        "audit": [when.audit],
        "retrain": [when.retrain],
        "promote": [],
        "rollback": [],
    }
    assert crons == wanted


def test_every_event_that_starts_something_is_one_that_watch_tells(served: dict[str, Deployed]) -> None:
    told = {"saeops.model.new", "saeops.review.complete", *EVENTS.values()}
    awaited = {event for one in served.values() for event in one.events}
    assert awaited <= told
    assert awaited == {
        event for one in served.values() for trigger in triggers_of(one) for event in trigger.expect
    }


def test_work_pools_get_the_same_deployments(
    served: dict[str, Deployed], declared: dict[str, dict[str, Any]]
) -> None:
    assert tuple(declared) == FLOWS
    for flow, one in declared.items():
        here = served[flow].deployment
        module, _, function = one["entrypoint"].partition(":")
        assert (
            getattr(importlib.import_module(module.removesuffix(".py").replace("/", ".")), function).name == flow
        )
        assert set(one["parameters"]) == set(here.parameters)
        crons = [each["cron"] for each in one.get("schedules", [])]
        assert crons == [each.schedule.cron for each in here.schedules or []]
        triggers = _initialize_deployment_triggers(one["name"], one.get("triggers", []))
        expected = [trigger.expect for trigger in triggers if isinstance(trigger, DeploymentEventTrigger)]
        assert expected == [trigger.expect for trigger in triggers_of(served[flow])]
        for trigger in triggers:
            assert trigger.match.root == {"prefect.resource.id": resource_of("*")}
