"""`python -m flows`: the pipeline as one command. Exit codes are those of `saeops` (see saeops/errors.py)."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.server import local_api
from saeops.cli import one_clear_error
from saeops.cli.app import work_is_kept
from saeops.cli.options import Profile, Root, Set
from saeops.errors import GateRefused
from saeops.params import choose_selection, load_params
from saeops.settings import Settings

if TYPE_CHECKING:
    from prefect import State

app = typer.Typer(
    name="python -m flows",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=(
        "The pipeline as one command, orchestrated by Prefect.\n\n"
        "[bold]build[/] goes from documents to a judged candidate. Where people must review labels "
        "first, it ends waiting and says what to type; [bold]promote[/] goes on from there. Killed anywhere, "
        "the same command goes on from what is finished."
    ),
    epilog=(
        "Prefect: PREFECT_API_URL is used where it is set; else a server starts here and ends with the flow. "
        "Exit codes: 0 done, or waiting for review · 2 usage · 3 gate refused · 4 lost the race · 5 integrity · "
        "6 something outside does not answer."
    ),
)


@app.command()
def build(root: Root = Path(), profile: Profile = None, overrides: Set = None) -> None:
    """Harvest, train, diagnose, label, bench, bundle, version, judge; promote, or wait for review."""

    def start() -> "State[Any]":
        from flows.build import build

        return build(root, selection, return_state=True)

    selection = choose_selection(root, profile, overrides)
    # Faults in params are told before anything starts.
    load_params(root, selection)
    _run(root, start)


@app.command()
def promote(
    root: Root = Path(),
    force: Annotated[bool, typer.Option("--force", help="Whatever the verdict; needs --reason.")] = False,
    reason: Annotated[str, typer.Option(help="Why; the journal keeps it.")] = "",
) -> None:
    """Go on from a built candidate: judge it with its reviews, and make it champion."""

    def start() -> "State[Any]":
        from flows.promote import promote

        return promote(root, force, reason, return_state=True)

    _run(root, start)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="The dictionary's name, e.g. smollm2-135m/blocks.10.resid_post.")],
    reason: Annotated[str, typer.Option(help="Why; the journal keeps it.")],
    to: Annotated[str, typer.Option(help="`previous`, a journal sequence number, or a digest.")] = "previous",
    root: Root = Path(),
) -> None:
    """Go back to an earlier champion. `saeops rollback` does the same without Prefect."""

    def start() -> "State[Any]":
        from flows.rollback import rollback

        return rollback(name, reason, to, root, return_state=True)

    _run(root, start)


def _run(root: Path, start: "Callable[[], State[Any]]") -> None:
    """Run a flow beside its server; a failed one ends with its error and that error's exit code."""
    with work_is_kept(), local_api(Settings.from_environment(root).var / "prefect"):
        state = start()
        outcome: Any = state.result(raise_on_failure=False)
    if isinstance(outcome, BaseException) and not isinstance(outcome, GateRefused):
        raise outcome
    _show_summary(root)
    if isinstance(outcome, GateRefused):
        raise outcome
    typer.echo(f"{state.name}: {state.message}")


def _show_summary(root: Path) -> None:
    from rich.console import Console

    from flows.work import services_of

    # A log has no width of its own.
    Console(width=None if sys.stdout.isatty() else 100).print(services_of(root).summary(load_params(root)))


if __name__ == "__main__":
    with one_clear_error():
        app(prog_name="python -m flows")
