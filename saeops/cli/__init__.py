"""The verbs: what people type and what dvc.yaml calls. No Prefect, no servers needed.

Exit codes: 0 done, 1 bug or interrupted, 2 usage, 3 gate refused, 4 lost the
race, 5 integrity, 6 something outside does not answer.
"""

from typing import NoReturn

# In the order in which help shows them.
from saeops.cli import stages, foreign, review, judging, registry, gc, checkout  # isort: skip
from saeops.cli import inspect, compare, audit, match, drift, look, finetune  # isort: skip
from saeops.cli.app import app, one_clear_error

__all__ = [
    "app",
    "audit",
    "checkout",
    "compare",
    "drift",
    "finetune",
    "foreign",
    "gc",
    "inspect",
    "judging",
    "look",
    "main",
    "match",
    "one_clear_error",
    "registry",
    "review",
    "stages",
]


def main() -> NoReturn:
    """The `saeops` program."""
    with one_clear_error():
        app()
    raise SystemExit(0)
