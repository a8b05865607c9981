"""The watch flow: what it tells the server, once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flows.watch import watch
from saeops.drift.policy.records import ModelSeen
from saeops.errors import EndpointUnavailable
from saeops.params import Params
from saeops.refs import Ref
from saeops.services import Services
from saeops.stages import review
from saeops.stages.watch import Known, NewModel
from tasks.checkout import lending
from tests.bundles import tiny_bundle
from tests.flows.fakes import ScriptedServices

pytestmark = pytest.mark.usefixtures("prefect_api")


class WatchingServices(ScriptedServices):
    """As scripted; the model source shows a new version, or does not answer."""

    answers = True
    seen = True

    def candidate(self) -> Ref:
        return Services.candidate(self)

    def watch(self, params: Params, *, emit: Any = None) -> Any:
        if not self.answers:
            raise EndpointUnavailable("the hub is away")
        if not self.seen:
            return ()
        seen = ModelSeen(
            name=params.name, ref="models/v2", digest="d" * 64, source="folder:models", at="2026-03-01"
        )
        emit(NewModel(str(uuid4()), seen))
        return (Known("d" * 64, "folder:models"),)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Events in place of those that the server takes, which the service's own test looks at."""
    events: list[tuple[str, dict[str, Any]]] = []

    def emit(event: str, name: str, *, key: str, payload: dict[str, Any]) -> None:
        events.append((event, {"name": name, "key": key, **payload}))

    monkeypatch.setattr("flows.watch.emit", emit)
    return events


@pytest.fixture
def services(root: Path) -> Iterator[WatchingServices]:
    services = WatchingServices(root)
    with lending(services):
        yield services


@pytest.mark.usefixtures("services")
def test_a_new_model_is_told_with_what_loads_it(root: Path, told: list[tuple[str, dict[str, Any]]]) -> None:
    state = watch(root, return_state=True)
    assert state.name == "Watched"
    ((event, payload),) = told
    assert event == "saeops.model.new"
    assert (payload["ref"], payload["digest"]) == ("models/v2", "d" * 64)


def test_a_review_that_is_complete_is_told_once_and_again_if_it_changes(
    root: Path, services: WatchingServices, told: list[tuple[str, dict[str, Any]]]
) -> None:
    services.answers = False
    tiny_bundle(root)
    first, *others = review.outcome(services.space.bundle, services.ledger).pending
    for latent in others:
        services.decide(latent, "accept")
    watch(root, return_state=True)
    assert told == [], "one label is still to be decided on"
    services.decide(first, "accept")
    state = watch(root, return_state=True)
    assert state.is_failed(), "that a source is silent is told after the rest"
    watch(root, return_state=True)
    ((event, payload),) = told
    assert (event, payload["decided"]) == ("saeops.review.complete", 1 + len(others))
    services.decide(first, "reject", reason="read its contexts again")
    watch(root, return_state=True)
    assert len(told) == 2


def test_without_a_champion_incidents_are_nobodys(root: Path, services: WatchingServices) -> None:
    services.seen = False
    state = watch(root, return_state=True)
    assert state.name == "Watched"
    assert "champion" in str(state.message)
