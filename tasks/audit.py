"""Task: audit the champion on a model."""

import json

from prefect import task

from saeops.dictionary.format import PROVENANCE
from saeops.drift.audit.record import AuditRecord
from saeops.errors import NameUnknown
from saeops.promotion import keys
from saeops.stages.records import read_state
from tasks.checkout import Checkout
from tasks.retries import RETRIED


@task(name="audit", task_run_name="audit on {model}", **RETRIED)
def audit(checkout: Checkout, model: str | None) -> AuditRecord:
    """The registry's record of an audit; without a model, on the champion's own."""
    params = checkout.params
    asked = own_model(checkout) if model is None else model
    return checkout.services.audit(params, params.name, asked).record


def champion_of(checkout: Checkout) -> str:
    """The digest of the champion.

    Raises:
        NameUnknown: there is none.
    """
    name = checkout.params.name
    champion = read_state(checkout.services.store, name).champion
    if champion is None:
        raise NameUnknown(f"{name} has no champion", hint="`python -m flows build` makes a candidate")
    return champion


def own_model(checkout: Checkout) -> str:
    """The reference of the model that the champion was built on."""
    provenance = checkout.services.store.get(keys.bundle_key(champion_of(checkout), PROVENANCE))
    if provenance is None:
        return checkout.params.model.ref
    return str(json.loads(provenance.data)["params"]["model"]["ref"])
