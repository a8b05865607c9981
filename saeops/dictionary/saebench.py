"""A dictionary's diagnostics in the result schema of SAEBench's `core` evaluation, where definitions coincide.

The models restate the keys of SAEBench's evals/core/eval_output.py (commit 8042bb3). What saeops defines
otherwise is `ABSENT`, as SAEBench itself writes what it did not compute: docs/formats/foreign.md says which.

# F latent
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from pydantic import Field

from saeops.config import Frozen
from saeops.diagnostics.quality.nearest import nearest_other
from saeops.dictionary.provenance import Provenance
from saeops.errors import ForeignFormat
from saeops.sae.canonical import Sae
from saeops.sae.formats import saelens
from saeops.stats import Interval

Array = np.ndarray

ABSENT = -1.0
DIGITS = 10
"""After the point, as SAEBench rounds what it says of a latent."""


class Behavior(Frozen):
    """How far the model's output distribution stays what it was."""

    kl_div_score: float = ABSENT
    kl_div_with_ablation: float = ABSENT
    kl_div_with_sae: float = ABSENT


class Performance(Frozen):
    """How far the model's loss stays what it was."""

    ce_loss_score: float = ABSENT
    ce_loss_with_ablation: float = ABSENT
    ce_loss_with_sae: float = ABSENT
    ce_loss_without_sae: float = ABSENT


class Reconstruction(Frozen):
    explained_variance: float = ABSENT
    explained_variance_legacy: float = ABSENT
    mse: float = ABSENT
    cossim: float = ABSENT


class Shrinkage(Frozen):
    l2_norm_in: float = ABSENT
    l2_norm_out: float = ABSENT
    l2_ratio: float = ABSENT
    relative_reconstruction_bias: float = ABSENT


class Sparsity(Frozen):
    l0: float = ABSENT
    l1: float = ABSENT


class TokenStats(Frozen):
    """Tokens that count, where SAEBench gives all that were read."""

    total_tokens_eval_reconstruction: int
    total_tokens_eval_sparsity_variance: int


class Misc(Frozen):
    freq_over_1_percent: float
    freq_over_10_percent: float
    normalized_freq_over_1_percent: float
    normalized_freq_over_10_percent: float
    average_max_encoder_cosine_sim: float
    average_max_decoder_cosine_sim: float
    frac_alive: float


class Categories(Frozen):
    """`eval_result_metrics`."""

    model_behavior_preservation: Behavior
    model_performance_preservation: Performance
    reconstruction_quality: Reconstruction
    shrinkage: Shrinkage
    sparsity: Sparsity
    token_stats: TokenStats
    misc_metrics: Misc


class LatentDetail(Frozen):
    """One entry of `eval_result_details`."""

    index: int
    feature_density: float
    consistent_activation_heuristic: float = ABSENT
    encoder_bias: float
    encoder_norm: float
    encoder_decoder_cosine_sim: float
    max_decoder_cosine_sim: float
    max_encoder_cosine_sim: float


class EvalConfig(Frozen):
    """`eval_config`: one batch, since saeops pools all tokens where SAEBench averages over batches."""

    model_name: str
    llm_dtype: str
    batch_size_prompts: int
    n_eval_reconstruction_batches: int = 1
    n_eval_sparsity_variance_batches: int = 1
    dataset: str
    context_size: int
    compute_kl: bool = True
    compute_ce_loss: bool = True
    compute_l2_norms: bool = True
    compute_sparsity_metrics: bool = True
    compute_variance_metrics: bool = True
    compute_featurewise_density_statistics: bool = True
    compute_featurewise_weight_based_metrics: bool = True
    exclude_special_tokens_from_reconstruction: bool
    verbose: bool = False


class CoreOutput(Frozen):
    """A file of SAEBench's `core` evaluation."""

    eval_type_id: Literal["core"] = "core"
    eval_config: EvalConfig
    eval_id: str
    datetime_epoch_millis: int = Field(ge=0, le=9_999_999_999_999)
    eval_result_metrics: Categories
    eval_result_details: tuple[LatentDetail, ...]
    sae_bench_commit_hash: str
    sae_lens_id: str | None = None
    sae_lens_release_id: str | None = None
    sae_lens_version: str | None = None
    sae_cfg_dict: dict[str, Any]
    eval_result_unstructured: dict[str, Any]

    def to_bytes(self) -> bytes:
        return json.dumps(self.model_dump(mode="json"), indent=2).encode() + b"\n"


@dataclass(frozen=True)
class Evidence:
    """What a bundle's diagnostics say."""

    digest: str
    """The bundle's."""
    provenance: Provenance
    sae: Sae
    metrics: Mapping[str, Interval]
    documents: pd.DataFrame
    """EvalDocumentTable."""
    density_F: Float[Array, " F"]
    """On the eval split."""


def core_output(evidence: Evidence, *, epoch_millis: int) -> CoreOutput:
    """The `core` result of a dictionary.

    Args:
        epoch_millis: when it is exported; a bundle itself knows no time.

    Raises:
        ForeignFormat: a transcoder, which gives back something else than it reads.
    """
    sae, provenance, documents = evidence.sae, evidence.provenance, evidence.documents
    if sae.meta.sites.transcodes:
        fault = (f"target site {sae.meta.target_site}", "SAEBench's core evaluation knows no transcoders")
        raise ForeignFormat([fault], source=f"{provenance.name}, written for saebench")
    params = provenance.params
    run = documents[documents["predictions"] > 0]
    details = _details(sae, evidence.density_F)
    return CoreOutput(
        eval_config=EvalConfig(
            model_name=str(provenance.model.get("ref", "")),
            llm_dtype=str(params["model"]["dtype"]),
            batch_size_prompts=len(run),
            dataset=f"saeops {provenance.corpus.get('source', 'corpus')}, eval split",
            context_size=int(params["harvest"]["context_size"]),
            exclude_special_tokens_from_reconstruction=provenance.policy.mask_special,
        ),
        # The same bundle has the same id, whoever exports it.
        eval_id=str(uuid.uuid5(uuid.NAMESPACE_OID, evidence.digest)),
        datetime_epoch_millis=epoch_millis,
        eval_result_metrics=_categories(evidence, details),
        eval_result_details=details,
        sae_bench_commit_hash=f"not run by SAEBench; exported by saeops {provenance.version}",
        sae_cfg_dict=saelens.config_of(sae),
        eval_result_unstructured={
            "bundle": evidence.digest,
            "saeops": {name: interval.to_json() for name, interval in sorted(evidence.metrics.items())},
        },
    )


def _categories(evidence: Evidence, details: tuple[LatentDetail, ...]) -> Categories:
    def point(name: str) -> float:
        found = evidence.metrics.get(name)
        return ABSENT if found is None or found.point is None else float(found.point)

    clean, delta = point("ce_clean_nats"), point("delta_ce_nats")
    measured = {"ce_clean_nats", "delta_ce_nats"} <= evidence.metrics.keys()
    return Categories(
        model_behavior_preservation=Behavior(kl_div_with_sae=point("kl_nats")),
        model_performance_preservation=Performance(
            ce_loss_without_sae=clean, ce_loss_with_sae=clean + delta if measured else ABSENT
        ),
        reconstruction_quality=Reconstruction(cossim=point("cosine")),
        shrinkage=Shrinkage(relative_reconstruction_bias=point("relative_reconstruction_bias")),
        sparsity=Sparsity(l0=point("l0")),
        token_stats=TokenStats(
            total_tokens_eval_reconstruction=int(evidence.documents["predictions"].sum()),
            total_tokens_eval_sparsity_variance=int(evidence.documents["tokens"].sum()),
        ),
        misc_metrics=_misc(evidence.density_F, details),
    )


def _misc(density_F: Float[Array, " F"], details: tuple[LatentDetail, ...]) -> Misc:
    total = float(density_F.sum())

    def weight(limit: float) -> float:
        return float(density_F[density_F > limit].sum()) / total if total > 0 else 0.0

    return Misc(
        freq_over_1_percent=float((density_F > 0.01).mean()),
        freq_over_10_percent=float((density_F > 0.1).mean()),
        normalized_freq_over_1_percent=weight(0.01),
        normalized_freq_over_10_percent=weight(0.1),
        average_max_encoder_cosine_sim=float(np.mean([latent.max_encoder_cosine_sim for latent in details])),
        average_max_decoder_cosine_sim=float(np.mean([latent.max_decoder_cosine_sim for latent in details])),
        frac_alive=float((density_F > 0).mean()),
    )


def _details(sae: Sae, density_F: Float[Array, " F"]) -> tuple[LatentDetail, ...]:
    encoder_FD = sae.W_enc.T
    columns = {
        "feature_density": density_F,
        "encoder_bias": sae.b_enc.double().numpy(),
        "encoder_norm": encoder_FD.double().norm(dim=1).numpy(),
        "encoder_decoder_cosine_sim": torch.cosine_similarity(encoder_FD.double(), sae.W_dec.double()).numpy(),
        "max_decoder_cosine_sim": nearest_other(sae.W_dec).cosine_F,
        "max_encoder_cosine_sim": nearest_other(encoder_FD).cosine_F,
    }
    rows = zip(*(column.round(DIGITS).tolist() for column in columns.values()), strict=True)
    return tuple(
        LatentDetail(index=index, **dict(zip(columns, row, strict=True))) for index, row in enumerate(rows)
    )
