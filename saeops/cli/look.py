"""Look and check: the params in force, and what is installed and reachable."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from saeops.cli.app import HELP, app
from saeops.cli.options import Json, Profile, Root, Set, chosen_params, open_services
from saeops.cli.show import say_json, say_table


@app.command(rich_help_panel=HELP)
def params(root: Root = Path(), profile: Profile = None, overrides: Set = None, as_json: Json = False) -> None:
    """Print the params in force, every default included, with what each of them means."""
    chosen = chosen_params(root, profile, overrides)
    if as_json:
        say_json(chosen.model_dump(mode="json"))
        return
    for path, value, meaning in described(chosen):
        typer.echo(f"{path + ': ' + json.dumps(value, default=str):<58} # {meaning}")


def described(section: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Each param as (dotted path, value, what it means)."""
    from pydantic import BaseModel

    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from described(value, f"{prefix}{name}.")
        else:
            plain = section.model_dump(mode="json", include={name})[name]
            yield f"{prefix}{name}", plain, field.description or ""


@app.command(rich_help_panel=HELP)
def doctor(root: Root = Path(), as_json: Json = False) -> None:
    """Say what is installed, reachable and writable, and what to do about what is not."""
    from saeops.doctor import examine

    checks = examine(open_services(root, quiet=True))
    if as_json:
        say_json([dict(check.__dict__) for check in checks])
    else:
        marks = {"ok": "[green]ok[/]", "missing": "[yellow]missing[/]", "broken": "[red]broken[/]"}
        say_table(
            ["", "what", "found", "what to do"],
            [[marks[check.state], check.what, check.found, check.fix] for check in checks],
        )
    if any(check.state == "broken" for check in checks):
        raise typer.Exit(6)
