"""Match: which latent of one dictionary is which latent of another."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeops.cli.app import HELP, app, work_is_kept
from saeops.cli.options import Activations, Json, Profile, Root, Set, chosen_params, open_services
from saeops.cli.show import say_json

if TYPE_CHECKING:
    from rich.table import Table

    from saeops.stages.matchable import Example, Shown

Reference = Annotated[str, typer.Argument(help="NAME@champion, NAME@previous, NAME@<seq>, a digest, or a folder.")]
WORDS = {
    "match_matched_fraction": ("matched", "of A have one partner in B"),
    "match_split_fraction": ("split", "of A are several latents of B together"),
    "match_merged_fraction": ("merged", "of A are parts of one latent of B"),
    "match_vanished_fraction": ("vanished", "of A have no counterpart in B"),
    "match_new_fraction": ("new", "of B have no counterpart in A"),
}


@app.command(rich_help_panel=HELP)
def match(
    first: Reference,
    second: Reference,
    activations: Activations = None,
    root: Root = Path(),
    profile: Profile = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Two dictionaries latent by latent: matched, split, merged, vanished, new. In artifacts/match."""
    params = chosen_params(root, profile, overrides)
    with work_is_kept():
        found = open_services(root, quiet=as_json).match(params, first, second, activations=activations or ())
    if as_json:
        say_json(found.to_json())
    else:
        _say(found)


def _say(found: "Shown") -> None:
    import sys

    from rich.console import Console

    summary = found.summary
    # A pipe has no width of its own: what goes through one must not be cut at 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, soft_wrap=False)
    for name, key, place in (("A", "first", 0), ("B", "second", 1)):
        dead = summary["dead"][place]
        what = f"{summary['living'][place]:,} living latents" + (f", {dead:,} dead are left out" if dead else "")
        console.print(f"{name}  {summary[key]}: {what}", markup=False)
    console.print()
    console.print(_counts(found))
    console.print(f"\n{means(found)}\n", markup=False)
    console.print("Drawn at random", style="bold")
    console.print(_examples(found.examples))
    console.print(f"\nevery latent and the figure: {found.path}", markup=False)


def _counts(found: "Shown") -> "Table":
    from rich.table import Table

    from saeops.report.numbers import number
    from saeops.report.rows import bounds

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for title in ("latents", "share"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("95 %")
    table.add_column("")
    for metric, (kind, words) in WORDS.items():
        share = found.metrics[metric]
        table.add_row(kind, f"{round(share.point * share.n):,}", number(share.point), bounds(share), words)
    return table


def means(found: "Shown") -> str:
    """How sure it is: gap, nulls, time."""
    from saeops.report.numbers import number
    from saeops.report.rows import bounds

    summary, metrics = found.summary, found.metrics
    on = (
        f"decoder cosine and activations on {summary['tokens']:,} tokens"
        if summary["tokens"]
        else "decoder cosine"
    )
    gap = "none is better" if not summary["gap"] else f"at most {summary['gap']:.3g} from the best"
    null, beyond = summary["null"], metrics["match_beyond_null"]
    lines = [
        f"Scores are {on}; the assignment is worth {summary['value']:.4g}, {gap}"
        f" ({summary['candidates']:,} candidate pairs, {summary['rounds']} rounds).",
        f"Beside B permuted: {100 * null['beyond']:g} % of best scores stay below {null['score']:.3f}; a latent of"
        f" A has a nearer one in B than there with probability {number(beyond.point)} ({bounds(beyond)}).",
    ]
    if "match_beside_seeds" in metrics:
        seeds = metrics["match_beside_seeds"]
        lines.append(
            f"Beside another seed ({summary['seed_pairs']:,} latents): nearer than its partners with probability"
            f" {number(seeds.point)} ({bounds(seeds)}); 0.5 is as alike as two trainings."
        )
    if metrics["match_cosine"].n:
        lines.append(
            f"Matched pairs: cosine {number(metrics['match_cosine'].point)} ({bounds(metrics['match_cosine'])})."
        )
    took = "kept from before" if found.seconds is None else f"matched in {found.seconds:.1f} s"
    return "\n".join([*lines, f"{took[0].upper()}{took[1:]}."])


def _examples(drawn: "Sequence[Example]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("kind", "latent", "and", "score", "label", "label there"):
        table.add_column(title, justify="right" if title == "score" else "left", overflow="ellipsis", no_wrap=True)
    for one in drawn:
        there = "A" if one.side == "B" else "B"
        others = " ".join(f"{there}{other}" for other in one.others[:4]) + (" …" if len(one.others) > 4 else "")
        word = "nearest " if one.kind in ("vanished", "new") else ""
        cells = (
            one.kind,
            f"{one.side}{one.latent}",
            word + others,
            f"{one.score:.2f}",
            one.label,
            one.other_label,
        )
        table.add_row(*(Text(cell) for cell in cells))
    return table
