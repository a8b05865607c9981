"""What people look at before a promotion, and what they say of it."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeops.cli.app import review_app
from saeops.cli.options import Json, Root, open_services
from saeops.cli.show import say_json
from saeops.errors import UsageError
from saeops.params import Params, load_params

if TYPE_CHECKING:
    from rich.text import Text

    from saeops.services import Services
    from saeops.stages.review import ReviewRow, ShownContext

TOKENS_BEFORE, TOKENS_AFTER = 10, 5


@review_app.command("queue")
def queue(
    root: Root = Path(),
    everything: Annotated[bool, typer.Option("--all", help="Those already decided on as well.")] = False,
    as_json: Json = False,
) -> None:
    """The labels that people must look at: by impact and uncertainty, and at random."""
    review = open_services(root, quiet=as_json).review(load_params(root))
    if as_json:
        say_json(asdict(review))
        return
    rows = [row for row in review.rows if everything or row.decided is None]
    for row in rows:
        _show_review_row(row)
    done = review.outcome
    typer.echo(f"{done.decided} of {done.queued} decided; bundle {review.bundle[:12]}")
    if not done.complete:
        typer.echo("next: saeops review decide, or saeops review decide LATENT accept|edit|reject")


@review_app.command("decide")
def decide(
    latent: Annotated[int | None, typer.Argument(help="Its number; none walks through the queue.")] = None,
    verdict: Annotated[str | None, typer.Argument(help="accept, edit or reject.")] = None,
    text: Annotated[str | None, typer.Option(help="The better label, for an edit.")] = None,
    reason: Annotated[str, typer.Option(help="Why; a reject needs one.")] = "",
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Accept, edit or reject a label, in a ledger that shows any later edit."""
    services = open_services(root, quiet=as_json)
    if latent is None:
        _walk_through_queue(services, load_params(root))
        return
    if verdict is None:
        raise UsageError(
            f"no verdict on latent {latent}", hint=f"saeops review decide {latent} accept|edit|reject"
        )
    entry = services.decide(latent, verdict, reason=reason, text=text)
    if as_json:
        say_json(entry.to_json())
    else:
        typer.echo(f"{verdict} on latent {latent} recorded as entry {entry.seq} by {entry.decision.reviewer}")


def _walk_through_queue(services: "Services", params: Params) -> None:
    """Ask on each pending label in turn; what was answered stays when the person stops."""
    for row in services.review(params).rows:
        if row.decided is not None:
            continue
        _show_review_row(row)
        answer = typer.prompt("accept, edit, reject, skip or quit [a/e/r/s/q]", default="s").lower()[:1]
        if answer == "q":
            break
        if answer == "a":
            services.decide(row.latent, "accept")
        elif answer == "e":
            services.decide(row.latent, "edit", text=typer.prompt("better label"))
        elif answer == "r":
            services.decide(row.latent, "reject", reason=typer.prompt("reason"))
    done = services.review(params).outcome
    typer.echo(f"{done.decided} of {done.queued} decided")
    if done.complete:
        typer.echo("next: python -m flows promote")


def _show_review_row(row: "ReviewRow") -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    effect = "not measured" if row.effect_nats is None else f"{row.effect_nats:+.2f} nats beyond random"
    console.print(
        Text.assemble(
            (str(row.latent), "bold"), "  ", row.label, (f"  ({row.labeller}; queued: {row.why})", "dim")
        )
    )
    console.print(
        f"  confidence {row.confidence:.2f}  finds {row.tpr[0]:.0%}–{row.tpr[1]:.0%} of its snippets, "
        f"turns down {row.tnr[0]:.0%}–{row.tnr[1]:.0%} of others  effect {effect}"
    )
    for line in row.before:
        console.print(f"  before: {line}", style="dim", markup=False)
    for context in row.contexts:
        console.print(_highlighted(context), overflow="ellipsis", no_wrap=True)
    if row.decided is not None:
        console.print(f"  decided: {row.decided.verdict} by {row.decided.reviewer}")
    console.print()


def _highlighted(context: "ShownContext") -> "Text":
    """The tokens round the one that fires most, the firing ones marked: one line that fits a terminal."""
    from rich.text import Text

    strongest = max(context.activations)
    at = context.activations.index(strongest)
    line = Text("  ")
    for index in range(max(0, at - TOKENS_BEFORE), min(len(context.tokens), at + TOKENS_AFTER)):
        share = context.activations[index] / strongest if strongest else 0
        style = "bold black on yellow" if share > 0.6 else "black on bright_white" if share > 0 else "dim"
        line.append(context.tokens[index].replace("\n", "⏎"), style=style)
    return line
