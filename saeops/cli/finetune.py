"""A new version of the model to try things out with."""

from pathlib import Path
from typing import Annotated

import typer

from saeops.cli.app import HELP, app
from saeops.cli.options import Json, Profile, Root, Set, chosen_params, open_services
from saeops.cli.show import say_json


@app.command("finetune-demo", rich_help_panel=HELP)
def finetune_demo(
    to: Annotated[Path, typer.Option(help="Where the new version goes; must not exist.")] = Path("var/models/v2"),
    kind: Annotated[str, typer.Option(help="Train on documents whose source contains this.")] = "scipy/",
    steps: Annotated[int, typer.Option(min=2, help="Of AdamW; about ten seconds each on two cores.")] = 24,
    lr: Annotated[float, typer.Option(min=0, help="Peak learning rate.")] = 1e-4,
    root: Root = Path(),
    profile: Profile = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Fine-tune the model briefly on one kind of text: a genuine new version, to audit and retrain on.

    Documents that were harvested are left out, so that what is held out stays so. Then
    `saeops audit NAME --model FOLDER` says what the new version means for the champion.
    """
    params = chosen_params(root, profile, overrides)
    made = open_services(root, quiet=as_json).finetune_demo(params, to, kind=kind, steps=steps, lr=lr)
    if as_json:
        say_json(made.to_json())
        return
    typer.echo(f"new version: {made.path}, trained on {made.tokens:,} tokens of {made.documents} documents")
    typer.echo(f"cross-entropy on held-out documents of this kind: {made.before} before, {made.after} after")
    typer.echo(f"change: {made.difference} nats a token")
