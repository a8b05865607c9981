"""Everything labellers and judges are given, drawn from a harvested set with one SAE."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from saeops.activations.split import Split
from saeops.labelling.config import LabelConfig
from saeops.labelling.examples import (
    Context,
    Counts,
    DocumentTokens,
    Examples,
    SplitTokens,
    TestSet,
    draw_test_set,
    look_alike_tokens,
    read_split,
    spread_contexts,
)
from saeops.labelling.words import History, Spell

if TYPE_CHECKING:
    import pandas as pd

    from saeops.activations.reader import ActivationSet
    from saeops.sae.canonical import Sae

BATCH_TOKENS = 4096
EXPLAIN: Split = "explain"
SCORE: Split = "score"
# Streams of random numbers that must not share draws.
_LATENTS, _TEST, _CALIBRATION = 1, 2, 3


def draw_latents(living: Sequence[int], n: int, *, seed: int) -> list[int]:
    """`n` of the living latents, or all of them where there are fewer, in random order."""
    generator = np.random.default_rng([seed, _LATENTS])
    return [int(latent) for latent in generator.permutation(np.sort(np.asarray(living)))[:n]]


@dataclass(frozen=True)
class Material:
    """What is known of the drawn latents: the explain split to label by, the score split to test on."""

    explain: SplitTokens
    score: SplitTokens
    history: History
    """As long as the longest rule."""
    contexts: dict[int, tuple[Context, ...]]
    config: LabelConfig
    seed: int

    @classmethod
    def read(
        cls,
        acts: "ActivationSet",
        sae: "Sae",
        contexts: "pd.DataFrame",
        latents: Sequence[int],
        *,
        spell: Spell,
        config: LabelConfig,
        seed: int,
    ) -> Self:
        """Encode both splits once.

        Args:
            contexts: the catalog's contexts (ContextTable).
        """
        site = sae.meta.site
        window = acts.context_size - (acts.bos is not None)

        def tokens(split: Split, limit: int | None = None) -> SplitTokens:
            documents = DocumentTokens.of(acts.documents, split=split, window=window)
            batches = acts.batches(site, split, BATCH_TOKENS)
            return read_split(batches, sae, documents, latents, max_tokens=limit)

        explain = tokens(EXPLAIN, config.explain_tokens)
        places = explain.document, explain.position
        mine = contexts[contexts["latent"].isin(latents)]
        return cls(
            explain=explain,
            score=tokens(SCORE),
            history=History.of(explain.documents.histories(*places, config.pattern.max_length), spell),
            contexts={
                latent: spread_contexts(mine[mine["latent"] == latent], config.explain_contexts)
                for latent in latents
            },
            config=config,
            seed=seed,
        )

    def examples(self, latent: int) -> Examples:
        """What a labeller may know of a latent."""
        n = self.config.explain_contexts
        return Examples(
            latent=latent,
            contexts=self.contexts[latent],
            history=self.history,
            fires=self.explain.fires(latent),
            calibration=self._drawn(self.explain, latent, Counts(n, n, 0), _CALIBRATION),
        )

    def test_set(self, latent: int, *, factor: int = 1) -> TestSet:
        """What a latent's labels are tested on; `factor` times as many snippets as params say."""
        config = self.config
        counts = Counts(config.positives, config.negatives, config.hard_negatives)
        return self._drawn(self.score, latent, counts.times(factor), _TEST)

    def _drawn(self, split: SplitTokens, latent: int, counts: Counts, stream: int) -> TestSet:
        return draw_test_set(
            split,
            latent,
            look_alikes=look_alike_tokens(self.explain, latent),
            counts=counts,
            before=self.config.snippet_tokens,
            seed=(self.seed, stream),
        )
