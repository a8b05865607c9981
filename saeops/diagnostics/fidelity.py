"""Fidelity: what the model loses when it goes on from the reconstruction.

The activations at the site (a transcoder's target site) are replaced at the
positions of the token policy's mask and nowhere else; CE and KL are counted on
the predictions made from those positions. Clean, SAE, zero- and mean-ablation
use one and the same mask.

# B window, W position in a window, D d_model, E width of the target (D in an autoencoder), V vocabulary,
# N masked-in position, U document
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saeops.activations.sites import PairEdit

Array = np.ndarray

Pass = Callable[[PairEdit], Float[Tensor, "B W V"]]
"""The model's logits on some windows, with the target site's activations replaced by what the edit returns."""
Begin = Callable[[Int[Tensor, "B W"]], Pass]
"""Passes over the same windows; what comes before the site need run but once."""
Splice = Callable[[Float[Tensor, "N D"], Float[Tensor, "N E"]], Float[Tensor, "N E"]]
"""What stands in the place of the target's activations at masked-in positions, given both sites of the pass."""
Mask = Callable[
    [Int[Tensor, "B W"], Int[Tensor, " B"], Float[Tensor, "B W D"], Float[Tensor, "B W E"]], Bool[Tensor, "B W"]
]
"""Which positions count, from token ids, window lengths and both sites' activations."""


@dataclass(frozen=True)
class WindowBatch:
    """Windows of the same batch, padded on the right."""

    document: Int[Tensor, " B"]
    ids_BW: Int[Tensor, "B W"]
    lengths: Int[Tensor, " B"]


@dataclass(frozen=True)
class FidelitySums:
    """Sums over each document's counted predictions, in nats."""

    document: Int[Array, " U"]
    tokens: Float[Array, " U"]
    clean: Float[Array, " U"]
    """CE of the model as it is."""
    spliced: Mapping[str, Float[Array, " U"]]
    """CE with each splice, by its name."""
    kl: Mapping[str, Float[Array, " U"]]
    """KL(clean ‖ spliced), by the splice's name."""
    agree: Mapping[str, Float[Array, " U"]]
    """Predictions whose most likely token is the clean one's, by the splice's name."""


def splice_at(mask_BW: Bool[Tensor, "B W"], splice: Splice) -> PairEdit:
    """An edit that replaces masked-in positions and leaves every other one as it is."""

    def edit(x_BWD: Float[Tensor, "B W D"], y_BWE: Float[Tensor, "B W E"]) -> Float[Tensor, "B W E"]:
        mask = mask_BW.to(y_BWE.device)
        edited = y_BWE.clone()
        edited[mask] = splice(x_BWD[mask], y_BWE[mask]).to(edited)
        return edited

    return edit


def counted_positions(mask_BW: Bool[Tensor, "B W"], lengths: Int[Tensor, " B"]) -> Bool[Tensor, "B W"]:
    """Positions in the mask whose next token exists in the window."""
    has_next = torch.arange(mask_BW.shape[1]) + 1 < lengths[:, None]
    return mask_BW & has_next


@torch.no_grad()
def fidelity_sums(
    begin: Begin, batches: Sequence[WindowBatch], mask: Mask, splices: Mapping[str, Splice]
) -> Iterator[FidelitySums]:
    """The sums of each batch: one forward pass clean, one for every splice."""
    for batch in batches:
        seen: list[tuple[Tensor, Tensor]] = []

        def record(x_BWD: Tensor, y_BWE: Tensor, seen: list[tuple[Tensor, Tensor]] = seen) -> Tensor:
            seen.append((x_BWD.detach(), y_BWE.detach()))
            return y_BWE

        run = begin(batch.ids_BW)
        clean = run(record)
        mask_BW = mask(batch.ids_BW, batch.lengths, *seen[0]).cpu()
        scored = _Scored(batch, counted_positions(mask_BW, batch.lengths), clean)
        # Only its log-probabilities are still needed, and it is as large as they are.
        del clean
        for name, splice in splices.items():
            scored.add(name, run(splice_at(mask_BW, splice)))
        yield scored.sums()


class _Scored:
    """CE and KL of one batch, a window at a time so that no third B × W × V tensor is made."""

    def __init__(self, batch: WindowBatch, counted_BW: Bool[Tensor, "B W"], clean: Tensor) -> None:
        self._batch, self._counted = batch, counted_BW
        self._clean = [self._logprobs(logits, window) for window, logits in enumerate(clean)]
        self._spliced: dict[str, Array] = {}
        self._kl: dict[str, Array] = {}
        self._agree: dict[str, Array] = {}

    def add(self, name: str, logits: Float[Tensor, "B W V"]) -> None:
        losses, divergences, agreements = [], [], []
        for window, clean_NV in enumerate(self._clean):
            spliced_NV = self._logprobs(logits[window], window)
            losses.append(self._loss(spliced_NV, window))
            kl_NV = torch.nn.functional.kl_div(spliced_NV, clean_NV, reduction="none", log_target=True)
            divergences.append(float(kl_NV.sum(-1).double().sum()))
            agreements.append(float((spliced_NV.argmax(-1) == clean_NV.argmax(-1)).sum()))
        self._spliced[name], self._kl[name] = np.array(losses), np.array(divergences)
        self._agree[name] = np.array(agreements)

    def sums(self) -> FidelitySums:
        clean = [self._loss(logprobs, window) for window, logprobs in enumerate(self._clean)]
        tokens = self._counted.sum(1).double().numpy()
        document = self._batch.document.numpy()
        return FidelitySums(document, tokens, np.array(clean), self._spliced, self._kl, self._agree)

    def _logprobs(self, logits_WV: Float[Tensor, "W V"], window: int) -> Float[Tensor, "N V"]:
        return logits_WV[self._counted[window].to(logits_WV.device)].float().log_softmax(-1)

    def _loss(self, logprobs_NV: Float[Tensor, "N V"], window: int) -> float:
        target_N = self._batch.ids_BW[window].roll(-1)[self._counted[window]].to(logprobs_NV.device)
        return -float(logprobs_NV.gather(1, target_N[:, None]).double().sum())


def by_document(parts: Sequence[FidelitySums]) -> FidelitySums:
    """All parts together, one row a document that has a counted prediction."""
    names = parts[0].spliced.keys()
    documents, row = np.unique(np.concatenate([part.document for part in parts]), return_inverse=True)

    def added(columns: Sequence[Array]) -> Array:
        return np.bincount(row, weights=np.concatenate(columns), minlength=len(documents))

    tokens = added([part.tokens for part in parts])
    keep = tokens > 0
    return FidelitySums(
        documents[keep],
        tokens[keep],
        added([part.clean for part in parts])[keep],
        {name: added([part.spliced[name] for part in parts])[keep] for name in names},
        {name: added([part.kl[name] for part in parts])[keep] for name in names},
        {name: added([part.agree[name] for part in parts])[keep] for name in names},
    )


def fidelity_columns(sums: FidelitySums, name: str) -> pd.DataFrame:
    """The columns of EvalDocumentTable that say what one splice costs, with zero, mean and kept beside it."""
    return pd.DataFrame(
        {
            "predictions": sums.tokens,
            "ce_clean": sums.clean,
            "ce_spliced": sums.spliced[name],
            "ce_kept": sums.spliced["kept"],
            "ce_zero": sums.spliced["zero"],
            "ce_mean": sums.spliced["mean"],
            "kl": sums.kl[name],
            "agree": sums.agree[name],
        },
        index=pd.Index(sums.document, name="document"),
    )
