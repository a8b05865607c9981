"""Retention: remove the bundles that nothing keeps."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeops.cli.app import REGISTRY, app
from saeops.cli.options import Json, Root, open_services
from saeops.cli.show import say_json, say_table
from saeops.errors import UsageError
from saeops.promotion.retention import KEEP

if TYPE_CHECKING:
    from saeops.promotion.retention import Victim
    from saeops.stages.gc import Collected, Collection


@app.command(rich_help_panel=REGISTRY)
def gc(
    name: Annotated[str | None, typer.Argument(help="A dictionary's name.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every name, and uploads that no journal names.")] = False,
    keep: Annotated[int, typer.Option(help="How many of the newest champions stay.")] = KEEP,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Remove old bundles from the store; champion, previous, pinned and open ones stay."""
    from saeops.stages import gc

    if (name is None) != every:
        raise UsageError("gc works on one name or on all", hint="saeops gc NAME, or saeops gc --all")
    services = open_services(root, quiet=as_json)
    collection = gc.plan(services.store, name, keep=keep)
    if not as_json:
        _say_plan(collection, dry_run=dry_run)
    if dry_run or not collection.victims:
        if as_json:
            say_json(collection.to_json())
        return
    if not yes:
        _ask(len(collection.victims), as_json=as_json)
    done = gc.run(services.registry, collection, services.author())
    if as_json:
        say_json(done.to_json())
    else:
        _say_done(done)


def _ask(count: int, *, as_json: bool) -> None:
    if as_json or not sys.stdin.isatty():
        raise UsageError("nobody is there to ask", hint="look with --dry-run, then add --yes")
    typer.confirm(f"remove {count} bundle{'s' if count > 1 else ''} for good?", abort=True)


def _say_plan(collection: "Collection", *, dry_run: bool) -> None:
    if not collection.victims:
        typer.echo(f"nothing to remove: {len(collection.kept)} bundles, all kept")
        return
    typer.echo("would remove:" if dry_run else "to remove:")
    say_table(
        ["digest", "name", "files", "bytes", "why nothing keeps it"],
        [[v.digest[:12], v.name or "-", str(v.files), f"{v.bytes:,}", v.why] for v in collection.victims],
    )
    typer.echo(f"{_total(collection.victims)}; kept:")
    say_table(["digest", "name", "why"], [[k.digest[:12], k.name, k.why] for k in collection.kept])


def _say_done(done: "Collected") -> None:
    for victim, why in done.spared:
        typer.echo(f"{victim.digest[:12]} stays after all: {why}")
    typer.echo(f"removed {_total(done.removed)}")


def _total(victims: "Sequence[Victim]") -> str:
    count = len(victims)
    return f"{count} bundle{'' if count == 1 else 's'}, {sum(v.bytes for v in victims):,} bytes"
