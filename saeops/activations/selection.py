"""Choosing documents, before any forward pass: what is dropped, who is in which split, where to stop."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from saeops.activations.policy import TokenPolicy
from saeops.activations.split import SPLITS, Split, SplitFractions, assign_split
from saeops.activations.windows import cut_windows, pad_windows, position_mask, prepended, window_lengths
from saeops.errors import CorpusMissing, CorpusTooSmall

if TYPE_CHECKING:
    import pandas as pd

DROPPED = ("too_short", "not_text", "duplicate", "masked")
MIN_DOCUMENTS: Mapping[str, int] = {"train": 1, "eval": 8, "explain": 8, "score": 8, "panel": 1}
"""Fewer documents in a split than this give no interval (see saeops.stats), or nothing at all."""
HELD_OUT: tuple[Split, ...] = ("eval", "explain")
"""Splits of a smaller harvest beside train."""
LARGEST_STRANGE_SHARE = 0.01
# Control characters but tab, newline and carriage return; what undecodable bytes became.
_STRANGE = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufffd]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@runtime_checkable
class Text(Protocol):
    """A raw document."""

    @property
    def text(self) -> str: ...

    @property
    def source(self) -> str: ...


@dataclass(frozen=True)
class Choice:
    """What to choose by."""

    tokens: int
    """Tokens wanted over all splits, after the mask."""
    min_chars: int
    max_chars: int
    max_documents: int | None
    """Read at most this many."""
    context_size: int
    policy: TokenPolicy
    splits: SplitFractions
    seed: int


@dataclass(frozen=True)
class Selection:
    """The documents chosen."""

    documents: "pd.DataFrame"
    """DocumentTable."""
    dropped: dict[str, int]
    """Reason → documents read and left out."""
    read: int
    tokens: int
    """Tokens that count, over all splits."""


@dataclass(frozen=True)
class Tokenizer:
    """What selection needs to know of the model."""

    encode: Callable[[str], list[int]]
    bos_id: int | None
    special_ids: AbstractSet[int]


def select(
    texts: Iterable[Text],
    tokenizer: Tokenizer,
    choice: Choice,
    *,
    progress: Callable[[int], None],
) -> Selection:
    """Take documents in corpus order until `choice.tokens` tokens count; the last one is cut to fit.

    Args:
        progress: called with the tokens that each document adds.

    Raises:
        CorpusMissing: the corpus gave no document at all.
        CorpusTooSmall: a split has too few documents.
    """
    dropped = Counter(dict.fromkeys(DROPPED, 0))
    rows: list[dict[str, object]] = []
    seen: set[str] = set()
    read = tokens = 0
    for raw in texts:
        if tokens >= choice.tokens or read == choice.max_documents:
            break
        read += 1
        text = raw.text[: choice.max_chars]
        fault = text_fault(text, min_chars=choice.min_chars)
        sha256 = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        if fault is None and sha256 in seen:
            fault = "duplicate"
        fitting = _Fitting([], 0)
        if fault is None:
            fitting = _fit(tokenizer, choice, text, room=choice.tokens - tokens)
            fault = None if fitting.counted else "masked"
        if fault is not None:
            dropped[fault] += 1
            continue
        seen.add(sha256)
        tokens += fitting.counted
        progress(fitting.counted)
        split = assign_split(text, choice.splits, seed=choice.seed)
        rows.append(
            {"source": raw.source, "split": split, "sha256": sha256, "tokens": np.array(fitting.ids, np.int32)}
        )
    _check_splits(Counter(str(row["split"]) for row in rows), dropped, read=read, tokens=tokens, choice=choice)
    return Selection(_table(rows), dict(dropped), read, tokens)


def reselect(documents: "pd.DataFrame", *, tokens: int) -> Selection:
    """Documents of an earlier harvest for a smaller one, in the splits they are in.

    The first eval and the first explain documents take up to a quarter of the tokens each, or more where an
    interval needs more documents; the first train documents take the rest.

    Args:
        documents: DocumentTable.
        tokens: of the documents chosen, before the mask.
    """
    held_out = [_first(documents, split, tokens // 4, at_least=MIN_DOCUMENTS[split]) for split in HELD_OUT]
    left = tokens - sum(int(part["n_tokens"].sum()) for part in held_out)
    parts = [*held_out, _first(documents, "train", left, at_least=MIN_DOCUMENTS["train"])]
    rows = np.sort(np.concatenate([part.index for part in parts]))
    chosen = documents.loc[rows].reset_index(drop=True)
    chosen = chosen.assign(document=np.arange(len(chosen), dtype=np.int32))
    return Selection(chosen, dict.fromkeys(DROPPED, 0), len(documents), int(chosen["n_tokens"].sum()))


def _first(documents: "pd.DataFrame", split: str, tokens: int, *, at_least: int) -> "pd.DataFrame":
    """A split's documents in order, until they hold so many tokens."""
    held = documents[documents["split"] == split]
    before = held["n_tokens"].cumsum() - held["n_tokens"]
    return held[(before < tokens) | (np.arange(len(held)) < at_least)]


def text_fault(text: str, *, min_chars: int) -> str | None:
    """Why a text is no document: too short, or too many characters that no text has; None if it is one."""
    if len(text.strip()) < min_chars:
        return "too_short"
    if len(_STRANGE.findall(text)) > LARGEST_STRANGE_SHARE * len(text) or _SURROGATE.search(text):
        return "not_text"
    return None


@dataclass(frozen=True)
class _Fitting:
    ids: list[int]
    counted: int


def _fit(tokenizer: Tokenizer, choice: Choice, text: str, *, room: int) -> _Fitting:
    """The document's tokens, cut after the one that fills the room."""
    ids = tokenizer.encode(text)
    bos = prepended(choice.policy, tokenizer.bos_id)
    windows = cut_windows(0, ids, context_size=choice.context_size, bos=bos)
    if not windows:
        return _Fitting([], 0)
    mask_BW = position_mask(
        pad_windows(windows), window_lengths(windows), choice.policy, tokenizer.special_ids, bos=bos
    )
    own_BW = mask_BW if bos is None else mask_BW[:, 1:]
    counted = own_BW.flatten()[: len(ids)].cumsum(0)
    total = int(counted[-1])
    if total <= room:
        return _Fitting(ids, total)
    return _Fitting(ids[: int((counted < room).sum()) + 1], room)


def _table(rows: list[dict[str, object]]) -> "pd.DataFrame":
    import pandas as pd

    table = pd.DataFrame(rows, columns=["source", "split", "sha256", "tokens"])
    table.insert(0, "document", np.arange(len(table), dtype=np.int32))
    table.insert(4, "n_tokens", table["tokens"].map(len).astype(np.int32))
    return table


def _check_splits(
    found: Mapping[str, int], dropped: Mapping[str, int], *, read: int, tokens: int, choice: Choice
) -> None:
    if read == 0:
        raise CorpusMissing("the corpus gave no document at all", hint="see corpus.source and corpus.path")
    lacking = [split for split in SPLITS if found.get(split, 0) < MIN_DOCUMENTS[split]]
    if not lacking:
        return
    counts = ", ".join(f"{split} {found.get(split, 0)} of {MIN_DOCUMENTS[split]}" for split in lacking)
    kept = sum(found.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count) or "none"
    hint = "add documents, lower corpus.min_chars, or give these splits a larger share in harvest.splits"
    if tokens >= choice.tokens:
        hint = "raise harvest.tokens (they were filled by few documents), or lower corpus.max_chars"
    raise CorpusTooSmall(
        f"too few documents for the splits: {counts}; {kept} documents with {tokens} tokens were kept"
        f" of {read} read (dropped: {reasons})",
        hint=hint,
    )
