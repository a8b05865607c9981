"""What is measured of one SAE on one model: the dictionary's own, or one it is compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from jaxtyping import Int
from torch import Tensor

from saeops.activations.reader import ActivationSet
from saeops.activations.split import Split
from saeops.catalog.build import Catalog, build_catalog
from saeops.catalog.gather import Wanted
from saeops.diagnostics.concepts.measure import Known, known_concepts
from saeops.diagnostics.concepts.metrics import ABSORPTION, PROBES
from saeops.diagnostics.fidelity import Begin, FidelitySums, Pass
from saeops.diagnostics.measure import Held, Measured, Predict, measure, measured_metrics
from saeops.diagnostics.metrics import FIDELITY
from saeops.diagnostics.quality.ablation import WINDOWS
from saeops.diagnostics.quality.measure import Latents, Model, Quality, quality
from saeops.diagnostics.quality.metrics import LatentQuality, quality_metrics
from saeops.diagnostics.splicing import document_frame, fidelity, fidelity_windows
from saeops.metrics import measure_all
from saeops.params import Params
from saeops.ports import LanguageModel, Watch
from saeops.sae.canonical import Sae
from saeops.stats import Bootstrap, Interval

CATALOG_SPLIT: Split = "explain"


@dataclass(frozen=True)
class Subject:
    """What is looked at, and with what."""

    params: Params
    acts: ActivationSet
    sae: Sae
    model: LanguageModel
    watch: Watch

    @property
    def draw(self) -> Bootstrap:
        return Bootstrap(self.params.diagnose.resamples, self.params.seed)

    @property
    def begin(self) -> Begin:
        """Passes of the model with the target site edited; the layers before its sites run once."""
        sites = self.sae.meta.sites

        def passes(ids: Int[Tensor, "B W"]) -> Pass:
            resumed = self.model.from_site(ids, [sites.input, sites.target])
            return lambda edit: resumed.logits(sites.edits(edit))

        return passes

    @cached_property
    def catalogued(self) -> Catalog:
        """What its latents fire on, in the explain split."""
        config = self.params.diagnose
        wanted = Wanted(
            top=config.top_contexts,
            quantiles=config.quantiles,
            a_quantile=config.contexts_per_quantile,
            context_tokens=config.context_tokens,
        )
        with self.watch.bar("catalog", self.acts.count(self.sae.meta.site, CATALOG_SPLIT), "tokens") as bar:
            return build_catalog(
                self.acts, self.sae, wanted, split=CATALOG_SPLIT, seed=self.params.seed, advance=bar.advance
            )


@dataclass(frozen=True)
class Examined:
    """Every figure of one SAE, and the tables they follow from."""

    measured: Measured
    documents: pd.DataFrame
    quality: LatentQuality
    concepts: pd.DataFrame
    letters: pd.DataFrame
    metrics: Mapping[str, Interval]
    nulls: Mapping[str, Mapping[str, Interval]]
    """Those that need no other SAE: shuffled contexts and concepts, random directions."""


def spliced(subject: Subject, held: Held, predictions: Mapping[str, Predict]) -> FidelitySums:
    """What each reconstruction costs the model, on the same windows of the same documents."""
    acts, wanted = subject.acts, subject.params.diagnose.fidelity_documents
    windows = fidelity_windows(acts, documents=wanted, seed=subject.draw.seed)
    with subject.watch.bar("fidelity", sum(len(window.ids) - 1 for window in windows), "tokens") as bar:
        return fidelity(
            subject.begin,
            windows,
            acts,
            held.sites,
            predictions,
            held.mean_E,
            special_ids=subject.model.special_ids,
            advance=bar.advance,
        )


def within(subject: Subject, held: Held) -> Measured:
    """Reconstruction and sparsity, in one pass over the eval split."""
    with subject.watch.bar("reconstruction and sparsity", held.tokens, "tokens") as bar:
        return measure(held, subject.sae, advance=bar.advance)


def examine(
    subject: Subject,
    known: Known,
    measured: Measured,
    sums: FidelitySums,
    name: str,
    *,
    seeds: Sequence[Sae] = (),
) -> Examined:
    """Every figure of one SAE.

    Args:
        measured: as `within` gives it.
        sums: as `spliced` gives them.
        name: this SAE's among the reconstructions spliced in.
        seeds: SAEs trained alike from other seeds.
    """
    acts, sae, draw = subject.acts, subject.sae, subject.draw
    documents = document_frame(acts, measured.documents, sums, name)
    worth = _quality(subject, measured, seeds)
    knows = known_concepts(known, sae)
    metrics = {
        **measured_metrics(measured, draw, dense_above=subject.params.diagnose.dense_above),
        **measure_all(FIDELITY, documents, draw),
        **quality_metrics(worth.latents, draw),
        **measure_all(PROBES, knows.concepts, draw),
        **measure_all(ABSORPTION, knows.letters, draw),
    }
    nulls = {null: quality_metrics(values, draw) for null, values in worth.nulls.items()}
    nulls["shuffled"] |= measure_all(PROBES, knows.shuffled, draw)
    return Examined(measured, documents, worth.latents, knows.concepts, knows.letters, metrics, nulls)


def known_of(subject: Subject) -> Known:
    """What the text itself says of the activation set's tokens: read once for every SAE on it."""
    return Known.read(subject.acts, subject.sae.meta.sites, subject.model.tokens, seed=subject.params.seed)


def _quality(subject: Subject, measured: Measured, seeds: Sequence[Sae]) -> Quality:
    acts, model, ablated = subject.acts, subject.model, subject.params.diagnose.ablated_latents
    latents = Latents(
        subject.sae,
        measured.firing.n_active_F > 0,
        subject.catalogued.contexts,
        acts.windows(CATALOG_SPLIT),
        prepended=int(acts.bos is not None),
        other_seeds=[other.W_dec for other in seeds],
    )
    reads = Model(subject.begin, model.unembed, model.identity.vocabulary)
    with subject.watch.bar("effects of latents", WINDOWS * ablated, "firings") as bar:
        return quality(latents, reads, ablated=ablated, seed=subject.draw.seed, advance=bar.advance)
