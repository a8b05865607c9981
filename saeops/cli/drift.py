"""When the model changes: look for new versions, alert people, tell Prometheus."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saeops.cli.app import DRIFT, app
from saeops.cli.options import Json, Root, open_services
from saeops.cli.show import say_json
from saeops.errors import AlertUndelivered, IntegrityError
from saeops.params import load_params

if TYPE_CHECKING:
    from saeops.drift.policy.machine import Situation, Spell
    from saeops.services import Services

SPELLS_SHOWN = 4
_UNITS = (("d", 86400), ("h", 3600), ("min", 60))


@app.command(rich_help_panel=DRIFT)
def watch(root: Root = Path(), as_json: Json = False) -> None:
    """Look once at every model source of `retrain.sources`, and record new versions."""
    from saeops.stages.watch import describe

    params = load_params(root)
    looked = open_services(root, quiet=as_json).watch(params)
    if as_json:
        say_json([{"found": type(each).__name__, **asdict(each)} for each in looked])
        return
    for line in [describe(each) for each in looked] or [
        "nothing to watch: retrain.sources is empty in params.yaml"
    ]:
        typer.echo(line)


@app.command(rich_help_panel=DRIFT)
def alerts(root: Root = Path(), as_json: Json = False) -> None:
    """Bring incidents up to date, and post those that are new to SAEOPS_ALERTS_WEBHOOK."""
    params, services = load_params(root), open_services(root, quiet=as_json)
    done = services.alert(params)
    if as_json:
        say_json([incident.model_dump(mode="json") for incident in services.incidents(params.name)])
    else:
        for incident in services.incidents(params.name):
            told = f", told: {', '.join(sorted(incident.sent))}" if incident.sent else ""
            end = f"resolved {incident.resolved}" if incident.resolved else f"open{told}"
            typer.echo(f"{incident.opened}  {incident.kind}: {incident.message} ({end})")
    if done.undelivered:
        channel, incident, why = done.undelivered[0]
        raise AlertUndelivered(
            f"{incident.kind} was not told to {channel}: {why}", hint="`saeops alerts` tries again"
        )


@app.command(rich_help_panel=DRIFT)
def metrics(
    names: Annotated[list[str] | None, typer.Argument(help="Dictionaries' names; none takes all.")] = None,
    port: Annotated[int | None, typer.Option("--serve", help="Serve them on this port instead.")] = None,
    root: Root = Path(),
) -> None:
    """Champions, audits, drift, gates, review and state as Prometheus gauges."""
    from saeops.monitor import gauges

    services = open_services(root, quiet=True)
    if port is None:
        typer.echo(gauges.exposition(lambda: services.gauges(names)), nl=False)
        return
    _, thread = gauges.serve(lambda: services.gauges(names), port)
    typer.echo(f"http://127.0.0.1:{port}/metrics until you stop it", err=True)
    thread.join()


def standing(services: "Services", name: str) -> "Situation | IntegrityError":
    """Where a name stands; a damaged record must not hide who is champion."""
    try:
        return services.situation(name)
    except IntegrityError as error:
        return error


def state_facts(found: "Situation | IntegrityError") -> Mapping[str, str]:
    """State, reason and history of a name, for `saeops status`."""
    if isinstance(found, IntegrityError):
        return {"state": f"not known: {found.message}", "next": found.hint}
    spell = found.spells[-1]
    before = found.spells[-1 - SPELLS_SHOWN : -1]
    return {
        "state": f"{spell.state}, for {_lasted(spell)}, since {spell.since.isoformat(timespec='seconds')}",
        "why": found.finding.why,
        "next": found.finding.next,
        "before": ", ".join(f"{each.state} {_lasted(each)}" for each in before),
    }


def state_json(found: "Situation | IntegrityError") -> Mapping[str, Any]:
    return {"problem": found.message} if isinstance(found, IntegrityError) else found.to_json()


def _lasted(spell: "Spell") -> str:
    seconds = (spell.until - spell.since).total_seconds()
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"
