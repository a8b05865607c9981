"""Codes: the latents that fire on each token, without the zeros.

# T token, F latent, N entry (one latent firing on one token)
"""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Codes:
    """Positive activations in compressed rows: token t owns entries offsets[t] to offsets[t + 1].

    Within a token the latents are in ascending order, each at most once.
    """

    offsets: Int[Tensor, " T+1"]
    latent: Int[Tensor, " N"]
    value: Float[Tensor, " N"]
    """Always > 0, in the units of the activations."""
    n_latents: int

    @classmethod
    def from_dense(cls, f_TF: Float[Tensor, "T F"]) -> Self:
        """The positive entries of a dense matrix of latent activations."""
        token, latent = (f_TF > 0).nonzero(as_tuple=True)
        counts = torch.bincount(token, minlength=len(f_TF))
        return cls(_offsets(counts), latent, f_TF[token, latent], f_TF.shape[1])

    @classmethod
    def from_pairs(cls, value_TK: Float[Tensor, "T K"], latent_TK: Int[Tensor, "T K"], *, n_latents: int) -> Self:
        """The positive ones among K candidates a token, in any order."""
        if not bool((latent_TK[:, 1:] > latent_TK[:, :-1]).all()):
            latent_TK, order = latent_TK.sort(dim=1)
            value_TK = value_TK.gather(1, order)
        fires_TK = value_TK > 0
        return cls(_offsets(fires_TK.sum(1)), latent_TK[fires_TK], value_TK[fires_TK], n_latents)

    @classmethod
    def concatenate(cls, parts: "list[Self]") -> Self:
        """Codes of consecutive tokens as one; at least one part."""
        counts = torch.cat([part.l0() for part in parts])
        latent = torch.cat([part.latent for part in parts])
        return cls(_offsets(counts), latent, torch.cat([part.value for part in parts]), parts[0].n_latents)

    def take(self, chosen_C: Int[Tensor, " C"]) -> Self:
        """The codes of the tokens chosen, in that order."""
        counts = self.l0()[chosen_C]
        offsets = _offsets(counts)
        shift = (self.offsets[chosen_C] - offsets[:-1]).repeat_interleave(counts)
        entry = torch.arange(len(shift), device=shift.device) + shift
        return type(self)(offsets, self.latent[entry], self.value[entry], self.n_latents)

    def __getitem__(self, part: slice) -> Self:
        """Those of consecutive tokens, in the same memory."""
        first, stop, step = part.indices(self.tokens)
        assert step == 1, "consecutive tokens"
        offsets = self.offsets[first : max(first, stop) + 1]
        entries = slice(int(offsets[0]), int(offsets[-1]))
        return type(self)(offsets - offsets[0], self.latent[entries], self.value[entries], self.n_latents)

    @property
    def tokens(self) -> int:
        """T."""
        return len(self.offsets) - 1

    def l0(self) -> Int[Tensor, " T"]:
        """Latents that fire on each token."""
        return self.offsets.diff()

    def rows(self) -> Int[Tensor, " N"]:
        """The token of each entry."""
        tokens = torch.arange(self.tokens, device=self.offsets.device)
        return tokens.repeat_interleave(self.l0(), output_size=len(self.latent))

    def dense(self) -> Float[Tensor, "T F"]:
        """With the zeros: T × F values, so only for few tokens or few latents."""
        f_TF = self.value.new_zeros(self.tokens, self.n_latents)
        f_TF[self.rows(), self.latent] = self.value
        return f_TF


def _offsets(counts: Int[Tensor, " T"]) -> Int[Tensor, " T+1"]:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
