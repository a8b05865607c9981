"""What an SAE does on held-out documents, measured from an activation set.

# T token, D d_model, E width of the target (D in an autoencoder), U document, B window, W position in a window,
# N masked-in position
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saeops.activations.pairing import batches_in_order, shuffled_batches
from saeops.activations.reader import ActivationSet
from saeops.activations.sites import Sites
from saeops.activations.split import Split
from saeops.activations.windows import Window, norm_mask, pad_windows, position_mask, window_lengths
from saeops.diagnostics.fidelity import FidelitySums, Mask, Run, Splice, WindowBatch, by_document, fidelity_sums
from saeops.diagnostics.nulls import Pca, ReducedRank
from saeops.diagnostics.reconstruction import (
    ReconstructionMeter,
    ReconstructionSums,
    explained_variance,
    reconstruction_metrics,
)
from saeops.diagnostics.sparsity import Firing, SparsityMeter, sparsity_metrics
from saeops.errors import StageMissing
from saeops.sae.canonical import Sae
from saeops.stats import Interval

Array = np.ndarray
Advance = Callable[[int], object]

BATCH_TOKENS = 4096
PCA_TOKENS = 40_960
"""Train tokens that the PCA null is fitted on."""
FORWARD_TOKENS = 512
"""Most tokens of a forward pass with logits: what it holds is this × vocabulary, twice."""
SPLIT: Split = "eval"


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn."""

    resamples: int
    seed: int


@dataclass(frozen=True)
class Measured:
    """What one pass over the eval split gives."""

    by_document: ReconstructionSums
    by_position: ReconstructionSums
    """By position in the window, the prepended token included."""
    firing: Firing


def measure(acts: ActivationSet, sae: Sae, *, advance: Advance) -> Measured:
    """Encode the eval split once, and compare what it decodes to with the activations at the target site.

    Raises:
        StageMissing: the eval split holds no token.
        SiteUnknown: a site of the SAE was not harvested.
        SitesUnpaired: a transcoder's sites do not hold the same tokens.
    """
    sites = sae.meta.sites
    if acts.count(sites.input, SPLIT) == 0:
        raise StageMissing(f"no {SPLIT} tokens at {sites.input}", hint="run `saeops harvest` with more tokens")
    documents = eval_documents(acts)
    window_tokens, shift = _window(acts)
    by_document = ReconstructionMeter(len(documents), acts.width(sites.target))
    by_position = ReconstructionMeter(acts.context_size, acts.width(sites.target))
    sparsity = SparsityMeter(len(documents), sae.meta.d_sae)
    for batch in batches_in_order(acts, sites, SPLIT, BATCH_TOKENS):
        codes = sae.encode(batch.x_TD)
        y_hat_TE = sae.decode(codes)
        row_T = torch.searchsorted(documents, batch.tokens.document.long())
        by_document.add(row_T, batch.y_TE, y_hat_TE)
        by_position.add(batch.tokens.position.long() % window_tokens + shift, batch.y_TE, y_hat_TE)
        sparsity.add(row_T, codes)
        advance(len(batch))
    return Measured(by_document.sums(), by_position.sums(), sparsity.firing())


def measured_metrics(measured: Measured, draw: Bootstrap, *, dense_above: float) -> dict[str, Interval]:
    """The reconstruction and sparsity metrics."""
    drawn = {"resamples": draw.resamples, "seed": draw.seed}
    return {
        **reconstruction_metrics(measured.by_document, **drawn),
        **sparsity_metrics(measured.firing, dense_above=dense_above, **drawn),
    }


def pca_null(acts: ActivationSet, sites: Sites, rank: int, draw: Bootstrap) -> Interval:
    """Explained variance on eval documents of PCA of this rank, fitted on train documents.

    A transcoder must foretell its target from another site, which a PCA of the target would look at; beside it
    stands the best linear map of this rank between the two.
    """
    x_TD, y_TE = _train_sample(acts, sites, seed=draw.seed)
    predict = ReducedRank.fit(x_TD, y_TE, rank).predict if sites.transcodes else Pca.fit(x_TD, rank).reconstruct
    documents = eval_documents(acts)
    meter = ReconstructionMeter(len(documents), acts.width(sites.target))
    for batch in batches_in_order(acts, sites, SPLIT, BATCH_TOKENS):
        row_T = torch.searchsorted(documents, batch.tokens.document.long())
        meter.add(row_T, batch.y_TE, predict(batch.x_TD))
    return explained_variance(meter.sums().seen(), resamples=draw.resamples, seed=draw.seed)


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
        }
    )


# ── fidelity ────────────────────────────────────────────────────────────────


def fidelity_windows(acts: ActivationSet, *, documents: int, seed: int) -> list[Window]:
    """One window each of eval documents drawn at random; among a document's longest windows any may be it."""
    by_number: dict[int, list[Window]] = {}
    for window in acts.windows(SPLIT):
        by_number.setdefault(window.document, []).append(window)
    generator = np.random.default_rng(seed)
    chosen = []
    for number in sorted(generator.permutation(sorted(by_number))[:documents].tolist()):
        longest = max(len(window.ids) for window in by_number[number])
        candidates = [window for window in by_number[number] if len(window.ids) == longest]
        chosen.append(candidates[int(generator.integers(len(candidates)))])
    return chosen


def fidelity(
    run: Run,
    windows: Sequence[Window],
    acts: ActivationSet,
    sae: Sae,
    mean: Float[Array, " E"],
    *,
    special_ids: frozenset[int],
    advance: Advance,
) -> FidelitySums:
    """CE and KL with the SAE's reconstruction, zeros and the mean in the place of the target's activations."""
    mean_E = torch.from_numpy(mean).float()
    splices: dict[str, Splice] = {
        "sae": lambda x_ND, _: sae.reconstruct(x_ND.cpu()),
        "zero": lambda _, y_NE: torch.zeros_like(y_NE),
        "mean": lambda _, y_NE: mean_E.expand(len(y_NE), -1),
    }
    parts = []
    for part in fidelity_sums(run, window_batches(windows), policy_mask(acts, sae, special_ids), splices):
        parts.append(part)
        advance(int(part.tokens.sum()))
    return by_document(parts)


def window_batches(windows: Sequence[Window]) -> list[WindowBatch]:
    """The windows in order, at most `FORWARD_TOKENS` a batch (and at least one window)."""
    widest = max(len(window.ids) for window in windows)
    size = max(1, FORWARD_TOKENS // widest)
    return [
        WindowBatch(torch.tensor([window.document for window in part]), pad_windows(part), window_lengths(part))
        for part in (windows[i : i + size] for i in range(0, len(windows), size))
    ]


def policy_mask(acts: ActivationSet, sae: Sae, special_ids: frozenset[int]) -> Mask:
    """The activation set's own token policy, at the SAE's sites."""
    sites = sae.meta.sites
    limit, target_limit = acts.norm_limit(sites.input), acts.norm_limit(sites.target)

    def mask(
        ids_BW: Int[Tensor, "B W"],
        lengths: Int[Tensor, " B"],
        x_BWD: Float[Tensor, "B W D"],
        y_BWE: Float[Tensor, "B W E"],
    ) -> Bool[Tensor, "B W"]:
        counts_BW = position_mask(ids_BW, lengths, acts.policy, special_ids, bos=acts.bos)
        return counts_BW & norm_mask(x_BWD, limit).cpu() & norm_mask(y_BWE, target_limit).cpu()

    return mask


def eval_documents(acts: ActivationSet) -> Int[Tensor, " U"]:
    """Document numbers of the eval split, ascending."""
    table = acts.documents
    return torch.tensor(sorted(table.loc[table["split"] == SPLIT, "document"].tolist()))


def _window(acts: ActivationSet) -> tuple[int, int]:
    """A document's own tokens in a window, and how many stand before them."""
    shift = int(acts.bos is not None)
    return acts.context_size - shift, shift


def _train_sample(
    acts: ActivationSet, sites: Sites, *, seed: int
) -> tuple[Float[Tensor, "T D"], Float[Tensor, "T E"]]:
    tokens = acts.count(sites.input, "train")
    size = min(2048, tokens)
    shuffled = shuffled_batches(acts, sites, batch_size=size, buffer_tokens=PCA_TOKENS, seed=seed)
    batches = list(islice(shuffled, max(1, min(PCA_TOKENS, tokens) // size)))
    return torch.cat([batch.x_TD for batch in batches]), torch.cat([batch.y_TE for batch in batches])
