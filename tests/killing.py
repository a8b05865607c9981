"""Death in the middle of training: as an exception in this process, or for real in another one.

python -m tests.killing PARAMS.json ROOT STEPS      trains, and kills itself with SIGKILL after STEPS steps
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from saeops.adapters.watch import QuietWatch
from saeops.ports import Bar


class Killed(BaseException):
    """Nobody catches this, as nobody catches a kill."""


def die() -> None:
    raise Killed


class KillingWatch(QuietWatch):
    """A quiet watch that ends everything when a bar has advanced so many times."""

    def __init__(self, after: int, end: Callable[[], None] = die) -> None:
        super().__init__()
        self._left, self._end = after, end

    @contextmanager
    def bar(self, title: str, total: float, unit: str) -> Iterator[Bar]:
        yield self

    def advance(self, amount: float = 1, **facts: str) -> None:
        self._left -= 1
        if self._left == 0:
            self._end()


def main(params_file: str, root: str, steps: str) -> None:
    import torch

    from saeops.params import Params
    from saeops.refs import Workspace
    from saeops.stages import train

    # As in conftest.py: another number of threads may add in another order.
    torch.set_num_threads(1)
    params = Params.model_validate_json(Path(params_file).read_text())
    watch = KillingWatch(int(steps), lambda: os.kill(os.getpid(), signal.SIGKILL))
    train.run(params, Workspace(root=Path(root)), watch=watch)


if __name__ == "__main__":
    main(*sys.argv[1:])
