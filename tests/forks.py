"""Processes forked from a test: they see its objects, and end as soon as their work is done."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.context import ForkContext
from multiprocessing.process import BaseProcess
from typing import Any

FORK: ForkContext = multiprocessing.get_context("fork")
"""For queues, barriers and events that forked processes share."""


def forked(work: Callable[..., Any], *args: Any) -> BaseProcess:
    """A process, started, that does the work; its exit code is 0 unless the work raises."""
    process = FORK.Process(target=_work_and_leave, args=(work, args))
    process.start()
    return process


def _work_and_leave(work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    work(*args)
    sys.stdout.flush()
    sys.stderr.flush()
    # What libraries do at exit belongs to the parent: Prefect's fails in a fork of a process that ran a flow.
    os._exit(0)
