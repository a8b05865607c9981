"""Gemma Scope: `params.npz`, a JumpReLU SAE on plain activations (Lieberum et al. 2024, arXiv 2408.05147).

# D d_model, F latent
"""

import re
from pathlib import Path
from typing import Any

from saeops.sae.formats.folding import ForeignWeights, Imported
from saeops.sae.formats.reading import Faults, as_float32, read_npz, sides_of

WEIGHTS = "params.npz"


def read(folder: Path) -> Imported:
    """Read one SAE's folder. Its file tells neither model nor site.

    Raises:
        ForeignFormat: arrays that are missing or misshapen, or would have to be unpickled; all of them.
    """
    faults = Faults(folder, "gemma_scope")
    # Some releases write w_enc and w_dec.
    arrays = {re.sub("^w_", "W_", name): array for name, array in read_npz(folder / WEIGHTS, faults).items()}
    faults.stop()
    sides = sides_of(arrays, "W_enc", WEIGHTS, faults)
    if sides is None:
        raise faults.error()
    D, F = sides
    shapes = {"W_enc": (D, F), "b_enc": (F,), "W_dec": (F, D), "b_dec": (D,), "threshold": (F,)}
    tensors = as_float32(arrays, shapes, WEIGHTS, faults)
    faults.stop()
    weights: dict[str, Any] = dict(tensors)
    return Imported(weights=ForeignWeights(**weights, apply_b_dec_to_input=False), architecture="jumprelu")
