"""A loader thread, so that the step never waits for the disk or the shuffle.

One thread and one queue keep the order as it is: what is trained on does not
depend on who is faster.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, Queue

import torch

from saeops.training.pairs import Pair

AHEAD = 2
"""Batches that wait in the queue; one more may be in the loader's hands."""


@dataclass(frozen=True)
class _Failed:
    error: BaseException


class _Ended:
    pass


Queued = Pair | _Failed | _Ended


@contextmanager
def prefetched(batches: Iterable[Pair], *, device: torch.device) -> Iterator[Iterator[Pair]]:
    """The same batches in the same order, loaded up to `AHEAD` + 1 ahead by a thread.

    An exception of the loader is raised where its batch would have come. On
    leaving, the thread is told to stop and waited for. For CUDA, batches lie in
    pinned memory, from which they are copied while the step before still runs.
    """
    queue: Queue[Queued] = Queue(maxsize=AHEAD)
    stop = threading.Event()
    arguments = (batches, queue, stop, device.type == "cuda")
    thread = threading.Thread(target=_load, args=arguments, name="saeops-loader", daemon=True)
    thread.start()
    try:
        yield _received(queue)
    finally:
        stop.set()
        # A loader that waits for room gets it, and then sees that it is to stop.
        with suppress(Empty):
            while True:
                queue.get_nowait()
        thread.join()


def _load(batches: Iterable[Pair], queue: Queue[Queued], stop: threading.Event, pin: bool) -> None:
    try:
        for pair in batches:
            if stop.is_set():
                return
            queue.put(pair.pinned() if pin else pair)
    except BaseException as error:
        queue.put(_Failed(error))
    else:
        queue.put(_Ended())


def _received(queue: Queue[Queued]) -> Iterator[Pair]:
    while True:
        item = queue.get()
        if isinstance(item, _Failed):
            raise item.error
        if isinstance(item, _Ended):
            return
        yield item
