"""Task: judge a bundle beside the champion."""

from prefect import task

from saeops.promotion.verdict import Verdict
from saeops.refs import Ref
from tasks.checkout import Checkout
from tasks.retries import RETRIED
from tasks.showing import show_verdict


@task(name="judge", task_run_name="judge {bundle.digest:.12}", **RETRIED)
def judge(checkout: Checkout, bundle: Ref) -> Verdict:
    """Pass, fail or inconclusive, with a reason a gate."""
    verdict = checkout.given(bundle).judge(checkout.params)
    show_verdict(verdict)
    return verdict
