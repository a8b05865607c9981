"""The race: same problem checked, steps interleaved, each beside the bare encoder product of the same run.

# T token, D d_model, F latent
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.contender import Common, Contender
from benchmarks.data import SAMPLE_TOKENS, Tokens
from benchmarks.machine import peak_of
from benchmarks.racing import Sample, race, ratio, timing
from benchmarks.recipe import Problem, Recipe, contenders
from benchmarks.roster import build
from benchmarks.same import Sameness, common_weights, compare

FLOOR = "bare encoder product"
POOL = 8
CHECKED_TOKENS = 512
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
    memory: bool = False
    """Measure each contender's peak memory in a process of its own."""


def race_variant(
    problem: Problem, recipes: list[Recipe], pool: list[Tensor], rules: Rules
) -> list[dict[str, Any]]:
    """All conditions of one variant.

    Args:
        pool: batches that go round; they stay in memory, so that no loader is timed.

    Raises:
        NotTheSame: with the same weights, somebody's reconstruction is another.
    """
    seen_TD = torch.cat(pool)[:SAMPLE_TOKENS]
    entered = [build(problem, recipe, seen_TD) for recipe in contenders(problem.variant, recipes)]
    # The first step sets what depends on data; the common weights come after it.
    for contender in entered:
        contender.ready()
        contender.step(pool[0])
    weights = common_weights(pool[0], d_sae=problem.d_sae, k=problem.k)
    same = compare(entered, weights, pool[0][:CHECKED_TOKENS])
    if not same.holds:
        raise NotTheSame(_differences(problem.variant, same))
    peaks = {}
    if rules.memory:
        peaks = {each.recipe.label: _peak(problem, each.recipe) for each in entered}
    races = []
    for condition, prepare in _conditions(problem, weights, rules):
        for contender in entered:
            prepare(contender)
        races.append(_one_race(problem, condition, entered, pool, weights, rules, same) | {"peak_bytes": peaks})
    return races


def _conditions(problem: Problem, weights: Common, rules: Rules) -> list[tuple[str, Callable[[Contender], None]]]:
    conditions: list[tuple[str, Callable[[Contender], None]]] = [("", lambda each: each.put(weights))]
    if problem.variant == "relu_l1":
        dense = replace(weights, threshold=0.0)
        conditions = [
            ("sparse, about k latents a token", lambda each: each.put(weights)),
            ("dense, as at the start of training", lambda each: each.put(dense)),
        ]
    if rules.dead_share and problem.variant in WITH_AUXK:
        dead = torch.arange(round(rules.dead_share * problem.d_sae))

        def kill(each: Contender) -> None:
            each.put(weights)
            each.silence(dead)

        conditions.append((f"{rules.dead_share:.0%} of the latents dead, AuxK on", kill))
    return conditions


def _one_race(
    problem: Problem,
    condition: str,
    entered: list[Contender],
    pool: list[Tensor],
    weights: Common,
    rules: Rules,
    same: Sameness,
) -> dict[str, Any]:
    runners = {each.recipe.label: _runner(each, pool) for each in entered}
    runners[FLOOR] = _floor(weights, pool[0])
    turns = {each.recipe.label: each.ready for each in entered} | {FLOOR: lambda: None}
    samples = race(
        runners,
        rounds=rules.rounds,
        most_rounds=3 * rules.rounds,
        tolerance=rules.tolerance,
        least_seconds=rules.least_seconds,
        before=lambda name: turns[name](),
    )
    return {
        "problem": problem.model_dump(),
        "condition": condition,
        "same": same.to_json(),
        "floor": _figures(samples, FLOOR, problem, rules),
        "contenders": [
            {
                **each.parts(),
                **_figures(samples, each.recipe.label, problem, rules),
                "over": _over(samples, each.recipe.label, entered, rules),
                "l0_after": each.read(pool[0][:CHECKED_TOKENS], training=True).l0,
            }
            for each in entered
        ],
    }


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


def _over(samples: dict[str, list[Sample]], name: str, entered: list[Contender], rules: Rules) -> dict[str, Any]:
    """How many times faster this contender is than each other one."""
    ratios = {
        other.recipe.label: ratio(samples[name], samples[other.recipe.label], tolerance=rules.tolerance)
        for other in entered
        if other.recipe.label != name
    }
    return {label: None if found is None else found.to_json() for label, found in ratios.items()}


def _runner(contender: Contender, pool: list[Tensor]) -> Callable[[], None]:
    batches = itertools.cycle(pool)

    def once() -> None:
        contender.step(next(batches))

    return once


def _floor(weights: Common, x_TD: Tensor) -> Callable[[], None]:
    out_TF = x_TD.new_empty(len(x_TD), weights.W_enc_DF.shape[1])
    W_enc_FD = weights.W_enc_DF.t().contiguous()

    def once() -> None:
        torch.addmm(weights.b_enc, x_TD, W_enc_FD.t(), out=out_TF)

    return once


def pool_of(tokens: Tokens, batch: int) -> list[Tensor]:
    """Batches for a race. Centred: the common weights have no decoder bias to hold the mean."""
    stream = tokens.batches(batch, seed=1)
    batches = [next(stream) for _ in range(POOL)]
    mean = torch.stack([each.mean(0) for each in batches]).mean(0)
    return [each - mean for each in batches]


def _peak(problem: Problem, recipe: Recipe) -> int | None:
    return peak_of("benchmarks.footprint", problem.model_dump_json(), recipe.label, str(torch.get_num_threads()))


def _differences(variant: str, same: Sameness) -> str:
    lines = [f"{variant}: with the same weights the oracle's FVU is {same.fvu:.6f} and its L0 {same.l0:.2f}, but"]
    lines += [
        f"  {each.label}: reconstruction off by {each.error:.2g}, FVU {each.fvu:.6f}, L0 {each.l0:.2f}"
        for each in same.agreements
        if not each.holds
    ]
    return "\n".join(lines)
