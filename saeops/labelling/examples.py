"""What labellers see and what labels are tested on.

Contexts that explain come from the explain split, snippets that score from the
score split, so no document does both (held by a test).

# T harvested token of a split, L slot of a history (the last is the judged token), N firing
"""

from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from saeops.labelling.words import ABSENT, History

if TYPE_CHECKING:
    import pandas as pd

    from saeops.activations.schema import TokenBatch
    from saeops.sae.canonical import Sae

Array = np.ndarray
LOOK_ALIKE_TOKENS = 3
"""A silent token looks alike when it is one of so many tokens that the latent fires on most."""
TOKENS_AFTER = 3
"""Tokens shown after the judged one, so that a cut word can be read."""


@dataclass(frozen=True)
class DocumentTokens:
    """Documents as token ids, cut into the windows in which the model read them."""

    flat: Int[Array, " token"]
    start: Int[Array, " document+1"]
    """Where each document begins in `flat`; documents that are not held are empty."""
    window: int
    """Tokens of a document that the model sees at once."""

    @classmethod
    def of(cls, documents: "pd.DataFrame", *, split: str, window: int) -> "DocumentTokens":
        """The documents of one split, out of the activation set's DocumentTable."""
        held = documents[documents["split"] == split]
        counts = np.zeros(int(documents["document"].max()) + 1, dtype=np.int64)
        counts[held["document"].to_numpy()] = [len(tokens) for tokens in held["tokens"]]
        tokens = [np.asarray(tokens, dtype=np.int32) for tokens in held.sort_values("document")["tokens"]]
        flat = np.concatenate(tokens) if tokens else np.zeros(0, dtype=np.int32)
        return cls(flat, np.concatenate([[0], counts.cumsum()]), window)

    def histories(
        self, document_T: Int[Array, " T"], position_T: Int[Array, " T"], length: int
    ) -> Int[Array, "T L"]:
        """Each token with the length − 1 before it in its window; `ABSENT` where there are fewer."""
        back_L = np.arange(length - 1, -1, -1)
        inside_TL = (position_T % self.window)[:, None] >= back_L
        index_TL = (self.start[document_T] + position_T)[:, None] - back_L
        return np.where(inside_TL, self.flat[np.where(inside_TL, index_TL, 0)], ABSENT).astype(np.int32)

    def around(self, document: int, position: int, before: int) -> tuple[tuple[int, ...], int]:
        """Token ids round a position, and the position's index among them."""
        before = min(before, position % self.window)
        here = int(self.start[document]) + position
        end = min(here + 1 + TOKENS_AFTER, int(self.start[document + 1]))
        return tuple(self.flat[here - before : end].tolist()), before


@dataclass(frozen=True)
class Firings:
    """Where one latent fires in a split, and how strongly."""

    row: Int[Array, " N"]
    """Index into the split's tokens, ascending."""
    value: Float[Array, " N"]


@dataclass(frozen=True)
class SplitTokens:
    """The harvested tokens of one split with the firings of the latents asked for."""

    documents: DocumentTokens
    document: Int[Array, " T"]
    position: Int[Array, " T"]
    firings: dict[int, Firings]

    @property
    def token(self) -> Int[Array, " T"]:
        return self.documents.flat[self.documents.start[self.document] + self.position]

    def __len__(self) -> int:
        return len(self.document)

    def fires(self, latent: int) -> Bool[Array, " T"]:
        mask = np.zeros(len(self), dtype=bool)
        mask[self.firings[latent].row] = True
        return mask


def read_split(
    batches: "Iterable[TokenBatch]",
    sae: "Sae",
    documents: DocumentTokens,
    latents: Collection[int],
    *,
    max_tokens: int | None = None,
) -> SplitTokens:
    """Encode a split once, keeping only what the given latents do on it.

    Reading ends with the batch that reaches `max_tokens`.
    """
    wanted = np.sort(np.fromiter(latents, dtype=np.int64))
    document, position, rows, owners, values = [], [], [], [], []
    total = 0
    for batch in batches:
        codes = sae.encode(batch.activations)
        latent_N = codes.latent.cpu().numpy()
        mine_N = np.isin(latent_N, wanted)
        rows.append(codes.rows().cpu().numpy()[mine_N] + total)
        owners.append(latent_N[mine_N])
        values.append(codes.value.cpu().numpy()[mine_N])
        document.append(batch.document.cpu().numpy())
        position.append(batch.position.cpu().numpy())
        total += codes.tokens
        if max_tokens is not None and total >= max_tokens:
            break
    owner_N, row_N, value_N = (np.concatenate(parts) for parts in (owners, rows, values))
    order = np.argsort(owner_N, kind="stable")
    bounds = (
        np.searchsorted(owner_N[order], wanted, side="left"),
        np.searchsorted(owner_N[order], wanted, side="right"),
    )
    firings = {
        int(latent): Firings(row_N[order[low:high]], value_N[order[low:high]])
        for latent, low, high in zip(wanted, *bounds, strict=True)
    }
    return SplitTokens(documents, np.concatenate(document), np.concatenate(position), firings)


@dataclass(frozen=True)
class Snippet:
    """A few tokens, one of them judged: does the latent fire there?"""

    document: int
    position: int
    tokens: tuple[int, ...]
    at: int
    """Index of the judged token in `tokens`."""
    drawn: Literal["positive", "random", "hard"]
    look_alike: bool
    """The judged token is one of those the latent fires on most."""

    @property
    def fires(self) -> bool:
        return self.drawn == "positive"


@dataclass(frozen=True)
class TestSet:
    """What one latent's labels are tested on, and what is needed to weigh the answers."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    latent: int
    snippets: tuple[Snippet, ...]
    base_rate: float
    """Share of the split's tokens on which the latent fires."""
    look_alike_share: float
    """Share of the silent tokens that look alike."""


@dataclass(frozen=True)
class Counts:
    """How many snippets of each kind to draw; fewer where there are fewer."""

    positives: int
    negatives: int
    hard_negatives: int

    def times(self, factor: int) -> "Counts":
        return Counts(self.positives * factor, self.negatives * factor, self.hard_negatives * factor)


def look_alike_tokens(split: SplitTokens, latent: int) -> Int[Array, " token"]:
    """The tokens that the latent fires on most often, at most `LOOK_ALIKE_TOKENS`."""
    tokens, counts = np.unique(split.token[split.firings[latent].row], return_counts=True)
    return tokens[np.argsort(-counts, kind="stable")[:LOOK_ALIKE_TOKENS]]


def draw_test_set(
    split: SplitTokens,
    latent: int,
    *,
    look_alikes: Int[Array, " token"],
    counts: Counts,
    before: int,
    seed: Sequence[int],
) -> TestSet:
    """Snippets to test a label on.

    Positives are spread evenly over the latent's activation quantiles. Random
    negatives are uniform over silent tokens, hard negatives uniform over the
    silent tokens that look alike.
    """
    generator = np.random.default_rng([*seed, latent])
    fires_T = split.fires(latent)
    alike_T = np.isin(split.token, look_alikes)
    silent = np.flatnonzero(~fires_T)
    alike = np.flatnonzero(~fires_T & alike_T)
    drawn = {
        "positive": _over_quantiles(split.firings[latent], counts.positives, generator),
        "random": _some(silent, counts.negatives, generator),
        "hard": _some(alike, counts.hard_negatives, generator),
    }
    snippets = []
    for kind, rows in drawn.items():
        for row in rows.tolist():
            document, position = int(split.document[row]), int(split.position[row])
            tokens, at = split.documents.around(document, position, before)
            snippets.append(Snippet(document, position, tokens, at, kind, bool(alike_T[row])))  # type: ignore[arg-type]
    return TestSet(
        latent=latent,
        snippets=tuple(snippets),
        base_rate=float(fires_T.mean()),
        look_alike_share=len(alike) / max(len(silent), 1),
    )


def _over_quantiles(firings: Firings, n: int, generator: np.random.Generator) -> Int[Array, " n"]:
    by_strength = firings.row[np.argsort(firings.value, kind="stable")]
    if len(by_strength) <= n:
        return by_strength
    return np.array([generator.choice(part) for part in np.array_split(by_strength, n)])


def _some(rows: Int[Array, " row"], n: int, generator: np.random.Generator) -> Int[Array, " n"]:
    return np.sort(generator.choice(rows, size=min(n, len(rows)), replace=False))


@dataclass(frozen=True)
class Context:
    """A stretch of a document round a token on which the latent fires, from the catalog."""

    document: int
    tokens: tuple[int, ...]
    at: int
    activations: tuple[float, ...]
    """The latent's activation on each token shown."""


@dataclass(frozen=True)
class Examples:
    """What a labeller may know of one latent: the explain split, and nothing else."""

    latent: int
    contexts: tuple[Context, ...]
    history: "History"
    """Every explain token with those before it."""
    fires: Bool[Array, " T"]
    calibration: TestSet
    """Snippets from the explain split, on which a judge may set its threshold."""


def spread_contexts(rows: "pd.DataFrame", n: int) -> tuple[Context, ...]:
    """`n` of one latent's catalog contexts: half of them its strongest, the others evenly over the quantiles."""
    top = rows[rows["kind"] == "top"].sort_values("rank").to_dict("records")
    others = rows[rows["kind"] == "quantile"].sort_values(["rank", "quantile"]).to_dict("records")
    by_place = {(row["document"], row["position"]): row for row in [*top[: (n + 1) // 2], *others, *top]}
    return tuple(_context(row) for row in list(by_place.values())[:n])


def _context(row: "dict[Hashable, Any]") -> Context:
    return Context(
        document=int(row["document"]),
        tokens=tuple(int(token) for token in row["tokens"]),
        at=int(row["position"]) - int(row["start"]),
        activations=tuple(float(value) for value in row["activations"]),
    )
