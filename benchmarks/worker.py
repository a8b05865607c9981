"""One contender in a process of its own, as its users run it: no library's allocator or threads touch another's.

The parent asks, one worker at a time; the others wait without using a core.
"""

import itertools
import multiprocessing
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.contender import Common, Contender
from benchmarks.data import SAMPLE_TOKENS
from benchmarks.machine import peak_bytes
from benchmarks.racing import Sample, timed
from benchmarks.recipe import Problem, Recipe
from benchmarks.roster import build
from benchmarks.same import agreement, common_weights

CHECKED_TOKENS = 512
SETTLE_S = 0.05
"""For the threads of whoever ran before to go to sleep."""


@dataclass(frozen=True)
class Condition:
    """In what state a contender is timed."""

    name: str = ""
    dense: bool = False
    """No threshold: every positive latent fires."""
    dead_share: float = 0.0
    """Latents that are dead, so that AuxK works."""


class Worker:
    """The parent's end.

    Args:
        recipe: None for the bare encoder product.
        pool: file with the batches that go round; they stay in memory, so that no loader is timed.
    """

    def __init__(self, problem: Problem, recipe: Recipe | None, pool: Path, *, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        # A clean process, and not a fork of one that has used threads already.
        self._process = context.Process(target=_serve, args=(theirs, problem, recipe, pool, threads), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, question: str, *arguments: Any) -> Any:
        """One answer.

        Raises:
            RuntimeError: the worker failed; its traceback is the message.
        """
        self._pipe.send((question, arguments))
        try:
            failed, answer = self._pipe.recv()
        except EOFError as error:
            raise RuntimeError(f"a contender's process died over {question!r}") from error
        if failed:
            raise RuntimeError(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(timeout=10)
        self._process.kill()


class _Racer:
    """The worker's end for a library."""

    def __init__(self, problem: Problem, recipe: Recipe, pool: list[Tensor]) -> None:
        self._problem, self._pool = problem, pool
        self._contender: Contender = build(problem, recipe, torch.cat(pool)[:SAMPLE_TOKENS])
        self._batches = itertools.cycle(pool)
        self._contender.ready()
        # The first step sets what depends on data; the common weights come after it.
        self._contender.step(pool[0])
        self._weights = common_weights(pool[0], d_sae=problem.d_sae, k=problem.k)

    def agreement(self) -> Any:
        return agreement(self._contender, self._weights, self._pool[0][:CHECKED_TOKENS])

    def prepare(self, condition: Condition) -> None:
        weights = replace(self._weights, threshold=0.0) if condition.dense else self._weights
        self._contender.put(weights)
        if condition.dead_share:
            self._contender.silence(torch.arange(round(condition.dead_share * self._problem.d_sae)))

    def time(self, repeats: int) -> Sample:
        return timed(lambda: self._contender.step(next(self._batches)), repeats)

    def facts(self) -> dict[str, Any]:
        l0 = self._contender.read(self._pool[0][:CHECKED_TOKENS], training=True).l0
        return {**self._contender.parts(), "l0_after": l0, "peak_bytes": peak_bytes()}


class _Floor:
    """The worker's end for the encoder's product alone, into room that is there already."""

    def __init__(self, problem: Problem, pool: list[Tensor]) -> None:
        weights: Common = common_weights(pool[0], d_sae=problem.d_sae, k=problem.k)
        self._x_TD, self._bias = pool[0], weights.b_enc
        self._W_enc_FD = weights.W_enc_DF.t().contiguous()
        self._out_TF = self._x_TD.new_empty(len(self._x_TD), problem.d_sae)

    def prepare(self, condition: Condition) -> None:
        """Nothing: the product is the same."""

    def time(self, repeats: int) -> Sample:
        return timed(lambda: torch.addmm(self._bias, self._x_TD, self._W_enc_FD.t(), out=self._out_TF), repeats)


def _serve(pipe: Connection, problem: Problem, recipe: Recipe | None, pool: Path, threads: int) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    batches: list[Tensor] = torch.load(pool, weights_only=True)
    server: _Racer | _Floor | None = None
    while True:
        try:
            question, arguments = pipe.recv()
        except EOFError:
            return
        try:
            if server is None:
                server = _Floor(problem, batches) if recipe is None else _Racer(problem, recipe, batches)
            time.sleep(SETTLE_S)
            answer: Callable[..., Any] = getattr(server, question)
            pipe.send((False, answer(*arguments)))
        except Exception as error:
            pipe.send((True, f"{recipe.label if recipe else 'floor'}: {type(error).__name__}: {error}"))
