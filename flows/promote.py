"""Flow: go on from a built candidate once people have reviewed it."""

from pathlib import Path

from prefect import State, flow
from prefect.states import Completed

from flows.work import at_work
from saeops.params import load_params
from saeops.promotion.verdict import Verdict
from tasks.beside import beside
from tasks.checkout import Checkout
from tasks.judge import judge
from tasks.registry import announce
from tasks.registry import promote as champion
from tasks.report import report

WAITING = "WaitingForReview"
NEXT_COMMANDS = ("saeops review queue", "saeops review decide", "python -m flows promote")


@flow(name="promote")
def promote(root: Path = Path(), force: bool = False, reason: str = "") -> State[None]:
    """Judge the candidate with its reviews, and make it champion if it passes.

    Ends as `build` does.
    """
    with at_work("promote", root, load_params(root)) as checkout:
        return finish(checkout, force=force, reason=reason)


def finish(checkout: Checkout, *, force: bool = False, reason: str = "") -> State[None]:
    """Judge, announce, report; promote, unless nothing but people's review is missing: then say what to type.

    Raises:
        GateRefused: the verdict is no pass, and it is not only a review that is missing.
    """
    return settle(checkout, assess(checkout), force=force, reason=reason)


def assess(checkout: Checkout) -> Verdict:
    """The verdict on the candidate, which is announced and reported."""
    candidate = checkout.services.candidate()
    beside(checkout)
    verdict = judge(checkout, candidate)
    announce(checkout, candidate)
    report(checkout)
    return verdict


def settle(checkout: Checkout, verdict: Verdict, *, force: bool = False, reason: str = "") -> State[None]:
    """Promote, or wait for the people who review; raises as `finish`."""
    if waits_for_review(verdict) and not force:
        return Completed(name=WAITING, message="review, then promote: " + "; ".join(NEXT_COMMANDS))
    moved = champion(checkout, force=force, reason=reason)
    if moved.entry is None:
        return Completed(name="Kept", message=moved.plan.unchanged)
    return Completed(name="Promoted", message=f"{moved.plan.name}: {moved.plan.to_digest[:12]} is champion")


def waits_for_review(verdict: Verdict) -> bool:
    """Whether people's review is all that is missing."""
    open_gates = {gate.metric for gate in verdict.counted if gate.outcome in ("fail", "inconclusive")}
    return verdict.outcome == "inconclusive" and "review" in open_gates <= {"review", "review_acceptance"}
