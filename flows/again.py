"""A run that has to wait ends, and comes again as another run: a process that sleeps would hold its memory."""

import datetime
from collections.abc import Mapping
from typing import Any

WAIT_S = 300.0


def come_again(parameters: Mapping[str, Any], *, after_s: float = WAIT_S) -> str:
    """Schedule this run's deployment once more; in words, when. A run without deployment is not scheduled."""
    from prefect.client.orchestration import get_client
    from prefect.runtime import deployment, flow_run
    from prefect.states import Scheduled

    if deployment.id is None:
        return "run the same command again later"
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=after_s)
    with get_client(sync_client=True) as client:
        client.create_flow_run_from_deployment(
            deployment.id,
            parameters=dict(parameters),
            state=Scheduled(scheduled_time=at, message="another retrain was at work"),
            # A run that is killed here and goes on comes again once.
            idempotency_key=f"after {flow_run.id}",
        )
    return f"tries again at {at:%H:%M} UTC"
