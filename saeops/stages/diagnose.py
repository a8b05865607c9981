"""Diagnose: SAE + activations + model → metrics with intervals, figures, and the catalog of latents."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saeops.activations.reader import ActivationSet, check_model
from saeops.activations.split import Split
from saeops.catalog import schema as catalog_schema
from saeops.catalog.build import build_catalog, latent_table
from saeops.catalog.gather import Wanted
from saeops.catalog.logits import LogitEffects, logit_effects
from saeops.diagnostics import schema
from saeops.diagnostics.fidelity import FidelitySums
from saeops.diagnostics.figures import activation_figure, density_figure, l0_figure, position_figure, save_png
from saeops.diagnostics.measure import (
    SPLIT,
    Held,
    Measured,
    Predict,
    latent_frame,
    linear_null,
    measure,
    measured_metrics,
    reconstructed,
    slice_frame,
)
from saeops.diagnostics.metrics import BY_DOCUMENT, FIDELITY, METRICS
from saeops.diagnostics.reconstruction import profile
from saeops.diagnostics.splicing import document_frame, fidelity, fidelity_windows
from saeops.digests import digest_json
from saeops.errors import ModelMismatch
from saeops.files import publish_folder
from saeops.metrics import measure_all, write_metrics, write_nulls
from saeops.params import Params
from saeops.ports import LanguageModel, Watch
from saeops.refs import Ref, Workspace, writes_to_residual
from saeops.sae.canonical import Sae
from saeops.sealed import kept, open_sealed, seal
from saeops.stats import Bootstrap, Interval
from saeops.tables import write_table

CATALOG_SPLIT: Split = "explain"
HISTOGRAMS = 12
"""Latents drawn at random whose activations are shown."""


@dataclass(frozen=True)
class Diagnosed:
    """Both folders this stage leaves."""

    diagnostics: Ref
    catalog: Ref


@dataclass(frozen=True)
class _Subject:
    """What is looked at, and with what."""

    params: Params
    acts: ActivationSet
    sae: Sae
    model: LanguageModel
    watch: Watch

    @property
    def draw(self) -> Bootstrap:
        return Bootstrap(self.params.diagnose.resamples, self.params.seed)

    def inputs(self, sae_digest: str, *choices: str) -> dict[str, Any]:
        """What determines a folder; each depends only on its own choices."""
        return {
            "activations": self.acts.sealed.digest,
            "sae": sae_digest,
            "model": self.model.identity.digest,
            "seed": self.params.seed,
            "diagnose": self.params.diagnose.model_dump(mode="json", include=set(choices)),
        }


def run(params: Params, space: Workspace, *, model: LanguageModel, watch: Watch) -> Diagnosed:
    """Measure on the eval split, catalog the explain split; both into sealed folders.

    Short enough to start afresh after a kill: nothing shows before it is whole.

    Raises:
        StageMissing: nothing was harvested or trained.
        ModelMismatch: the model, the activations and the SAE do not belong together.
        FolderDamaged: an input's or a finished folder's bytes changed.
    """
    acts = ActivationSet.open(space.activations)
    trained = open_sealed(space.sae, kind="sae", made_by="saeops train")
    subject = _Subject(params, acts, Sae.load(space.sae), model, watch)
    _check_belonging(subject)
    diagnostics = _made(
        space,
        space.diagnostics,
        schema.KIND,
        schema.VERSION,
        subject.inputs(trained.digest, "fidelity_documents", "resamples", "dense_above"),
        lambda folder: _diagnose(subject, folder),
    )
    catalog = _made(
        space,
        space.catalog,
        catalog_schema.KIND,
        catalog_schema.VERSION,
        subject.inputs(
            trained.digest, "top_contexts", "quantiles", "contexts_per_quantile", "context_tokens", "logit_tokens"
        ),
        lambda folder: _catalog(subject, folder),
    )
    return Diagnosed(diagnostics, catalog)


def _check_belonging(subject: _Subject) -> None:
    check_model(subject.acts, subject.model.identity.digest)
    read = subject.sae.meta.model.get("digest")
    if read != subject.model.identity.digest:
        raise ModelMismatch(
            f"the SAE was trained on model {str(read)[:12]}, the model at hand is "
            f"{subject.model.identity.digest[:12]}",
            hint="run `saeops train` on activations of this model, or set model.ref back",
        )


def _made(
    space: Workspace,
    target: Path,
    kind: str,
    version: int,
    inputs: Mapping[str, Any],
    make: Callable[[Path], Mapping[str, Any]],
) -> Ref:
    """The sealed folder of these inputs: the one that stands, or one made now in a work folder."""
    work = space.work(kind, digest_json(inputs))
    if kept(target, kind=kind, inputs=inputs) is None:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        summary = make(work)
        seal(work, kind=kind, version=version, inputs=inputs, summary=summary)
        publish_folder(work, target)
    shutil.rmtree(work, ignore_errors=True)
    return Ref.of(open_sealed(target, kind=kind))


# ── diagnostics ─────────────────────────────────────────────────────────────


def _diagnose(subject: _Subject, folder: Path) -> dict[str, Any]:
    config, meta, draw = subject.params.diagnose, subject.sae.meta, subject.draw
    held = Held.open(subject.acts, meta.sites)
    with subject.watch.bar("reconstruction and sparsity", held.tokens, "tokens") as bar:
        measured = measure(held, subject.sae, advance=bar.advance)
    rank = round(float(measured.documents["fired"].sum() / measured.documents["tokens"].sum()))
    beside = {"pca": linear_null(subject.acts, meta.sites, rank, seed=draw.seed)}
    dense = {null: reconstructed(held, predict, rank=rank) for null, predict in beside.items()}
    sums = _fidelity(subject, held, {"sae": subject.sae.reconstruct, **beside})
    documents = document_frame(subject.acts, measured.documents, sums, "sae")
    metrics = {
        **measured_metrics(measured, draw, dense_above=config.dense_above),
        **measure_all(FIDELITY, documents, draw),
    }
    nulls = {
        null: measure_all(BY_DOCUMENT, document_frame(subject.acts, frame, sums, null), draw)
        for null, frame in dense.items()
    }
    assert metrics.keys() == METRICS.keys(), "every declared metric is measured, and no other"
    write_metrics(folder / schema.METRICS_FILE, metrics)
    write_nulls(folder / schema.NULLS_FILE, nulls)
    write_table(documents, folder / schema.DOCUMENTS, schema.EvalDocumentTable, rows=len(measured.documents))
    latents = latent_frame(measured.firing, dense_above=config.dense_above)
    write_table(latents, folder / schema.LATENTS, schema.DiagnosedLatentTable, rows=meta.d_sae)
    write_table(slice_frame(measured, draw), folder / schema.SLICES, schema.SliceTable)
    _figures(subject, folder / schema.FIGURES, measured, metrics)
    subject.watch.metrics(_flat(metrics))
    return {
        "model": subject.model.identity.to_json(),
        "site": meta.site,
        "target_site": meta.target_site,
        "policy": subject.acts.policy.model_dump(mode="json"),
        "split": SPLIT,
        "documents": len(documents),
        "tokens": measured.firing.tokens,
        "pca_rank": rank,
    }


def _fidelity(subject: _Subject, held: Held, predictions: Mapping[str, Predict]) -> FidelitySums:
    acts, model, sites = subject.acts, subject.model, subject.sae.meta.sites
    wanted = subject.params.diagnose.fidelity_documents
    windows = fidelity_windows(acts, documents=wanted, seed=subject.draw.seed)
    with subject.watch.bar("fidelity", sum(len(window.ids) - 1 for window in windows), "tokens") as bar:
        return fidelity(
            lambda ids, edit: model.logits(ids, sites.edits(edit)),
            windows,
            acts,
            sites,
            predictions,
            held.mean_E,
            special_ids=model.special_ids,
            advance=bar.advance,
        )


def _figures(subject: _Subject, folder: Path, measured: Measured, metrics: Mapping[str, Interval]) -> None:
    firing = measured.firing
    alive = np.flatnonzero(firing.n_active_F)
    generator = np.random.default_rng(subject.params.seed)
    drawn = sorted(generator.permutation(alive)[:HISTOGRAMS].tolist())
    figures = {
        "densities": density_figure(firing, dense_above=subject.params.diagnose.dense_above),
        "l0": l0_figure(firing, metrics["l0"]),
        "activations": activation_figure(firing, drawn),
        "positions": position_figure(profile(measured.positions), metrics["explained_variance"]),
    }
    for name, figure in figures.items():
        save_png(figure, folder / f"{name}.png")
        subject.watch.figure(name, figure)


def _flat(metrics: Mapping[str, Interval]) -> dict[str, float]:
    """Points and bounds as a tracker takes them: `l0`, `l0.low`, `l0.high`."""
    values = {name: interval.point for name, interval in metrics.items()}
    values |= {f"{name}.low": i.low for name, i in metrics.items() if i.low is not None}
    values |= {f"{name}.high": i.high for name, i in metrics.items() if i.high is not None}
    return values


# ── catalog ─────────────────────────────────────────────────────────────────


def _catalog(subject: _Subject, folder: Path) -> dict[str, Any]:
    config, acts, sae = subject.params.diagnose, subject.acts, subject.sae
    wanted = Wanted(
        top=config.top_contexts,
        quantiles=config.quantiles,
        a_quantile=config.contexts_per_quantile,
        context_tokens=config.context_tokens,
    )
    with subject.watch.bar("catalog", 2 * acts.count(sae.meta.site, CATALOG_SPLIT), "tokens") as bar:
        made = build_catalog(acts, sae, wanted, split=CATALOG_SPLIT, seed=subject.params.seed, advance=bar.advance)
    latents = latent_table(made, _effects(subject), subject.model.tokens)
    write_table(latents, folder / catalog_schema.LATENTS, catalog_schema.LatentTable, rows=sae.meta.d_sae)
    write_table(
        made.contexts, folder / catalog_schema.CONTEXTS, catalog_schema.ContextTable, rows=len(made.contexts)
    )
    return {
        "model": subject.model.identity.to_json(),
        "site": sae.meta.site,
        "target_site": sae.meta.target_site,
        "split": CATALOG_SPLIT,
        "documents": len(made.layout.document_U),
        "tokens": made.gathered.tokens,
        "latents": sae.meta.d_sae,
        "living": int((made.gathered.n_active_F > 0).sum()),
        "contexts": len(made.contexts),
    }


def _effects(subject: _Subject) -> list[LogitEffects]:
    """Logit effects of all latents; none where they do not write to the residual stream."""
    if not writes_to_residual(subject.sae.meta.sites.target):
        return []
    W_dec, effects = subject.sae.W_dec, []
    n, vocabulary = subject.params.diagnose.logit_tokens, subject.model.identity.vocabulary
    with subject.watch.bar("logit effects", len(W_dec), "latents") as bar:
        for part in logit_effects(subject.model.unembed, W_dec, n, vocabulary=vocabulary):
            effects.append(part)
            bar.advance(len(part.raised_FN))
    return effects
