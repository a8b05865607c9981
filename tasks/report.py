"""Task: write the report page."""

from pathlib import Path

from prefect import task

from tasks.checkout import Checkout
from tasks.showing import show_report


@task(name="report")
def report(checkout: Checkout) -> Path:
    """One self-contained page."""
    page = checkout.services.report(checkout.params)
    show_report(page)
    return page
