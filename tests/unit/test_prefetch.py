"""The loader thread: same batches, same order, its errors where they belong, and an end when nobody wants more."""

import itertools
import threading
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saeops.training.pairs import Pair
from saeops.training.prefetch import AHEAD, prefetched
from tests.planted import CPU


def numbered(stop: int | None = None) -> Iterator[Pair]:
    numbers = itertools.count() if stop is None else range(stop)
    return (Pair.same(torch.full((1, 1), float(number))) for number in numbers)


def loaders() -> int:
    return sum(thread.name == "saeops-loader" for thread in threading.enumerate())


@settings(max_examples=20)
@given(length=st.integers(0, 12))
def test_all_batches_come_once_and_in_order(length: int) -> None:
    with prefetched(numbered(length), device=CPU) as ahead:
        assert [int(pair.x_TD) for pair in ahead] == list(range(length))
    assert loaders() == 0


def test_no_more_than_the_queue_and_one_are_loaded_ahead() -> None:
    loaded = []
    enough = threading.Event()

    def counted() -> Iterator[Pair]:
        for pair in numbered():
            loaded.append(int(pair.x_TD))
            if len(loaded) == 5 + AHEAD + 1:
                enough.set()
            yield pair

    with prefetched(counted(), device=CPU) as ahead:
        assert [int(pair.x_TD) for pair in itertools.islice(ahead, 5)] == [0, 1, 2, 3, 4]
        assert enough.wait(10), "the loader goes on while the step works"
        threading.Event().wait(0.05)
        assert len(loaded) <= 5 + AHEAD + 1
    assert loaders() == 0


def test_an_error_is_raised_where_its_batch_would_have_come() -> None:
    def failing() -> Iterator[Pair]:
        yield from numbered(3)
        raise ValueError("shard 7")

    with prefetched(failing(), device=CPU) as ahead:
        assert [int(next(ahead).x_TD) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="shard 7"):
            next(ahead)
    assert loaders() == 0


@pytest.mark.parametrize("taken", [0, 1, 7])
def test_an_interrupt_stops_the_loader(taken: int) -> None:
    def interrupted() -> None:
        with prefetched(numbered(), device=CPU) as ahead:
            for _ in itertools.islice(ahead, taken):
                pass
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert loaders() == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_for_cuda_lie_in_pinned_memory() -> None:
    with prefetched(numbered(2), device=torch.device("cuda")) as ahead:
        assert all(pair.x_TD.is_pinned() and not pair.transcodes for pair in ahead)
