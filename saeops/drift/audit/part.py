"""What a few documents give: a piece of an audit that a kill cannot cost, small whatever was read.

# F latent, B bin, U document, T token, N entry (one latent firing on one token), S sum, E width of the target
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saeops.diagnostics.reconstruction import SUMS, TokenSums
from saeops.drift.audit.contexts import Strongest
from saeops.drift.audit.histograms import histogram
from saeops.drift.audit.sums import PairSums
from saeops.sae.codes import Codes

Array = np.ndarray


@dataclass(frozen=True)
class Read:
    """Tokens that one model read, with what the SAE makes of them."""

    document_T: Int[Tensor, " T"]
    """Number among the audited documents."""
    position_T: Int[Tensor, " T"]
    window_T: Int[Tensor, " T"]
    """Number among all windows of the audit."""
    y_TE: Float[Tensor, "T E"]
    y_hat_TE: Float[Tensor, "T E"]
    codes: Codes


@dataclass(frozen=True)
class Side:
    """Sums of one model's side."""

    histogram_FB: Int[Array, "F B"]
    latent: Int[Array, " K"]
    window: Int[Array, " K"]
    row: Int[Array, " K"]
    value: Float[Array, " K"]
    sums_US: Float[Array, "U S"]
    """Of `reconstruction.SUMS`, with Σ‖x‖² for spread: μ is not known yet."""
    total_UE: Float[Array, "U E"]
    """Σ y."""
    fired_latent: Int[Array, " N"]
    """Every firing of the latents whose labels are judged again."""
    fired_row: Int[Array, " N"]
    fired_value: Float[Array, " N"]
    document_T: Int[Array, " T"]
    position_T: Int[Array, " T"]

    @classmethod
    def of(cls, read: Read, *, first: int, documents: int, top: int, labelled: Array) -> Self:
        """Sums of the tokens of documents `first` … `first + documents − 1`."""
        codes, document = read.codes, (read.document_T - first).cpu().long()
        rows, latent = codes.rows().cpu().numpy(), codes.latent.cpu().numpy()
        value = codes.value.cpu().double().numpy()
        best = Strongest.of(latent, read.window_T.numpy()[rows], rows, value, top=top)
        y_TE = read.y_TE.cpu().double()
        sums = TokenSums.of(y_TE, read.y_hat_TE, torch.zeros(y_TE.shape[1], dtype=torch.float64), codes.l0())
        sums_US = torch.zeros(documents, len(SUMS), dtype=torch.float64).index_add_(0, document, sums.value_TS)
        total_UE = torch.zeros(documents, y_TE.shape[1], dtype=torch.float64).index_add_(0, document, y_TE)
        mine = np.isin(latent, labelled)
        return cls(
            histogram(codes),
            **vars(best),
            sums_US=sums_US.numpy(),
            total_UE=total_UE.numpy(),
            fired_latent=latent[mine],
            fired_row=rows[mine],
            fired_value=value[mine],
            document_T=read.document_T.cpu().numpy(),
            position_T=read.position_T.cpu().numpy(),
        )

    @property
    def strongest(self) -> Strongest:
        return Strongest(self.latent, self.window, self.row, self.value)


@dataclass(frozen=True)
class Part:
    """One group of documents under two models."""

    pairs: PairSums
    permuted: PairSums
    """With the new side's latents dealt out anew: what two latents that have nothing in common give."""
    old: Side
    new: Side

    def to_bytes(self) -> bytes:
        arrays = {f"{name}.{key}": value for name, part in vars(self).items() for key, value in vars(part).items()}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote; raises ValueError, OSError or KeyError where it did not."""
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            arrays: Mapping[str, Array] = {key: found[key] for key in found.files}
        kinds = {"pairs": PairSums, "permuted": PairSums, "old": Side, "new": Side}
        made = {
            name: kind(**{field.name: arrays[f"{name}.{field.name}"] for field in fields(kind)})
            for name, kind in kinds.items()
        }
        return cls(**made)


def relabelled(codes: Codes, name_F: Int[Array, " F"]) -> Codes:
    """The same firings, with latent f under the name name_F[f]."""
    rows = codes.rows()
    latent = torch.from_numpy(name_F).to(codes.latent)[codes.latent]
    order = torch.argsort(rows * codes.n_latents + latent)
    return Codes(codes.offsets, latent[order], codes.value[order], codes.n_latents)


def side_documents(sides: Sequence[Side]) -> tuple[Float[Array, "U S"], Float[Array, "U E"]]:
    """All groups' document sums, with spread Σ‖x − μ‖² = Σ‖x‖² − 2 μ·Σx + n ‖μ‖², μ the mean of all tokens."""
    sums_US = np.concatenate([side.sums_US for side in sides]).copy()
    total_UE = np.concatenate([side.total_UE for side in sides])
    tokens_U = sums_US[:, SUMS.index("tokens")]
    mean_E = total_UE.sum(0) / max(tokens_U.sum(), 1.0)
    spread_U = sums_US[:, SUMS.index("square")] - 2 * total_UE @ mean_E + tokens_U * (mean_E @ mean_E)
    sums_US[:, SUMS.index("spread")] = np.maximum(spread_U, 0.0)
    return sums_US, total_UE
