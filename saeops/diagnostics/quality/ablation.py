"""Ablation sparsity: how few of the following logits a latent moves where it fires.

One latent is taken out at one position, h − f·d, so that the error term stays; the logits from
there on are compared with the clean ones. Beside it stands the same length taken along a random
direction at the same position. All three run in one pass, which also says what f is.

# B row of a pass, W position in a window, D d_model, E width of the target (D in an autoencoder), V vocabulary,
# N firing of a batch, T position from the firing on
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saeops.activations.sites import PairEdit
from saeops.activations.windows import Window, pad_windows
from saeops.diagnostics.fidelity import Begin
from saeops.diagnostics.quality.specificity import centred, effective_share
from saeops.sae.canonical import Sae

Array = np.ndarray
Advance = Callable[[int], object]

FUTURE_TOKENS = 16
"""Positions whose logits are compared, the firing's own among them (Gao et al. 2024 take as many)."""
WINDOWS = 4
"""Firings ablated a latent."""
FORWARD_TOKENS = 512
"""Most positions of a forward pass: what it holds is this × vocabulary."""


@dataclass(frozen=True)
class FiringAt:
    """One firing: the window up to the last position compared, and where in it the latent fires."""

    latent: int
    window: Window
    at: int


@dataclass(frozen=True)
class AblationSparsity:
    """Mean over a latent's firings of (L1 / L2)² / (V·T) of the logit differences; NaN where none was run."""

    own_F: Float[Array, " F"]
    random_F: Float[Array, " F"]
    """Of equal lengths along random directions, at the same positions."""


def firings_to_ablate(
    contexts: pd.DataFrame, windows: Sequence[Window], latents: Sequence[int], *, shift: int
) -> list[FiringAt]:
    """At most `WINDOWS` firings of each latent, of different windows, from the quantile samples of a ContextTable.

    A window is run from its beginning, as it was harvested: with less before it, other latents fire. So those
    firings are taken that come soonest, among the ones with `FUTURE_TOKENS` positions of the window to go.

    Args:
        windows: of the split that the contexts are of.
        shift: prepended tokens of a window, 0 or 1.
    """
    by_document: dict[int, list[Window]] = {}
    for window in windows:
        by_document.setdefault(window.document, []).append(window)
    chosen = contexts[(contexts["kind"] == "quantile") & contexts["latent"].isin(latents)]
    by_latent: dict[int, list[FiringAt]] = {}
    columns = (chosen[name].tolist() for name in ("latent", "document", "position"))
    for latent, document, position in zip(*columns, strict=True):
        firing = _firing(latent, by_document[document], position, shift)
        if len(firing.window.ids) == firing.at + FUTURE_TOKENS:
            by_latent.setdefault(latent, []).append(firing)
    soonest = (sorted(by_latent[latent], key=lambda firing: firing.at) for latent in sorted(by_latent))
    return [firing for own in soonest for firing in own[:WINDOWS]]


def _firing(latent: int, windows: Sequence[Window], position: int, shift: int) -> FiringAt:
    window = max((window for window in windows if window.start <= position), key=lambda window: window.start)
    at = position - window.start + shift
    return FiringAt(latent, Window(window.document, window.start, window.ids[: at + FUTURE_TOKENS]), at)


def ablation_sparsity(
    begin: Begin, sae: Sae, firings: Sequence[FiringAt], *, seed: int, advance: Advance
) -> AblationSparsity:
    """Of the latents that the firings are of.

    Source: Gao et al. 2024, Scaling and evaluating sparse autoencoders, arXiv 2406.04093, §4.5.

    Args:
        advance: told the firings done.
    """
    generator = torch.Generator().manual_seed(seed)
    by_length = sorted(firings, key=lambda firing: len(firing.window.ids))
    latents, shares = [], []
    for batch in _batches(by_length):
        directions_NE = torch.randn(len(batch), sae.meta.width_out, generator=generator)
        shares.append(_shares(begin, sae, batch, torch.nn.functional.normalize(directions_NE, dim=1)))
        latents += [firing.latent for firing in batch]
        advance(len(batch))
    own_N, random_N = np.concatenate(shares, axis=1) if shares else np.zeros((2, 0))
    return AblationSparsity(
        _mean_by_latent(own_N, latents, sae.meta.d_sae), _mean_by_latent(random_N, latents, sae.meta.d_sae)
    )


def _batches(firings: Sequence[FiringAt]) -> Iterator[Sequence[FiringAt]]:
    """In order; three passes' logits are held at once, each row as long as the batch's longest window."""
    batch: list[FiringAt] = []
    for firing in firings:
        if batch and 3 * (len(batch) + 1) * len(firing.window.ids) > FORWARD_TOKENS:
            yield batch
            batch = []
        batch.append(firing)
    if batch:
        yield batch


@torch.no_grad()
def _shares(
    begin: Begin, sae: Sae, firings: Sequence[FiringAt], directions_NE: Float[Tensor, "N E"]
) -> Float[Array, "2 N"]:
    """The effective share without the latent, and with the random direction; NaN where the latent is silent."""
    latent_N = torch.tensor([firing.latent for firing in firings])
    at_N, row_N = torch.tensor([firing.at for firing in firings]), torch.arange(len(firings))
    taken_N = torch.zeros(len(firings))

    def look(x_BWD: Float[Tensor, "B W D"], y_BWE: Float[Tensor, "B W E"]) -> Float[Tensor, "B W E"]:
        taken_N.copy_(_activation(sae, x_BWD[row_N, at_N].cpu(), latent_N))
        return y_BWE

    def without(along_NE: Float[Tensor, "N E"]) -> PairEdit:
        def edit(_: Float[Tensor, "B W D"], y_BWE: Float[Tensor, "B W E"]) -> Float[Tensor, "B W E"]:
            edited = y_BWE.clone()
            edited[row_N, at_N] -= (taken_N[:, None] * along_NE).to(edited)
            return edited

        return edit

    run = begin(pad_windows([firing.window for firing in firings]))
    clean, own, random = run(look), run(without(sae.W_dec[latent_N])), run(without(directions_NE))
    shares = torch.full((2, len(firings)), torch.nan)
    for i, firing in enumerate(firings):
        part = slice(firing.at, len(firing.window.ids))
        shares[:, i] = _effect(torch.stack([own[i, part], random[i, part]]) - clean[i, part])
    shares[:, taken_N == 0] = torch.nan
    return shares.numpy()


def _effect(differences: Float[Tensor, "edit T V"]) -> Float[Tensor, " edit"]:
    return effective_share(centred(differences.float()).flatten(1)).cpu()


def _activation(sae: Sae, x_ND: Float[Tensor, "N D"], latent_N: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Each row's own latent."""
    codes = sae.encode(x_ND)
    row = codes.rows()
    mine = codes.latent == latent_N[row]
    return codes.value.new_zeros(len(x_ND)).index_add(0, row[mine], codes.value[mine])


def _mean_by_latent(value_N: Float[Array, " N"], latents: Sequence[int], n_latents: int) -> Float[Array, " F"]:
    counted = ~np.isnan(value_N)
    latent = np.asarray(latents, dtype=np.int64)[counted]
    sums = np.bincount(latent, weights=value_N[counted], minlength=n_latents)
    counts = np.bincount(latent, minlength=n_latents)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
