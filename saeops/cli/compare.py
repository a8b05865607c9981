"""Compare: two dictionaries side by side, and which of their differences are real."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeops.cli.app import HELP, app
from saeops.cli.options import Json, Root, open_services
from saeops.cli.show import say_json

if TYPE_CHECKING:
    from rich.table import Table

    from saeops.dictionary.compare import Comparison, Difference
    from saeops.stats import Interval

Reference = Annotated[str, typer.Argument(help="NAME@champion, NAME@previous, NAME@<seq>, a digest, or a folder.")]


@app.command(rich_help_panel=HELP)
def compare(first: Reference, second: Reference, root: Root = Path(), as_json: Json = False) -> None:
    """Two dictionaries side by side, and which differences are real: the second beside the first."""
    found = open_services(root, quiet=as_json).compare(first, second)
    if as_json:
        say_json(found.to_json())
    else:
        _say(found)


def _say(found: "Comparison") -> None:
    import sys

    from rich.console import Console

    # A pipe has no width of its own: what goes through one must not be cut at 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, soft_wrap=False)
    console.print(f"A  {found.first}\nB  {found.second}\n")
    for caution in found.cautions:
        console.print(f"! {caution}", style="yellow", markup=False)
    paired = [figure for figure in found.figures if figure.paired]
    apart = [figure for figure in found.figures if not figure.paired]
    if paired:
        console.print(f"Paired on {found.shared_documents} shared documents", style="bold")
        console.print(_table(paired))
    if apart:
        console.print("\nUnpaired: each as its bundle reports it", style="bold")
        console.print(_table(apart))
    console.print(f"\n{summary(found)}", markup=False)


def summary(found: "Comparison") -> str:
    """What is said, and with which certainty."""
    from saeops.dictionary.compare import FAMILY_ERROR
    from saeops.report.rows import title_of

    lines = []
    for outcome, words in (("better", "B is better in"), ("worse", "B is worse in")):
        names = found.outcomes(outcome)  # type: ignore[arg-type]
        lines.append(f"{words} {'; '.join(map(title_of, names))}." if names else f"{words} nothing that shows.")
    lines.append(
        f"Intervals of B − A are at {100 * found.level:.2f} %: two equal dictionaries would seem to differ in any"
        f" of the {found.judged} judged figures at most {100 * FAMILY_ERROR:g} times in a hundred."
    )
    return "\n".join(lines)


COLOURS = {"better": "green", "worse": "red", "no difference shown": "", "not judged": "dim"}


def _table(figures: list["Difference"]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    from saeops.report.numbers import number
    from saeops.report.rows import bounds, title_of

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("figure")
    for title in ("A", "B", "B − A"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("interval of B − A")
    table.add_column("− 0 +", justify="center", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("B is")
    for figure in figures:
        difference = figure.difference
        cells = [
            title_of(figure.metric),
            number(figure.first.point),
            number(figure.second.point),
            number(difference.point),
            bounds(difference),
            bar(difference),
            f"{difference.n:,} {difference.unit}",
        ]
        colour = COLOURS[figure.outcome]
        table.add_row(*(Text(cell) for cell in cells), Text(figure.outcome, style=colour))
    return table


HALF = 8
"""Places of a bar on each side of 0."""


def bar(difference: "Interval") -> str:
    """An interval around 0, drawn: `────────┼─━━●━━──`; each has its own scale."""
    if difference.low is None or difference.high is None:
        return ""
    reach = max(abs(difference.low), abs(difference.high))

    def place(value: float) -> int:
        return HALF + (round(HALF * value / reach) if reach else 0)

    line = ["─"] * (2 * HALF + 1)
    line[HALF] = "┼"
    for at in range(place(difference.low), place(difference.high) + 1):
        line[at] = "╋" if at == HALF else "━"
    line[place(difference.point)] = "●"
    return "".join(line)
