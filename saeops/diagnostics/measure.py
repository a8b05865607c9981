"""What an SAE does on held-out documents, measured from an activation set.

# T token, D d_model, E width of the target (D in an autoencoder), U document
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saeops.activations.pairing import PairedTokens, batches_in_order, shuffled_batches
from saeops.activations.reader import ActivationSet
from saeops.activations.sites import Sites
from saeops.activations.split import Split
from saeops.diagnostics.metrics import DENSITIES, L0, RECONSTRUCTION
from saeops.diagnostics.nulls import Pca, ReducedRank
from saeops.diagnostics.reconstruction import Meter, TokenSums
from saeops.diagnostics.slices import Slices
from saeops.diagnostics.sparsity import Densities, Firing, SparsityMeter
from saeops.errors import StageMissing
from saeops.metrics import measure_all
from saeops.sae.canonical import Sae
from saeops.stats import Bootstrap, Interval

Array = np.ndarray
Advance = Callable[[int], object]
Predict = Callable[[Float[Tensor, "T D"]], Float[Tensor, "T E"]]

BATCH_TOKENS = 4096
PCA_TOKENS = 40_960
"""Train tokens that the PCA null is fitted on."""
SPLIT: Split = "eval"


@dataclass(frozen=True)
class Held:
    """The eval split at an SAE's sites, and what every figure on it is measured against."""

    acts: ActivationSet
    sites: Sites
    document_U: Int[Tensor, " U"]
    """Document numbers, ascending."""
    mean_E: Float[Tensor, " E"]
    """μ, the mean of all evaluated tokens at the target site, float64."""

    @classmethod
    def open(cls, acts: ActivationSet, sites: Sites) -> "Held":
        """Read the split once, for its mean.

        Raises:
            StageMissing: the eval split holds no token.
            SiteUnknown: a site was not harvested.
            SitesUnpaired: a transcoder's sites do not hold the same tokens.
        """
        tokens = acts.count(sites.input, SPLIT)
        if tokens == 0:
            raise StageMissing(f"no {SPLIT} tokens at {sites.input}", hint="run `saeops harvest` with more tokens")
        total_E = torch.zeros(acts.width(sites.target), dtype=torch.float64)
        for batch in batches_in_order(acts, sites, SPLIT, BATCH_TOKENS):
            total_E += batch.y_TE.double().sum(0)
        table = acts.documents
        numbers = sorted(table.loc[table["split"] == SPLIT, "document"].tolist())
        return cls(acts, sites, torch.tensor(numbers), total_E / tokens)

    @property
    def tokens(self) -> int:
        return self.acts.count(self.sites.input, SPLIT)

    def row(self, batch: PairedTokens) -> Int[Tensor, " T"]:
        """Which document, counted from 0, each token belongs to."""
        return torch.searchsorted(self.document_U, batch.tokens.document.long())

    def by_document(self, meter: Meter) -> pd.DataFrame:
        """Sums by document, the documents that hold a counted token."""
        frame = meter.frame()
        frame.insert(0, "document", self.document_U.numpy())
        return frame[frame["tokens"] > 0].reset_index(drop=True)


@dataclass(frozen=True)
class Measured:
    """What one pass over the eval split gives."""

    documents: pd.DataFrame
    """The sums of `reconstruction.SUMS`, a row a document."""
    positions: pd.DataFrame
    """The same, a row a position in the window, the prepended token included."""
    slices: Mapping[str, pd.DataFrame]
    """The same, a row a document and bucket, by the slice's name."""
    firing: Firing


def measure(held: Held, sae: Sae, *, advance: Advance) -> Measured:
    """Encode the eval split once, and compare what it decodes to with the activations at the target site."""
    U, acts = len(held.document_U), held.acts
    window_tokens, shift = _window(acts)
    slices = _slices(acts)
    by_document, by_position, sparsity = Meter(U), Meter(acts.context_size), SparsityMeter(U, sae.meta.d_sae)
    names = {"position": slices.position_names, "token_frequency": slices.frequency_names}
    sliced = {slice_: Meter(U * len(buckets)) for slice_, buckets in names.items()}
    for batch in batches_in_order(acts, held.sites, SPLIT, BATCH_TOKENS):
        codes, row_T = sae.encode(batch.x_TD), held.row(batch)
        sums = TokenSums.of(batch.y_TE, sae.decode(codes), held.mean_E, codes.l0())
        position_T = batch.tokens.position.long() % window_tokens + shift
        by_document.add(row_T, sums)
        by_position.add(position_T, sums)
        bucket = {"position": slices.position(position_T), "token_frequency": slices.frequency(batch.tokens.token)}
        for slice_, meter in sliced.items():
            meter.add(row_T * len(names[slice_]) + bucket[slice_], sums)
        sparsity.add(row_T, codes)
        advance(len(batch))
    frames = {slice_: _bucketed(meter.frame(), names[slice_]) for slice_, meter in sliced.items()}
    return Measured(held.by_document(by_document), by_position.frame(), frames, sparsity.firing())


def measured_metrics(measured: Measured, draw: Bootstrap, *, dense_above: float) -> dict[str, Interval]:
    """The reconstruction and sparsity metrics."""
    return {
        **measure_all((*RECONSTRUCTION, *L0), measured.documents, draw),
        **measure_all(DENSITIES, Densities(measured.firing, dense_above), draw),
    }


def slice_frame(measured: Measured, draw: Bootstrap) -> pd.DataFrame:
    """SliceTable: the reconstruction metrics and L0 of each slice, with μ that of all tokens."""
    rows = []
    for slice_, frame in measured.slices.items():
        for (order, bucket), documents in frame.groupby(["order", "bucket"], sort=True):
            for name, interval in measure_all((*RECONSTRUCTION, *L0), documents, draw).items():
                rows.append(
                    {
                        "slice": slice_,
                        "bucket": bucket,
                        "order": order,
                        "metric": name,
                        "tokens": int(documents["tokens"].sum()),
                        "point": interval.point,
                        "low": interval.low,
                        "high": interval.high,
                        "n": interval.n,
                        "note": interval.note,
                    }
                )
    types = {"order": "int16", "tokens": "int64", "n": "int32", "low": "float64", "high": "float64"}
    return pd.DataFrame(rows).astype(types)


def latent_frame(firing: Firing, *, dense_above: float) -> pd.DataFrame:
    """DiagnosedLatentTable."""
    n_active, density = firing.n_active_F, firing.density_F
    return pd.DataFrame(
        {
            "latent": np.arange(len(n_active), dtype=np.int32),
            "density": density,
            "n_active": n_active,
            "dead": n_active == 0,
            "dense": density > dense_above,
            "max_activation": firing.max_F,
            "histogram": list(firing.histogram_FB.astype(np.int32)),
        }
    )


# ── nulls ───────────────────────────────────────────────────────────────────


def linear_null(acts: ActivationSet, sites: Sites, rank: int, *, seed: int) -> Predict:
    """PCA of this rank, fitted on train documents.

    A transcoder must foretell its target from another site, which a PCA of the target would look at; beside it
    stands the best linear map of this rank between the two.
    """
    x_TD, y_TE = train_sample(acts, sites, seed=seed)
    return ReducedRank.fit(x_TD, y_TE, rank).predict if sites.transcodes else Pca.fit(x_TD, rank).reconstruct


def reconstructed(held: Held, predict: Predict, *, rank: int) -> pd.DataFrame:
    """The sums of each document, of a dense code that gives `rank` numbers a token."""
    meter = Meter(len(held.document_U))
    for batch in batches_in_order(held.acts, held.sites, SPLIT, BATCH_TOKENS):
        l0_T = torch.full((len(batch),), rank)
        meter.add(held.row(batch), TokenSums.of(batch.y_TE, predict(batch.x_TD), held.mean_E, l0_T))
    return held.by_document(meter)


def train_sample(
    acts: ActivationSet, sites: Sites, *, seed: int
) -> tuple[Float[Tensor, "T D"], Float[Tensor, "T E"]]:
    """At most `PCA_TOKENS` train tokens, at the input and at the target site."""
    tokens = acts.count(sites.input, "train")
    size = min(2048, tokens)
    shuffled = shuffled_batches(acts, sites, batch_size=size, buffer_tokens=PCA_TOKENS, seed=seed)
    batches = list(islice(shuffled, max(1, min(PCA_TOKENS, tokens) // size)))
    return torch.cat([batch.x_TD for batch in batches]), torch.cat([batch.y_TE for batch in batches])


# ── where tokens stand ──────────────────────────────────────────────────────


def _window(acts: ActivationSet) -> tuple[int, int]:
    """A document's own tokens in a window, and how many stand before them."""
    shift = int(acts.bos is not None)
    return acts.context_size - shift, shift


def _slices(acts: ActivationSet) -> Slices:
    table = acts.documents
    return Slices.of(list(table.loc[table["split"] == "train", "tokens"]), context_size=acts.context_size)


def _bucketed(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Sums by document and bucket; only those that hold a token."""
    order = np.arange(len(frame)) % len(names)
    frame = frame.assign(order=order, bucket=np.array(names)[order])
    return frame[frame["tokens"] > 0]
