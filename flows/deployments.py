"""What the service deploys: each flow with its schedule and the events that start it.

infra/prefect.yaml declares the same for work pools; a test holds the two together.
"""

from collections.abc import Collection, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.events import EventName, resource_of
from saeops.params import Params

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

RETRAIN_ON: tuple[EventName, ...] = ("saeops.model.new", "saeops.drift", "saeops.run.stuck")
"""The run asks the policy what is to be done: an event that is lost or repeated changes nothing."""
PROMOTE_ON: tuple[EventName, ...] = ("saeops.review.complete",)


@dataclass(frozen=True)
class Deployed:
    """One deployment, and in words what starts it."""

    deployment: "RunnerDeployment"
    cron: str | None
    events: tuple[EventName, ...] = ()


def deployments(root: Path, params: Params) -> tuple[Deployed, ...]:
    """One deployment a flow, named after the dictionary, so that several can share a server.

    Args:
        root: the checkout in which they work.
    """
    from flows.audit import audit
    from flows.promote import promote
    from flows.retrain import retrain
    from flows.rollback import rollback
    from flows.watch import watch

    when, name = params.serve, params.name
    here = {"root": str(root)}
    return (
        Deployed(_deployed(watch, params, here, cron=when.watch), when.watch),
        Deployed(_deployed(audit, params, here, cron=when.audit), when.audit),
        Deployed(_deployed(retrain, params, here, cron=when.retrain, events=RETRAIN_ON), when.retrain, RETRAIN_ON),
        Deployed(_deployed(promote, params, here, events=PROMOTE_ON), None, PROMOTE_ON),
        Deployed(_deployed(rollback, params, {**here, "name": name, "reason": "by hand"}), None),
    )


def deployment_name(name: str) -> str:
    """A dictionary's name as Prefect takes it."""
    return name.replace("/", ":")


def _deployed(
    flow: object,
    params: Params,
    parameters: Mapping[str, str],
    *,
    cron: str | None = None,
    events: Collection[EventName] = (),
) -> "RunnerDeployment":
    from prefect import Flow
    from prefect.events import DeploymentEventTrigger
    from prefect.types.entrypoint import EntrypointType

    assert isinstance(flow, Flow)
    name = deployment_name(params.name)
    made = flow.to_deployment(
        name=name,
        cron=cron,
        parameters=dict(parameters),
        tags=["saeops"],
        entrypoint_type=EntrypointType.MODULE_PATH,
        triggers=[
            DeploymentEventTrigger(
                name=f"{flow.name} {name} on {event}",
                expect={event},
                match={"prefect.resource.id": resource_of(params.name)},
                parameters=dict(parameters),
            )
            for event in events
        ],
    )
    assert not isinstance(made, Coroutine), "deployments are made outside of an event loop"
    return made
