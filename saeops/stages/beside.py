"""Beside: the champion measured on a candidate's model, so that the two can be compared.

A champion's own figures are of the model it was made on. Where a candidate is of another one, they say
nothing of the two dictionaries. Format: docs/formats/beside.md.
"""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from saeops.activations.reader import ActivationSet, check_model
from saeops.diagnostics import schema
from saeops.diagnostics.measure import Held, measured_metrics, slice_frame
from saeops.diagnostics.metrics import FIDELITY
from saeops.diagnostics.splicing import document_frame
from saeops.dictionary.bundle import Bundle
from saeops.digests import digest_json
from saeops.errors import NotComparable, SaeopsError
from saeops.files import publish_folder
from saeops.metrics import measure_all, read_metrics, write_metrics
from saeops.params import Params
from saeops.ports import LanguageModel, Watch
from saeops.promotion.evidence import Evidence, read_slices
from saeops.refs import Ref, Workspace
from saeops.sae.canonical import Sae
from saeops.sealed import Sealed, kept, open_sealed, seal
from saeops.stages.diagnose import MEASURED
from saeops.stages.examine import Subject, spliced, within
from saeops.tables import read_table, write_table
from saeops.training.documents import check_unseen, read_trained

KIND = "beside"
VERSION = 1
MADE_BY = "saeops beside"
SAE = "sae"


def run(champion: Bundle, params: Params, space: Workspace, *, model: LanguageModel, watch: Watch) -> Ref:
    """Measure the champion as the built dictionary is measured: its documents, its tokens, its model.

    Raises:
        StageMissing: nothing was harvested.
        ModelMismatch: the activations are of another model than the one at hand.
        NotComparable: the champion reads another site, or activations of another width.
        DocumentsShared: documents that are held out here trained it.
    """
    acts, sae = ActivationSet.open(space.activations), Sae.load(champion.path / "sae")
    check_model(acts, model.identity.digest)
    _check_reads(champion, sae, acts)
    trained = read_trained(champion.path / "sae")
    if trained is not None:
        check_unseen(trained, acts.documents, place=acts.sealed.path)
    inputs = {
        "champion": champion.digest,
        "activations": acts.sealed.digest,
        "model": model.identity.digest,
        "seed": params.seed,
        "diagnose": params.diagnose.model_dump(mode="json", include=set(MEASURED)),
    }
    done = kept(space.beside, kind=KIND, inputs=inputs)
    if done is not None:
        return Ref.of(done)
    work = space.work(KIND, digest_json(inputs))
    shutil.rmtree(work, ignore_errors=True)
    documents = _measure(Subject(params, acts, sae, model, watch), work)
    summary = {"documents": len(documents), "model": model.identity.to_json()}
    sealed = seal(work, kind=KIND, version=VERSION, inputs=inputs, summary=summary)
    publish_folder(work, space.beside)
    return Ref.of(Sealed(**{**vars(sealed), "path": space.beside}))


def wanted(candidate: Bundle, champion: Bundle) -> bool:
    """Whether the champion's own figures say nothing of the candidate's model."""
    return bool(candidate.provenance.model["digest"] != champion.provenance.model["digest"])


def on_the_same_model(folder: Path, champion: Evidence, candidate: Evidence, activations: str) -> Evidence:
    """The champion's evidence with its figures on the candidate's model, where they were measured; else as it is.

    Args:
        activations: digest of the set that the candidate was measured on.
    """
    try:
        sealed = open_sealed(folder, kind=KIND, made_by=MADE_BY)
    except SaeopsError:
        return champion
    if (sealed.inputs["champion"], sealed.inputs["activations"]) != (champion.bundle, activations):
        return champion
    return replace(
        champion,
        metrics=read_metrics(folder / schema.METRICS_FILE),
        nulls={},
        slices=read_slices(folder / schema.SLICES),
        documents=read_table(folder / schema.DOCUMENTS, schema.EvalDocumentTable),
        basis=candidate.basis,
    )


def _check_reads(champion: Bundle, sae: Sae, acts: ActivationSet) -> None:
    sites = sae.meta.sites
    widths = {sites.input: sae.meta.d_model, sites.target: sae.meta.width_out}
    for site, width in widths.items():
        if site not in acts.sites or acts.width(site) != width:
            found = f"{acts.width(site)} wide" if site in acts.sites else "not harvested"
            raise NotComparable(
                f"champion {champion.digest[:12]} reads {site}, {width} wide; in {acts.sealed.path} it is {found}",
                hint="a person decides on a dictionary of another site or width: promote --force with a reason",
            )


def _measure(subject: Subject, folder: Path) -> pd.DataFrame:
    held = Held.open(subject.acts, subject.sae.meta.sites)
    measured = within(subject, held)
    sums = spliced(subject, held, {SAE: subject.sae.reconstruct})
    documents = document_frame(subject.acts, measured.documents, sums, SAE)
    metrics: Mapping[str, Any] = {
        **measured_metrics(measured, subject.draw, dense_above=subject.params.diagnose.dense_above),
        **measure_all(FIDELITY, documents, subject.draw),
    }
    write_metrics(folder / schema.METRICS_FILE, metrics)
    write_table(documents, folder / schema.DOCUMENTS, schema.EvalDocumentTable, rows=len(documents))
    write_table(slice_frame(measured, subject.draw), folder / schema.SLICES, schema.SliceTable)
    return documents
