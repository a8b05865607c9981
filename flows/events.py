"""Events: what the flows tell Prefect's server, and what its triggers wait for."""

from collections.abc import Mapping
from typing import Any, Literal
from uuid import NAMESPACE_URL, uuid5

EventName = Literal[
    "saeops.model.new",
    "saeops.review.complete",
    "saeops.drift",
    "saeops.gate.failed",
    "saeops.audit.overdue",
    "saeops.run.stuck",
]


def resource_of(name: str) -> str:
    """The resource that a dictionary's events are about."""
    return f"saeops.dictionary.{name}"


def emit(event: EventName, name: str, *, key: str, payload: Mapping[str, Any]) -> None:
    """Tell the server, and return once it has taken the event.

    Args:
        name: the dictionary's.
        key: what the event is about, e.g. a digest. The same key is the same event:
            the server drops a repeat.

    Raises:
        SchedulerUnreachable: the server did not take it.
    """
    from httpx import HTTPError
    from prefect.client.orchestration import get_client
    from prefect.events import Event, Resource

    from saeops.errors import SchedulerUnreachable

    told = Event(
        id=uuid5(NAMESPACE_URL, f"{event}:{name}:{key}"),
        event=event,
        resource=Resource({"prefect.resource.id": resource_of(name), "prefect.resource.name": name}),
        payload=dict(payload),
    )
    try:
        with get_client(sync_client=True) as client:
            client.request("POST", "/events", json=[told.model_dump(mode="json")]).raise_for_status()
    except HTTPError as error:
        raise SchedulerUnreachable(
            f"Prefect's server did not take the event {event}: {error}",
            hint="`python -m flows serve` starts one; or set PREFECT_API_URL to one that runs",
        ) from error
