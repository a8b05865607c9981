"""Small but real bundles: an SAE of 8 × 16, tables with their columns, sealed by the stage itself."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from saeops.dictionary.bundle import Bundle, open_bundle
from saeops.metrics import write_metrics
from saeops.params import Params, validate_params
from saeops.promotion.policy import PromotePolicy
from saeops.promotion.protocol import Author
from saeops.promotion.verdict import Verdict
from saeops.refs import Workspace
from saeops.review.ledger import Decision, LedgerEntry, next_entry
from saeops.sae.canonical import Sae, SaeMeta
from saeops.sealed import Sealed, seal
from saeops.stages import bundle as bundle_stage
from saeops.stats import Interval
from tests.tiny import RecordingWatch

NAME = "tiny/blocks.1.resid_post"
D, F, LABELLED = 8, 16, 10
MODEL = "m" * 64
NOW = datetime.datetime(2026, 3, 1, 12, 0, tzinfo=datetime.UTC)


def author(operation: str, *, who: str = "ada", minutes: int = 0) -> Author:
    return Author(who=who, now=NOW + datetime.timedelta(minutes=minutes), operation=operation)


def tiny_params(**sections: Any) -> Params:
    return validate_params(
        {
            "name": NAME,
            "harvest": {"sites": ["blocks.1.resid_post"]},
            "train": {"site": "blocks.1.resid_post", "variant": "topk", "k": 4},
            "review": {"by_priority": 3, "at_random": 3},
            "promote": {"gates": [{"metric": "explained_variance", "at_least": 0.5}], "trusted_confidence": 0.3},
        }
        | sections
    )


def tiny_bundle(
    root: Path,
    seed: int = 0,
    *,
    params: Params | None = None,
    ev: float = 0.8,
    width: int = D,
    model: str = MODEL,
) -> Bundle:
    """A finished `artifacts/bundle` under `root`, made from parts that differ by seed."""
    params = params or tiny_params()
    space = Workspace(root=root)
    write_parts(space, params, seed=seed, ev=ev, width=width, model=model)
    bundle_stage.run(params, space, watch=RecordingWatch())
    return open_bundle(space.bundle)


def write_parts(
    space: Workspace, params: Params, *, seed: int = 0, ev: float = 0.8, width: int = D, model: str = MODEL
) -> None:
    """Everything the bundle stage reads, sealed as the stages before it would."""
    acts = _activations(space, params, seed, {"digest": model, "d_model": width})
    made = {"activations": acts.digest, "seed": params.seed}
    sae = _sae(space, params, seed, made, width)
    _controls(space, params, made)
    made["sae"] = sae.digest
    _diagnostics(space, params, made, ev)
    catalog = _catalog(space, made, seed)
    labels = _labels(space, made | {"catalog": catalog.digest})
    _effects(space, made | {"labels": labels.digest})


def _activations(space: Workspace, params: Params, seed: int, model: dict[str, Any]) -> Sealed:
    space.activations.mkdir(parents=True)
    (space.activations / "shard.bin").write_bytes(bytes([seed]) * 32)
    summary = {
        "model": model,
        "corpus": {"source": "test"},
        "policy": params.harvest.policy.model_dump(mode="json"),
    }
    inputs = {"harvest": params.harvest.model_dump(mode="json"), "seed": params.seed}
    return seal(space.activations, kind="activations", version=1, inputs=inputs, summary=summary)


def _sae(space: Workspace, params: Params, seed: int, made: dict[str, Any], width: int) -> Sealed:
    generator = torch.Generator().manual_seed(seed)
    W_dec = torch.nn.functional.normalize(torch.randn(F, width, generator=generator), dim=1)
    meta = SaeMeta(variant="topk", site=params.train.site, d_model=width, d_sae=F, k=4)
    Sae(W_dec.T.contiguous(), torch.zeros(F), W_dec, torch.zeros(width), None, meta).save(space.sae)
    inputs = made | {"train": params.train.model_dump(mode="json")}
    return seal(space.sae, kind="sae", version=1, inputs=inputs, summary={})


def _controls(space: Workspace, params: Params, made: dict[str, Any]) -> Sealed:
    space.controls.mkdir(parents=True)
    inputs = made | {"controls": params.controls.model_dump(mode="json")}
    summary = {"random_model": None, "seeds": {}}
    return seal(space.controls, kind="controls", version=1, inputs=inputs, summary=summary)


def _diagnostics(space: Workspace, params: Params, made: dict[str, Any], ev: float) -> Sealed:
    figures = {"explained_variance": interval(ev), "l0": interval(4.0)}
    write_metrics(space.diagnostics / "metrics.json", figures)
    section = params.diagnose.model_dump(mode="json", include={"resamples"})
    return seal(space.diagnostics, kind="diagnostics", version=1, inputs=made | {"diagnose": section}, summary={})


def _catalog(space: Workspace, made: dict[str, Any], seed: int) -> Sealed:
    space.catalog.mkdir(parents=True)
    table = pd.DataFrame(
        {
            "latent": range(F),
            "density": [0.01 * (i + 1) for i in range(F)],
            "mean_activation": [1.0 + seed] * F,
            "max_activation": [10.0 + seed] * F,
        }
    )
    table.to_parquet(space.catalog / "latents.parquet")
    return seal(space.catalog, kind="catalog", version=1, inputs=made, summary={})


def _labels(space: Workspace, made: dict[str, Any]) -> Sealed:
    space.labels.mkdir(parents=True)
    numbers = list(range(LABELLED))
    table = pd.DataFrame(
        {
            "latent": numbers,
            "labeller": "pattern",
            "version": [f"{i:016x}" for i in numbers],
            "text": [f"label {i}" for i in numbers],
            "chosen": True,
            "confidence": [i / 10 for i in numbers],
            "tpr_low": 0.5,
            "tpr_high": 0.9,
            "tnr_low": 0.6,
            "tnr_high": 1.0,
        }
    )
    table.to_parquet(space.labels / "labels.parquet")
    write_metrics(space.labels / "metrics.json", {"label_confidence": interval(0.4)})
    return seal(space.labels, kind="labels", version=1, inputs=made, summary={})


def _effects(space: Workspace, made: dict[str, Any]) -> Sealed:
    space.effects.mkdir(parents=True)
    table = pd.DataFrame({"latent": [3], "kind": "steer", "metric": "target_logprob", "difference_point": [0.25]})
    table.to_parquet(space.effects / "effects.parquet")
    write_metrics(space.effects / "metrics.json", {"steering_effect": interval(0.25)})
    return seal(space.effects, kind="effects", version=1, inputs=made, summary={})


def interval(point: float, half: float = 0.05, n: int = 40) -> Interval:
    return Interval(point, point - half, point + half, n, "documents")


def verdict_on(bundle: Bundle, champion: str | None, outcome: str = "pass") -> Verdict:
    """A verdict without the work of judging, where a test is about what follows."""
    return Verdict(outcome, bundle.digest, champion, (), "e" * 64, PromotePolicy())  # type: ignore[arg-type]


def decisions(bundle: str, said: Sequence[tuple[int, str, str | None]]) -> list[LedgerEntry]:
    """Ledger entries on a tiny bundle's labels: (latent, verdict, text)."""
    entries: list[LedgerEntry] = []
    for latent, verdict, text in said:
        decision = Decision(
            bundle, latent, f"{latent:016x}", verdict, text, "because", "ada", "2026-03-01T12:00:00+00:00"
        )  # type: ignore[arg-type]
        entries.append(next_entry(entries, decision))
    return entries
