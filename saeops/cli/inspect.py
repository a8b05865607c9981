"""Inspect: the trusted features of a text, token by token."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeops.cli.app import HELP, app
from saeops.cli.options import Json, Profile, Root, Set, chosen_params, open_services
from saeops.cli.show import say_json

if TYPE_CHECKING:
    from rich.table import Table

    from saeops.dictionary.inspect import Inspected, InspectedToken


@app.command(rich_help_panel=HELP)
def inspect(
    text: Annotated[str, typer.Argument(help="What the model reads.")],
    dictionary: Annotated[
        str | None,
        typer.Option(help="NAME@previous, a digest, a bundle's folder; the champion of params.name otherwise."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page that shows it.")] = None,
    top: Annotated[int, typer.Option(min=1, help="The strongest features a token; the page holds all.")] = 3,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Trusted from here on; as its own promote.trusted_confidence says otherwise."
        ),
    ] = None,
    root: Root = Path(),
    profile: Profile = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """The champion's trusted features on each token of a text, and how much fires beside them."""
    services, params = open_services(root, quiet=as_json), chosen_params(root, profile, overrides)
    found = services.inspect(params, text, reference=dictionary, min_confidence=min_confidence)
    if html is not None:
        from saeops.files import write_atomic
        from saeops.report.inspected import render

        write_atomic(html, render(found).encode())
    if as_json:
        say_json(found.to_json(top=top))
        return
    _say(found, top=top)
    if html is not None:
        typer.echo(f"page: {html}")


def _say(found: "Inspected", *, top: int) -> None:
    import sys

    from rich.console import Console

    # A pipe has no width of its own.
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    console.print(f"{found.name}  {found.digest[:12]}  ·  trusted: confidence at least {found.min_confidence:g}\n")
    console.print(_table(found, top=top))
    console.print(f"\n{found.long_tail()}")


def _table(found: "Inspected", *, top: int) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("token", no_wrap=True, overflow="ellipsis", max_width=24)
    for title in ("activation", "of its max", "confidence", "latent"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("label")
    for token in found.tokens:
        for row in _rows(token, top=top):
            # As Text: a label or a token may look like markup.
            style = "" if row[1] else "dim"
            table.add_row(*(Text(cell, style=style) for cell in row))
    return table


def _rows(token: "InspectedToken", *, top: int) -> list[tuple[str, str, str, str, str, str]]:
    from saeops.dictionary.inspect import MASKED
    from saeops.report.numbers import number, share
    from saeops.report.tokens import visible

    text = visible(token.text)
    if token.masked is not None:
        return [(text, "", "", "", "", f"masked: {MASKED[token.masked]}")]
    if not token.features:
        return [(text, "", "", "", "", f"nothing trusted; {token.fired:,} latents fire")]
    rows = [
        (
            "" if at else text,
            number(active.activation),
            share(active.share),
            f"{active.feature.confidence:.2f}",
            str(active.feature.latent),
            active.feature.label,
        )
        for at, active in enumerate(token.features[:top])
    ]
    hidden = len(token.features) - top
    return [*rows, ("", "", "", "", "", f"and {hidden:,} more trusted")] if hidden > 0 else rows
