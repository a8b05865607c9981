"""Task: version data."""

from prefect import task

from tasks.checkout import Checkout
from tasks.retries import MINUTE_S, RETRIED


@task(name="version data", timeout_seconds=240 * MINUTE_S, **RETRIED)
def version_data(checkout: Checkout) -> None:
    """Every finished stage output in dvc.lock, and in the remote; and the recipe that names them."""
    services = checkout.services
    services.data_versions.commit()
    services.data_versions.push()
    services.keep_recipe()
