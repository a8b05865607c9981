"""Absorption: a latent that stands for a letter keeps silent on a word whose own latent carries the letter.

After Chanin et al. 2024 (arXiv 2409.14507) and SAEBench (absorption/feature_absorption_calculator.py), whose
constants are kept. What differs is listed in docs/metrics.md.

# W word, L letter, F latent, N entry (one latent firing on one word), U document, E width of the activation
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int

from saeops.diagnostics.concepts.letters import LetterProbes
from saeops.diagnostics.concepts.sample import CodedWords
from saeops.diagnostics.concepts.words import LETTERS
from saeops.sae.canonical import Sae
from saeops.sae.codes import Codes
from saeops.stats import wilson

Array = np.ndarray

MAX_MAIN = 10
F1_JUMP = 0.03
"""A further main latent must raise F1 by this much."""
MAIN_WORDS = 3
"""A latent that fires on fewer words of a letter stands for these words, not for the letter."""
FULL_COSINE = 0.025
"""Least cosine between the probe and the one latent that absorbs a word wholly."""
FRACTION_COSINE = 0.1
"""Least cosine between the probe and the latents that absorb a word in part."""
ABSORBERS = 3
"""Most latents that absorb a word in part."""
SHARE = 0.4
"""Least share of the word's projection on the probe that must come from what absorbs it."""
PROBE_F1 = 0.6
"""Probes weaker than this on words they never saw say nothing, and their letters are left out."""
MIN_RIGHT = 10
"""Letters with fewer test words on which the probe is right are left out."""


@dataclass(frozen=True)
class Main:
    """The latents that stand for a letter."""

    latents: tuple[int, ...]
    f1: float
    """Of "one of them fires" as a sign of the letter, where they were chosen."""


def main_latents(words: CodedWords, letter: int) -> Main:
    """The latents whose firing tells the letter best, one by one while F1 rises by `F1_JUMP`."""
    latent_N, word_N = words.codes.latent.cpu().numpy(), words.codes.rows().cpu().numpy()
    is_letter_W = words.letter_W == letter
    fires_W = np.zeros(len(is_letter_W), dtype=bool)
    chosen: list[int] = []
    f1 = 0.0
    while len(chosen) < MAX_MAIN:
        new_N = ~fires_W[word_N]
        added_F = np.bincount(latent_N[new_N], minlength=words.codes.n_latents)
        right_F = np.bincount(latent_N[new_N & is_letter_W[word_N]], minlength=words.codes.n_latents)
        hits, said = (fires_W & is_letter_W).sum() + right_F, fires_W.sum() + added_F
        f1_F = np.where(right_F >= MAIN_WORDS, 2 * hits / np.maximum(said + is_letter_W.sum(), 1), 0.0)
        best = int(f1_F.argmax())
        if f1_F[best] <= f1 + (F1_JUMP if chosen else 0.0):
            break
        chosen.append(best)
        f1 = float(f1_F[best])
        fires_W[word_N[latent_N == best]] = True
    return Main(tuple(chosen), f1)


@dataclass(frozen=True)
class Absorbed:
    """What becomes of the words of one letter on which its probe is right."""

    main_fires_W: Bool[Array, " W"]
    full_W: Bool[Array, " W"]
    """Absorbed wholly, by one latent."""
    fraction_W: Float[Array, " W"]
    """Share of the letter that other latents carry."""


def absorbed(
    projection_W: Float[Array, " W"],
    value_WF: Float[Array, "W F"],
    cosine_F: Float[Array, " F"],
    main: tuple[int, ...],
) -> Absorbed:
    """Absorption of words by the latents that fire on them.

    Args:
        projection_W: (y − b_dec) · probe direction, which is what the latents together are to give.
        value_WF: activations of the latents.
        cosine_F: of decoder row and probe direction; decoder rows have unit norm.
    """
    is_main_F = np.zeros(len(cosine_F), dtype=bool)
    is_main_F[list(main)] = True
    given_WF = value_WF * cosine_F
    main_W = given_WF[:, is_main_F].sum(1)
    main_fires_W = (value_WF[:, is_main_F] > 0).sum(1) > 0
    others_WF = np.where(is_main_F, 0.0, given_WF)
    needed_W = SHARE * projection_W
    some_W = projection_W > 0
    top_W = others_WF.argmax(1)
    most_W = np.where(cosine_F[top_W] >= FULL_COSINE, others_WF[np.arange(len(top_W)), top_W], 0.0)
    full_W = some_W & ~main_fires_W & (most_W - needed_W >= 0)
    partly_WF = np.where(cosine_F >= FRACTION_COSINE, others_WF, 0.0)
    carried_W = np.sort(partly_WF, axis=1)[:, -ABSORBERS:].sum(1)
    missing_W = np.minimum(carried_W, projection_W - main_W)
    whole_W = np.maximum(missing_W, 0) + np.maximum(main_W, 0)
    fraction_W = np.divide(missing_W, whole_W, out=np.zeros_like(whole_W), where=whole_W > 0)
    counts_W = some_W & (main_W < projection_W) & (carried_W >= needed_W)
    return Absorbed(main_fires_W, full_W, np.where(counts_W, fraction_W, 0.0).clip(0, 1))


def absorption(probes: LetterProbes | None, learnt: CodedWords, tested: CodedWords, sae: Sae) -> pd.DataFrame:
    """LetterTable: every letter; main latents are chosen on the one sample, absorption is counted on the other.

    Args:
        probes: fitted on train words; None where there were none, and then nothing is measured.
    """
    says_WL = None if probes is None else probes.says(tested.y_WE)
    rows = []
    for letter, name in enumerate(LETTERS):
        is_letter_W = tested.letter_W == letter
        row: dict[str, Any] = {"letter": name, **_UNMEASURED, "words": int(is_letter_W.sum())}
        if probes is not None and says_WL is not None:
            said_W = says_WL[:, letter]
            right_W = np.flatnonzero(said_W & is_letter_W)
            f1 = 2 * len(right_W) / max(said_W.sum() + is_letter_W.sum(), 1)
            row |= {"probe_words": int(probes.words_L[letter]), "probe_f1": float(f1), "right": len(right_W)}
            if f1 >= PROBE_F1 and len(right_W) >= MIN_RIGHT:
                row |= _measured(probes, letter, right_W, main_latents(learnt, letter), tested, sae)
        rows.append(row)
    return pd.DataFrame(rows)


_UNMEASURED: dict[str, Any] = {
    "measured": False,
    "probe_words": 0,
    "probe_f1": 0.0,
    "right": 0,
    "main_latents": (),
    "main_f1": np.nan,
    "main_fires": 0,
    "absorbed": 0,
    "rate": np.nan,
    "low": np.nan,
    "high": np.nan,
    "fraction": np.nan,
    "document_right": (),
    "document_absorbed": (),
    "document_fraction": (),
}


def _measured(
    probes: LetterProbes,
    letter: int,
    right_W: Int[Array, " W"],
    main: Main,
    tested: CodedWords,
    sae: Sae,
) -> dict[str, Any]:
    if not main.latents:
        return {}
    found = _absorbed_words(probes, letter, right_W, tested, sae, main)
    rate = wilson(int(found.full_W.sum()), len(right_W), unit="words")

    def by_document(weight_W: Array | None = None) -> list[float]:
        counts = np.bincount(tested.document_W[right_W], weights=weight_W, minlength=tested.documents)
        return [float(count) for count in counts]

    return {
        "measured": True,
        "main_latents": main.latents,
        "main_f1": main.f1,
        "main_fires": int(found.main_fires_W.sum()),
        "absorbed": int(found.full_W.sum()),
        "rate": rate.point,
        "low": rate.low,
        "high": rate.high,
        "fraction": float(found.fraction_W.mean()),
        "document_right": by_document(),
        "document_absorbed": by_document(found.full_W),
        "document_fraction": by_document(found.fraction_W),
    }


def _absorbed_words(
    probes: LetterProbes, letter: int, right_W: Int[Array, " W"], tested: CodedWords, sae: Sae, main: Main
) -> Absorbed:
    codes = tested.codes.take(torch.from_numpy(right_W))
    used = torch.tensor(sorted({*main.latents, *codes.latent.tolist()}))
    narrow = Codes(codes.offsets, torch.searchsorted(used, codes.latent.long()), codes.value, len(used))
    direction_E = probes.direction_LE[letter]
    projection_W = (tested.y_WE[torch.from_numpy(right_W)] - sae.b_dec) @ direction_E
    cosine_F = sae.W_dec[used] @ direction_E
    places = np.searchsorted(used.numpy(), np.array(main.latents, dtype=np.int64))
    return absorbed(
        projection_W.double().numpy(),
        narrow.dense().double().numpy(),
        cosine_F.double().numpy(),
        tuple(places.tolist()),
    )
