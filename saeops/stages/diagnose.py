"""Diagnose: SAE + activations + model → metrics with intervals and nulls, figures, and the catalog of latents."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from saeops.activations.reader import ActivationSet, check_model
from saeops.catalog import schema as catalog_schema
from saeops.diagnostics import schema
from saeops.diagnostics.concepts.schema import CONCEPTS, LETTERS_FILE, ConceptTable, LetterTable
from saeops.diagnostics.figures import activation_figure, density_figure, l0_figure, position_figure, save_png
from saeops.diagnostics.measure import SPLIT, Measured, latent_frame, slice_frame
from saeops.diagnostics.reconstruction import profile
from saeops.digests import digest_json
from saeops.errors import ModelMismatch
from saeops.files import publish_folder
from saeops.metrics import write_metrics, write_nulls
from saeops.params import Params
from saeops.ports import LanguageModel, Watch
from saeops.refs import Ref, Workspace
from saeops.sae.canonical import Sae
from saeops.sealed import kept, open_sealed, seal
from saeops.stages.catalog import write_catalog
from saeops.stages.controls import Controls, open_controls
from saeops.stages.examine import Examined, Subject
from saeops.stages.nulls import Nulls, examine_beside_nulls, mean_l0
from saeops.stats import Interval
from saeops.tables import write_table
from saeops.training.documents import check_unseen, read_trained

HISTOGRAMS = 12
"""Latents drawn at random whose activations are shown."""

SAMPLED = ("quantiles", "contexts_per_quantile", "context_tokens")
"""Choices of the catalog that feature quality depends on too."""
MEASURED = ("fidelity_documents", "resamples", "dense_above", "ablated_latents", *SAMPLED)
CATALOGUED = ("top_contexts", "logit_tokens", *SAMPLED)


@dataclass(frozen=True)
class Diagnosed:
    """Both folders this stage leaves."""

    diagnostics: Ref
    catalog: Ref


def run(
    params: Params,
    space: Workspace,
    *,
    model: LanguageModel,
    random_model: Callable[[], LanguageModel],
    watch: Watch,
) -> Diagnosed:
    """Measure on the eval split, catalog the explain split; both into sealed folders.

    Short enough to start afresh after a kill: nothing shows before it is whole.

    Args:
        random_model: gives the model that the controls' random-init SAE was trained on, where there is one.

    Raises:
        StageMissing: nothing was harvested or trained, or there are no controls.
        ModelMismatch: the model, the activations and the SAE do not belong together.
        DocumentsShared: held-out documents trained the SAE.
        FolderDamaged: an input's or a finished folder's bytes changed.
    """
    trained = open_sealed(space.sae, kind="sae", made_by="saeops train")
    subject = Subject(params, ActivationSet.open(space.activations), Sae.load(space.sae), model, watch)
    _check_belonging(subject, trained.path)
    controls = open_controls(space)
    catalog = _made(
        space,
        space.catalog,
        catalog_schema.KIND,
        catalog_schema.VERSION,
        _inputs(subject, trained.digest, CATALOGUED),
        lambda folder: write_catalog(subject, folder),
    )
    diagnostics = _made(
        space,
        space.diagnostics,
        schema.KIND,
        schema.VERSION,
        {**_inputs(subject, trained.digest, MEASURED), "controls": controls.sealed.digest},
        lambda folder: _diagnose(subject, controls, random_model, folder),
    )
    return Diagnosed(diagnostics, catalog)


def _inputs(subject: Subject, sae_digest: str, choices: tuple[str, ...]) -> dict[str, Any]:
    """What determines a folder; each depends only on its own choices."""
    return {
        "activations": subject.acts.sealed.digest,
        "sae": sae_digest,
        "model": subject.model.identity.digest,
        "seed": subject.params.seed,
        "diagnose": subject.params.diagnose.model_dump(mode="json", include=set(choices)),
    }


def _check_belonging(subject: Subject, sae_folder: Path) -> None:
    check_model(subject.acts, subject.model.identity.digest)
    read = subject.sae.meta.model.get("digest")
    if read != subject.model.identity.digest:
        raise ModelMismatch(
            f"the SAE was trained on model {str(read)[:12]}, the model at hand is "
            f"{subject.model.identity.digest[:12]}",
            hint="run `saeops train` on activations of this model, or set model.ref back",
        )
    trained = read_trained(sae_folder)
    if trained is None:
        subject.watch.say("diagnose: the SAE does not record its documents: held-out ones may have trained it")
    else:
        check_unseen(trained, subject.acts.documents, place=subject.acts.sealed.path)


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


def _diagnose(
    subject: Subject, controls: Controls, random_model: Callable[[], LanguageModel], folder: Path
) -> dict[str, Any]:
    examined, nulls = examine_beside_nulls(subject, controls, random_model=random_model)
    write_metrics(folder / schema.METRICS_FILE, examined.metrics)
    write_nulls(folder / schema.NULLS_FILE, nulls)
    _write_tables(subject, examined, folder)
    _figures(subject, folder / schema.FIGURES, examined.measured, examined.metrics)
    subject.watch.metrics(_flat(examined.metrics, nulls))
    return {
        "model": subject.model.identity.to_json(),
        "site": subject.sae.meta.site,
        "target_site": subject.sae.meta.target_site,
        "policy": subject.acts.policy.model_dump(mode="json"),
        "split": SPLIT,
        "documents": len(examined.documents),
        "tokens": examined.measured.firing.tokens,
        "pca_rank": mean_l0(examined.measured),
        "nulls": sorted(nulls),
    }


def _write_tables(subject: Subject, examined: Examined, folder: Path) -> None:
    d_sae, firing = subject.sae.meta.d_sae, examined.measured.firing
    fired = latent_frame(firing, dense_above=subject.params.diagnose.dense_above)
    latents = pd.concat([fired, examined.quality.frame(d_sae)], axis=1)
    write_table(
        examined.documents, folder / schema.DOCUMENTS, schema.EvalDocumentTable, rows=len(examined.documents)
    )
    write_table(latents, folder / schema.LATENTS, schema.DiagnosedLatentTable, rows=d_sae)
    write_table(slice_frame(examined.measured, subject.draw), folder / schema.SLICES, schema.SliceTable)
    write_table(examined.concepts, folder / CONCEPTS, ConceptTable, rows=len(examined.concepts))
    write_table(examined.letters, folder / LETTERS_FILE, LetterTable, rows=len(examined.letters))


def _figures(subject: Subject, folder: Path, measured: Measured, metrics: Mapping[str, Interval]) -> None:
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


def _flat(metrics: Mapping[str, Interval], nulls: Nulls) -> dict[str, float]:
    """Points and bounds as a tracker takes them: `l0`, `l0.low`, `l0.high`, and `nulls/pca/mse`."""
    values = {name: interval.point for name, interval in metrics.items()}
    values |= {f"{name}.low": i.low for name, i in metrics.items() if i.low is not None}
    values |= {f"{name}.high": i.high for name, i in metrics.items() if i.high is not None}
    return values | {f"nulls/{null}/{name}": i.point for null, found in nulls.items() for name, i in found.items()}
