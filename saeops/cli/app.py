"""The program: its name, its groups, and what happens to an error at the edge."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from saeops.cli.show import say_json
from saeops.errors import SaeopsError

app = typer.Typer(
    name="saeops",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=(
        "Operate sparse-autoencoder feature dictionaries.\n\n"
        "[bold]Stages[/]: harvest → train → diagnose → label → bench → bundle. "
        "[bold]Registry[/]: promote, rollback, status, history, verify. "
        "The whole pipeline at once: [bold]make run[/], or [bold]python -m flows build[/]."
    ),
    epilog=(
        "Exit codes: 0 done · 2 usage · 3 gate refused · 4 lost the race · 5 integrity · "
        "6 something outside does not answer."
    ),
)
STAGES, FOREIGN, PEOPLE, REGISTRY, HELP = "Stages", "Other libraries", "People", "Registry", "Look and check"
DRIFT = "When the model changes"

review_app = typer.Typer(no_args_is_help=True, help="What people look at before a promotion.")
app.add_typer(review_app, name="review", rich_help_panel=PEOPLE)


@contextmanager
def one_clear_error() -> Iterator[None]:
    """At the edge, a named error becomes a line for people (or JSON for machines) and an exit code."""
    try:
        yield
    except SaeopsError as error:
        if "--json" in sys.argv:
            kind = type(error).__name__
            say_json({"error": kind, "message": error.message, "hint": error.hint})
        from rich.console import Console

        console = Console(stderr=True, highlight=False)
        console.print(f"[bold red]error[/] ({type(error).__name__}): ", end="")
        console.print(str(error), markup=False, soft_wrap=True)
        raise SystemExit(error.exit_code) from None


@contextmanager
def work_is_kept() -> Iterator[None]:
    """Say, when a person interrupts a stage, that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; finished work is kept, run the same command again to go on\n")
        raise SystemExit(130) from None
