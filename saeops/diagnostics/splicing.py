"""Splicing on held-out documents: which windows the model runs on, and what stands in the activations' place.

# D d_model, E width of the target (D in an autoencoder), B window, W position in a window, N masked-in position
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saeops.activations.reader import ActivationSet
from saeops.activations.sites import Sites
from saeops.activations.windows import Window, norm_mask, pad_windows, position_mask, window_lengths
from saeops.diagnostics.fidelity import (
    Begin,
    FidelitySums,
    Mask,
    Splice,
    WindowBatch,
    by_document,
    fidelity_columns,
    fidelity_sums,
)
from saeops.diagnostics.measure import SPLIT

Advance = Callable[[int], object]
Predict = Callable[[Float[Tensor, "N D"]], Float[Tensor, "N E"]]

FORWARD_TOKENS = 512
"""Most tokens of a forward pass with logits: what it holds is this × vocabulary, twice."""


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
    begin: Begin,
    windows: Sequence[Window],
    acts: ActivationSet,
    sites: Sites,
    predictions: Mapping[str, Predict],
    mean_E: Float[Tensor, " E"],
    *,
    special_ids: frozenset[int],
    advance: Advance,
) -> FidelitySums:
    """CE, KL and agreement with each reconstruction in the place of the target's activations.

    Beside them, with the names `zero` and `mean`, stand zeros and μ, and, as `kept`, the first reconstruction
    with its error term: x̂ + (x − x̂), which must change nothing.
    """
    mean = mean_E.float()
    first = next(iter(predictions.values()))

    def kept(x_ND: Tensor, y_NE: Tensor) -> Tensor:
        y_hat_NE = first(x_ND.cpu())
        return y_hat_NE + (y_NE.cpu() - y_hat_NE)

    splices: dict[str, Splice] = {
        **{name: _spliced(predict) for name, predict in predictions.items()},
        "kept": kept,
        "zero": lambda _, y_NE: torch.zeros_like(y_NE),
        "mean": lambda _, y_NE: mean.expand(len(y_NE), -1),
    }
    parts = []
    for part in fidelity_sums(begin, window_batches(windows), policy_mask(acts, sites, special_ids), splices):
        parts.append(part)
        advance(int(part.tokens.sum()))
    return by_document(parts)


def _spliced(predict: Predict) -> Splice:
    return lambda x_ND, _: predict(x_ND.cpu())


def window_batches(windows: Sequence[Window]) -> list[WindowBatch]:
    """The windows in order, at most `FORWARD_TOKENS` a batch (and at least one window)."""
    widest = max(len(window.ids) for window in windows)
    size = max(1, FORWARD_TOKENS // widest)
    return [
        WindowBatch(torch.tensor([window.document for window in part]), pad_windows(part), window_lengths(part))
        for part in (windows[i : i + size] for i in range(0, len(windows), size))
    ]


def policy_mask(acts: ActivationSet, sites: Sites, special_ids: frozenset[int]) -> Mask:
    """The activation set's own token policy, at an SAE's sites."""
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


def document_frame(acts: ActivationSet, documents: pd.DataFrame, sums: FidelitySums, name: str) -> pd.DataFrame:
    """EvalDocumentTable: the sums of a reconstruction, and what splicing it in costs.

    Args:
        documents: sums by document, as `measure` gives them.
        name: the splice's.
    """
    sha256 = acts.documents.set_index("document")["sha256"]
    frame = documents.join(fidelity_columns(sums, name), on="document").fillna(0.0)
    frame.insert(1, "sha256", frame["document"].map(sha256))
    return frame.astype({"document": "int32"})
