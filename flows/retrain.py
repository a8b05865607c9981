"""Flow: what the policy wants done about a model that changed: audit, retrain, judge, promote or wait."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import assert_never

from prefect import State, flow
from prefect.states import Completed

from flows.again import come_again
from flows.alive import held
from flows.build import make
from flows.promote import assess, settle
from flows.serve import service_data
from flows.work import at_hand, at_work
from saeops.drift.policy.decide import Action, AuditNow, RetrainNow, RollBackNow, Stay, operation_id
from saeops.drift.policy.lease import Busy, Ended, Taken, Wanted
from saeops.params import Selection, load_params, read_selection, write_selection
from saeops.stages.retraining import describe_wait
from tasks.audit import audit, champion_of
from tasks.checkout import Checkout
from tasks.earlier import drop_activations, keep_activations
from tasks.label import Earlier
from tasks.policy import decide, retraining, roll_back
from tasks.retraining import done, holding, take

WAITING = "Waiting"
CHOSEN_HERE = ("model.ref", "model.sha256", "train.start_from")
"""Overrides that a retrain sets anew."""


@flow(name="retrain")
def retrain(root: Path = Path(), model: str | None = None, force: bool = False) -> State[None]:
    """Do what the policy wants next: audit on a new model, retrain if the audit says so, promote or wait.

    Ends as `build` does, or `Kept` where nothing is to be done, `RolledBack`, or
    `Waiting` where another retrain is at work: then it comes again. Killed anywhere,
    the next one goes on from what is finished.

    Args:
        model: audit and retrain for this one.
        force: retrain whatever the audit says.
    """
    asked = {"root": str(root), "model": model, "force": force}
    with at_hand(root, load_params(root)) as checkout, held(_file(checkout)) as alone:
        if not alone:
            return _wait("another retrain works in this checkout", asked)
        action = decide(checkout, holder_of(checkout))
        if isinstance(action, Stay) and retraining(checkout):
            return _wait(action.why, asked)
        action = _after_audit(checkout, action, model, force=force)
        match action:
            case RetrainNow():
                return _retrain(checkout, action, asked)
            case RollBackNow():
                roll_back(checkout, action)
                return Completed(name="RolledBack", message=action.why)
            case AuditNow() | Stay():
                return Completed(name="Kept", message=action.why)
            case _:
                assert_never(action)


def _after_audit(checkout: Checkout, action: Action, model: str | None, *, force: bool) -> Action:
    """What is to be done once the audit that comes first is made, if one does."""
    if isinstance(action, RetrainNow) or (model is None and not isinstance(action, AuditNow)):
        return action
    wanted = action.model_ref if model is None and isinstance(action, AuditNow) else model
    record = audit(checkout, wanted)
    action = decide(checkout, holder_of(checkout))
    if force and isinstance(action, Stay):
        operation = operation_id(record.name, record.bundle, record.model)
        return RetrainNow(operation, record.model, record.model_ref, record.fresh_start, "asked for by a person")
    return action


def _retrain(checkout: Checkout, action: RetrainNow, asked: Mapping[str, object]) -> State[None]:
    params = checkout.params
    wanted = Wanted(params.name, action.operation, action.model, action.model_ref, holder_of(checkout))
    taking = take(checkout, wanted)
    match taking:
        case Busy():
            return _wait(describe_wait(taking), asked)
        case Ended():
            return Completed(name="Kept", message=describe_wait(taking))
        case Taken():
            pass
        case _:
            assert_never(taking)
    champion = champion_of(checkout)
    start_from = None if action.fresh_start else champion
    selection = selection_for(read_selection(checkout.root), action.model_ref, start_from=start_from)
    retrained = load_params(checkout.root, selection)
    write_selection(checkout.root, selection)
    with at_work("retrain", checkout.root, retrained) as at:
        with holding(at, taking.run) as lease:
            earlier = Earlier(champion, keep_activations(at, champion))
            bundle = make(at, lease.step, earlier=earlier)
            drop_activations(at)
            lease.step("judge")
            verdict = assess(at)
            done(at, lease.run, bundle.digest, verdict)
        return settle(at, verdict)


def selection_for(before: Selection, model_ref: str, *, start_from: str | None) -> Selection:
    """The checkout's choices, with another model, and training that starts from a bundle or afresh."""
    kept = [override for override in before.set if override.partition("=")[0] not in CHOSEN_HERE]
    model = [f"model.ref={json.dumps(model_ref)}", "model.sha256=null"]
    return Selection(profile=before.profile, set=(*kept, *model, f"train.start_from={start_from or 'null'}"))


def holder_of(checkout: Checkout) -> str:
    """Who retrains here: this checkout on this machine, so that it knows its own unfinished work."""
    return f"{checkout.services.settings.reviewer} in {os.uname().nodename}:{checkout.root}"


def _wait(why: str, asked: Mapping[str, object]) -> State[None]:
    return Completed(name=WAITING, message=f"{why}; {come_again(asked)}")


def _file(checkout: Checkout) -> Path:
    return service_data(checkout.services.settings) / "retraining"
