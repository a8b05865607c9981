"""What an interruption leaves on Prefect's server, and what the service's worker makes of it."""

import asyncio
import contextlib
import datetime
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.events import EventTrigger
from prefect.events.schemas.automations import Automation
from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL
from prefect.states import Pending, Running, Scheduled

from flows.again import come_again
from flows.alerts import ALERTS, automation_name, offer_alerts
from flows.alive import alive, held, lives
from flows.deployments import deployments
from flows.events import emit
from flows.serve import _only_service, service_data
from flows.work import signs_of_life
from flows.worker import Mended, mend
from saeops.errors import LostRace, SchedulerUnreachable
from saeops.params import Selection, load_params
from saeops.settings import Settings

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture
def served(root: Path) -> dict[str, UUID]:
    """Flow name → id of its deployment on the server, of a dictionary of its own."""
    params = load_params(root, Selection(set=(f"name=tiny/{uuid4().hex}",)))
    made = deployments(root, params)
    return {one.deployment.flow_name: one.deployment.apply() for one in made}


@pytest.fixture
def signs(root: Path) -> Path:
    return signs_of_life(Settings.from_environment(root, {}))


def runs_of(deployment: UUID) -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        found = client.request(
            "POST", "/flow_runs/filter", json={"deployments": {"id": {"any_": [str(deployment)]}}}
        )
    return sorted((FlowRun.model_validate(run) for run in found.json()), key=lambda run: run.expected_start_time)


def fall_due(deployment: UUID, runs: int) -> list[str]:
    """Runs, the oldest first, as the scheduler makes them, for hours that passed while nobody worked."""
    now = datetime.datetime.now(datetime.UTC)
    hours = [now - hour * datetime.timedelta(hours=1) for hour in range(runs, 0, -1)]
    with get_client(sync_client=True) as client:
        made = [
            client.create_flow_run_from_deployment(deployment, state=Scheduled(scheduled_time=hour))
            for hour in hours
        ]
    # The scheduler does not run on a test's server, and nobody else may say that it made a run.
    database = str(PREFECT_SERVER_DATABASE_CONNECTION_URL.value()).partition(":///")[2]
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        marks = [(str(run.id),) for run in made]
        changed = connection.executemany("update flow_run set auto_scheduled = 1 where id = ?", marks)
        assert changed.rowcount == runs
    return [str(run.id) for run in made]


def ask_for(deployment: UUID, state: Any = None) -> str:
    """A run that somebody asked for."""
    with get_client(sync_client=True) as client:
        run = client.create_flow_run_from_deployment(deployment)
        if state is not None:
            client.set_flow_run_state(run.id, state, force=True)
    return str(run.id)


def mended(served: Sequence[UUID], signs: Path) -> Mended:
    async def go() -> Mended:
        async with get_client() as client:
            return await mend(client, served, signs)

    return asyncio.run(go())


def test_of_the_schedules_missed_while_nobody_worked_one_run_is_left(served: dict[str, UUID], signs: Path) -> None:
    watch, audit = served["watch"], served["audit"]
    due, fewer = fall_due(watch, 7), fall_due(audit, 3)
    asked = ask_for(watch)
    found = mended([watch, audit], signs)
    assert set(found.missed) == {*due[:-1], *fewer[:-1]}
    states = {str(run.id): run.state_name for run in runs_of(watch)}
    assert states == {**dict.fromkeys(due[:-1], "Missed"), due[-1]: "Scheduled", asked: "Scheduled"}
    assert mended([watch, audit], signs) == Mended((), ()), "mending again changes nothing"


def test_a_run_whose_process_is_gone_goes_on_under_its_own_id(served: dict[str, UUID], signs: Path) -> None:
    retrain = served["retrain"]
    dead, starting, living = (ask_for(retrain, state) for state in (Running(), Pending(), Running()))
    with alive(signs, living):
        found = mended([retrain], signs)
    assert set(found.interrupted) == {dead, starting}
    states = {str(run.id): (run.state_type, run.state_name) for run in runs_of(retrain)}
    assert states[dead] == states[starting] == ("SCHEDULED", "Interrupted")
    assert states[living] == ("RUNNING", "Running")


def test_deployments_of_others_are_left_alone(served: dict[str, UUID], signs: Path) -> None:
    theirs = ask_for(served["retrain"], Running())
    assert mended([served["watch"]], signs) == Mended((), ())
    assert {str(run.id): run.state_name for run in runs_of(served["retrain"])} == {theirs: "Running"}


def test_a_run_that_waits_comes_again_once(
    served: dict[str, UUID], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", str(served["retrain"]))
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", "the-same-run")
    asked = {"root": str(root), "model": "models/v2", "force": False}
    assert come_again(asked).startswith("tries again at ")
    come_again(asked)
    (again,) = runs_of(served["retrain"])
    assert again.parameters == asked
    assert again.expected_start_time > datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=4)


def test_the_automation_for_alerts_is_offered_once_and_left_as_people_changed_it() -> None:
    name = f"tiny/{uuid4().hex}"

    async def go() -> tuple[bool, bool, list[Automation]]:
        async with get_client() as client:
            first = await offer_alerts(client, name)
            second = await offer_alerts(client, name)
            return first, second, await client.read_automations_by_name(automation_name(name))

    first, second, (made,) = asyncio.run(go())
    assert (first, second) == (True, False)
    assert isinstance(made.trigger, EventTrigger)
    assert made.trigger.expect == set(ALERTS)


def test_a_run_by_hand_is_not_scheduled() -> None:
    assert come_again({}) == "run the same command again later"


def test_signs_of_life_end_with_the_block_and_with_nothing_else(tmp_path: Path) -> None:
    with alive(tmp_path, "run"):
        assert lives(tmp_path, "run")
        with alive(tmp_path, "run"):
            assert lives(tmp_path, "run")
        assert lives(tmp_path, "run"), "the inner block was not the holder"
    assert not lives(tmp_path, "run")
    (tmp_path / "left by a kill").touch()
    assert not lives(tmp_path, "left by a kill")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_held_once(tmp_path: Path) -> None:
    with held(tmp_path / "file") as first, held(tmp_path / "file") as second:
        assert (first, second) == (True, False)


def test_a_checkout_is_served_once(root: Path) -> None:
    data = service_data(Settings.from_environment(root, {}))
    with _only_service(data), pytest.raises(LostRace, match="another service"), _only_service(data):
        pass
    with _only_service(data):
        pass


def test_a_server_that_is_not_there_is_told_of_nothing() -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    nobody = temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"})
    with nobody, pytest.raises(SchedulerUnreachable, match=r"saeops\.drift"):
        emit("saeops.drift", "tiny/site", key="one", payload={})
