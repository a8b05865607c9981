"""What every task is told: which checkout, with which params, under which build."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from saeops.errors import LostRace
from saeops.params import Params
from saeops.refs import Ref
from saeops.sealed import open_sealed
from saeops.services import Services
from saeops.settings import Settings

_LENT: ContextVar[Services | None] = ContextVar("services lent to tasks", default=None)


@dataclass(frozen=True)
class Checkout:
    """One checkout at fixed params: a profile edited while a flow runs changes nothing in it."""

    root: Path
    params: Params
    parent_run: str | None = None
    """The build's run in the tracker."""

    @property
    def services(self) -> Services:
        """Those lent to this flow, so that the language model is loaded once; else fresh ones."""
        return lent() or Services(Settings.from_environment(self.root), parent_run=self.parent_run)

    def given(self, *inputs: Ref) -> Services:
        """The services, once it is sure that what a stage will read is what the flow meant.

        Raises:
            LostRace: another build in this checkout has replaced a folder since.
        """
        for ref in inputs:
            found = open_sealed(ref.path, kind=ref.kind).digest
            if found != ref.digest:
                raise LostRace(
                    f"{ref.path} holds {found[:12]}, this build made {ref.digest[:12]}: another one works here",
                    hint="let one build end before the next, or work in two checkouts; then run this one again",
                )
        return self.services


@contextlib.contextmanager
def lending(services: Services) -> Iterator[None]:
    """Tasks in this block share these services."""
    token = _LENT.set(services)
    try:
        yield
    finally:
        _LENT.reset(token)


def lent() -> Services | None:
    """The services lent to this context, if any."""
    return _LENT.get()
