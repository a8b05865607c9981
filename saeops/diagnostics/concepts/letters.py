"""Probes for the first letter of a word, on the activations that an SAE is to give back.

One logistic probe a letter against all others, classes weighed alike, as in SAEBench (absorption/probing.py):
there by Adam, here by L-BFGS. It learns from half of all words and is tested on the other half: a probe that knows
words by heart has learnt no letter.

# W word, E width of the activation, L letter
"""

from dataclasses import dataclass
from itertools import islice
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import normalize, one_hot, softplus

from saeops.activations.pairing import shuffled_batches
from saeops.activations.reader import ActivationSet
from saeops.activations.sites import Sites
from saeops.diagnostics.concepts.sample import TOKENS
from saeops.diagnostics.concepts.words import LETTERS, NO_WORD, Texts, Vocabulary

Array = np.ndarray

BATCH_TOKENS = 2048
RIDGE = 1e-3
"""Cost of a squared weight, on activations of unit variance, beside the mean loss of a letter."""
STEPS = 30
OCCURRENCES = 4
"""Times that a probe learns from one word."""


@dataclass(frozen=True)
class LetterProbes:
    """score_l(y) = y · direction_l · steepness_l + bias_l; above 0 the probe says letter l."""

    direction_LE: Float[Tensor, "L E"]
    """Unit length."""
    weight_LE: Float[Tensor, "L E"]
    bias_L: Float[Tensor, " L"]
    words_L: Int[Array, " L"]
    """Words of each letter that it learnt from."""

    @classmethod
    def fit(cls, y_WE: Float[Tensor, "W E"], letter_W: Int[Array, " W"]) -> Self:
        """The optimum, up to `STEPS` steps of L-BFGS in coordinates of equal curvature."""
        label_WL = one_hot(torch.from_numpy(letter_W).long(), len(LETTERS)).float()
        mean_E, scale = y_WE.mean(0), (y_WE - y_WE.mean(0)).square().mean().sqrt().clamp_min(1e-30)
        x_WE = (y_WE - mean_E) / scale
        eigen_K, basis_EK = torch.linalg.eigh((x_WE.T.double() @ x_WE.double()) / len(x_WE))
        stretch_EK = (basis_EK / (eigen_K.clamp_min(0) + RIDGE).sqrt()).float()
        cost_K = RIDGE * stretch_EK.square().sum(0)
        v_KL, bias_L = _optimum(x_WE @ stretch_EK, label_WL, cost_K)
        weight_LE = (stretch_EK @ v_KL).T / scale
        bias_L = bias_L - weight_LE @ mean_E
        return cls(normalize(weight_LE, dim=1), weight_LE, bias_L, label_WL.sum(0).long().numpy())

    def says(self, y_WE: Float[Tensor, "W E"]) -> Bool[Array, "W L"]:
        """Whether each letter's probe says yes."""
        scored: Array = (y_WE @ self.weight_LE.T + self.bias_L).numpy()
        return scored > 0


def _optimum(
    x_WK: Float[Tensor, "W K"], label_WL: Float[Tensor, "W L"], cost_K: Float[Tensor, " K"]
) -> tuple[Float[Tensor, "K L"], Float[Tensor, " L"]]:
    """Least Σ_l of the mean cross-entropy, positives weighed up to the negatives, + Σ cost · v²."""
    (W, K), L = x_WK.shape, label_WL.shape[1]
    positive_L = label_WL.sum(0).clamp_min(1)
    weigh_WL = torch.where(label_WL > 0, (W - positive_L) / positive_L, 1.0) / W
    cost_K1 = cost_K.float()[:, None]

    def loss(flat: Array) -> tuple[float, Array]:
        point = torch.from_numpy(flat).float().reshape(K + 1, L)
        v_KL, bias_L = point[:-1], point[-1]
        logit_WL = torch.addmm(bias_L, x_WK, v_KL)
        fault_WL = softplus(torch.where(label_WL > 0, -logit_WL, logit_WL))
        slope_WL = weigh_WL * (torch.sigmoid(logit_WL) - label_WL)
        slope = torch.cat([x_WK.T @ slope_WL + 2 * cost_K1 * v_KL, slope_WL.sum(0)[None]])
        value = (weigh_WL * fault_WL).sum(dtype=torch.float64) + (cost_K1 * v_KL.square()).sum(dtype=torch.float64)
        return float(value), slope.double().numpy().ravel()

    found = minimize(loss, np.zeros((K + 1) * L), jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    point = torch.from_numpy(found.x).float().reshape(K + 1, L)
    return point[:-1], point[-1]


def learn_letters(
    acts: ActivationSet, sites: Sites, texts: Texts, *, seed: int, tokens: int = TOKENS
) -> LetterProbes | None:
    """Probes from train tokens drawn at random; None where none of them begins a word.

    Raises:
        StageMissing: the train split holds no token.
        SiteUnknown: a site was not harvested.
    """
    size = min(BATCH_TOKENS, acts.count(sites.input, "train"))
    batches = shuffled_batches(acts, sites, batch_size=size, buffer_tokens=tokens, seed=seed)
    drawn = list(islice(batches, max(1, tokens // max(size, 1))))
    id_T = torch.cat([batch.tokens.token for batch in drawn]).numpy()
    letter_T = Vocabulary.of(id_T, texts).letters(id_T, "learn", seed=seed, occurrences=OCCURRENCES)
    word_W = np.flatnonzero(letter_T != NO_WORD)
    y_TE = torch.cat([batch.y_TE for batch in drawn])
    return LetterProbes.fit(y_TE[word_W], letter_T[word_W]) if len(word_W) else None
