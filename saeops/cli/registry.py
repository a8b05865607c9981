"""Champions: promote, roll back, and what the registry says."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeops.cli.app import REGISTRY, app
from saeops.cli.drift import standing, state_facts, state_json
from saeops.cli.options import Json, Name, Reason, Root, Version, open_services
from saeops.cli.show import say_facts, say_json, say_table
from saeops.errors import TrackerUnreachable
from saeops.params import load_params

NO_RECIPE = "impossible: no recipe was kept, its code or data were only where it was built"

if TYPE_CHECKING:
    from saeops.services import Services
    from saeops.stages.walk import Moved


@app.command(rich_help_panel=REGISTRY)
def promote(
    root: Root = Path(),
    force: Annotated[bool, typer.Option("--force", help="Whatever the verdict; needs --reason.")] = False,
    reason: Annotated[str, typer.Option(help="Why; the journal keeps it.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Judge the built bundle with the decisions on it, and make it champion if it passes."""
    services = open_services(root, quiet=as_json)
    moved = services.promote(load_params(root), force=force, reason=reason, dry_run=dry_run)
    _say_moved(moved, dry_run=dry_run, as_json=as_json)


@app.command(rich_help_panel=REGISTRY)
def rollback(
    name: Name,
    to: Annotated[str, typer.Option(help="`previous`, a journal sequence number, or a digest.")] = "previous",
    reason: Annotated[str, typer.Option(help="What went wrong; the journal keeps it.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Go back to an earlier champion. Needs the store alone: neither Prefect nor MLflow."""
    services = open_services(root, quiet=as_json)
    moved = services.rollback(name, to=to, reason=reason, dry_run=dry_run)
    _say_moved(moved, dry_run=dry_run, as_json=as_json)
    if services.settings.tracking != "none" and not as_json and not dry_run:
        typer.echo(f"MLflow is not told by a rollback: saeops reconcile {name}, when it is up")


def _say_moved(moved: "Moved", *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        say_json({**moved.plan.to_json(), "dry_run": dry_run, "projection_problem": moved.projection_problem})
        return
    plan = moved.plan
    if plan.unchanged:
        typer.echo(f"nothing changes: {plan.unchanged}")
        if plan.changes:
            typer.echo("but what was left open would be settled:")
        for change in plan.changes:
            typer.echo(f"  {change}")
        return
    typer.echo("would change:" if dry_run else f"{plan.name}: {plan.to_digest[:12]} is champion")
    for change in plan.changes:
        typer.echo(f"  {change}")
    if moved.projection_problem:
        typer.echo(f"MLflow was not updated: {moved.projection_problem}\n  → saeops reconcile {plan.name}")


@app.command(rich_help_panel=REGISTRY)
def status(
    name: Annotated[str | None, typer.Argument(help="A dictionary's name; none shows all.")] = None,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Ask MLflow whether its copy is up to date.")] = False,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Who is champion, since when, by what right; the state, and what to do next."""
    from saeops.stages import registry

    services = open_services(root, quiet=as_json)
    store = services.store
    found = [registry.status(store, each) for each in ([name] if name else registry.names(store))]
    stands = {each.name: standing(services, each.name) for each in found}
    copies = {each.name: _copy(services, each.name) for each in found if mlflow}
    if as_json:
        rows = [{**each.to_json(), "standing": state_json(stands[each.name])} for each in found]
        say_json([{**row, "mlflow": copies.get(row["name"])} for row in rows])
        return
    if not found:
        typer.echo("nothing was promoted yet: saeops promote")
    for each in found:
        typer.echo(f"{each.name}")
        say_facts(
            {
                "champion": each.champion,
                "since": f"{each.since}, by {each.action} {each.sequence} of {each.who}",
                "reason": each.reason,
                "FORCED": f"against its verdict: {each.forced_reason}" if each.forced else "",
                "previous": each.previous or "none",
                **state_facts(stands[each.name]),
                "commit": each.git_commit or "",
                "restore": f"saeops checkout {each.name}@{each.sequence}" if each.recoverable else NO_RECIPE,
                "pinned": "; ".join(f"{digest[:12]}: {why}" for digest, why in each.pinned.items()),
                "unfinished": "; ".join(each.open_intent),
                "MLflow": copies.get(each.name, ""),
            }
        )


def _copy(services: "Services", name: str) -> str:
    """How MLflow's copy of a name stands to the store, in words."""
    try:
        found = services.reconcile(name, dry_run=True)
    except TrackerUnreachable as error:
        return f"does not answer: {error.message}"
    if not found.kept:
        return "switched off"
    behind = len(found.repairs)
    return f"behind: {behind} to repair; saeops reconcile {name}" if behind else "up to date"


@app.command(rich_help_panel=REGISTRY)
def history(
    name: Name,
    verify: Annotated[bool, typer.Option("--verify", help="Check the chain and every verdict.")] = False,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """The journal: every promotion and rollback, oldest first."""
    from saeops.stages import registry

    rows = registry.history(open_services(root, quiet=as_json).store, name, verify=verify)
    if as_json:
        say_json([row.to_json() for row in rows])
        return
    say_table(
        ["seq", "when", "who", "what", "outcome", "from", "to", "reason"],
        [
            [
                str(row.sequence),
                row.at,
                row.who,
                f"{row.action} (FORCED)" if row.forced else row.action,
                row.outcome,
                (row.from_digest or "-")[:12],
                row.to_digest[:12],
                row.reason or row.note,
            ]
            for row in rows
        ],
    )
    if verify:
        typer.echo(f"the chain of {len(rows)} entries holds")


@app.command(rich_help_panel=REGISTRY)
def verify(
    reference: Annotated[str, typer.Argument(help="A name, NAME@VERSION, or a digest.")],
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Read every byte of a bundle in the store."""
    from saeops.stages import registry

    found = registry.verify(open_services(root, quiet=as_json).store, reference)
    if as_json:
        say_json(found.to_json())
    else:
        typer.echo(f"{found.digest}: {found.files} files, {found.bytes:,} bytes, all as sealed")


@app.command(rich_help_panel=REGISTRY)
def pin(name: Name, version: Version, reason: Reason, root: Root = Path(), as_json: Json = False) -> None:
    """Keep a version from being promoted or rolled back to."""
    from saeops.stages import registry

    services = open_services(root, quiet=as_json)
    digest = registry.pin(services.store, name, version, author=services.author(), reason=reason)
    _say_digest(f"pinned under {name}", digest, as_json=as_json)


@app.command(rich_help_panel=REGISTRY)
def unpin(name: Name, version: Version, root: Root = Path(), as_json: Json = False) -> None:
    """Allow a pinned version again."""
    from saeops.stages import registry

    services = open_services(root, quiet=as_json)
    digest = registry.unpin(services.registry, name, version, author=services.author())
    _say_digest(f"free under {name}", digest, as_json=as_json)


@app.command(rich_help_panel=REGISTRY)
def reconcile(
    name: Name,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what differs, and change nothing.")] = False,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Make MLflow's versions, aliases and tags tell what the store says, and say what was repaired."""
    found = open_services(root, quiet=as_json).reconcile(name, dry_run=dry_run)
    if as_json:
        say_json({**found.to_json(), "dry_run": dry_run})
        return
    if not found.kept:
        typer.echo("nothing to repair: SAEOPS_TRACKING is none, so no copy is kept")
        return
    if dry_run and found.repairs:
        typer.echo("would repair:")
    for line in found.repairs or ["nothing to repair"]:
        typer.echo(f"  {line}" if dry_run and found.repairs else str(line))
    for line in found.left:
        typer.echo(f"left as it is: {line}")


def _say_digest(what: str, digest: str, *, as_json: bool) -> None:
    if as_json:
        say_json({"digest": digest, "done": what})
    else:
        typer.echo(f"{digest[:12]} {what}")
