"""Task: measure the champion on a candidate's model."""

from prefect import get_run_logger, task

from saeops.errors import NotComparable
from saeops.refs import Ref
from tasks.checkout import Checkout
from tasks.retries import RETRIED


@task(name="beside", **RETRIED)
def beside(checkout: Checkout) -> Ref | None:
    """The champion's figures on this model; None where they are known, or the champion cannot read it."""
    try:
        return checkout.services.beside(checkout.params)
    except NotComparable as error:
        # The judge says so too, and a person decides.
        get_run_logger().warning(str(error))
        return None
