"""How far a latent's activations moved: the distance between two histograms, in octaves.

# F latent, B bin
"""

import numpy as np
from jaxtyping import Float, Int

from saeops.diagnostics.sparsity import BIN_EDGES, BINS_PER_OCTAVE
from saeops.sae.codes import Codes

Array = np.ndarray
BINS = len(BIN_EDGES) - 1


def histogram(codes: Codes) -> Int[Array, "F B"]:
    """Tokens of each latent with an activation between BIN_EDGES[b] and BIN_EDGES[b + 1], four bins an octave."""
    latent, value = codes.latent.cpu().numpy(), codes.value.cpu().float().numpy()
    place = np.clip(np.searchsorted(BIN_EDGES, value, side="right") - 1, 0, BINS - 1)
    counts = np.bincount(latent * BINS + place, minlength=codes.n_latents * BINS)
    return counts.reshape(codes.n_latents, BINS).astype(np.int32)


def distance_octaves(first_FB: Int[Array, "F B"], second_FB: Int[Array, "F B"]) -> Float[Array, " F"]:
    """Wasserstein-1 distance of log2 activations on the tokens where each fires: Σ |F₁ − F₂| · bin width.

    In one dimension that is the area between the two distribution functions (Vallender 1974, Theory of Probability
    and its Applications 18:784). Twice as strong everywhere is one octave. NaN where a side never fires.
    """
    n_first, n_second = first_FB.sum(1), second_FB.sum(1)
    both = (n_first > 0) & (n_second > 0)
    first, second = (
        np.cumsum(counts, axis=1) / np.maximum(n, 1)[:, None]
        for counts, n in ((first_FB, n_first), (second_FB, n_second))
    )
    return np.where(both, np.abs(first - second).sum(1) / BINS_PER_OCTAVE, np.nan)
