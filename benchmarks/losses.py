"""The loss at equal tokens: every contender on the same tokens in the same order, several seeds, results kept.

# T token, D d_model, F latent
"""

import json
import re
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from benchmarks.contender import Contender
from benchmarks.data import Tokens, sample
from benchmarks.recipe import Problem, Recipe
from benchmarks.roster import build
from saeops.digests import digest_json
from saeops.files import write_atomic

LAST_STEPS = 20
CURVE_POINTS = 20
READ_TOKENS = 2048


def kept_or_made(folder: Path, key: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of an earlier run with this key, or a fresh one, written before it is given."""
    digest = digest_json(key)[:10]
    name = re.sub(r"[^A-Za-z0-9.=_-]+", "-", f"{key['variant']}-{key['label']}-seed{key['seed']}-{digest}")
    path = folder / f"{name}.json"
    if path.exists():
        return dict(json.loads(path.read_text()))
    result = {"key": key, **make()}
    write_atomic(path, json.dumps(result, indent=1).encode() + b"\n")
    return result


def measure(problem: Problem, recipe: Recipe, tokens: Tokens, *, held_out: int, folder: Path) -> dict[str, Any]:
    """One contender and seed, trained to the end and read on tokens held out."""
    key = {
        "variant": problem.variant,
        "label": recipe.label,
        "seed": problem.seed,
        "problem": problem.model_dump(),
        "tokens": tokens.source,
        "held_out": held_out,
    }
    return kept_or_made(folder, key, lambda: _train(problem, recipe, tokens, held_out=held_out))


def _train(problem: Problem, recipe: Recipe, tokens: Tokens, *, held_out: int) -> dict[str, Any]:
    contender = build(problem, recipe, sample(tokens))
    contender.ready()
    curve, last = [], []
    seconds = 0.0
    every = max(1, problem.steps // CURVE_POINTS)
    batches = tokens.batches(problem.batch, seed=problem.seed)
    for done, x_TD in enumerate(islice(batches, problem.steps)):
        if done >= problem.steps - LAST_STEPS:
            last.append(contender.training_fvu(x_TD))
        if done % every == 0:
            curve.append([done * problem.batch, contender.training_fvu(x_TD)])
        start = time.perf_counter()
        contender.step(x_TD)
        seconds += time.perf_counter() - start
    contender.finish()
    return {
        **contender.parts(),
        "tokens": problem.steps * problem.batch,
        "train_fvu": fmean(last),
        "curve": curve,
        "seconds": seconds,
        **_held_out(contender, tokens.held_out(held_out)),
    }


def _held_out(contender: Contender, x_TD: Tensor) -> dict[str, Any]:
    """By the library's path of inference, and by its training path, which may keep another number of latents."""
    inference = _sums(contender, x_TD, training=False)
    training = _sums(contender, x_TD, training=True)
    return {
        "held_out_tokens": len(x_TD),
        "fvu": inference["fvu"],
        "l0": inference["l0"],
        "silent": inference["silent"],
        "fvu_training_path": training["fvu"],
        "l0_training_path": training["l0"],
    }


def _sums(contender: Contender, x_TD: Tensor, *, training: bool) -> dict[str, float]:
    missed, fired, l0 = 0.0, torch.zeros(contender.problem.d_sae, dtype=torch.bool), 0.0
    for part_TD in x_TD.split(READ_TOKENS):
        reading = contender.read(part_TD, training=training)
        missed += float((part_TD.double() - reading.x_hat_TD).square().sum())
        fired |= reading.fires_TF.any(0)
        l0 += reading.l0 * len(part_TD)
    variance = float((x_TD.double() - x_TD.double().mean(0)).square().sum())
    return {"fvu": missed / variance, "l0": l0 / len(x_TD), "silent": 1 - float(fired.float().mean())}


def summarise(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a variant and contender: means over seeds, and the held-out FVU's range."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in results:
        rows.setdefault((result["key"]["variant"], result["key"]["label"]), []).append(result)
    return [
        {
            "variant": variant,
            "label": label,
            "version": of[0]["version"],
            "settings": of[0]["settings"],
            "seeds": len(of),
            "fvu": fmean(each["fvu"] for each in of),
            "fvu_low": min(each["fvu"] for each in of),
            "fvu_high": max(each["fvu"] for each in of),
            **{name: fmean(each[name] for each in of) for name in ("train_fvu", "l0", "silent", "seconds")},
            **{name: fmean(each[name] for each in of) for name in ("fvu_training_path", "l0_training_path")},
        }
        for (variant, label), of in sorted(rows.items())
    ]


def verdicts(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each variant and each of our recipes: where its mean lies beside the best peer's seeds.

    `below` their least, `within` their range, `above` their largest.
    """
    found = []
    for variant in sorted({row["variant"] for row in rows}):
        of = [row for row in rows if row["variant"] == variant]
        peers = [row for row in of if not is_ours(row["label"])]
        if not peers:
            continue
        best = min(peers, key=lambda row: float(row["fvu"]))
        for ours in (row for row in of if is_ours(row["label"])):
            place = "within" if ours["fvu"] <= best["fvu_high"] else "above"
            place = "below" if ours["fvu"] < best["fvu_low"] else place
            found.append({"variant": variant, "ours": ours["label"], "best_peer": best["label"], "place": place})
    return found


def is_ours(label: str) -> bool:
    """Whether a label is one of this project's recipes."""
    return label.split("@")[0] == "ours"
