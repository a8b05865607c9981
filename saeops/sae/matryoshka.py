"""Matryoshka BatchTopK (Bussmann et al. 2025, arXiv 2503.17547).

# T token, D d_model (E of the target), F latent, N entry, P prefix
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saeops.sae.batch_topk import BatchTopKSae, firing
from saeops.sae.sparse import Pattern, decode_at, encode_at
from saeops.sae.trainable import Outcome, Shape
from saeops.sae.variants import Matryoshka


class MatryoshkaSae(BatchTopKSae):
    """One BatchTopK over all latents; loss = mean over prefixes of the prefix's mse + aux · AuxK.

    A prefix reconstructs with those of its latents that were kept. AuxK models
    what the whole dictionary leaves over.
    """

    ends: Tensor
    """First latent beyond each prefix."""

    def __init__(self, variant: Matryoshka, shape: Shape, *, generator: torch.Generator) -> None:
        super().__init__(variant, shape, generator=generator)
        self.register_buffer("ends", torch.tensor(variant.sizes(shape.d_sae)), persistent=False)

    def outcome(
        self,
        x_TD: Float[Tensor, "T D"],
        y_TE: Float[Tensor, "T E"],
        *,
        dead: Bool[Tensor, " F"],
        progress: float,  # noqa: ARG002
    ) -> Outcome:
        kept = self.select(x_TD)
        value = encode_at(x_TD, self.W_enc_FD, self.b_enc, pre=kept.pre, pattern=kept.pattern)
        added = decode_at(value, self.W_dec_FE, self._by_prefix(kept.pattern))
        added_TPE = added.view(len(x_TD), len(self.ends), -1)
        residual_TPE = (y_TE - self.b_dec)[:, None] - added_TPE.cumsum(1)
        whole_TE = residual_TPE[:, -1].detach()
        aux = self.auxk.error(self, x_TD, whole_TE, dead)
        loss = residual_TPE.square().mean() + self.aux_coefficient * aux
        return Outcome(loss, whole_TE.square().mean(), aux.detach(), *firing(kept.pattern))

    def _by_prefix(self, pattern: Pattern) -> Pattern:
        """The same entries with a row for each token and what each prefix adds to the one before.

        Latents ascend within a token, so the entries are in order of the new rows already.
        """
        n_prefixes = len(self.ends)
        prefix = torch.bucketize(pattern.latent, self.ends, right=True)
        row = pattern.row.long() * n_prefixes + prefix
        n_rows = pattern.rows * n_prefixes
        return Pattern.of_entries(row, pattern.latent, n_rows=n_rows, n_latents=pattern.n_latents)
