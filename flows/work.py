"""What every flow stands on: one checkout, its services, one run in the tracker."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

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
    services = services_of(root)
    tags = {"saeops.name": params.name, "saeops.params": params.digest()}
    with services.tracker.run(flow, params=params.model_dump(mode="json"), tags=tags) as run:
        services.parent_run = run.run_id
        with lending(services):
            yield Checkout(root=services.settings.root, params=params, parent_run=run.run_id)


def services_of(root: Path) -> Services:
    """Those lent to this context; else fresh ones, from the environment."""
    return lent() or Services(Settings.from_environment(root))
