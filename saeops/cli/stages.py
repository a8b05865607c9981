"""The stages, as dvc.yaml calls them, and the report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from saeops.cli.app import STAGES, app, work_is_kept
from saeops.cli.options import (
    Activations,
    Json,
    Profile,
    Root,
    Set,
    chosen_params,
    open_services,
    remembered_params,
)
from saeops.cli.show import say_json, say_table
from saeops.params import load_params


def _say_ref(kind: str, digest: str, path: Path, *, as_json: bool) -> None:
    if as_json:
        say_json({"kind": kind, "digest": digest, "path": str(path)})
    else:
        typer.echo(f"{kind} {digest[:16]} in {path}")


def _run_stage(
    name: str, root: Path, profile: str | None, overrides: Sequence[str] | None, *, as_json: bool
) -> None:
    params = remembered_params(root, profile, overrides)
    with work_is_kept():
        ref = getattr(open_services(root, quiet=as_json), name)(params)
    _say_ref(ref.kind, ref.digest, ref.path, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def harvest(root: Root = Path(), profile: Profile = None, overrides: Set = None, as_json: Json = False) -> None:
    """Read the corpus with the model and keep its activations, in artifacts/activations."""
    _run_stage("harvest", root, profile, overrides, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def train(root: Root = Path(), profile: Profile = None, overrides: Set = None, as_json: Json = False) -> None:
    """Train the sparse autoencoder, in artifacts/sae. Killed, it goes on from its last checkpoint."""
    _run_stage("train", root, profile, overrides, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def controls(root: Root = Path(), profile: Profile = None, overrides: Set = None, as_json: Json = False) -> None:
    """Train SAEs to compare with, of a model with random weights and of other seeds, in artifacts/controls."""
    _run_stage("controls", root, profile, overrides, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def sweep(root: Root = Path(), profile: Profile = None, overrides: Set = None, as_json: Json = False) -> None:
    """Train the SAEs of train.sweep over one pass of the data and compare them, in artifacts/sweep."""
    import json

    from saeops.tables import read_table

    # What is chosen here is not remembered: a sweep looks round, and the stages stay where they were.
    params = chosen_params(root, profile, overrides)
    with work_is_kept():
        ref = open_services(root, quiet=as_json).sweep(params)
    from saeops.training.sweep import SweepTable

    members = json.loads(read_table(ref.path / "sweep.parquet", SweepTable).to_json(orient="records"))
    if as_json:
        say_json({"kind": ref.kind, "digest": ref.digest, "path": str(ref.path), "members": members})
        return
    say_table(
        ["member", "variant", "d_sae", "explained variance, held out", "L0", "dead"],
        [
            [
                member["name"],
                member["variant"],
                f"{member['d_sae']:,}",
                _bounded(member),
                f"{member['l0']:.1f}",
                f"{member['dead_fraction']:.1%}",
            ]
            for member in members
        ],
    )
    _say_ref(ref.kind, ref.digest, ref.path, as_json=False)


def _bounded(member: Mapping[str, Any]) -> str:
    point, low, high = (member[f"explained_variance{bound}"] for bound in ("", "_low", "_high"))
    bounds = "no interval" if low is None else f"[{low:.4f}, {high:.4f}]"
    return f"{point:.4f} {bounds} (n={member['documents']} documents)"


@app.command(rich_help_panel=STAGES)
def diagnose(root: Root = Path(), profile: Profile = None, overrides: Set = None, as_json: Json = False) -> None:
    """Measure it on held-out documents and catalog what its latents fire on."""
    from saeops.metrics import read_metrics

    params = remembered_params(root, profile, overrides)
    with work_is_kept():
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
    say_table(["metric", "value, interval and sample size"], [[name, str(i)] for name, i in metrics.items()])


@app.command(rich_help_panel=STAGES)
def label(
    carry_from: Annotated[
        str | None, typer.Option(help="Start from the labels of NAME@champion, a digest or a bundle's folder.")
    ] = None,
    activations: Activations = None,
    root: Root = Path(),
    profile: Profile = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Label latents and score each label on documents that explained nothing."""
    params = remembered_params(root, profile, overrides)
    with work_is_kept():
        services = open_services(root, quiet=as_json)
        ref = services.label(params, carry_from=carry_from, activations=activations or ())
    _say_ref(ref.kind, ref.digest, ref.path, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def bench(root: Root = Path(), profile: Profile = None, overrides: Set = None, as_json: Json = False) -> None:
    """Ablate and steer with latents, beside equal-norm random directions."""
    _run_stage("bench", root, profile, overrides, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def bundle(root: Root = Path(), profile: Profile = None, overrides: Set = None, as_json: Json = False) -> None:
    """Put everything into one immutable folder named by its sha256, in artifacts/bundle."""
    _run_stage("bundle", root, profile, overrides, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def report(root: Root = Path(), as_json: Json = False) -> None:
    """Write one self-contained HTML page of it all, in artifacts/report."""
    services = open_services(root, quiet=as_json)
    page = services.report(load_params(root))
    if as_json:
        say_json({"report": str(page)})
    else:
        typer.echo(str(page))
