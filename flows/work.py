"""What every flow stands on: one checkout, its services, one run in the tracker, signs of life."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from flows.alive import alive
from flows.serve import service_data
from saeops.params import Params
from saeops.services import Services
from saeops.settings import Settings
from tasks.checkout import Checkout, lending, lent


@contextlib.contextmanager
def at_work(flow: str, root: Path, params: Params) -> Iterator[Checkout]:
    """Services shared by the tasks of one flow run, under one run in the tracker.

    Raises:
        TrackerUnreachable: MLflow does not answer.
    """
    with at_hand(root, params) as checkout:
        services = checkout.services
        tags = {"saeops.name": params.name, "saeops.params": params.digest()}
        with services.tracker.run(flow, params=params.model_dump(mode="json"), tags=tags) as run:
            services.parent_run = run.run_id
            yield Checkout(root=checkout.root, params=params, parent_run=run.run_id)


@contextlib.contextmanager
def at_hand(root: Path, params: Params) -> Iterator[Checkout]:
    """As `at_work`, without a run in the tracker: for flows that mostly find nothing to do."""
    services = services_of(root)
    with lending(services), alive(signs_of_life(services.settings), _flow_run()):
        yield Checkout(root=services.settings.root, params=params)


def services_of(root: Path) -> Services:
    """Those lent to this context; else fresh ones, from the environment."""
    return lent() or Services(Settings.from_environment(root))


def signs_of_life(settings: Settings) -> Path:
    """Where flow runs hold their signs of life (flows/alive.py)."""
    return service_data(settings) / "alive"


def _flow_run() -> str | None:
    from prefect.runtime import flow_run

    found = flow_run.id
    return str(found) if found else None
