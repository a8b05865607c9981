"""Flow: go back to an earlier champion. `saeops rollback` does the same without Prefect."""

from pathlib import Path

from prefect import State, flow
from prefect.states import Completed

from flows.work import at_work
from saeops.params import load_params
from tasks.registry import reconcile
from tasks.registry import rollback as champion


@flow(name="rollback", flow_run_name="rollback {name}")
def rollback(name: str, reason: str, to: str = "previous", root: Path = Path()) -> State[None]:
    """Roll back; ends `RolledBack`, or `Kept` where nothing changes."""
    with at_work("rollback", root, load_params(root)) as checkout:
        moved = champion(checkout, name, to=to, reason=reason)
        # The champion is back whether or not MLflow can be told.
        told = reconcile(checkout, name, return_state=True)
    if moved.entry is None:
        return Completed(name="Kept", message=moved.plan.unchanged)
    message = f"{name}: {moved.plan.to_digest[:12]} is champion again"
    if not told.is_completed():
        message += f"; MLflow does not know yet: saeops reconcile {name}"
    return Completed(name="RolledBack", message=message)
