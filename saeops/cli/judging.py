"""Verdicts: judge the built bundle, and explain what was judged before."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeops.cli.app import REGISTRY, app, work_is_kept
from saeops.cli.options import Json, Root, open_services
from saeops.cli.show import say_facts, say_json, say_table
from saeops.params import load_params

if TYPE_CHECKING:
    from saeops.promotion.verdict import Verdict


@app.command(rich_help_panel=REGISTRY)
def judge(root: Root = Path(), as_json: Json = False) -> None:
    """The verdict on the built bundle beside the champion, gate by gate. Changes nothing."""
    verdict = open_services(root, quiet=as_json).judge(load_params(root))
    if as_json:
        say_json(verdict.to_json())
    else:
        _say_verdict(verdict)


@app.command(rich_help_panel=REGISTRY)
def beside(root: Root = Path()) -> None:
    """Measure the champion on the built dictionary's model, where that is another, for the judge."""
    with work_is_kept():
        made = open_services(root).beside(load_params(root))
    what = "not needed: the champion's figures are of this model, or there is no champion"
    typer.echo(what if made is None else f"champion on this model: {made.path}")


@app.command(rich_help_panel=REGISTRY)
def explain(
    reference: Annotated[str, typer.Argument(help="A name, or the digest of a bundle or a verdict.")],
    seq: Annotated[int | None, typer.Option(help="The verdict of this journal entry of the name.")] = None,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """The verdict behind a champion, a journal entry or a refusal: what was asked, what was seen, why."""
    from saeops.stages import explain

    found = explain.run(open_services(root, quiet=as_json).store, reference, sequence=seq)
    if as_json:
        say_json([given.to_json() for given in found])
        return
    for given in found:
        entry = given.entry
        _say_verdict(given.verdict)
        by = f"entry {entry.sequence} by {entry.who}, {entry.at}" if entry else "none: it was refused"
        forced = f"against this verdict: {entry.reason}" if entry and entry.forced else ""
        say_facts({"name": given.name, "verdict": given.digest, "promotion": by, "FORCED": forced})


def _say_verdict(verdict: "Verdict") -> None:
    from saeops.promotion.explain import explain

    said = explain(verdict)
    typer.echo(f"{said.outcome}: bundle {verdict.bundle[:12]}, {said.sentence}\n")
    say_table(
        ["", "gate", "seen", "n", "level", "to spare"],
        [
            [
                gate.told,
                gate.requirement,
                gate.seen,
                gate.n,
                gate.level,
                gate.to_spare,
            ]
            for gate in said.gates
        ],
    )
    for gate in said.gates:
        if gate.outcome != "pass":
            typer.echo(f"\n  {gate.told}: {gate.requirement}\n    {gate.reason}")
            if gate.change:
                typer.echo(f"    → {gate.change}")
    typer.echo(f"\n{said.errors}")
