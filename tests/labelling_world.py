"""A made-up world for labelling tests: token ids with words, splits with known firings, no model."""

from collections.abc import Callable, Sequence

import numpy as np

from saeops.labelling.examples import (
    Context,
    Counts,
    DocumentTokens,
    Examples,
    Firings,
    Snippet,
    SplitTokens,
    TestSet,
    draw_test_set,
    look_alike_tokens,
)
from saeops.labelling.words import History

WORDS = ["the", " cat", " dog", " sat", " on", " import", " as", " np", " of", "\n"]


def spell(ids: Sequence[int]) -> list[str]:
    return [WORDS[i] for i in ids]


def split_of(
    documents: Sequence[Sequence[int]],
    fires: Callable[[Sequence[int]], float],
    *,
    window: int = 64,
    first: int = 0,
) -> SplitTokens:
    """A split in which latent 0 fires with `fires(tokens up to the judged one)` where that is positive."""
    counts = [0] * first + [len(tokens) for tokens in documents]
    held = DocumentTokens(
        np.array([t for tokens in documents for t in tokens], dtype=np.int32),
        np.concatenate([[0], np.cumsum(counts)]),
        window,
    )
    places = [(first + d, p) for d, tokens in enumerate(documents) for p in range(len(tokens))]
    values = np.array([fires(documents[d - first][: p + 1]) for d, p in places])
    rows = np.flatnonzero(values > 0)
    document, position = (np.array(column) for column in zip(*places, strict=True))
    return SplitTokens(held, document, position, {0: Firings(rows, values[rows])})


def random_documents(n: int, length: int, *, seed: int) -> list[list[int]]:
    return np.random.default_rng(seed).integers(0, len(WORDS), size=(n, length)).tolist()


def drawn_from(split: SplitTokens, counts: Counts, *, seed: int = 0, before: int = 6) -> TestSet:
    return draw_test_set(
        split, 0, look_alikes=look_alike_tokens(split, 0), counts=counts, before=before, seed=(seed,)
    )


def examples_of(split: SplitTokens, *, length: int = 4) -> Examples:
    history = History.of(split.documents.histories(split.document, split.position, length), spell)
    rows = split.firings[0].row[:5].tolist()
    contexts = []
    for row in rows:
        tokens, at = split.documents.around(int(split.document[row]), int(split.position[row]), 6)
        activations = tuple(1.0 if i == at else 0.0 for i in range(len(tokens)))
        contexts.append(Context(int(split.document[row]), tokens, at, activations))
    return Examples(0, tuple(contexts), history, split.fires(0), drawn_from(split, Counts(10, 10, 0), seed=1))


def snippet(tokens: Sequence[int], drawn: str, *, look_alike: bool = False) -> Snippet:
    return Snippet(0, 0, tuple(tokens), len(tokens) - 1, drawn, look_alike)  # type: ignore[arg-type]
