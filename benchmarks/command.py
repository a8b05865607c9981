"""The command inside the peers' environment: parse, run, print, write JSON."""

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import losses, machine, report, speed
from benchmarks.data import open_tokens
from benchmarks.environment import CHECKOUT
from benchmarks.recipe import LIBRARIES, VARIANTS, Problem, Recipe, contenders
from benchmarks.recovery import SETTINGS, recover

RESULTS = CHECKOUT / ".cache" / "benchmarks" / "losses"
SCHEDULE_STEPS = 10_000
"""Steps of the run that a race is a piece of."""


def run(arguments: Sequence[str]) -> None:
    """One of race, losses, planted, report."""
    warnings.filterwarnings("ignore")
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        done = options.action(options)
    except (ValueError, speed.NotTheSame) as error:
        sys.exit(f"benchmarks: {error}")
    if done is None:
        return
    done = {
        "command": machine.command("benchmarks/training.py", arguments),
        "machine": machine.facts(),
        **done,
    }
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(done, indent=1) + "\n")
    print(report.section(done))


def race(options: argparse.Namespace) -> dict[str, Any]:
    """Interleaved steps of every variant."""
    tokens = open_tokens(options.activations, site=options.site, d_model=options.shape.get("D", 576))
    rules = speed.Rules(
        rounds=options.rounds,
        tolerance=options.tolerance,
        least_seconds=options.least_seconds,
        dead_share=options.with_dead,
    )
    recipes = _recipes(options)
    races, pool = [], speed.pool_of(tokens, options.batch)
    for variant in options.variants:
        problem = _problem(options, variant, d_model=tokens.d_model, steps=SCHEDULE_STEPS)
        races += speed.race_variant(problem, recipes, pool, rules)
    return {"kind": "race", "tokens": tokens.source, "races": races}


def loss(options: argparse.Namespace) -> dict[str, Any]:
    """Train everybody to the end; results of earlier runs in the folder are kept."""
    tokens = open_tokens(options.activations, site=options.site, d_model=options.shape.get("D", 576))
    results = []
    for seed in options.seeds:
        for variant in options.variants:
            for recipe in contenders(variant, _recipes(options)):
                steps = -(-options.tokens // options.batch)
                problem = _problem(options, variant, d_model=tokens.d_model, steps=steps, seed=seed)
                result = losses.measure(problem, recipe, tokens, held_out=options.held_out, folder=options.results)
                print(f"{variant} {recipe.label} seed {seed}: held-out FVU {result['fvu']:.4f}", file=sys.stderr)
                results.append(result)
    rows = losses.summarise(results)
    return {
        "kind": "losses",
        "tokens": tokens.source,
        "trained_tokens": results[0]["tokens"],
        "problem": results[0]["key"]["problem"],
        "rows": rows,
        "verdicts": losses.verdicts(rows),
        "results": results,
    }


def planted(options: argparse.Namespace) -> dict[str, Any]:
    """Recovery of planted dictionaries."""
    problem = Problem(
        variant=options.variants[0],
        d_model=options.shape.get("D", 128),
        d_sae=options.shape.get("F", 1024),
        k=options.k,
        batch=options.batch,
        steps=-(-options.tokens // options.batch),
    )
    settings = [
        recover(
            setting,
            contenders(problem.variant, _recipes(options)),
            problem,
            n_features=options.features,
            distinct_tokens=options.distinct_tokens,
            seeds=options.seeds,
        )
        for setting in options.settings
    ]
    return {"kind": "planted", "settings": settings}


def write_report(options: argparse.Namespace) -> None:
    """The page of all results."""
    page = report.page([json.loads(path.read_text()) for path in options.files])
    options.markdown.write_text(page)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    top = argparse.ArgumentParser(prog="benchmarks/training.py")
    actions = top.add_subparsers(required=True)
    racing = _action(actions, "race", race, variants=list(VARIANTS), batch=4096)
    racing.add_argument("--rounds", type=int, default=9, help="clean samples wanted of each contender")
    racing.add_argument("--tolerance", type=float, default=0.04, help="foreign share of CPU in a clean sample")
    racing.add_argument("--least-seconds", type=float, default=0.4, help="least length of a sample")
    racing.add_argument("--with-dead", type=float, default=0.0, help="also race with this share dead (AuxK)")
    training = _action(actions, "losses", loss, variants=["topk"], batch=2048)
    training.add_argument("--tokens", type=int, default=2_000_000)
    training.add_argument("--seeds", type=_numbers, default=[0, 1, 2])
    training.add_argument("--held-out", type=int, default=50_000, help="tokens read at the end")
    training.add_argument("--results", type=Path, default=RESULTS, help="finished runs, kept between calls")
    planting = _action(actions, "planted", planted, variants=["topk"], batch=1024, k=5)
    planting.add_argument("--tokens", type=int, default=2_000_000)
    planting.add_argument("--seeds", type=_numbers, default=[0, 1, 2])
    planting.add_argument("--features", type=int, default=512)
    planting.add_argument("--distinct-tokens", type=int, default=131_072)
    planting.add_argument("--settings", type=_words(SETTINGS), default=list(SETTINGS))
    reporting = actions.add_parser("report")
    reporting.add_argument("files", nargs="+", type=Path)
    reporting.add_argument("--markdown", type=Path, required=True)
    reporting.set_defaults(action=write_report, threads=1)
    return top


def _action(
    actions: Any, name: str, action: Any, *, variants: list[str], batch: int, k: int = 32
) -> argparse.ArgumentParser:
    found: argparse.ArgumentParser = actions.add_parser(name)
    found.add_argument("--activations", default="random", help="activation set, .npy file, or `random`")
    found.add_argument("--site", default="blocks.14.resid_post")
    found.add_argument("--shape", type=_shape, default={}, help="F=18432, and D=64 for random numbers")
    found.add_argument("--batch", type=int, default=batch)
    found.add_argument("--k", type=int, default=k)
    found.add_argument("--variants", type=_words(VARIANTS), default=variants)
    found.add_argument("--contenders", nargs="+", default=list(LIBRARIES), help="library[@key=value,…]")
    found.add_argument("--lr", type=float, help="peak learning rate of every contender that names none")
    found.add_argument("--threads", type=int, default=2)
    found.add_argument("--json", type=Path)
    found.set_defaults(action=action)
    return found


def _recipes(options: argparse.Namespace) -> list[Recipe]:
    recipes = [Recipe.parse(text) for text in options.contenders]
    if options.lr is None:
        return recipes
    return [each if each.lr is not None else each.model_copy(update={"lr": options.lr}) for each in recipes]


def _problem(options: argparse.Namespace, variant: str, *, d_model: int, steps: int, seed: int = 0) -> Problem:
    d_sae = options.shape.get("F", 8 * d_model)
    return Problem.model_validate(
        {
            "variant": variant,
            "d_model": d_model,
            "d_sae": d_sae,
            "k": options.k,
            "batch": options.batch,
            "steps": steps,
            "seed": seed,
        }
    )


def _shape(text: str) -> dict[str, int]:
    pairs = (part.partition("=") for part in text.split(","))
    found = {name: int(value) for name, _, value in pairs}
    if not found.keys() <= {"F", "D"}:
        raise argparse.ArgumentTypeError("F=… and D=… only")
    return found


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _words(known: Any) -> Any:
    def read(text: str) -> list[str]:
        found = text.split(",")
        if unknown := set(found) - set(known):
            raise argparse.ArgumentTypeError(f"no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        return found

    return read
