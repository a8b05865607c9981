"""Labels judged again: does what a label says still foretell where its latent fires?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from saeops.drift.audit.part import Side
from saeops.labelling.config import LabelConfig
from saeops.labelling.examples import (
    Counts,
    DocumentTokens,
    Firings,
    SplitTokens,
    draw_test_set,
    look_alike_tokens,
)
from saeops.labelling.labels import PATTERN, Label, Labeller
from saeops.labelling.scoring import score

_STREAM = 4
"""Of random numbers: the label stage uses the lower ones."""


@dataclass(frozen=True)
class Retested:
    """A label's confidence on the firings of either model; None where there were too few to test it on."""

    latent: int
    old: float | None
    new: float | None


def standing_labels(labels: pd.DataFrame, *, llm: int) -> dict[int, Label]:
    """The chosen labels that can be judged: every rule, and the first `llm` that a language model wrote.

    Args:
        labels: a bundle's LabelTable.
    """
    if "rule" not in labels:
        return {}
    chosen = labels[labels["chosen"] & labels["text"].notna()].sort_values("latent")
    rules = chosen[(chosen["labeller"] == PATTERN) & chosen["rule"].notna()]
    written = chosen[chosen["labeller"] != PATTERN].head(llm)
    rows = pd.concat([rules, written]).to_dict("records")
    return {
        int(row["latent"]): Label(row["labeller"], row["text"], row["rule"] if pd.notna(row["rule"]) else None)
        for row in rows
    }


def split_tokens(sides: Sequence[Side], documents: DocumentTokens, latents: Sequence[int]) -> SplitTokens:
    """What the labelled latents do on the audited tokens, as labels are tested on."""
    start = np.concatenate([[0], np.cumsum([len(side.document_T) for side in sides])])
    latent = np.concatenate([side.fired_latent for side in sides])
    row = np.concatenate([side.fired_row + at for side, at in zip(sides, start[:-1], strict=True)])
    value = np.concatenate([side.fired_value for side in sides])
    firings = {number: Firings(row[latent == number], value[latent == number]) for number in latents}
    document = np.concatenate([side.document_T for side in sides]).astype(np.int64)
    position = np.concatenate([side.position_T for side in sides]).astype(np.int64)
    return SplitTokens(documents, document, position, firings)


def retest(
    labels: Mapping[int, Label],
    old: SplitTokens,
    new: SplitTokens,
    judges: Mapping[str, Labeller],
    config: LabelConfig,
    *,
    seed: int,
) -> list[Retested]:
    """Each label on snippets drawn from the old model's firings, and on as many drawn from the new model's.

    Args:
        judges: by the labeller's name; a label without a judge is left out.
    """
    return [
        Retested(
            latent,
            _confidence(label, old, judges[label.labeller], latent, config, seed=seed),
            _confidence(label, new, judges[label.labeller], latent, config, seed=seed),
        )
        for latent, label in labels.items()
        if label.labeller in judges
    ]


def _confidence(
    label: Label, split: SplitTokens, judge: Labeller, latent: int, config: LabelConfig, *, seed: int
) -> float | None:
    if len(split.firings[latent].row) < config.min_positives:
        return None
    counts = Counts(config.positives, config.negatives, config.hard_negatives)
    if label.labeller == PATTERN:
        counts = counts.times(config.pattern.snippets_factor)
    test = draw_test_set(
        split,
        latent,
        look_alikes=look_alike_tokens(split, latent),
        counts=counts,
        before=config.snippet_tokens,
        seed=(seed, _STREAM),
    )
    verdicts = judge.detect(label, test.snippets)
    return score(verdicts, test, competing=1, min_positives=config.min_positives).confidence
