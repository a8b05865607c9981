"""Matryoshka BatchTopK (Bussmann et al. 2025, arXiv 2503.17547).

# T token, D d_model (E of the target), F latent, N entry, P prefix
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from saeops.sae.batch_topk import BatchTopKSae, firing
from saeops.sae.sparse import Pattern, Reconstruction, encode_at
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
        made = reconstruct_prefixes(value, self.W_dec_FE, self.b_dec, y_TE, self._by_prefix(kept.pattern))
        aux = self.auxk.error(self, x_TD, made.residual_RD, dead)
        loss = made.squared_error / (y_TE.numel() * len(self.ends)) + self.aux_coefficient * aux
        return Outcome(loss, made.residual_RD.square().mean(), aux.detach(), *firing(kept.pattern))

    def _by_prefix(self, pattern: Pattern) -> Pattern:
        """The same entries with a row for each token and what each prefix adds to the one before.

        Latents ascend within a token, so the entries are in order of the new rows already.
        """
        n_prefixes = len(self.ends)
        prefix = torch.bucketize(pattern.latent, self.ends, right=True)
        row = pattern.row.long() * n_prefixes + prefix
        n_rows = pattern.rows * n_prefixes
        return Pattern.of_entries(row, pattern.latent, n_rows=n_rows, n_latents=pattern.n_latents)


def reconstruct_prefixes(
    value: Float[Tensor, " N"],
    W_dec_FE: Float[Tensor, "F E"],
    b_dec: Float[Tensor, " E"],
    y_TE: Float[Tensor, "T E"],
    pattern: Pattern,
) -> Reconstruction:
    """The squared error summed over prefixes, differentiable in values and decoder, and what the last leaves over.

    Args:
        pattern: with P rows a token, one for what each prefix adds to the one before.
    """
    return Reconstruction(*_ReconstructPrefixes.apply(value, W_dec_FE, b_dec, y_TE, pattern))


class _ReconstructPrefixes(torch.autograd.Function):
    """Everything T × P × E is done in one tensor in place.

    What prefix p adds is in the error of every prefix from p on: its gradient
    is −2 times the sum of their residuals.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        value, W_dec_FE, b_dec, y_TE, pattern = inputs
        residual_TPE = pattern.sum_by_row(W_dec_FE, value).view(len(y_TE), -1, y_TE.shape[1])
        before_TE = y_TE - b_dec
        for prefix_TE in residual_TPE.unbind(1):
            before_TE = torch.sub(before_TE, prefix_TE, out=prefix_TE)
        last_TE = before_TE.clone()
        squared_error = residual_TPE.square().sum()
        prefixes = residual_TPE.unbind(1)
        for earlier_TE, later_TE in zip(prefixes[-2::-1], prefixes[:0:-1], strict=True):
            earlier_TE += later_TE
        ctx.save_for_backward(value, W_dec_FE, residual_TPE)
        ctx.pattern = pattern
        ctx.mark_non_differentiable(last_TE)
        return squared_error, last_TE

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _last: Tensor) -> tuple[Tensor | None, ...]:
        value, W_dec_FE, sums_TPE = ctx.saved_tensors
        slope = -2 * grad
        sums_RE = sums_TPE.flatten(0, 1)
        along = ctx.pattern.dot(sums_RE, W_dec_FE) * slope
        rows_FE = ctx.pattern.sum_by_latent(sums_RE, value * slope).rows_FD
        return along, rows_FE, sums_TPE[:, 0].sum(0) * slope, None, None
