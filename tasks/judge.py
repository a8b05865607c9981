"""Task: judge a bundle beside the champion."""

from prefect import task

from saeops.promotion.verdict import Verdict
from saeops.refs import Ref
from saeops.sealed import open_sealed
from tasks.checkout import Checkout
from tasks.retries import RETRIED
from tasks.showing import show_verdict


@task(name="judge", task_run_name="judge {bundle.digest:.12}", **RETRIED)
def judge(checkout: Checkout, bundle: Ref) -> Verdict:
    """Pass, fail or inconclusive, with a reason a gate; a retrain that made the candidate keeps it on record."""
    services = checkout.given(bundle)
    verdict = services.judge(checkout.params)
    built = open_sealed(services.space.bundle, kind="bundle").digest
    services.note_verdict(checkout.params, built, verdict)
    show_verdict(verdict)
    return verdict
