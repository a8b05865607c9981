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

Model = Annotated[str | None, typer.Option(help="A model reference, as params.yaml takes it in model.ref.")]

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
        "the same command goes on from what is finished.\n\n"
        "[bold]serve[/] runs [bold]watch[/], [bold]audit[/] and [bold]retrain[/] by schedule and by event: when "
        "the model changes, the dictionary is audited on it, and retrained if it drifts."
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


@app.command()
def audit(root: Root = Path(), model: Model = None) -> None:
    """Audit the champion on a model, or, without one, as the policy wants; alert people of what is found."""

    def start() -> "State[Any]":
        from flows.audit import audit

        return audit(root, model, return_state=True)

    _run(root, start, summary=False)


@app.command()
def retrain(
    root: Root = Path(),
    model: Model = None,
    force: Annotated[bool, typer.Option("--force", help="Retrain whatever the audit says.")] = False,
) -> None:
    """Do what the policy wants about a model that changed: audit, retrain, promote or wait.

    One retrain of a dictionary runs at a time; another one says who is at work. Killed
    anywhere, the same command goes on from what is finished.
    """

    def start() -> "State[Any]":
        from flows.retrain import retrain

        return retrain(root, model, force, return_state=True)

    _run(root, start, summary=False)


@app.command()
def watch(root: Root = Path()) -> None:
    """Look once for new model versions, finished reviews and incidents, and tell Prefect's server of each.

    `serve` does this by itself, and acts on what is told. `saeops watch` does it without Prefect.
    """

    def start() -> "State[Any]":
        from flows.watch import watch

        return watch(root, return_state=True)

    _run(root, start, summary=False)


@app.command()
def serve(root: Root = Path()) -> None:
    """Watch, audit, retrain and promote by themselves, until Ctrl-C.

    Deploys [bold]watch[/], [bold]audit[/] and [bold]retrain[/] on the schedules of params.yaml (section
    `serve`), retrain and [bold]promote[/] on the events that watch tells of, and [bold]rollback[/] for you to
    start. With PREFECT_API_URL they go to that server; else one starts here, with its pages, and ends with this.

    Stopped, killed or crashed, it goes on where it was when it is started again. Of schedules that were missed
    meanwhile, one run makes up for all.
    """
    from flows.serve import serve

    load_params(root)
    serve(root)


def _run(root: Path, start: "Callable[[], State[Any]]", *, summary: bool = True) -> None:
    """Run a flow beside its server; a failed one ends with its error and that error's exit code."""
    with work_is_kept(), local_api(Settings.from_environment(root).var / "prefect"):
        state = start()
        outcome: Any = state.result(raise_on_failure=False)
    if isinstance(outcome, BaseException) and not isinstance(outcome, GateRefused):
        raise outcome
    if summary:
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
