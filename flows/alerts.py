"""A Prefect automation for what people should know: theirs to attach Slack, e-mail or anything else to."""

from typing import TYPE_CHECKING

from flows.events import EventName, resource_of

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

ALERTS: tuple[EventName, ...] = ("saeops.drift", "saeops.gate.failed", "saeops.audit.overdue", "saeops.run.stuck")


def automation_name(name: str) -> str:
    """Of a dictionary's automation."""
    return f"saeops alerts: {name}"


async def offer_alerts(client: "PrefectClient", name: str) -> bool:
    """Create the automation, unless it is there: people may have changed it. True where it was created.

    It fires once an incident, since each is told to the server once. The webhook of
    SAEOPS_ALERTS_WEBHOOK needs no automation, and no Prefect.
    """
    from prefect.events import EventTrigger, ResourceSpecification
    from prefect.events.actions import DoNothing
    from prefect.events.schemas.automations import AutomationCore

    if await client.read_automations_by_name(automation_name(name)):
        return False
    trigger = EventTrigger(
        expect=set(ALERTS), match=ResourceSpecification({"prefect.resource.id": resource_of(name)}), threshold=1
    )
    hint = "Attach an action: the event's payload holds message and hint."
    await client.create_automation(
        AutomationCore(name=automation_name(name), description=hint, trigger=trigger, actions=[DoNothing()])
    )
    return True
