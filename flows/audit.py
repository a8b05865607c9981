"""Flow: audit the champion, if the policy says that an audit is due or a model is named."""

from pathlib import Path

from prefect import State, flow
from prefect.states import Completed

from flows.watch import tell_incidents
from flows.work import at_hand
from saeops.drift.policy.decide import AuditNow
from saeops.params import load_params
from tasks.audit import audit as make
from tasks.policy import decide


@flow(name="audit")
def audit(root: Path = Path(), model: str | None = None) -> State[None]:
    """Audit on this model, or on the one that the policy wants; alert people of what is found.

    Ends `Audited`, or `NotDue` where nothing is to be audited.
    """
    with at_hand(root, load_params(root)) as checkout:
        if model is None:
            action = decide(checkout)
            if not isinstance(action, AuditNow):
                return Completed(name="NotDue", message=action.why)
            model = action.model_ref
        record = make(checkout, model)
        tell_incidents(checkout)
        reasons = "; ".join(record.reasons)
        return Completed(name="Audited", message=f"{record.outcome} on {record.model_ref}: {reasons}")
