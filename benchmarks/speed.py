"""The race: same problem checked, steps interleaved, each beside the bare encoder product of the same run.

# T token, D d_model
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.contender import fvu
from benchmarks.data import Tokens
from benchmarks.racing import Sample, Turn, race, ratio, timing
from benchmarks.recipe import Problem, Recipe, contenders
from benchmarks.same import Sameness, common_weights, oracle
from benchmarks.worker import CHECKED_TOKENS, Condition, Worker

FLOOR = "bare encoder product"
POOL = 8
WITH_AUXK = ("topk", "batch_topk", "matryoshka")


class NotTheSame(Exception):
    """Contenders that would not train the same problem."""


@dataclass(frozen=True)
class Rules:
    """How the race is run."""

    rounds: int
    tolerance: float = 0.04
    least_seconds: float = 0.4
    dead_share: float = 0.0
    """Above 0, TopK variants are raced a second time with this share of the latents dead, so that AuxK works."""


def race_variant(
    problem: Problem, recipes: list[Recipe], pool: list[Tensor], rules: Rules
) -> list[dict[str, Any]]:
    """All conditions of one variant.

    Args:
        pool: batches that go round.

    Raises:
        NotTheSame: with the same weights, somebody's reconstruction is another.
    """
    with ExitStack() as stack:
        file = stack.enter_context(_on_disk(pool))
        workers = {FLOOR: Worker(problem, None, file, threads=torch.get_num_threads())}
        for recipe in contenders(problem.variant, recipes):
            workers[recipe.label] = Worker(problem, recipe, file, threads=torch.get_num_threads())
        for worker in workers.values():
            stack.callback(worker.close)
        same = _sameness(problem, workers, pool[0])
        if not same.holds:
            raise NotTheSame(_differences(problem.variant, same))
        return [_one_race(problem, each, workers, rules, same) for each in _conditions(problem, rules)]


def _sameness(problem: Problem, workers: dict[str, Worker], batch_TD: Tensor) -> Sameness:
    weights = common_weights(batch_TD, d_sae=problem.d_sae, k=problem.k)
    x_TD = batch_TD[:CHECKED_TOKENS]
    truth = oracle(problem.variant, weights, x_TD, k=problem.k)
    agreements = [worker.ask("agreement") for label, worker in workers.items() if label != FLOOR]
    return Sameness(fvu(x_TD, truth.x_hat_TD), truth.l0, tuple(agreements))


def _conditions(problem: Problem, rules: Rules) -> list[Condition]:
    conditions = [Condition()]
    if problem.variant == "relu_l1":
        conditions = [
            Condition("sparse, about k latents a token"),
            Condition("dense, as at the start of training", dense=True),
        ]
    if rules.dead_share and problem.variant in WITH_AUXK:
        name = f"{rules.dead_share:.0%} of the latents dead, AuxK on"
        conditions.append(Condition(name, dead_share=rules.dead_share))
    return conditions


def _one_race(
    problem: Problem, condition: Condition, workers: dict[str, Worker], rules: Rules, same: Sameness
) -> dict[str, Any]:
    for worker in workers.values():
        worker.ask("prepare", condition)
    samples = race(
        {label: _turn(worker) for label, worker in workers.items()},
        rounds=rules.rounds,
        most_rounds=2 * rules.rounds,
        tolerance=rules.tolerance,
        least_seconds=rules.least_seconds,
    )
    entered = [label for label in workers if label != FLOOR]
    return {
        "problem": problem.model_dump(),
        "condition": condition.name,
        "same": same.to_json(),
        "floor": _figures(samples, FLOOR, problem, rules),
        "contenders": [
            {
                **workers[label].ask("facts"),
                **_figures(samples, label, problem, rules),
                "over": _over(samples, label, entered, rules),
            }
            for label in entered
        ],
    }


def _turn(worker: Worker) -> Turn:
    return lambda repeats: worker.ask("time", repeats)


@contextmanager
def _on_disk(pool: list[Tensor]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pool.pt"
        torch.save(pool, file)
        yield file


def _figures(samples: dict[str, list[Sample]], name: str, problem: Problem, rules: Rules) -> dict[str, Any]:
    found = timing(samples[name], tolerance=rules.tolerance)
    above = ratio(samples[FLOOR], samples[name], tolerance=rules.tolerance)
    return {
        "seconds_a_step": found.to_json(),
        "tokens_per_second": problem.batch / found.median,
        "microseconds_a_token": 1e6 * found.median / problem.batch,
        "times_the_floor": None if above is None else above.to_json(),
        "samples": [vars(each) for each in samples[name]],
    }


def _over(samples: dict[str, list[Sample]], name: str, entered: list[str], rules: Rules) -> dict[str, Any]:
    """How many times faster this contender is than each other one."""
    ratios = {
        other: ratio(samples[name], samples[other], tolerance=rules.tolerance)
        for other in entered
        if other != name
    }
    return {label: None if found is None else found.to_json() for label, found in ratios.items()}


def pool_of(tokens: Tokens, batch: int) -> list[Tensor]:
    """Batches for a race. Centred: the common weights have no decoder bias to hold the mean."""
    stream = tokens.batches(batch, seed=1)
    batches = [next(stream) for _ in range(POOL)]
    mean = torch.stack([each.mean(0) for each in batches]).mean(0)
    return [each - mean for each in batches]


def _differences(variant: str, same: Sameness) -> str:
    lines = [f"{variant}: with the same weights the oracle's FVU is {same.fvu:.6f} and its L0 {same.l0:.2f}, but"]
    lines += [
        f"  {each.label}: reconstruction off by {each.error:.2g}, FVU {each.fvu:.6f}, L0 {each.l0:.2f}"
        for each in same.agreements
        if not each.holds
    ]
    return "\n".join(lines)
