"""The lease that a retrain holds while it works (saeops/stages/retraining.py)."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prefect import task

from saeops.drift.policy.lease import Taking, Wanted
from saeops.drift.policy.records import Retraining
from saeops.errors import LostRace, SaeopsError, Unavailable
from saeops.promotion.verdict import Verdict
from tasks.checkout import Checkout
from tasks.retries import RETRIED

if TYPE_CHECKING:
    from saeops.stages.retraining import Beating


@task(name="take the lease", **RETRIED)
def take(checkout: Checkout, wanted: Wanted) -> Taking:
    """The lease, or who has it."""
    return checkout.services.take_retraining(checkout.params, wanted)


@task(name="end the lease", **RETRIED)
def done(checkout: Checkout, run: Retraining, candidate: str, verdict: Verdict) -> None:
    """Keep what was made, and let others retrain."""
    checkout.services.finish_retraining(run, candidate=candidate, verdict=verdict)


@contextlib.contextmanager
def holding(checkout: Checkout, run: Retraining) -> "Iterator[Beating]":
    """Show signs of life while the block works; what it cannot make is recorded with its reason.

    What may go better another time is left as it is, to be gone on with.
    """
    services = checkout.services
    with services.retraining_kept_alive(checkout.params, run) as beating:
        try:
            yield beating
        except (LostRace, Unavailable):
            raise
        except Exception as error:
            note = error.message if isinstance(error, SaeopsError) else repr(error)
            services.fail_retraining(beating.run, note=note)
            raise
