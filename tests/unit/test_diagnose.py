"""The diagnose stage on a tiny real model: right, repeatable, killable, and refusing what does not belong."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from saeops.activations.reader import ActivationSet
from saeops.adapters.models import TransformersModel, load_model
from saeops.catalog.schema import ContextTable, LatentTable
from saeops.diagnostics.metrics import BY_DOCUMENT, METRICS
from saeops.diagnostics.schema import DiagnosedLatentTable, EvalDocumentTable, SliceTable
from saeops.errors import FolderDamaged, ModelMismatch, StageMissing
from saeops.files import write_atomic
from saeops.metrics import read_metrics, read_nulls
from saeops.params import ModelParams, Params
from saeops.refs import Workspace
from saeops.sae.canonical import Sae
from saeops.sealed import open_sealed, seal, verify
from saeops.stages import train
from saeops.tables import read_table
from tests.diagnosing import with_controls
from tests.tiny import RecordingWatch, save_tiny_model, tiny_params


@pytest.fixture(scope="module")
def params(tiny_corpus: Path) -> Params:
    return tiny_params(corpus={"path": str(tiny_corpus)})


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, tiny_activations: ActivationSet, params: Params
) -> Workspace:
    """A workspace with activations and an SAE."""
    space = Workspace(root=tmp_path_factory.mktemp("trained"))
    shutil.copytree(tiny_activations.sealed.path, space.activations)
    train.run(params, space, watch=RecordingWatch())
    return space


@pytest.fixture(scope="module")
def diagnosed(
    trained: Workspace, tiny_model: TransformersModel, tiny_model_folder: Path, params: Params
) -> Workspace:
    with_controls(params, trained, tiny_model, tiny_model_folder)
    return trained


@pytest.fixture
def fresh(tmp_path: Path, trained: Workspace) -> Workspace:
    """The same inputs in a workspace of its own, nothing diagnosed."""
    space = Workspace(root=tmp_path)
    shutil.copytree(trained.activations, space.activations)
    shutil.copytree(trained.sae, space.sae)
    return space


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_declared_metric_is_measured_with_an_interval(diagnosed: Workspace) -> None:
    metrics = read_metrics(diagnosed.diagnostics / "metrics.json")
    assert metrics.keys() == METRICS.keys()
    for name, interval in metrics.items():
        assert interval.unit in ("documents", "latents"), name
        # A model that never learnt hardly minds what is ablated, and its texts hold few concepts: a figure
        # that rests on too little says so in the place of its bounds.
        if interval.low is None or interval.high is None:
            assert interval.note, name
        else:
            assert interval.low <= interval.point <= interval.high, name
    for name in (
        "explained_variance",
        "l0",
        "dead_fraction",
        "delta_ce_nats",
        "coherence",
        "seed_stable_fraction",
    ):
        assert metrics[name].low is not None, name


def test_figures_agree_with_a_plain_recomputation(diagnosed: Workspace) -> None:
    """Everything at once in memory, as the formulas say it."""
    acts, sae = ActivationSet.open(diagnosed.activations), Sae.load(diagnosed.sae)
    x_TD = torch.cat([b.activations for b in acts.batches(sae.meta.site, "eval", 512)]).double()
    f_TF = sae.encode(x_TD.float()).dense()
    error = (x_TD - sae.reconstruct(x_TD.float()).double()).square().sum()
    metrics = read_metrics(diagnosed.diagnostics / "metrics.json")
    expected = 1 - error / (x_TD - x_TD.mean(0)).square().sum()
    assert metrics["explained_variance"].point == pytest.approx(float(expected), abs=1e-9)
    assert metrics["l0"].point == pytest.approx(float((f_TF > 0).sum(1).double().mean()))
    x_hat_TD = sae.reconstruct(x_TD.float()).double()
    bias = x_hat_TD.square().sum() / (x_hat_TD * x_TD).sum()
    assert metrics["relative_reconstruction_bias"].point == pytest.approx(float(bias))
    assert metrics["dead_fraction"].point == pytest.approx(float((f_TF == 0).all(0).double().mean()))
    frame = read_table(diagnosed.diagnostics / "latents.parquet", DiagnosedLatentTable, rows=sae.meta.d_sae)
    assert frame["n_active"].tolist() == (f_TF > 0).sum(0).tolist()


def test_with_the_error_term_kept_the_model_loses_nothing(diagnosed: Workspace) -> None:
    metrics = read_metrics(diagnosed.diagnostics / "metrics.json")
    assert metrics["delta_ce_with_error_nats"].point == pytest.approx(0, abs=1e-5)
    assert abs(metrics["delta_ce_nats"].point) > 1e-3


def test_every_document_figure_follows_from_the_table_of_documents(diagnosed: Workspace) -> None:
    """So that two bundles can be compared, pair by pair, with no model at hand."""
    documents = read_table(diagnosed.diagnostics / "documents.parquet", EvalDocumentTable)
    metrics = read_metrics(diagnosed.diagnostics / "metrics.json")
    for metric in BY_DOCUMENT:
        above, below = metric.measure.parts(metric.measure.taking_part(documents))  # type: ignore[attr-defined]
        assert above.sum() / below.sum() == pytest.approx(metrics[metric.name].point), metric.name
    known = ActivationSet.open(diagnosed.activations).documents.set_index("document")
    assert (known.loc[documents["document"], "sha256"].to_numpy() == documents["sha256"]).all()
    assert (known.loc[documents["document"], "split"] == "eval").all()


def test_slices_hold_every_token_once_and_average_to_the_whole(diagnosed: Workspace) -> None:
    slices = read_table(diagnosed.diagnostics / "slices.parquet", SliceTable)
    metrics = read_metrics(diagnosed.diagnostics / "metrics.json")
    documents = read_table(diagnosed.diagnostics / "documents.parquet", EvalDocumentTable)
    for _, rows in slices[slices["metric"] == "l0"].groupby("slice"):
        assert rows["tokens"].sum() == documents["tokens"].sum()
        mean = (rows["point"] * rows["tokens"]).sum() / rows["tokens"].sum()
        assert mean == pytest.approx(metrics["l0"].point)


def test_pca_of_equal_l0_stands_beside_every_document_figure(diagnosed: Workspace) -> None:
    nulls = read_nulls(diagnosed.diagnostics / "nulls.json")
    assert nulls["pca"].keys() == {metric.name for metric in BY_DOCUMENT}
    rank = open_sealed(diagnosed.diagnostics, kind="diagnostics").summary["pca_rank"]
    assert nulls["pca"]["l0"].point == rank
    assert nulls["pca"]["explained_variance"].point < 1
    assert nulls["pca"]["kl_nats"].point > 0


def test_every_null_of_an_sae_has_the_figures_of_an_sae(diagnosed: Workspace) -> None:
    metrics = read_metrics(diagnosed.diagnostics / "metrics.json")
    nulls = read_nulls(diagnosed.diagnostics / "nulls.json")
    assert nulls.keys() == {"pca", "random_dictionary", "random_model", "random_directions", "shuffled"}
    assert nulls["random_dictionary"].keys() == metrics.keys()
    of_seeds = {"seed_cosine", "seed_stable_fraction"}
    assert nulls["random_model"].keys() == metrics.keys() - of_seeds, "it has no SAE of another seed beside it"
    assert nulls["shuffled"].keys() == {"coherence", "probe_loss_nats", "probe_explained"}
    trained, random = metrics["explained_variance"], nulls["random_dictionary"]["explained_variance"]
    assert trained.low > random.high  # type: ignore[operator]


def test_ablating_costs_more_than_the_reconstruction(diagnosed: Workspace) -> None:
    metrics = read_metrics(diagnosed.diagnostics / "metrics.json")
    assert metrics["kl_nats"].point > 0
    assert metrics["explained_variance"].point > 0.2
    assert metrics["ce_clean_nats"].point > 1


def test_the_catalog_shows_explain_documents_and_no_others(diagnosed: Workspace) -> None:
    documents = ActivationSet.open(diagnosed.activations).documents
    explain = set(documents.loc[documents["split"] == "explain", "document"])
    contexts = read_table(diagnosed.catalog / "contexts.parquet", ContextTable)
    assert set(contexts["document"]) <= explain
    assert len(set(contexts["document"])) > 5


def test_contexts_hold_the_documents_own_tokens_and_the_latents_own_activations(diagnosed: Workspace) -> None:
    acts, sae = ActivationSet.open(diagnosed.activations), Sae.load(diagnosed.sae)
    known = acts.documents.set_index("document")["tokens"]
    dense: dict[tuple[int, int], np.ndarray] = {}
    for batch in acts.batches(sae.meta.site, "explain", 700):
        f_TF = sae.encode(batch.activations).dense().numpy()
        places = zip(batch.document.tolist(), batch.position.tolist(), strict=True)
        dense |= dict(zip(places, f_TF, strict=True))
    contexts = read_table(diagnosed.catalog / "contexts.parquet", ContextTable)
    window = acts.context_size - 1
    for row in contexts.itertuples():
        end = row.start + len(row.tokens)
        assert known[row.document][row.start : end].tolist() == list(row.tokens)
        assert row.start // window == (end - 1) // window, "a context stays inside what the model saw at once"
        silent = np.zeros(sae.meta.d_sae, dtype=np.float32)
        expected = [dense.get((row.document, p), silent)[row.latent] for p in range(row.start, end)]
        np.testing.assert_allclose(row.activations, expected, rtol=1e-4, atol=1e-5)


def test_every_latent_has_a_row_and_dead_ones_have_no_context(diagnosed: Workspace) -> None:
    sae = Sae.load(diagnosed.sae)
    latents = read_table(diagnosed.catalog / "latents.parquet", LatentTable, rows=sae.meta.d_sae)
    contexts = read_table(diagnosed.catalog / "contexts.parquet", ContextTable)
    living = set(latents.loc[latents["n_active"] > 0, "latent"])
    assert set(contexts["latent"]) == living
    assert (latents["top_token"] != "")[latents["n_active"] > 0].all()
    assert latents["raised_tokens"].map(len).eq(8).all()
    assert latents["raised_logits"].map(lambda v: list(v) == sorted(v, reverse=True)).all()


def test_the_same_inputs_keep_what_stands(
    diagnosed: Workspace, tiny_model: TransformersModel, params: Params, tiny_model_folder: Path
) -> None:
    before = {p: p.stat().st_mtime_ns for p in diagnosed.diagnostics.rglob("*")}
    watch = RecordingWatch()
    with_controls(params, diagnosed, tiny_model, tiny_model_folder, watch)
    assert {p: p.stat().st_mtime_ns for p in diagnosed.diagnostics.rglob("*")} == before
    assert watch.advanced == 0, "nothing is measured again"


def test_a_choice_of_the_catalog_leaves_the_diagnostics_alone(
    fresh: Workspace, diagnosed: Workspace, tiny_model: TransformersModel, params: Params, tiny_model_folder: Path
) -> None:
    shutil.copytree(diagnosed.diagnostics, fresh.diagnostics)
    shutil.copytree(diagnosed.catalog, fresh.catalog)
    fewer = params.model_copy(update={"diagnose": params.diagnose.model_copy(update={"top_contexts": 2})})
    made = with_controls(fewer, fresh, tiny_model, tiny_model_folder)
    assert made.diagnostics.digest == verify(diagnosed.diagnostics, kind="diagnostics").digest
    assert made.catalog.digest != verify(diagnosed.catalog, kind="catalog").digest
    contexts = pd.read_parquet(fresh.catalog / "contexts.parquet")
    assert contexts[contexts["kind"] == "top"].groupby("latent").size().max() == 2


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it and tidy up."""


class KillingWatch(RecordingWatch):
    """Dies after a number of progress reports."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def advance(self, amount: float = 1, **facts: str) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed
        super().advance(amount, **facts)


@pytest.mark.parametrize("after", [0, 3, 8])
def test_a_killed_run_shows_nothing_half_made_and_its_rerun_gives_the_same_bytes(
    after: int,
    fresh: Workspace,
    diagnosed: Workspace,
    tiny_model: TransformersModel,
    params: Params,
    tiny_model_folder: Path,
) -> None:
    with pytest.raises(Killed):
        with_controls(params, fresh, tiny_model, tiny_model_folder, KillingWatch(after))
    for folder, kind in ((fresh.diagnostics, "diagnostics"), (fresh.catalog, "catalog")):
        if folder.exists():
            verify(folder, kind=kind)
    # What a kill in the middle of a write leaves behind.
    for work in (fresh.root / "artifacts" / ".work").iterdir():
        write_atomic(work / "half.parquet", b"torn")
    with_controls(params, fresh, tiny_model, tiny_model_folder)
    assert bytes_of(fresh.diagnostics) == bytes_of(diagnosed.diagnostics)
    assert bytes_of(fresh.catalog) == bytes_of(diagnosed.catalog)
    assert not list((fresh.root / "artifacts" / ".work").iterdir())


def test_another_model_is_refused_by_digest(
    fresh: Workspace, params: Params, tiny_model_folder: Path, tmp_path: Path
) -> None:
    other = load_model(ModelParams(ref=str(save_tiny_model(tmp_path / "other", seed=1)), device="cpu"), tmp_path)
    with pytest.raises(ModelMismatch, match="harvested from"):
        with_controls(params, fresh, other, tiny_model_folder)
    assert not fresh.diagnostics.exists()


def test_an_sae_of_another_model_is_refused(
    fresh: Workspace, params: Params, tiny_model: TransformersModel, tiny_model_folder: Path
) -> None:
    sealed, sae = open_sealed(fresh.sae, kind="sae"), Sae.load(fresh.sae)
    foreign = sae.meta.model_copy(update={"model": {**sae.meta.model, "digest": "0" * 64}})
    Sae.of(sae.tensors(), foreign).save(fresh.sae)
    seal(fresh.sae, kind="sae", version=1, inputs=sealed.inputs, summary=sealed.summary)
    with pytest.raises(ModelMismatch, match="SAE was trained on model 000000000000"):
        with_controls(params, fresh, tiny_model, tiny_model_folder)


def test_without_an_sae_the_error_names_the_command(
    fresh: Workspace, params: Params, tiny_model: TransformersModel, tiny_model_folder: Path
) -> None:
    shutil.rmtree(fresh.sae)
    with pytest.raises(StageMissing, match="saeops train"):
        with_controls(params, fresh, tiny_model, tiny_model_folder)


def test_a_damaged_eval_shard_is_refused(
    fresh: Workspace, params: Params, tiny_model: TransformersModel, tiny_model_folder: Path
) -> None:
    shard = next(fresh.activations.rglob("eval-00000.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(FolderDamaged, match="eval-00000"):
        with_controls(params, fresh, tiny_model, tiny_model_folder)
    assert not fresh.diagnostics.exists()


def test_few_fidelity_documents_give_a_figure_that_says_it_has_no_interval(
    fresh: Workspace, params: Params, tiny_model: TransformersModel, tiny_model_folder: Path
) -> None:
    few = params.model_copy(update={"diagnose": params.diagnose.model_copy(update={"fidelity_documents": 3})})
    with_controls(few, fresh, tiny_model, tiny_model_folder)
    delta = read_metrics(fresh.diagnostics / "metrics.json")["delta_ce_nats"]
    assert delta.low is None
    assert delta.n == 3
    assert "fewer than" in delta.note
