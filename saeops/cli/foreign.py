"""To and from other libraries."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from saeops.cli.app import FOREIGN, app
from saeops.cli.options import Json, Root, open_services
from saeops.cli.show import say_json
from saeops.params import load_params
from saeops.sae.formats.names import Format, Results

Force = Annotated[bool, typer.Option("--force", help="Replace what stands there.")]


class Written(StrEnum):
    """For whom `export` writes."""

    SAELENS = Format.SAELENS
    SPARSIFY = Format.SPARSIFY
    DICTIONARY_LEARNING = Format.DICTIONARY_LEARNING
    GEMMA_SCOPE = Format.GEMMA_SCOPE
    SAEBENCH = Results.SAEBENCH


@app.command("import", rich_help_panel=FOREIGN)
def import_(
    path: Annotated[Path, typer.Argument(help="The folder that holds the other library's files.")],
    format: Annotated[Format | None, typer.Option(help="Whose files they are.")] = None,
    site: Annotated[str | None, typer.Option(help="Where it reads, where its files do not tell.")] = None,
    target_site: Annotated[
        str | None, typer.Option(help="Where what a transcoder gives back belongs, where its files do not tell.")
    ] = None,
    force: Force = False,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Put another library's SAE in artifacts/sae, in the place of a trained one."""
    services = open_services(root, quiet=as_json)
    ref = services.import_sae(
        load_params(root), path, format=format, site=site, target_site=target_site, force=force
    )
    if as_json:
        say_json({"kind": ref.kind, "digest": ref.digest, "path": str(ref.path)})
    else:
        typer.echo(f"{ref.kind} {ref.digest[:16]} in {ref.path}\nnext: saeops diagnose")


@app.command(rich_help_panel=FOREIGN)
def export(
    format: Annotated[Written, typer.Option(help="For whom: a library its SAE, saebench the results.")],
    to: Annotated[Path | None, typer.Option(help="Folder; artifacts/export/FORMAT otherwise.")] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", help="NAME@champion, a digest, a bundle's folder; what is in artifacts otherwise."),
    ] = None,
    force: Force = False,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Write an SAE as another library keeps it, or its results as SAEBench does."""
    services = open_services(root, quiet=as_json)
    if format is Written.SAEBENCH:
        made = services.export_results(to=to, reference=source, force=force)
    else:
        made = services.export_sae(Format(format), to=to, reference=source, force=force)
    if as_json:
        say_json(made.to_json())
    else:
        typer.echo(f"{' and '.join(made.files)} in {made.path}")
