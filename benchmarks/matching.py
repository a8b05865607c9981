"""What matching two dictionaries costs, beside scipy's dense Hungarian method.

    python -m benchmarks.matching --json matching.json
    python benchmarks/training.py report … matching.json --markdown docs/performance.md

Each figure is of a process of its own, so that its peak memory is its own.

# F latent, D width, T token
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import machine, report
from benchmarks.racing import Stopwatch
from saeops.drift.matching.assign import NOBODY, assign, assign_dense
from saeops.drift.matching.config import MatchConfig
from saeops.drift.matching.match import match
from saeops.drift.matching.scores import Likeness, Side
from saeops.sae.codes import Codes

WIDTH = 576
TURN = 0.6
"""Tangent of the angle by which a latent of B differs from its own in A: cosine 0.86."""
GONE = 0.1
"""Share of B's latents that have nothing to do with A."""
TOKENS, PER_TOKEN = 20_000, 32


def sides(size: int, *, related: bool, with_activations: bool) -> tuple[Side, Side]:
    """Two dictionaries of so many latents: related, a tenth replaced, in another order; or strangers."""
    g = torch.Generator().manual_seed(0)
    first, noise = (torch.nn.functional.normalize(torch.randn(size, WIDTH, generator=g), dim=1) for _ in range(2))
    order = torch.randperm(size, generator=g)
    kept = (torch.rand(size, generator=g) > GONE)[:, None] if related else torch.zeros(size, 1).bool()
    second = torch.where(kept, first + TURN * noise, noise)[order]
    codes = None, None
    if with_activations:
        codes = _codes(size, order, g)
    living = np.ones(size, dtype=bool)
    return Side.of(first, codes[0], living), Side.of(second, codes[1], living)


def _codes(size: int, order: torch.Tensor, g: torch.Generator) -> tuple[Codes, Codes]:
    """A latent of B fires where its own in A does, about a tenth otherwise strong."""
    latent_TK = torch.randint(size, (TOKENS, PER_TOKEN), generator=g).sort(dim=1).values
    once_TK = torch.ones_like(latent_TK, dtype=torch.bool)
    once_TK[:, 1:] = latent_TK.diff(dim=1) > 0
    value_TK = (0.5 + torch.rand(TOKENS, PER_TOKEN, generator=g)) * once_TK
    second_TK = value_TK * (1 + 0.1 * torch.randn(TOKENS, PER_TOKEN, generator=g)).clamp(min=0.1)
    place = order.argsort()
    return _kept(value_TK, latent_TK, size), _kept(second_TK, place[latent_TK], size)


def _kept(value_TK: torch.Tensor, latent_TK: torch.Tensor, size: int) -> Codes:
    """Codes of the positive entries, those of a token by latent."""
    row_N, nth_N = (value_TK > 0).nonzero(as_tuple=True)
    latent_N = latent_TK[row_N, nth_N]
    by_latent = torch.argsort(row_N * size + latent_N)
    offsets = torch.cat(
        [torch.zeros(1, dtype=torch.long), torch.bincount(row_N, minlength=len(value_TK)).cumsum(0)]
    )
    return Codes(offsets, latent_N[by_latent], value_TK[row_N, nth_N][by_latent], size)


def assigned(first: Side, second: Side) -> dict[str, Any]:
    """The assignment alone."""
    found = assign(Likeness(first, second, 0.5), floor=0.0, candidates=MatchConfig().candidates)
    return {"value": found.value, "gap": found.gap, "rounds": found.rounds, "candidates": found.candidates}


def whole(first: Side, second: Side) -> dict[str, Any]:
    """Everything that `saeops match` computes: assignment, permuted null, kinds."""
    found = match(first, second, MatchConfig(), seed=0).found
    return {"value": found.value, "gap": found.gap, "rounds": found.rounds, "candidates": found.candidates}


def dense(first: Side, second: Side) -> dict[str, Any]:
    """The reference on the whole matrix."""
    score_FG = (first.direction @ second.direction.T).numpy()
    column_F = assign_dense(score_FG, floor=0.0)
    rows = np.flatnonzero(column_F != NOBODY)
    return {"value": float(score_FG[rows, column_F[rows]].astype(np.float64).sum()), "gap": 0.0}


WORK: dict[str, Callable[[Side, Side], dict[str, Any]]] = {"assign": assigned, "match": whole, "dense": dense}


def one(options: argparse.Namespace) -> dict[str, Any]:
    """One figure, in this process."""
    world = sides(options.size, related=options.related, with_activations=options.with_activations)
    before, used, watch = machine.peak_bytes(), time.process_time(), Stopwatch()
    found = WORK[options.work](*world)
    sample = watch.sample()
    return {
        "work": options.work,
        "size": options.size,
        "related": options.related,
        "with_activations": options.with_activations,
        "seconds": sample.seconds,
        "cpu_seconds": time.process_time() - used,
        "foreign": sample.foreign,
        "peak_bytes": machine.peak_bytes(),
        "before_bytes": before,
        **found,
    }


def all_of(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every figure, each in its own process."""
    rows = []
    for size in options.sizes:
        plans = [("assign", True, False), ("assign", False, False), ("match", True, True)]
        if size <= options.dense_at_most:
            plans += [("dense", True, False), ("dense", False, False)]
        for work, related, with_activations in plans:
            command = [sys.executable, "-m", "benchmarks.matching", "--work", work, "--size", str(size)]
            command += ["--threads", str(options.threads)]
            command += ["--related"] * related + ["--with-activations"] * with_activations
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows.append(json.loads(done.stdout))
            print(rows[-1], file=sys.stderr)
    return rows


def main(arguments: Sequence[str]) -> None:
    """Measure, print the section, write the results."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.work is not None:
        print(json.dumps(one(options)))
        return
    done = {
        "kind": "matching",
        "command": machine.command("-m benchmarks.matching", arguments),
        "machine": machine.facts(),
        "width": WIDTH,
        "tokens": TOKENS,
        "rows": all_of(options),
    }
    if options.json is not None:
        options.json.write_text(json.dumps(done, indent=1) + "\n")
    print(report.section(done))


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="benchmarks.matching")
    found.add_argument(
        "--sizes", type=lambda text: [int(each) for each in text.split(",")], default=[4608, 20_000]
    )
    found.add_argument("--dense-at-most", type=int, default=4608, help="latents up to which the dense method runs")
    found.add_argument("--threads", type=int, default=2)
    found.add_argument("--json", type=Path)
    found.add_argument("--work", choices=sorted(WORK), help="one figure in this process, as JSON")
    found.add_argument("--size", type=int)
    found.add_argument("--related", action="store_true")
    found.add_argument("--with-activations", action="store_true")
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
