"""Flow: go on from a built candidate once people have reviewed it."""

from pathlib import Path

from prefect import State, flow
from prefect.states import Completed

from flows.work import at_work
from saeops.params import load_params
from saeops.promotion.verdict import Verdict
from saeops.refs import Ref
from saeops.sealed import open_sealed
from tasks import registry
from tasks.checkout import Checkout
from tasks.judge import judge
from tasks.report import report
from tasks.versions import version_data

WAITING = "WaitingForReview"
NEXT_COMMANDS = ("saeops review queue", "saeops review decide", "python -m flows promote")


@flow(name="promote", validate_parameters=False)
def promote(root: Path = Path(), force: bool = False, reason: str = "") -> State[None]:
    """Judge the candidate with its reviews, and make it champion if it passes.

    Ends as `build` does.
    """
    with at_work("promote", root, load_params(root)) as checkout:
        candidate = open_sealed(checkout.services.space.bundle, kind="bundle", made_by="python -m flows build")
        verdict = judge(checkout, Ref.of(candidate))
        return conclude(checkout, verdict, force=force, reason=reason)


def conclude(checkout: Checkout, verdict: Verdict, *, force: bool = False, reason: str = "") -> State[None]:
    """Promote, unless nothing but people's review is missing: then say what to type.

    Raises:
        GateRefused: the verdict is no pass, and it is not only a review that is missing.
    """
    if waits_for_review(verdict) and not force:
        return Completed(name=WAITING, message="review, then promote: " + "; ".join(NEXT_COMMANDS))
    moved = registry.promote(checkout, force=force, reason=reason)
    version_data(checkout)
    report(checkout)
    if moved.entry is None:
        return Completed(name="Kept", message=moved.plan.unchanged)
    return Completed(name="Promoted", message=f"{moved.plan.name}: {moved.plan.to_digest[:12]} is champion")


def waits_for_review(verdict: Verdict) -> bool:
    """Whether people's review is all that is missing."""
    open_gates = {gate.metric for gate in verdict.gates if gate.outcome in ("fail", "inconclusive")}
    return verdict.outcome == "inconclusive" and "review" in open_gates <= {"review", "review_acceptance"}
