"""Flow: look for new model versions, finished reviews and incidents, and tell Prefect's server of each once."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from prefect import State, flow
from prefect.states import Completed

from flows.events import EventName, emit
from flows.serve import service_data
from flows.work import at_hand
from saeops.drift.policy.records import Incident, IncidentKind
from saeops.errors import NameUnknown
from saeops.params import load_params
from saeops.promotion.state import SHORT
from saeops.stages.watch import NewModel, describe
from tasks.checkout import Checkout
from tasks.watch import Reviewed, alert, look, look_at_review

EVENTS: Mapping[IncidentKind, EventName] = {
    "drift": "saeops.drift",
    "failed gate": "saeops.gate.failed",
    "overdue audit": "saeops.audit.overdue",
    "stuck run": "saeops.run.stuck",
    "missed heartbeat": "saeops.run.stuck",
}


@flow(name="watch")
def watch(root: Path = Path()) -> State[None]:
    """Look once. Ends `Watched`, saying what was found; a source that does not answer fails it after the rest."""
    with at_hand(root, load_params(root)) as checkout:
        looked = look(checkout, _tell_model, return_state=True)
        found = []
        told = service_data(checkout.services.settings) / "reviewed"
        if review := look_at_review(checkout, told, partial(_tell_review, checkout.params.name)):
            found.append(f"reviewed: candidate {review.candidate[:SHORT]}")
        try:
            found += tell_incidents(checkout)
        except NameUnknown as error:
            # A first build that waits for review is watched, too.
            found.append(error.message)
        found += [describe(each) for each in looked.result()]
    return Completed(name="Watched", message="; ".join(found) or "nothing new; retrain.sources names no source")


def tell_incidents(checkout: Checkout) -> list[str]:
    """Incidents brought up to date and told; in words, what opened and what could not be told."""
    alerted = alert(checkout, _tell_incident)
    untold = [f"{channel} did not take {incident.kind}: {why}" for channel, incident, why in alerted.undelivered]
    return [*(incident.message for incident in alerted.opened), *untold]


def _tell_model(new: NewModel) -> None:
    seen = new.seen
    emit("saeops.model.new", seen.name, key=new.id, payload=seen.model_dump(mode="json"))


def _tell_review(name: str, review: Reviewed) -> None:
    emit("saeops.review.complete", name, key=review.candidate, payload=vars(review))


def _tell_incident(incident: Incident) -> None:
    payload = incident.model_dump(mode="json", include={"kind", "subject", "message", "hint", "opened"})
    emit(EVENTS[incident.kind], incident.name, key=incident.event, payload=payload)
