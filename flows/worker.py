"""The service's worker: deploys, mends what an interruption left, and runs what is due.

`flows/serve.py` starts this file as a program and holds a pipe to it. When that
process ends, SIGKILL included, the kernel closes the pipe, and the worker ends
itself with every run that it started.
"""

import asyncio
import datetime
import os
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from flows.alerts import offer_alerts
from flows.alive import lives
from flows.deployments import Deployed, deployments
from flows.work import signs_of_life
from saeops.cli import one_clear_error
from saeops.params import load_params
from saeops.settings import Settings

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, StateType

PAGE = 200


@dataclass(frozen=True)
class Mended:
    """What an interruption left, by flow run id."""

    interrupted: tuple[str, ...]
    """Said to run, but no process does: scheduled again, under the same id."""
    missed: tuple[str, ...]
    """Fell due while nobody worked, and a newer one of the same deployment did too: cancelled."""


async def mend(client: "PrefectClient", served: Collection[UUID], signs: Path) -> Mended:
    """Bring the server's word in line with what lives.

    Runs that events or people asked for are never dropped.

    Args:
        served: ids of the deployments that nobody else works for.
        signs: where runs hold their signs of life.
    """
    from prefect.client.schemas.objects import State, StateType
    from prefect.states import Cancelled, Scheduled

    interrupted, missed = [], []
    for run in await _runs(client, served, (StateType.RUNNING, StateType.PENDING)):
        if not lives(signs, str(run.id)):
            again: State[None] = Scheduled(name="Interrupted", message="its process ended; it goes on")
            await client.set_flow_run_state(run.id, again, force=True)
            interrupted.append(str(run.id))
    for run in _superseded(await _runs(client, served, (StateType.SCHEDULED,))):
        never: State[None] = Cancelled(name="Missed", message="a newer one makes up for it")
        await client.set_flow_run_state(run.id, never, force=True)
        missed.append(str(run.id))
    return Mended(tuple(interrupted), tuple(missed))


def _superseded(runs: "Collection[FlowRun]") -> "list[FlowRun]":
    """Of the overdue runs that a schedule made, all but the newest of each deployment."""
    now = datetime.datetime.now(datetime.UTC)
    due: dict[UUID | None, list[tuple[datetime.datetime, FlowRun]]] = defaultdict(list)
    for run in runs:
        at = run.expected_start_time
        if run.auto_scheduled and run.run_count == 0 and at is not None and at < now:
            due[run.deployment_id].append((at, run))
    ordered = (sorted(group, key=lambda each: each[0]) for group in due.values())
    return [run for group in ordered for _, run in group[:-1]]


async def _runs(
    client: "PrefectClient", served: Collection[UUID], states: "Collection[StateType]"
) -> "list[FlowRun]":
    from prefect.client.schemas import filters

    wanted = filters.FlowRunFilter(
        deployment_id=filters.FlowRunFilterDeploymentId(any_=list(served)),
        state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=list(states))),
    )
    found: list[FlowRun] = []
    while page := await client.read_flow_runs(flow_run_filter=wanted, limit=PAGE, offset=len(found)):
        found += page
    return found


async def work(settings: Settings, name: str, served: Collection[Deployed], *, leave: bool = False) -> None:
    """Deploy, mend, and run what is due until the process ends.

    Args:
        name: the dictionary's.
        leave: mend only, for a service that ends.
    """
    from prefect.client.orchestration import get_client
    from prefect.runner import Runner

    runner = Runner(name=f"saeops {os.uname().nodename}", pause_on_shutdown=False, limit=None)
    ids = {await runner.aadd_deployment(one.deployment): one for one in served}
    async with get_client() as client:
        mended = await mend(client, ids, signs_of_life(settings))
        if leave:
            return
        await offer_alerts(client, name)
    _say(mended)
    await _introduce(ids)
    await runner.start()


def _say(mended: Mended) -> None:
    if mended.interrupted:
        print(f"{len(mended.interrupted)} interrupted, going on: {', '.join(mended.interrupted)}", flush=True)
    if mended.missed:
        print(f"{len(mended.missed)} missed; of each deployment the newest makes up for them", flush=True)


async def _introduce(ids: Mapping[UUID, Deployed]) -> None:
    """Print what is deployed and when each fires next."""
    from prefect.server.schemas.schedules import CronSchedule
    from prefect.settings import PREFECT_API_URL

    address = str(PREFECT_API_URL.value())
    print(f"Prefect's server: {address.removesuffix('/api')} (PREFECT_API_URL={address})", flush=True)
    for one in ids.values():
        starts = [f"on {event}" for event in one.events]
        if one.cron:
            (at, *_) = await CronSchedule(cron=one.cron, timezone="UTC").get_dates(1)
            starts.insert(0, f"at {at:%Y-%m-%d %H:%M} UTC ({one.cron})")
        full = f"{one.deployment.flow_name}/{one.deployment.name}"
        print(f"  {full}: {'; '.join(starts) or f'by hand: prefect deployment run {full!r}'}", flush=True)
    print("Ctrl-C stops it; what runs goes on when it is started again", flush=True)


def _end_with_the_pipe() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main() -> None:
    """Work for the checkout named first; `--leave` only tells the server that nobody works."""
    threading.Thread(target=_end_with_the_pipe, daemon=True).start()
    with one_clear_error():
        settings = Settings.from_environment(Path(sys.argv[1]))
        # Outside of the event loop: inside of it, Prefect would hand out coroutines.
        params = load_params(settings.root)
        served = deployments(settings.root, params)
        asyncio.run(work(settings, params.name, served, leave="--leave" in sys.argv[2:]))


if __name__ == "__main__":
    main()
