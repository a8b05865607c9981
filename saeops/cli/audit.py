"""Audit: does the champion still hold on a new model?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from saeops.cli.app import HELP, app, work_is_kept
from saeops.cli.options import Json, Name, Profile, Root, Set, chosen_params, open_services
from saeops.cli.show import say_json, say_table

if TYPE_CHECKING:
    from rich.console import Console

    from saeops.drift.audit.record import AuditRecord

Model = Annotated[str, typer.Option("--model", help="The new model: as model.ref in params.yaml.")]
FailOn = Annotated[
    Literal["never", "drift", "warn"],
    typer.Option(
        help="End with exit code 3 from this outcome on; for CI. Without it, every finished audit is a 0."
    ),
]
COLOURS = {"ok": "green", "warn": "yellow", "drift": "red"}
FAILING = {"never": (), "drift": ("drift",), "warn": ("warn", "drift")}


@app.command(rich_help_panel=HELP)
def audit(
    name: Name,
    model: Model,
    fail_on: FailOn = "never",
    root: Root = Path(),
    profile: Profile = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """A name's champion on a new model, beside its own: what is kept, weakened, changed or lost; recorded."""
    params = chosen_params(root, profile, overrides)
    with work_is_kept():
        found = open_services(root, quiet=as_json).audit(params, name, model)
    if as_json:
        folder = found.folder.path
        say_json(
            {
                "record": found.record.model_dump(mode="json"),
                "key": found.key,
                "path": str(folder),
                "metrics": _json(folder / "metrics.json"),
                "nulls": _json(folder / "nulls.json"),
            }
        )
    else:
        _say(found.record, found.folder.path)
    if found.record.outcome in FAILING[fail_on]:
        raise typer.Exit(3)


def _json(path: Path) -> Any:
    import json

    return json.loads(path.read_bytes()) if path.exists() else {}


def _say(record: "AuditRecord", folder: Path) -> None:
    import sys

    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    colour = COLOURS[record.outcome]
    console.print(f"[bold {colour}]{record.outcome}[/]  ", end="")
    same = "the same model: the noise of an audit" if record.same_model else record.model_ref
    console.print(f"{record.name} ({record.bundle[:12]}) on {same}", markup=False)
    console.print(f"{record.documents} held-out documents, {record.tokens:,} tokens\n")
    for reason in record.reasons:
        console.print(f"- {reason}", markup=False)
    if record.documents:
        _say_figures(folder)
        _say_latents(record, console)
        _say_examples(folder, console)
    console.print(f"\n{folder}", markup=False)


def _say_figures(folder: Path) -> None:
    from saeops.metrics import read_metrics, read_nulls
    from saeops.report.rows import title_of

    metrics, nulls = read_metrics(folder / "metrics.json"), read_nulls(folder / "nulls.json")
    names = list(nulls)
    rows = [
        [title_of(metric), str(interval), *(_null(nulls[null].get(metric)) for null in names)]
        for metric, interval in metrics.items()
    ]
    say_table(
        ["figure", "value, interval and sample size", *(f"null: {n.replace('_', ' ')}" for n in names)], rows
    )


def _null(interval: Any) -> str:
    return "" if interval is None else f"{interval.point:.4g}"


def _say_latents(record: "AuditRecord", console: "Console") -> None:
    counts = record.latents.model_dump()
    told = ", ".join(f"{count} {verdict.replace('_', ' ')}" for verdict, count in counts.items())
    console.print(f"\nLatents: {told}{' to tell' if counts['too_few'] else ''}")


def _say_examples(folder: Path, console: "Console") -> None:
    drawn = _json(folder / "examples.json")
    if not drawn:
        return
    console.print(f"\n{len(drawn)} latents drawn at random from those that are not what they were", style="bold")
    for example in drawn:
        label = f" ({example['label']})" if example["label"] else ""
        console.print(
            f"  {example['latent']}{label}: {example['verdict']};"
            f" fires on {example['n_old']:.0f} → {example['n_new']:.0f} tokens,"
            f" correlation {_number(example['correlation'])}",
            markup=False,
        )
        for side in ("old", "new"):
            for context in example[side]:
                text = f"{context['before']}»{context['token']}«{context['after']}".replace("\n", "⏎")
                console.print(f"      {side}  {context['activation']:8.2f}  {text}", markup=False)


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.2f}"
