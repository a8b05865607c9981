"""Peak resident memory of a few steps of one contender, in a process of its own.

Run as `python -m benchmarks.footprint PROBLEM RECIPE THREADS`: prints bytes. The batches are random: memory does
not depend on what they hold.
"""

import sys

import torch

from benchmarks.machine import peak_bytes
from benchmarks.recipe import Problem, Recipe
from benchmarks.roster import build
from benchmarks.same import common_weights

STEPS = 3


def main(problem_json: str, recipe: str, threads: str) -> None:
    """Print the peak."""
    torch.set_num_threads(int(threads))
    problem = Problem.model_validate_json(problem_json)
    x_TD = torch.randn(problem.batch, problem.d_model, generator=torch.Generator().manual_seed(0))
    contender = build(problem, Recipe.parse(recipe), x_TD)
    contender.ready()
    contender.put(common_weights(x_TD[:64], d_sae=problem.d_sae, k=problem.k))
    for _ in range(STEPS):
        contender.step(x_TD)
    print(peak_bytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
