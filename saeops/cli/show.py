"""How verbs speak: tables and lines for people, JSON for machines."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer


def say_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def say_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    # A pipe has no width of its own: what goes through one must not be cut at 80 columns.
    Console(width=None if sys.stdout.isatty() else 200).print(table, highlight=False)


def say_facts(facts: Mapping[str, str]) -> None:
    for name, value in facts.items():
        if value:
            typer.echo(f"  {name:<11} {value}")
