"""Known concepts of one SAE after another: what is read from the text is read once for all."""

from dataclasses import dataclass
from typing import Self

import pandas as pd

from saeops.activations.reader import ActivationSet
from saeops.activations.sites import Sites
from saeops.diagnostics.concepts.absorption import absorption
from saeops.diagnostics.concepts.letters import LetterProbes, learn_letters
from saeops.diagnostics.concepts.probing import probe_concepts
from saeops.diagnostics.concepts.sample import TOKENS, Sample
from saeops.diagnostics.concepts.words import Texts
from saeops.sae.canonical import Sae


@dataclass(frozen=True)
class Known:
    """What is known of an activation set before any SAE reads it."""

    acts: ActivationSet
    learnt: Sample
    """Of the explain split: latents are chosen here."""
    held_out: Sample
    """Of the eval split: they are judged here."""
    letters: LetterProbes | None
    """From the train split."""
    seed: int

    @classmethod
    def read(cls, acts: ActivationSet, sites: Sites, texts: Texts, *, seed: int, tokens: int = TOKENS) -> Self:
        """Draw documents of each split, at most `tokens` tokens, and fit the probes of letters.

        Args:
            texts: token ids → the text each stands for.

        Raises:
            StageMissing: the train split holds no token.
            SiteUnknown: a site was not harvested.
        """
        return cls(
            acts,
            Sample.draw(acts, "explain", "learn", texts, seed=seed, tokens=tokens),
            Sample.draw(acts, "eval", "test", texts, seed=seed, tokens=tokens),
            learn_letters(acts, sites, texts, seed=seed, tokens=tokens),
            seed,
        )


@dataclass(frozen=True)
class Quality:
    """What an SAE knows of concepts and letters."""

    concepts: pd.DataFrame
    """ConceptTable."""
    shuffled: pd.DataFrame
    """ConceptTable of the same latents and labels moved along the text: the null of `concepts`."""
    letters: pd.DataFrame
    """LetterTable."""


def known_concepts(known: Known, sae: Sae) -> Quality:
    """Probe loss and absorption of one SAE.

    Raises:
        SiteUnknown: a site of the SAE was not harvested.
        SitesUnpaired: a transcoder's sites do not hold the same tokens.
        StageMissing: a sample holds no token that counts.
    """
    learnt, held_out = known.learnt.coded(known.acts, sae), known.held_out.coded(known.acts, sae)
    concepts = probe_concepts(learnt.tokens, held_out.tokens)
    moved = probe_concepts(learnt.tokens.shifted(known.seed), held_out.tokens.shifted(known.seed + 1))
    return Quality(
        concepts.assign(shuffled_loss=moved["loss"]),
        moved.assign(shuffled_loss=moved["loss"]),
        absorption(known.letters, learnt.words, held_out.words, sae),
    )
