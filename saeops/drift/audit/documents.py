"""Which documents an audit reads: held out from the SAE by the bundle's own split, never trained on."""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from saeops.activations.selection import Text, text_fault
from saeops.activations.split import Split, SplitFractions, assign_split
from saeops.errors import CorpusTooSmall
from saeops.stats import MIN_UNITS
from saeops.training.documents import DIGITS

AUDITED: tuple[Split, ...] = ("eval", "score")
"""Neither trains the SAE nor explains its latents."""
NEUTRAL: Split = "panel"
LEAST = 2 * MIN_UNITS
"""Fewer documents than this give no interval for each half of them."""


@dataclass(frozen=True)
class HeldOut:
    """One document to audit on."""

    text: str
    source: str
    sha256: str


@dataclass(frozen=True)
class Wanted:
    """What to choose, and by which rules the bundle's own documents were split."""

    documents: int
    neutral: int
    min_chars: int
    max_chars: int
    splits: SplitFractions
    split_seed: int
    """Of the bundle: another would deal the documents out anew."""
    seed: int
    """Of the order in which they are read."""


@dataclass(frozen=True)
class HeldOutDocuments:
    """The documents chosen, in an order drawn by the seed, so that any number of the first is a fair sample."""

    audited: tuple[HeldOut, ...]
    neutral: tuple[HeldOut, ...]
    """For side effects of interventions."""


def choose(texts: Iterable[Text], trained: Collection[str] | None, wanted: Wanted) -> HeldOutDocuments:
    """The first held-out documents of the corpus.

    Args:
        trained: first digits of the digests of documents that trained the SAE, as its folder keeps them; None:
            not known, and the split is trusted.

    Raises:
        CorpusTooSmall: too few of them for an interval.
    """
    audited: list[HeldOut] = []
    neutral: list[HeldOut] = []
    seen: set[str] = set()
    for raw in texts:
        if len(audited) >= wanted.documents and len(neutral) >= wanted.neutral:
            break
        text = raw.text[: wanted.max_chars]
        if text_fault(text, min_chars=wanted.min_chars) is not None:
            continue
        sha256 = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        split = assign_split(text, wanted.splits, seed=wanted.split_seed)
        if sha256 in seen or (trained is not None and sha256[:DIGITS] in trained):
            continue
        seen.add(sha256)
        if split in AUDITED and len(audited) < wanted.documents:
            audited.append(HeldOut(text, raw.source, sha256))
        elif split == NEUTRAL and len(neutral) < wanted.neutral:
            neutral.append(HeldOut(text, raw.source, sha256))
    if len(audited) < LEAST:
        raise CorpusTooSmall(
            f"the corpus holds {len(audited)} held-out documents, an audit needs {LEAST}",
            hint="audit with a larger corpus, or on the one that the bundle was built from",
        )
    order = np.random.default_rng(wanted.seed).permutation(len(audited))
    shuffled = tuple(audited[place] for place in order)
    return HeldOutDocuments(shuffled, tuple(neutral) or shuffled[: wanted.neutral])
