"""The verbs: what people type and what dvc.yaml calls. No Prefect, no servers needed.

Exit codes: 0 done, 1 bug or interrupted, 2 usage, 3 gate refused, 4 lost the
race, 5 integrity, 6 something outside does not answer.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from saeops.errors import SaeopsError
from saeops.params import Params, choose_selection, load_params, write_selection

if TYPE_CHECKING:
    from saeops.services import Services

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
STAGES, REGISTRY, HELP = "Stages", "Registry", "Look and check"

Root = Annotated[Path, typer.Option(help="The checkout: where params.yaml lies.", envvar="SAEOPS_ROOT")]
Profile = Annotated[
    str | None, typer.Option(help="Overlay from profiles/, remembered in profile.yaml.")
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Override one value, e.g. train.k=64.")
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


def say_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def say_ref(kind: str, digest: str, path: Path, *, as_json: bool) -> None:
    if as_json:
        say_json({"kind": kind, "digest": digest, "path": str(path)})
    else:
        typer.echo(f"{kind} {digest[:16]} in {path}")


def _run_stage(
    name: str, root: Path, profile: str | None, overrides: Sequence[str] | None, *, as_json: bool
) -> None:
    params = remembered_params(root, profile, overrides)
    ref = getattr(open_services(root, quiet=as_json), name)(params)
    say_ref(ref.kind, ref.digest, ref.path, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def harvest(
    root: Root = Path(), profile: Profile = None, overrides: Set = None, as_json: Json = False
) -> None:
    """Read the corpus with the model and keep its activations, in artifacts/activations."""
    _run_stage("harvest", root, profile, overrides, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def train(
    root: Root = Path(), profile: Profile = None, overrides: Set = None, as_json: Json = False
) -> None:
    """Train the sparse autoencoder, in artifacts/sae. Killed, it goes on from its last checkpoint."""
    _run_stage("train", root, profile, overrides, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def diagnose(
    root: Root = Path(), profile: Profile = None, overrides: Set = None, as_json: Json = False
) -> None:
    """Measure it on held-out documents and catalog what its latents fire on."""
    from saeops.metrics import read_metrics

    params = remembered_params(root, profile, overrides)
    made = open_services(root, quiet=as_json).diagnose(params)
    metrics = read_metrics(made.diagnostics.path / "metrics.json")
    if as_json:
        say_json(
            {
                "diagnostics": made.diagnostics.digest,
                "catalog": made.catalog.digest,
                "metrics": {name: interval.to_json() for name, interval in metrics.items()},
            }
        )
        return
    _table(["metric", "value, interval and sample size"], [[name, str(i)] for name, i in metrics.items()])


@app.command(rich_help_panel=STAGES)
def label(
    root: Root = Path(), profile: Profile = None, overrides: Set = None, as_json: Json = False
) -> None:
    """Label latents and score each label on documents that explained nothing."""
    _run_stage("label", root, profile, overrides, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def bench(
    root: Root = Path(), profile: Profile = None, overrides: Set = None, as_json: Json = False
) -> None:
    """Ablate and steer with latents, beside equal-norm random directions."""
    _run_stage("bench", root, profile, overrides, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def bundle(
    root: Root = Path(), profile: Profile = None, overrides: Set = None, as_json: Json = False
) -> None:
    """Put everything into one immutable folder named by its sha256, in artifacts/bundle."""
    _run_stage("bundle", root, profile, overrides, as_json=as_json)


@app.command(rich_help_panel=HELP)
def params(
    root: Root = Path(), profile: Profile = None, overrides: Set = None, as_json: Json = False
) -> None:
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
        _table(
            ["", "what", "found", "what to do"],
            [[marks[check.state], check.what, check.found, check.fix] for check in checks],
        )
    if any(check.state == "broken" for check in checks):
        raise typer.Exit(6)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    Console(soft_wrap=False).print(table, highlight=False)


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
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; finished work is kept, run the same command again to go on\n")
        raise SystemExit(130) from None


def main() -> NoReturn:
    """The `saeops` program."""
    with one_clear_error():
        app()
    raise SystemExit(0)


if __name__ == "__main__":
    main()
