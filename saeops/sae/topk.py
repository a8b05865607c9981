"""TopK with AuxK and Multi-TopK (Gao et al. 2024, arXiv 2406.04093).

# T token, D d_model (E of the target), F latent, K kept a token, N entry
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saeops.sae.auxk import AuxK
from saeops.sae.select import Picked, encode_topk, topk
from saeops.sae.shortlist import Shortlist, Shortlisted
from saeops.sae.sparse import Pattern, Reconstruction, encode_at, reconstruct_at
from saeops.sae.trainable import Outcome, Shape, TrainableSae
from saeops.sae.variants import MULTI, TopK


class TopKSae(TrainableSae):
    """Keeps the k largest latents of each token; loss = mse + multi · mse with 4k + aux · AuxK."""

    unit_rows = True

    def __init__(self, variant: TopK, shape: Shape, *, generator: torch.Generator) -> None:
        super().__init__(shape, decoder_norm=1.0, generator=generator)
        self.variant = variant
        self.shortlist = Shortlist(variant.min_recall) if variant.encoder == "shortlist" else None
        self.auxk = AuxK(variant.aux_k or max(1, shape.d_in // 2), variant.aux_coefficient)

    def outcome(
        self,
        x_TD: Float[Tensor, "T D"],
        y_TE: Float[Tensor, "T E"],
        *,
        dead: Bool[Tensor, " F"],
        progress: float,  # noqa: ARG002
    ) -> Outcome:
        k, coefficient = self.variant.k, self.variant.multi_coefficient
        most = min(MULTI * k, len(self.b_enc)) if coefficient else k
        found = self._encode(x_TD, most)
        picked = found.picked
        pattern = Pattern.of_rows(picked.latent, n_latents=len(self.b_enc))
        pre = encode_at(x_TD, self.W_enc_FD, self.b_enc, pre=picked.value.flatten(), pattern=pattern)
        value = pre.relu()
        if coefficient:
            wide = self._reconstruct(value, y_TE, pattern)
            value, pattern = self._first(value, picked)
        made = self._reconstruct(value, y_TE, pattern)
        mse = made.squared_error / y_TE.numel()
        aux = self.auxk.error(self, x_TD, made.residual_RD, dead)
        loss = mse + self.variant.aux_coefficient * aux
        if coefficient:
            loss = loss + coefficient * wide.squared_error / y_TE.numel()
        fires = value.detach() > 0
        fired = torch.zeros_like(dead).index_fill_(0, pattern.latent[fires].long(), True)
        l0 = fires.sum() / len(x_TD)
        return Outcome(loss, mse.detach(), aux.detach(), l0, fired, found.recall, found.notice)

    def _encode(self, x_TD: Float[Tensor, "T D"], k: int) -> Shortlisted:
        if self.shortlist is not None:
            return self.shortlist.encode(x_TD, self.W_enc_FD, self.b_enc, k)
        return Shortlisted(encode_topk(x_TD, self.W_enc_FD, self.b_enc, k), recall=1.0)

    def _reconstruct(self, value: Float[Tensor, " N"], y_TE: Tensor, pattern: Pattern) -> Reconstruction:
        return reconstruct_at(value, self.W_dec_FE, self.b_dec, y_TE, pattern)

    def _first(self, value: Float[Tensor, " N"], picked: Picked) -> tuple[Float[Tensor, " N"], Pattern]:
        """The k largest among more candidates."""
        place_TK = topk(picked.value, self.variant.k).latent
        value_TK = value.view_as(picked.value).gather(1, place_TK)
        latent_TK = picked.latent.gather(1, place_TK)
        return value_TK.flatten(), Pattern.of_rows(latent_TK, n_latents=len(self.b_enc))
