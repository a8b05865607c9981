"""Retention: remove the bundles that no journal names."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeops.cli.app import REGISTRY, app
from saeops.cli.options import Json, Root, open_services
from saeops.cli.show import say_json, say_table
from saeops.errors import UsageError

if TYPE_CHECKING:
    from saeops.promotion.retention import Victim
    from saeops.stages.gc import Collected, Collection, Kept


@app.command(rich_help_panel=REGISTRY)
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Remove bundles that no journal names: uploads cut off, promotions given up. Whatever was promoted stays."""
    from saeops.stages import gc

    services = open_services(root, quiet=as_json)
    collection = gc.plan(services.store)
    if dry_run or collection.idle:
        if as_json:
            say_json(collection.to_json())
        else:
            _say_plan(collection, "would remove:")
        return
    if as_json:
        # What goes is shown before it goes; what went is the answer.
        sys.stderr.write(json.dumps(collection.to_json()) + "\n")
    else:
        _say_plan(collection, "to remove:")
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
    typer.confirm(f"remove {count} bundle{'' if count == 1 else 's'} for good?", abort=True)


def _say_plan(collection: "Collection", head: str) -> None:
    if collection.idle:
        typer.echo(f"nothing to remove: {len(collection.kept)} bundles, all kept")
        return
    if collection.victims:
        typer.echo(head)
        say_table(
            ["digest", "name", "files", "bytes", "why nothing keeps it"],
            [[v.digest[:12], v.name or "-", str(v.files), f"{v.bytes:,}", v.why] for v in collection.victims],
        )
    typer.echo(f"{_total(collection.victims)}; kept:")
    say_table(["digest", "name", "why"], [[k.digest[:12], k.name, _why(k)] for k in collection.kept])


def _why(each: "Kept") -> str:
    return f"{each.why}; the mark of a removal that was cut off is taken back" if each.marked else each.why


def _say_done(done: "Collected") -> None:
    for victim, why in done.spared:
        typer.echo(f"{victim.digest[:12]} stays after all: {why}")
    typer.echo(f"removed {_total(done.removed)}")


def _total(victims: "Sequence[Victim]") -> str:
    count = len(victims)
    return f"{count} bundle{'' if count == 1 else 's'}, {sum(v.bytes for v in victims):,} bytes"
