"""TopK's encoder under the cost of the dense product: int8 products shortlist, fp32 products decide.

Every latent's pre-activation is approximated from bytes, the best candidates
are scored again exactly, and the k largest of these are kept. A kept value is
exact; a latent can only be missed. How often one is missed is measured on some
tokens of every step, and where too many are, the rest of the run encodes exactly.

# T token, D d_model, F latent, K kept a token
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saeops.sae.native.library import for_tensors
from saeops.sae.search import search_some, worth_it
from saeops.sae.select import Picked, encode_topk

CANDIDATES = 1.5
"""Candidates scored again, in multiples of k."""
WATCHED_TOKENS = 64
"""Tokens that are encoded exactly as well, at each step that is watched."""
WATCHED_EVERY = 16
"""Steps from one that is watched to the next."""
MEMORY = 0.8
"""Decay of the running recall: about the last 5 watched steps count, 320 tokens with k latents each."""


@dataclass(frozen=True)
class Shortlisted:
    """What was picked, and how good the search for it is."""

    picked: Picked
    recall: float
    """Running share of the exact top k that the encoder finds; 1 where it is exact."""
    notice: str | None = None
    """Said once: the encoder has just become exact, and why."""


class Shortlist(nn.Module):
    """The encoder and its watch. Its state is in the checkpoint, so that a resumed run goes the same way.

    Args:
        min_recall: the running recall under which the rest of the run is exact.
    """

    steps: Tensor
    recall: Tensor
    exact: Tensor

    def __init__(self, min_recall: float) -> None:
        super().__init__()
        self.min_recall = min_recall
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("recall", torch.ones((), dtype=torch.float64))
        self.register_buffer("exact", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def encode(
        self, x_TD: Float[Tensor, "T D"], W_enc_FD: Float[Tensor, "F D"], b_enc: Float[Tensor, " F"], k: int
    ) -> Shortlisted:
        """The k largest pre-activations of each token, nearly always."""
        native = for_tensors(x_TD, W_enc_FD, b_enc)
        candidates = round(CANDIDATES * k)
        if native is None or self.exact or not worth_it(native, n_latents=len(b_enc), k=candidates):
            return Shortlisted(encode_topk(x_TD, W_enc_FD, b_enc, k), recall=1.0)
        found = search_some(native, x_TD, W_enc_FD, b_enc, k, candidates=candidates)
        picked = Picked(found.value, found.latent)
        self.steps += 1
        watched = int(self.steps) % WATCHED_EVERY == 1
        notice = self._watch(x_TD, W_enc_FD, b_enc, picked) if watched else None
        return Shortlisted(picked, float(self.recall), notice)

    def _watch(self, x_TD: Tensor, W_enc_FD: Tensor, b_enc: Tensor, picked: Picked) -> str | None:
        """Measure the recall; words where it has become too low."""
        rows = torch.linspace(0, len(x_TD) - 1, min(WATCHED_TOKENS, len(x_TD))).long()
        k = picked.latent.shape[1]
        exact = encode_topk(x_TD[rows], W_enc_FD, b_enc, k)
        found = (picked.latent[rows, :, None] == exact.latent[:, None, :]).any(2).double().mean()
        self.recall.lerp_(found, 1 - MEMORY)
        recall = float(self.recall)
        if recall >= self.min_recall:
            return None
        self.exact.fill_(True)
        return (
            f"the shortlist finds {recall:.2%} of the top {k}, less than the {self.min_recall:.2%} asked for: "
            "encoding exactly from here on"
        )
