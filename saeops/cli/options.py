"""Options that several verbs share, and what they choose."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeops.params import Params, choose_selection, load_params, write_selection

if TYPE_CHECKING:
    from saeops.services import Services

Root = Annotated[Path, typer.Option(help="The checkout: where params.yaml lies.", envvar="SAEOPS_ROOT")]
Profile = Annotated[str | None, typer.Option(help="Overlay from profiles/, remembered in profile.yaml.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Override one value, e.g. train.k=64.")
]
Name = Annotated[str, typer.Argument(help="The dictionary's name, e.g. smollm2-135m/blocks.10.resid_post.")]
Version = Annotated[str, typer.Argument(help="A journal sequence number, or (at least eight digits of) a digest.")]
Reason = Annotated[str, typer.Option(help="Why; whoever meets it will read it.")]
Activations = Annotated[
    list[Path] | None,
    typer.Option("--activations", help="Folder of a further activation set, of the other dictionary's model."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables for people.")]


def chosen_params(root: Path, profile: str | None, overrides: Sequence[str] | None) -> Params:
    """Params in force: the checkout's selection, unless the command line says otherwise."""
    return load_params(root, choose_selection(root, profile, overrides))


def remembered_params(root: Path, profile: str | None, overrides: Sequence[str] | None) -> Params:
    """`chosen_params`, and from now on the checkout is at this choice: the next stage must follow it."""
    selection = choose_selection(root, profile, overrides)
    params = load_params(root, selection)
    write_selection(root, selection)
    return params


def open_services(root: Path, *, quiet: bool = False) -> "Services":
    from saeops.services import Services
    from saeops.settings import Settings

    return Services(Settings.from_environment(root), quiet=quiet)
