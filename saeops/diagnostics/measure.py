"""What an SAE does on held-out documents, measured from an activation set.

# T token, D d_model, U document, W position in a window
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saeops.activations.reader import ActivationSet
from saeops.activations.shuffle import ShuffledTokens
from saeops.activations.split import Split
from saeops.activations.windows import Window, norm_mask, pad_windows, position_mask, window_lengths
from saeops.diagnostics.fidelity import FidelitySums, Mask, Run, WindowBatch, by_document, fidelity_sums
from saeops.diagnostics.nulls import Pca
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
    """Encode and reconstruct the eval split once.

    Raises:
        StageMissing: the eval split holds no token.
    """
    site = sae.meta.site
    if acts.count(site, SPLIT) == 0:
        raise StageMissing(f"no {SPLIT} tokens at {site}", hint="run `saeops harvest` with more tokens")
    documents = eval_documents(acts)
    window_tokens, shift = _window(acts)
    by_document = ReconstructionMeter(len(documents), acts.width(site))
    by_position = ReconstructionMeter(acts.context_size, acts.width(site))
    sparsity = SparsityMeter(len(documents), sae.meta.d_sae)
    for batch in acts.batches(site, SPLIT, BATCH_TOKENS):
        codes = sae.encode(batch.activations)
        x_hat_TD = sae.decode(codes)
        row_T = torch.searchsorted(documents, batch.document.long())
        by_document.add(row_T, batch.activations, x_hat_TD)
        by_position.add(batch.position.long() % window_tokens + shift, batch.activations, x_hat_TD)
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


def pca_null(acts: ActivationSet, site: str, rank: int, draw: Bootstrap) -> Interval:
    """Explained variance on eval documents of PCA of this rank, fitted on train documents."""
    pca = Pca.fit(_train_sample(acts, site, seed=draw.seed), rank)
    documents = eval_documents(acts)
    meter = ReconstructionMeter(len(documents), acts.width(site))
    for batch in acts.batches(site, SPLIT, BATCH_TOKENS):
        row_T = torch.searchsorted(documents, batch.document.long())
        meter.add(row_T, batch.activations, pca.reconstruct(batch.activations))
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
    mean: Float[Array, " D"],
    *,
    special_ids: frozenset[int],
    advance: Advance,
) -> FidelitySums:
    """CE and KL with the SAE's reconstruction, zeros and the mean in the place of the activations."""
    mean_D = torch.from_numpy(mean).float()
    splices = {
        "sae": lambda x_ND: sae.reconstruct(x_ND.cpu()),
        "zero": torch.zeros_like,
        "mean": lambda x_ND: mean_D.expand(len(x_ND), -1),
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
    """The activation set's own token policy, at the SAE's site."""
    limit = acts.norm_limit(sae.meta.site)

    def mask(
        ids_BW: Int[Tensor, "B W"], lengths: Int[Tensor, " B"], x_BWD: Float[Tensor, "B W D"]
    ) -> Bool[Tensor, "B W"]:
        counts_BW = position_mask(ids_BW, lengths, acts.policy, special_ids, bos=acts.bos)
        return counts_BW & norm_mask(x_BWD, limit).cpu()

    return mask


def eval_documents(acts: ActivationSet) -> Int[Tensor, " U"]:
    """Document numbers of the eval split, ascending."""
    table = acts.documents
    return torch.tensor(sorted(table.loc[table["split"] == SPLIT, "document"].tolist()))


def _window(acts: ActivationSet) -> tuple[int, int]:
    """A document's own tokens in a window, and how many stand before them."""
    shift = int(acts.bos is not None)
    return acts.context_size - shift, shift


def _train_sample(acts: ActivationSet, site: str, *, seed: int) -> Float[Tensor, "T D"]:
    size = min(2048, acts.count(site, "train"))
    shuffled = ShuffledTokens(acts, site, batch_size=size, buffer_tokens=PCA_TOKENS, seed=seed)
    batches = max(1, min(PCA_TOKENS, shuffled.tokens) // size)
    return torch.cat([batch.activations for batch in islice(shuffled, batches)])
