"""Results as SAEBench's `core` evaluation keeps them: our figures where they mean the same, −1 elsewhere."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from saeops.diagnostics.schema import EvalDocumentTable
from saeops.dictionary.bundle import Bundle, open_bundle
from saeops.dictionary.provenance import Provenance
from saeops.dictionary.saebench import ABSENT, CoreOutput, Evidence, core_output
from saeops.errors import ForeignFormat, FormatUnknown, UsageError
from saeops.metrics import write_metrics
from saeops.refs import Workspace
from saeops.sae.canonical import Sae, SaeMeta
from saeops.sealed import open_sealed, seal
from saeops.stages import bundle as bundle_stage
from saeops.stages import saebench
from tests.bundles import F, interval, tiny_bundle, tiny_params, write_parts
from tests.tiny import RecordingWatch

GOLDEN = Path(__file__).parents[1] / "golden" / "saebench_core.json"
FIGURES = {
    "explained_variance": 0.875,
    "mse": 0.25,
    "cosine": 0.96875,
    "relative_reconstruction_bias": 1.03125,
    "l0": 4.0,
    "ce_clean_nats": 3.5,
    "delta_ce_nats": 0.0625,
    "ce_recovered_zero": 0.984375,
    "kl_nats": 0.046875,
    "top1_agreement": 0.9375,
}
MILLIS = 1_772_366_400_000
REQUIRED = {
    "": "eval_config eval_id datetime_epoch_millis eval_result_metrics sae_bench_commit_hash sae_lens_id"
    " sae_lens_release_id sae_lens_version sae_cfg_dict",
    "eval_result_metrics": "model_behavior_preservation model_performance_preservation reconstruction_quality"
    " shrinkage sparsity token_stats misc_metrics",
    "eval_result_metrics.model_behavior_preservation": "kl_div_score kl_div_with_ablation kl_div_with_sae",
    "eval_result_metrics.model_performance_preservation": "ce_loss_score ce_loss_with_ablation ce_loss_with_sae"
    " ce_loss_without_sae",
    "eval_result_metrics.reconstruction_quality": "explained_variance explained_variance_legacy mse cossim",
    "eval_result_metrics.shrinkage": "l2_norm_in l2_norm_out l2_ratio relative_reconstruction_bias",
    "eval_result_metrics.sparsity": "l0 l1",
    "eval_result_metrics.token_stats": "total_tokens_eval_reconstruction total_tokens_eval_sparsity_variance",
    "eval_result_metrics.misc_metrics": "freq_over_1_percent freq_over_10_percent normalized_freq_over_1_percent"
    " normalized_freq_over_10_percent average_max_encoder_cosine_sim average_max_decoder_cosine_sim frac_alive",
}
"""What SAEBench's eval_output_schema_core.json requires (commit 8042bb3)."""
DETAIL = (
    "index feature_density consistent_activation_heuristic encoder_bias encoder_norm encoder_decoder_cosine_sim"
    " max_decoder_cosine_sim max_encoder_cosine_sim"
)
COINCIDE = {
    "kl_div_with_sae": 0.046875,
    "ce_loss_without_sae": 3.5,
    "ce_loss_with_sae": 3.5625,
    "cossim": 0.96875,
    "relative_reconstruction_bias": 1.03125,
    "l0": 4.0,
    "total_tokens_eval_reconstruction": 90,
    "total_tokens_eval_sparsity_variance": 300,
}


def made() -> Evidence:
    """Four latents: the first fires on 20 % of the tokens, the last on none."""
    eye = torch.eye(4, 3)
    W_dec = torch.nn.functional.normalize(eye + 0.25 * torch.ones(4, 3), dim=1)
    meta = SaeMeta(variant="topk", site="blocks.1.resid_post", d_model=3, d_sae=4, k=4)
    params = tiny_params()
    provenance = Provenance(
        name="tiny/blocks.1.resid_post",
        model={"ref": "tiny", "digest": "m" * 64},
        corpus={"source": "folder"},
        policy=params.harvest.policy,
        params=params.model_dump(mode="json"),
        code="c" * 64,
        version="0.1.0",
        lock=None,
        activations_md5="a" * 32,
        upstream={},
    )
    return Evidence(
        digest="d" * 64,
        provenance=provenance,
        sae=Sae(2 * W_dec.T.contiguous(), torch.tensor([0.0, 0.5, -0.5, 1.0]), W_dec, torch.zeros(3), None, meta),
        metrics={name: interval(value) for name, value in FIGURES.items()},
        documents=pd.DataFrame({"tokens": [100.0, 200.0], "predictions": [90.0, 0.0]}),
        density_F=np.array([0.2, 0.05, 0.005, 0.0]),
    )


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Dotted path → leaf."""
    if isinstance(value, dict):
        return {p: leaf for key, part in value.items() for p, leaf in flat(part, f"{path}.{key}").items()}
    if isinstance(value, list):
        return {p: leaf for at, part in enumerate(value) for p, leaf in flat(part, f"{path}.{at}").items()}
    return {path: value}


def test_the_file_is_the_golden_one() -> None:
    found = flat(json.loads(core_output(made(), epoch_millis=MILLIS).to_bytes()))
    golden = flat(json.loads(GOLDEN.read_text()))
    assert list(found) == list(golden)
    for path, value in golden.items():
        assert found[path] == (pytest.approx(value, abs=1e-6) if isinstance(value, float) else value), path


def test_the_golden_file_has_every_key_that_saebench_requires() -> None:
    golden = json.loads(GOLDEN.read_text())
    CoreOutput.model_validate(golden)
    for path, names in REQUIRED.items():
        part = golden
        for key in filter(None, path.split(".")):
            part = part[key]
        assert set(names.split()) <= part.keys(), path
    assert all(latent.keys() == set(DETAIL.split()) for latent in golden["eval_result_details"])
    assert golden["eval_type_id"] == "core"


def test_figures_that_mean_the_same_are_given_and_all_others_are_absent() -> None:
    output = core_output(made(), epoch_millis=MILLIS)
    categories = output.eval_result_metrics.model_dump()
    misc = categories.pop("misc_metrics")
    given = {name: value for part in categories.values() for name, value in part.items()}
    assert {name: value for name, value in given.items() if value != ABSENT} == pytest.approx(COINCIDE)
    assert misc["freq_over_1_percent"] == 0.5
    assert misc["freq_over_10_percent"] == 0.25
    assert misc["normalized_freq_over_1_percent"] == pytest.approx(0.25 / 0.255)
    assert misc["normalized_freq_over_10_percent"] == pytest.approx(0.2 / 0.255)
    assert misc["frac_alive"] == 0.75
    assert output.eval_result_unstructured["saeops"]["explained_variance"]["low"] == pytest.approx(0.825)


def test_a_figure_that_was_not_measured_is_absent() -> None:
    bare = Evidence(**{**vars(made()), "metrics": {"l0": interval(4.0), "ce_clean_nats": interval(3.5)}})
    performance = core_output(bare, epoch_millis=MILLIS).eval_result_metrics.model_performance_preservation
    assert (performance.ce_loss_without_sae, performance.ce_loss_with_sae) == (3.5, ABSENT)


def test_a_transcoder_is_refused() -> None:
    evidence = made()
    meta = evidence.sae.meta.model_copy(update={"target_site": "blocks.2.mlp_out", "apply_b_dec_to_input": False})
    with pytest.raises(ForeignFormat, match="no transcoders"):
        core_output(
            Evidence(**{**vars(evidence), "sae": Sae.of(evidence.sae.tensors(), meta)}), epoch_millis=MILLIS
        )


# ── the stage ───────────────────────────────────────────────────────────────


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle with the tables that diagnostics leave."""
    params, space = tiny_params(), Workspace(root=tmp_path)
    write_parts(space, params)
    inputs = dict(open_sealed(space.diagnostics, kind="diagnostics").inputs)
    columns = dict.fromkeys(EvalDocumentTable.to_schema().columns, 1.0)
    rows = [
        {**columns, "document": number, "sha256": f"{number:064x}", "tokens": 50.0, "predictions": 49.0}
        for number in range(9)
    ]
    documents = pd.DataFrame(rows).astype({"document": "int32"})
    documents.to_parquet(space.diagnostics / "documents.parquet")
    pd.DataFrame({"latent": range(F), "density": 0.1}).to_parquet(space.diagnostics / "latents.parquet")
    write_metrics(space.diagnostics / "metrics.json", {name: interval(value) for name, value in FIGURES.items()})
    seal(space.diagnostics, kind="diagnostics", version=2, inputs=inputs, summary={})
    bundle_stage.run(params, space, watch=RecordingWatch())
    return open_bundle(space.bundle)


def test_a_bundle_is_exported_under_its_name_and_digest(bundle: Bundle, tmp_path: Path) -> None:
    exported = saebench.run(bundle, tmp_path / "out", force=False, epoch_millis=MILLIS)
    (name,) = exported.files
    assert name == f"tiny_blocks.1.resid_post_{bundle.digest[:12]}_eval_results.json"
    assert exported.to_json()["format"] == "saebench"
    output = CoreOutput.model_validate_json((tmp_path / "out" / name).read_bytes())
    assert len(output.eval_result_details) == F
    assert output.eval_result_metrics.token_stats.total_tokens_eval_sparsity_variance == 450
    assert output.eval_config.batch_size_prompts == 9
    with pytest.raises(UsageError, match="already there"):
        saebench.run(bundle, tmp_path / "out", force=False, epoch_millis=MILLIS)
    assert saebench.run(bundle, tmp_path / "out", force=True, epoch_millis=MILLIS).files == (name,)


def test_diagnostics_without_sums_by_document_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatUnknown, match=r"documents\.parquet"):
        saebench.run(tiny_bundle(tmp_path), tmp_path / "out", force=False, epoch_millis=MILLIS)
