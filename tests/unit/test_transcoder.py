"""A transcoder through the whole pipeline on a tiny real model: an MLP told from the residual stream before it."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from saeops.activations.pairing import batches_in_order
from saeops.activations.reader import ActivationSet
from saeops.activations.sites import Sites
from saeops.activations.windows import Window
from saeops.adapters.corpora import open_corpus
from saeops.adapters.models import TransformersModel
from saeops.catalog.schema import LatentTable
from saeops.diagnostics.fidelity import by_document, fidelity_sums
from saeops.diagnostics.nulls import ReducedRank
from saeops.diagnostics.splicing import policy_mask, window_batches
from saeops.dictionary.bundle import open_bundle
from saeops.dictionary.handle import Dictionary
from saeops.errors import FolderDamaged, ParamsInvalid, SiteUnknown
from saeops.interventions.hooks import ablate, clamp, latent_activation, steer
from saeops.interventions.metrics import METRICS as BENCHED
from saeops.interventions.passes import Site
from saeops.interventions.schema import EffectTable
from saeops.metrics import read_metrics, read_nulls
from saeops.params import Params
from saeops.refs import Workspace
from saeops.sae.canonical import Sae, SaeMeta
from saeops.sealed import open_sealed, verify
from saeops.stages import bench, bundle, harvest, label, report, train
from saeops.tables import read_table
from tests.diagnosing import without_controls
from tests.killing import Killed, KillingWatch
from tests.tiny import RecordingWatch, tiny_params

READS, WRITES = "blocks.0.resid_post", "blocks.1.mlp_out"
HIDDEN = "blocks.1.mlp_hidden"


def write_panel(path: Path) -> Path:
    item = {"topic": "python", "should_move": [" class"], "should_not_move": [","]}
    items = [{"id": f"p{i}", "prompt": f"If a name {i}", **item} for i in range(9)]
    path.write_text(yaml.safe_dump({"version": 1, "items": items}))
    return path


def changed(params: Params, section: str, **values: Any) -> Params:
    return params.model_copy(update={section: getattr(params, section).model_copy(update=values)})


@pytest.fixture(scope="module")
def params(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Params:
    panel = write_panel(tmp_path_factory.mktemp("panel") / "panel.yaml")
    return tiny_params(
        name="tiny/blocks.1.mlp",
        corpus={"path": str(tiny_corpus)},
        harvest={"sites": [READS, WRITES, HIDDEN]},
        train={"site": READS, "target_site": WRITES, "k": 8, "tokens": 256 * 300},
        controls={"random_model_tokens": 0, "seeds": 0},
        label={"latents": 4, "llm_latents": 0},
        bench={"panel": str(panel), "strengths": [1, 3]},
    )


@pytest.fixture(scope="module")
def harvested(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: TransformersModel, params: Params
) -> Workspace:
    space = Workspace(root=tmp_path_factory.mktemp("transcoder"))
    harvest.run(params, space, model=tiny_model, corpus=open_corpus(params.corpus), watch=RecordingWatch())
    return space


@pytest.fixture(scope="module")
def trained(harvested: Workspace, params: Params) -> Workspace:
    train.run(params, harvested, watch=RecordingWatch())
    return harvested


@pytest.fixture(scope="module")
def diagnosed(trained: Workspace, tiny_model: TransformersModel, params: Params) -> Workspace:
    without_controls(params, trained, tiny_model)
    return trained


@pytest.fixture(scope="module")
def sae(trained: Workspace) -> Sae:
    return Sae.load(trained.sae)


@pytest.fixture
def fresh(harvested: Workspace, tmp_path: Path) -> Workspace:
    """The same activations in a workspace of its own."""
    space = Workspace(root=tmp_path / "fresh")
    shutil.copytree(harvested.activations, space.activations)
    return space


# ── train ───────────────────────────────────────────────────────────────────


def test_the_sae_says_where_it_reads_and_where_it_writes(trained: Workspace, sae: Sae) -> None:
    acts = ActivationSet.open(trained.activations)
    assert sae.meta.sites == Sites(READS, WRITES)
    assert (sae.meta.d_model, sae.meta.d_out, sae.meta.apply_b_dec_to_input) == (32, 32, False)
    assert sae.meta.norm_limit == acts.norm_limit(READS)
    assert sae.meta.target_norm_limit == acts.norm_limit(WRITES)
    assert open_sealed(trained.sae, kind="sae").summary["target_site"] == WRITES


def test_a_transcoder_killed_and_resumed_ends_with_the_same_bytes(
    trained: Workspace, fresh: Workspace, params: Params
) -> None:
    with pytest.raises(Killed):
        train.run(params, fresh, watch=KillingWatch(47))
    train.run(params, fresh, watch=RecordingWatch())
    assert verify(fresh.sae, kind="sae").digest == verify(trained.sae, kind="sae").digest


def test_a_target_of_another_width_is_trained_diagnosed_and_saved(
    fresh: Workspace, params: Params, tiny_model: TransformersModel
) -> None:
    wide = changed(params, "train", target_site=HIDDEN, tokens=256 * 30)
    train.run(wide, fresh, watch=RecordingWatch())
    sae = Sae.load(fresh.sae)
    assert tuple(sae.W_dec.shape) == (128, 64)
    assert (sae.meta.d_model, sae.meta.d_out) == (32, 64)
    without_controls(wide, fresh, tiny_model)
    latents = read_table(fresh.catalog / "latents.parquet", LatentTable, rows=128)
    # Directions in the MLP's hidden layer raise no token by themselves.
    assert latents["raised_tokens"].map(len).eq(0).all()
    assert read_metrics(fresh.diagnostics / "metrics.json")["kl_nats"].point > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_site": "blocks.2.mlp_out"}, r"train\.target_site: blocks\.2\.mlp_out is not harvested"),
        ({"target_site": READS}, r"train\.target_site: is train\.site; leave it null"),
        (
            {"site": WRITES, "target_site": READS},
            r"train\.target_site: comes before train\.site blocks\.1\.mlp_out",
        ),
        ({"site": WRITES, "target_site": HIDDEN}, r"train\.target_site: comes before"),
        ({"target_site": "mlp"}, r"train\.target_site: 'mlp' is not a site"),
    ],
)
def test_a_target_that_cannot_be_meant_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsInvalid, match=message):
        tiny_params(harvest={"sites": [READS, WRITES, HIDDEN]}, train={"site": READS} | changes)


# ── the canonical form ──────────────────────────────────────────────────────


def small_meta(**changes: Any) -> SaeMeta:
    usual = {"variant": "topk", "site": READS, "target_site": WRITES, "d_model": 4, "d_out": 3, "d_sae": 6, "k": 2}
    return SaeMeta.model_validate(usual | {"apply_b_dec_to_input": False} | changes)


def small(meta: SaeMeta) -> Sae:
    g = torch.Generator().manual_seed(0)
    W_dec = torch.nn.functional.normalize(torch.randn(6, 3, generator=g), dim=1)
    return Sae(torch.randn(4, 6, generator=g), torch.randn(6, generator=g), W_dec, torch.ones(3), None, meta)


def test_a_transcoder_survives_the_round_trip_with_both_widths(tmp_path: Path) -> None:
    sae = small(small_meta())
    sae.save(tmp_path)
    again = Sae.load(tmp_path)
    assert again.meta == sae.meta
    assert all(torch.equal(tensor, again.tensors()[name]) for name, tensor in sae.tensors().items())
    x_TD = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    f_TF = again.encode(x_TD).dense()
    torch.testing.assert_close(again.reconstruct(x_TD), f_TF @ sae.W_dec + 1)
    silent = replace(again, b_enc=torch.full((6,), -1e6))
    assert torch.equal(silent.reconstruct(x_TD), torch.ones(5, 3)), "nothing fires: b_dec, at the target's width"


def test_tensors_that_do_not_fit_the_targets_width_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FolderDamaged, match=r"W_dec is torch\.float32 \[6, 3\], not float32 \[6, 5\]"):
        small(small_meta(d_out=5)).save(tmp_path)


def test_b_dec_of_the_target_is_never_taken_off_the_input(tmp_path: Path) -> None:
    small(small_meta()).save(tmp_path)
    path = tmp_path / "sae.json"
    path.write_text(path.read_text().replace('"apply_b_dec_to_input": false', '"apply_b_dec_to_input": true'))
    with pytest.raises(FolderDamaged):
        Sae.load(tmp_path)


# ── diagnose ────────────────────────────────────────────────────────────────


def test_figures_compare_with_the_target_and_agree_with_a_plain_recomputation(
    diagnosed: Workspace, sae: Sae
) -> None:
    acts = ActivationSet.open(diagnosed.activations)
    batches = list(batches_in_order(acts, sae.meta.sites, "eval", 512))
    x_TD, y_TE = torch.cat([b.x_TD for b in batches]), torch.cat([b.y_TE for b in batches]).double()
    error = (y_TE - sae.reconstruct(x_TD).double()).square().sum()
    metrics = read_metrics(diagnosed.diagnostics / "metrics.json")
    expected = 1 - error / (y_TE - y_TE.mean(0)).square().sum()
    assert metrics["explained_variance"].point == pytest.approx(float(expected), abs=1e-9)
    assert metrics["mse"].point == pytest.approx(float(error / y_TE.numel()), rel=1e-9)
    assert metrics["explained_variance"].point > 0.15
    summary = open_sealed(diagnosed.diagnostics, kind="diagnostics").summary
    assert (summary["site"], summary["target_site"]) == (READS, WRITES)


def test_the_null_is_the_best_linear_map_between_the_sites(diagnosed: Workspace) -> None:
    """Least squares of full rank is the ceiling of every linear map; the null lies below it, above nothing."""
    acts = ActivationSet.open(diagnosed.activations)
    halves = {
        split: list(batches_in_order(acts, Sites(READS, WRITES), split, 4096)) for split in ("train", "eval")
    }
    x_TD, y_TE = (torch.cat([getattr(b, side) for b in halves["train"]]) for side in ("x_TD", "y_TE"))
    full = ReducedRank.fit(x_TD, y_TE, 32)
    plain = torch.linalg.lstsq((x_TD - x_TD.mean(0)).double(), (y_TE - y_TE.mean(0)).double()).solution
    torch.testing.assert_close((full.read_DK @ full.write_KE).double(), plain, atol=1e-3, rtol=1e-2)
    x_TD, y_TE = (torch.cat([getattr(b, side) for b in halves["eval"]]) for side in ("x_TD", "y_TE"))
    ceiling = 1 - (y_TE - full.predict(x_TD)).square().sum() / (y_TE - y_TE.mean(0)).square().sum()
    null = read_nulls(diagnosed.diagnostics / "nulls.json")["pca"]["explained_variance"]
    assert 0 < null.point < float(ceiling)


def test_the_reconstruction_is_spliced_in_at_the_target_from_the_input_of_the_same_pass(
    trained: Workspace, tiny_model: TransformersModel, sae: Sae
) -> None:
    acts, sites = ActivationSet.open(trained.activations), sae.meta.sites
    windows = [Window(n, 0, (0, *range(20 + n, 35 + n))) for n in range(3)]
    seen: list[tuple[Tensor, Tensor]] = []

    def splice(x_ND: Tensor, y_NE: Tensor) -> Tensor:
        seen.append((x_ND, y_NE))
        return sae.reconstruct(x_ND)

    parts = fidelity_sums(
        lambda ids: lambda edit: tiny_model.logits(ids, sites.edits(edit)),
        window_batches(windows),
        policy_mask(acts, sae.meta.sites, tiny_model.special_ids),
        {"sae": splice, "itself": lambda _, y_NE: y_NE},
    )
    sums = by_document(list(parts))
    ids_BW = torch.tensor([window.ids for window in windows])
    clean = tiny_model.capture(ids_BW, [READS, WRITES])
    torch.testing.assert_close(seen[0][0], clean[READS][:, 1:].reshape(-1, 32))
    torch.testing.assert_close(seen[0][1], clean[WRITES][:, 1:].reshape(-1, 32))
    # By hand: the target replaced at every position but the prepended one.
    spliced = clean[WRITES].clone()
    spliced[:, 1:] = sae.reconstruct(clean[READS][:, 1:].reshape(-1, 32)).reshape(3, -1, 32)
    logits = tiny_model.logits(ids_BW, {WRITES: lambda _: spliced})
    for row in range(3):
        loss = torch.nn.functional.cross_entropy(logits[row, 1:-1], ids_BW[row, 2:], reduction="sum")
        assert sums.spliced["sae"][row] == pytest.approx(float(loss), rel=1e-4)
    assert (sums.spliced["itself"] == sums.clean).all()


def test_the_catalog_fires_at_the_input_and_raises_tokens_from_the_target(
    diagnosed: Workspace, sae: Sae, tiny_model: TransformersModel
) -> None:
    acts = ActivationSet.open(diagnosed.activations)
    latents = read_table(diagnosed.catalog / "latents.parquet", LatentTable, rows=sae.meta.d_sae)
    f_TF = sae.encode(torch.cat([b.activations for b in acts.batches(READS, "explain", 4096)])).dense()
    assert latents["n_active"].tolist() == (f_TF > 0).sum(0).tolist()
    raised = tiny_model.unembed(sae.W_dec).amax(1)
    torch.testing.assert_close(torch.tensor(latents["raised_logits"].map(lambda v: v[0])).float(), raised)


# ── interventions ───────────────────────────────────────────────────────────


def test_edits_read_the_latent_at_the_input_and_change_the_target(sae: Sae, tiny_model: TransformersModel) -> None:
    ids_BW = torch.randint(2, 300, (2, 12), generator=torch.Generator().manual_seed(0))
    clean = tiny_model.capture(ids_BW, [READS, WRITES])
    latent = int(sae.encode(clean[READS].reshape(-1, 32)).dense().sum(0).argmax())
    f_BW = latent_activation(sae, clean[READS], latent)
    assert (f_BW > 0).any()
    direction_E = sae.W_dec[latent]
    for edit, expected in (
        (ablate(sae, latent), clean[WRITES] - f_BW[..., None] * direction_E),
        (clamp(sae, latent, 5.0), clean[WRITES] + (5 - f_BW)[..., None] * direction_E),
        (steer(direction_E, 3.0), clean[WRITES] + 3 * direction_E),
    ):
        edited = tiny_model.logits(ids_BW, sae.meta.sites.edits(edit))
        by_hand = tiny_model.logits(ids_BW, {WRITES: lambda _, value=expected: value})
        torch.testing.assert_close(edited, by_hand)


def test_outliers_at_either_site_are_left_as_they_are(sae: Sae, tiny_model: TransformersModel) -> None:
    site = Site.of(tiny_model, sae.meta)
    [batch] = site.batches([site.window(range(40, 60))])
    clean = tiny_model.capture(batch.ids_BW, [READS, WRITES])
    edit = steer(sae.W_dec[0], 50.0)
    for name, kept in (("norm_limit", READS), ("target_norm_limit", WRITES)):
        limit = float(clean[kept].norm(dim=-1)[0, 1:].median())
        bounded = Site(tiny_model, site.sites, site.policy, **{"norm_limit": None, name: limit})
        touched_W = torch.ones(21, dtype=torch.bool) & (clean[kept].norm(dim=-1)[0] <= limit)
        touched_W[0] = False
        expected = clean[WRITES] + 50 * sae.W_dec[0] * touched_W[:, None]
        by_hand = tiny_model.logits(batch.ids_BW, {WRITES: lambda _, value=expected: value}).log_softmax(-1)
        torch.testing.assert_close(next(iter(bounded.every([batch], edit))), by_hand, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def labelled(diagnosed: Workspace, tiny_model: TransformersModel, params: Params) -> Workspace:
    label.run(params, diagnosed, model=tiny_model, llm=None, watch=RecordingWatch())
    return diagnosed


@pytest.fixture(scope="module")
def benched(labelled: Workspace, tiny_model: TransformersModel, params: Params) -> Workspace:
    bench.run(params, labelled, model=tiny_model, watch=RecordingWatch())
    return labelled


def test_a_transcoder_is_labelled_and_benched(benched: Workspace, params: Params) -> None:
    assert read_metrics(benched.effects / "metrics.json").keys() == BENCHED.keys()
    table = read_table(benched.effects / "effects.parquet", EffectTable)
    assert table["latent"].nunique() == params.bench.latents
    steered = table[(table["kind"] == "steer") & (table["metric"] == "target_logprob")]
    assert (steered["point"] != 0).all()


def test_a_bundled_transcoder_says_where_it_reads_and_writes(
    benched: Workspace, params: Params, tiny_model: TransformersModel
) -> None:
    bundle.run(params, benched, watch=RecordingWatch())
    dictionary = Dictionary(open_bundle(benched.bundle))
    assert dictionary.sites == Sites(READS, WRITES)
    batch = next(batches_in_order(ActivationSet.open(benched.activations), dictionary.sites, "score", 64))
    y_hat_TE = dictionary.decode(dictionary.encode(batch.x_TD))
    assert (batch.y_TE - y_hat_TE).square().sum() < (batch.y_TE - batch.y_TE.mean(0)).square().sum()
    report.run(params, benched, model_tokens=tiny_model.tokens, verdict=None, review=None, watch=RecordingWatch())
    page = (benched.report / report.PAGE).read_text().replace("<wbr>", "")
    assert f"{READS} → {WRITES}" in page
    assert "linear map of equal rank" in page
    assert "PCA of equal L0" not in page


def test_a_transcoder_into_the_mlps_hidden_layer_is_not_benched(
    labelled: Workspace, tmp_path: Path, tiny_model: TransformersModel, params: Params
) -> None:
    space = Workspace(root=tmp_path)
    for folder in (labelled.activations, labelled.catalog, labelled.labels):
        shutil.copytree(folder, space.root / folder.relative_to(labelled.root))
    hidden = changed(params, "train", target_site=HIDDEN, tokens=256 * 3)
    train.run(hidden, space, watch=RecordingWatch())
    with pytest.raises(SiteUnknown, match=r"blocks\.1\.mlp_hidden does not write to the residual stream"):
        bench.run(hidden, space, model=tiny_model, watch=RecordingWatch())
