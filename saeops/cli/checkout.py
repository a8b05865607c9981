"""Restoring a version as it was built."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeops.cli.app import REGISTRY, app
from saeops.cli.options import Json, Root, open_services
from saeops.cli.show import say_facts, say_json

if TYPE_CHECKING:
    from saeops.stages.checkout import CheckedOut

NAMED = 5
"""Files that are named before they are only counted."""


@app.command(rich_help_panel=REGISTRY)
def checkout(
    reference: Annotated[str, typer.Argument(help="NAME@SEQ, NAME@champion, NAME@previous, or a digest.")],
    into: Annotated[
        Path | None, typer.Option(help="An empty or new folder.", show_default="var/checkouts/DIGEST")
    ] = None,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Restore code, params, lock and data of a version into a git worktree, every byte compared."""
    services = open_services(root, quiet=as_json)
    done = services.checkout(reference, into=into)
    if as_json:
        say_json(done.to_json())
        return
    typer.echo(f"{done.name}: {done.version[:12]} is restored in {done.folder}")
    say_facts(
        {
            "commit": done.commit,
            "uncommitted": _uncommitted(done.uncommitted),
            "data": f"{done.files} files, {done.bytes:,} bytes, all as sealed",
            "bundle": f"{done.candidate} in artifacts/bundle",
            "reviewed": f"{done.version} in artifacts/reviewed, with {_decisions(done)}" if done.decisions else "",
            "CODE": "" if done.same_code else "not what made it: building it again gives another digest",
            "LOCK": "" if done.same_environment else "requirements.lock differs: so may what is built with it",
        }
    )
    typer.echo(
        f"build it again, to bundle {done.candidate[:12]}:\n"
        f"  cd {done.folder} && make setup && . .venv/bin/activate\n"
        "  rm -r artifacts/bundle && dvc repro --force --single-item bundle    from its parts\n"
        "  rm -r artifacts && dvc repro --force                                from the documents on"
    )


def _uncommitted(paths: tuple[str, ...]) -> str:
    if not paths:
        return ""
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return f"{', '.join(paths[:NAMED])}{more}: not as in the commit when it was built; restored from the recipe"


def _decisions(done: "CheckedOut") -> str:
    return f"{done.decisions} decision{'' if done.decisions == 1 else 's'}"
