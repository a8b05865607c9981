"""BatchTopK with AuxK (Bussmann et al. 2024, arXiv 2412.06410).

# T token, D d_model (E of the target), F latent, N entry
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saeops.sae.auxk import AuxK
from saeops.sae.select import Entries, encode_above
from saeops.sae.sparse import Pattern, encode_at, reconstruct_at
from saeops.sae.trainable import Outcome, Shape, TrainableSae, Weights
from saeops.sae.variants import BatchTopK, Matryoshka

DECAY = 0.9
"""Of the running mean of the smallest kept value, with a memory of about 10 steps.

The value hardly varies from batch to batch but drifts as the weights grow: with 0.99, a mean over 100 steps,
L0 on held-out tokens was 21 instead of 32 after 200 steps.
"""
PROBE_TOKENS = 64
"""Tokens from which the first batch's smallest kept value is guessed."""
CAUTION = 0.93
"""Batches differ: look this far below the last batch's smallest kept value."""


class BatchSelection:
    """Finds the largest positive pre-activations of a batch without looking at all of them.

    A floor guessed from the batch before lets few others through. The guess
    decides what a batch costs and never what is found, so it is no state.
    """

    def __init__(self) -> None:
        self._guess: float | None = None

    @torch.no_grad()
    def largest(
        self, x_TD: Float[Tensor, "T D"], W_enc_FD: Float[Tensor, "F D"], b_enc: Float[Tensor, " F"], k: int
    ) -> Entries:
        """The k·T largest positive pre-activations, or all where fewer are positive.

        Of equal values at the edge those that come first are taken.
        """
        count = k * len(x_TD)
        if self._guess is None:
            probed = x_TD[:PROBE_TOKENS]
            self._guess = smallest(largest_of(encode_above(probed, W_enc_FD, b_enc, 0.0), k * len(probed)))
        for floor in dict.fromkeys((CAUTION * self._guess, CAUTION / 2 * self._guess, 0.0)):
            found = encode_above(x_TD, W_enc_FD, b_enc, floor)
            if len(found.pre) >= count:
                break
        kept = largest_of(found, count)
        self._guess = smallest(kept) if len(kept.pre) == count else 0.0
        return kept


def largest_of(entries: Entries, count: int) -> Entries:
    """The `count` largest entries, the first among equals, in their order."""
    pre = entries.pre
    if len(pre) <= count:
        return entries
    edge = pre.kthvalue(len(pre) - count + 1).values
    above, level = pre > edge, pre == edge
    keep = above | (level & (level.cumsum(0) <= count - above.sum()))
    before = torch.nn.functional.pad(keep.cumsum(0), (1, 0))
    pattern = entries.pattern
    offsets = before[pattern.offsets].int()
    return Entries(Pattern(offsets, pattern.latent[keep], pattern.n_latents), pre[keep])


def smallest(entries: Entries) -> float:
    """The smallest kept value; 0 where nothing is kept."""
    return float(entries.pre.min()) if len(entries.pre) else 0.0


class BatchTopKSae(TrainableSae):
    """Keeps the k·T largest latents of a batch of T tokens; loss = mse + aux · AuxK.

    One token alone has no batch to compete in, so what is used afterwards is a
    threshold: the running mean of the smallest value that batches kept.
    """

    unit_rows = True
    threshold: Float[Tensor, ""]
    """Below 0 before anything was kept."""

    def __init__(self, variant: BatchTopK | Matryoshka, shape: Shape, *, generator: torch.Generator) -> None:
        super().__init__(shape, decoder_norm=1.0, generator=generator)
        self.k, self.aux_coefficient = variant.k, variant.aux_coefficient
        self.auxk = AuxK(variant.aux_k or max(1, shape.d_in // 2), variant.aux_coefficient)
        self.selection = BatchSelection()
        self.register_buffer("threshold", torch.tensor(-1.0))

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
        made = reconstruct_at(value, self.W_dec_FE, self.b_dec, y_TE, kept.pattern)
        mse = made.squared_error / y_TE.numel()
        aux = self.auxk.error(self, x_TD, made.residual_RD, dead)
        loss = mse + self.aux_coefficient * aux
        return Outcome(loss, mse.detach(), aux.detach(), *firing(kept.pattern))

    def select(self, x_TD: Float[Tensor, "T D"]) -> Entries:
        """What fires on this batch; the threshold follows."""
        kept = self.selection.largest(x_TD, self.W_enc_FD, self.b_enc, self.k)
        if len(kept.pre):
            least = kept.pre.min()
            self.threshold.copy_(torch.where(self.threshold < 0, least, self.threshold.lerp(least, 1 - DECAY)))
        return kept

    @torch.no_grad()
    def take(self, weights: Weights) -> None:
        super().take(weights)
        assert weights.threshold is not None, "a BatchTopK has one"
        self.threshold.copy_(weights.threshold.mean())

    def weights(self) -> Weights:
        weights = super().weights()
        level = self.threshold.clamp(min=0).expand(len(self.b_enc))
        return Weights(weights.W_enc_FD, weights.b_enc, weights.W_dec_FE, weights.b_dec, level)


def firing(pattern: Pattern) -> tuple[Float[Tensor, ""], Bool[Tensor, " F"]]:
    """L0, and which latents fired, where every entry does."""
    fired = torch.zeros(pattern.n_latents, dtype=torch.bool, device=pattern.latent.device)
    l0 = torch.tensor(len(pattern.latent) / pattern.rows, device=pattern.latent.device)
    return l0, fired.index_fill_(0, pattern.latent.long(), True)
