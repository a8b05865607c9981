"""Probe loss: how well one latent tells where a concept holds.

After Gao et al. 2024 (arXiv 2406.04093, section 4.2): of each concept the least cross-entropy, over latents, of a
logistic probe on one latent's activation. There the latent is chosen where it is judged; here it is chosen on
documents of one split, so that the least of thousands does not flatter, and its probe is fitted and judged on
those of another: two numbers cannot flatter, and how common a concept is differs from split to split.

# T token, F latent, N entry (one latent firing on one token), C concept, B bin, S shortlisted latent, U document
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.special import xlogy
from scipy.stats import rankdata

from saeops.diagnostics.concepts.logistic import Cells, Probes, fit
from saeops.diagnostics.concepts.rules import CONCEPTS
from saeops.diagnostics.concepts.sample import CodedTokens
from saeops.sae.codes import Codes

Array = np.ndarray

BINS = 6
"""Groups of equal size that a latent's firings fall into while all latents are screened."""
SHORTLIST = 16
"""Latents of the least screened loss, whose probes are fitted exactly."""
SCREEN_STEPS, EXACT_STEPS = 8, 20
MIN_LABELLED = 40
"""Fewer positive or negative tokens than this in either split leave a concept out."""


@dataclass(frozen=True)
class ByLatent:
    """Codes with each latent's entries together, in ascending order of activation."""

    offset_F: Int[Array, " F+1"]
    """Latent f owns the entries offset[f] to offset[f + 1]."""
    token_N: Int[Array, " N"]
    value_N: Float[Array, " N"]
    tokens: int

    @classmethod
    def of(cls, codes: Codes) -> "ByLatent":
        """Sort the entries by latent."""
        latent_N, value_N = codes.latent.cpu().numpy(), codes.value.float().cpu().numpy()
        # The bits of positive floats are in the order of the floats: one sort of integers does for both keys.
        order = np.argsort(latent_N.astype(np.int64) << 32 | value_N.view(np.int32), kind="stable")
        counts_F = np.bincount(latent_N, minlength=codes.n_latents)
        offset_F = np.concatenate([[0], counts_F.cumsum()])
        return cls(offset_F, codes.rows().cpu().numpy()[order], value_N[order].astype(np.float64), codes.tokens)

    def column(self, latent: int) -> Float[Array, " T"]:
        """The latent's activation on every token."""
        mine = slice(self.offset_F[latent], self.offset_F[latent + 1])
        column_T = np.zeros(self.tokens)
        column_T[self.token_N[mine]] = self.value_N[mine]
        return column_T


@dataclass(frozen=True)
class Screen:
    """All living latents' firings in bins of equal size; what is the same for every concept."""

    latent_P: Int[Array, " P"]
    """The living latents."""
    start_P: Int[Array, " P"]
    """Latent p owns the bins from start[p] up to start[p + 1]."""
    bin_N: Int[Array, " N"]
    """Bin of each entry, counted over all latents."""
    value_M: Float[Array, " M"]
    """Mean activation of each bin."""
    count_M: Float[Array, " M"]
    of: ByLatent

    @classmethod
    def over(cls, by_latent: ByLatent) -> "Screen":
        size_F = np.diff(by_latent.offset_F)
        rank_N = np.arange(len(by_latent.token_N)) - by_latent.offset_F[:-1].repeat(size_F)
        bin_N = rank_N * BINS // size_F.repeat(size_F) + BINS * np.arange(len(size_F)).repeat(size_F)
        used, bin_N = np.unique(bin_N, return_inverse=True)
        count_M = np.bincount(bin_N).astype(np.float64)
        value_M = np.bincount(bin_N, weights=by_latent.value_N) / count_M
        latent_P, start_P = np.unique(used // BINS, return_index=True)
        return cls(latent_P, start_P, bin_N, value_M, count_M, by_latent)

    def shortlist(self, label_T: Bool[Array, " T"]) -> tuple[Int[Array, " S"], Probes]:
        """The latents whose probes on binned activations lose least, with these probes."""
        positive_M = np.bincount(self.bin_N[label_T[self.of.token_N]], minlength=len(self.value_M))
        cells = _with_silence(self.value_M, self.count_M, positive_M, self.start_P, label_T)
        probes = fit(cells, steps=SCREEN_STEPS)
        best_S = np.argsort(probes.loss_P, kind="stable")[:SHORTLIST]
        chosen = Probes(probes.weight_P[best_S], probes.bias_P[best_S], probes.loss_P[best_S])
        return self.latent_P[best_S], chosen


def _with_silence(
    value_M: Array, count_M: Array, positive_M: Array, start_P: Array, label_T: Bool[Array, " T"]
) -> Cells:
    """Each run of firings, with the tokens on which its latent is silent in front."""
    silent_P = len(label_T) - np.add.reduceat(count_M, start_P)
    silent_positive_P = label_T.sum() - np.add.reduceat(positive_M, start_P)
    return Cells(
        np.insert(value_M, start_P, 0.0),
        np.insert(count_M, start_P, silent_P),
        np.insert(positive_M.astype(np.float64), start_P, silent_positive_P),
        start_P + np.arange(len(start_P)),
    )


@dataclass(frozen=True)
class Choice:
    """The latent chosen for a concept."""

    latent: int
    loss: float
    """Its probe's loss where it was chosen, nats a token."""


def choose(screen: Screen, label_T: Bool[Array, " T"]) -> Choice:
    """The latent whose probe loses least: all are screened in bins, the best fitted exactly."""
    latent_S, start = screen.shortlist(label_T)
    probes = exact(screen.of, latent_S, label_T, start)
    best = int(probes.loss_P.argmin())
    return Choice(int(latent_S[best]), float(probes.loss_P[best]))


def exact(
    of: ByLatent, latent_S: Int[Array, " S"], label_T: Bool[Array, " T"], start: Probes | None = None
) -> Probes:
    """The probe of each latent on its activations as they are; every latent must fire somewhere."""
    entries = [np.arange(of.offset_F[latent], of.offset_F[latent + 1]) for latent in latent_S.tolist()]
    start_S = np.concatenate([[0], np.cumsum([len(mine) for mine in entries])[:-1]])
    entry_M = np.concatenate(entries)
    label_M = label_T[of.token_N[entry_M]]
    cells = _with_silence(of.value_N[entry_M], np.ones(len(entry_M)), label_M, start_S, label_T)
    return fit(cells, steps=EXACT_STEPS, start=start)


def probe_concepts(learnt: CodedTokens, held_out: CodedTokens) -> pd.DataFrame:
    """ConceptTable but for its null: every concept, with the latent chosen on one sample and judged on the other.

    Nothing is assumed of the dictionary; with no living latent nothing is measured.
    """
    tokens_U = np.bincount(held_out.document_T, minlength=held_out.documents)
    by_latent, judged = ByLatent.of(learnt.codes), ByLatent.of(held_out.codes)
    screen = Screen.over(by_latent)
    rows = []
    for c, concept in enumerate(CONCEPTS):
        label_T, held_T = learnt.label_TC[:, c], held_out.label_TC[:, c]
        row = _counts(held_out, held_T, tokens_U)
        if len(by_latent.token_N) and _enough(label_T) and _enough(held_T):
            row |= _judged(choose(screen, label_T), judged, held_out, held_T)
        rows.append({"concept": concept.name, "meaning": concept.meaning, **_UNMEASURED, **row})
    frame = pd.DataFrame(rows)
    return frame.astype({"latent": "Int32", "tokens": "int64", "positives": "int64"})


_UNMEASURED: dict[str, Any] = {
    "measured": False,
    "latent": None,
    "weight": np.nan,
    "fit_loss": np.nan,
    "loss": np.nan,
    "entropy": np.nan,
    "auc": np.nan,
    "f1": np.nan,
    "document_loss": (),
}


def _enough(label_T: Bool[Array, " T"]) -> bool:
    return MIN_LABELLED <= int(label_T.sum()) <= len(label_T) - MIN_LABELLED


def _counts(held_out: CodedTokens, label_T: Bool[Array, " T"], tokens_U: Int[Array, " U"]) -> dict[str, Any]:
    positive_U = np.bincount(held_out.document_T[label_T], minlength=held_out.documents)
    return {
        "tokens": len(label_T),
        "positives": int(label_T.sum()),
        "document_tokens": tokens_U.tolist(),
        "document_positives": positive_U.tolist(),
    }


def _judged(choice: Choice, judged: ByLatent, held_out: CodedTokens, label_T: Bool[Array, " T"]) -> dict[str, Any]:
    activation_T = judged.column(choice.latent)
    weight, bias = _refitted(judged, choice.latent, label_T)
    logit_T = weight * activation_T + bias
    loss_T = np.logaddexp(0, logit_T) - label_T * logit_T
    fires_T = activation_T > 0
    return {
        "measured": True,
        "latent": choice.latent,
        "weight": weight,
        "fit_loss": choice.loss,
        "loss": float(loss_T.mean()),
        "entropy": entropy(label_T.sum(), len(label_T)),
        "auc": _auc(logit_T, label_T),
        "f1": float(2 * (fires_T & label_T).sum() / max(fires_T.sum() + label_T.sum(), 1)),
        "document_loss": np.bincount(held_out.document_T, weights=loss_T, minlength=held_out.documents).tolist(),
    }


def _refitted(judged: ByLatent, latent: int, label_T: Bool[Array, " T"]) -> tuple[float, float]:
    """Weight and bias; of a latent that is silent here, those of the best constant."""
    if judged.offset_F[latent] == judged.offset_F[latent + 1]:
        rate = label_T.mean()
        return 0.0, float(np.log(rate / (1 - rate)))
    probes = exact(judged, np.array([latent]), label_T)
    return float(probes.weight_P[0]), float(probes.bias_P[0])


def entropy(positives: Any, tokens: Any) -> Any:
    """Nats a token of the best constant guess."""
    rate = positives / tokens
    return -(xlogy(rate, rate) + xlogy(1 - rate, 1 - rate))


def _auc(score_T: Float[Array, " T"], label_T: Bool[Array, " T"]) -> float:
    """Mann & Whitney's: the chance that a positive scores above a negative, ties counted half."""
    positives = int(label_T.sum())
    above = rankdata(score_T)[label_T].sum() - positives * (positives + 1) / 2
    return float(above / (positives * (len(label_T) - positives)))
