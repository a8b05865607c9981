"""The pattern labeller: the best n-gram-with-wildcards rule for a latent. No language model needed.

After Neuron-to-Graph (Foote et al. 2023, arXiv 2305.19911) as used in Gao et
al. 2024 (arXiv 2406.04093): a rule is a row of slots that ends at the firing
token; each slot lists words, or takes any token. A rule is chosen by its F1
over every token of the explain split, firing and silent, at their natural rate.

# T token, L slot (the last is the judged token), M token that all other slots let through
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from saeops.labelling.config import PatternLabeller
from saeops.labelling.examples import Examples, Snippet
from saeops.labelling.labels import PATTERN, Label, Outcome, Unparsed, Verdict
from saeops.labelling.words import ABSENT, Spell, word

Array = np.ndarray
Slot = frozenset[int] | None
"""Alternatives as indices into the words of the explain split, or None: any token."""
MIN_GAIN = 0.05
"""A slot must raise F1 by this much: it keeps rules short where more slots only fit noise."""


@dataclass(frozen=True)
class Rule:
    """Slots of words in reading order; the last is the judged token, the first is no wildcard (unless alone)."""

    slots: tuple[frozenset[str] | None, ...]

    def matches(self, words: Sequence[str]) -> bool:
        """Whether the rule holds at the last of these words."""
        if len(words) < len(self.slots):
            return False
        window = words[len(words) - len(self.slots) :]
        return all(slot is None or word in slot for slot, word in zip(self.slots, window, strict=True))

    def to_json(self) -> str:
        return json.dumps({"slots": [s if s is None else sorted(s) for s in self.slots]}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Rule":
        slots = json.loads(text)["slots"]
        return cls(tuple(None if slot is None else frozenset(slot) for slot in slots))

    def __str__(self) -> str:
        """For people: `"import" then any token then "as"`."""
        return " then ".join("any token" if slot is None else _quoted(slot) for slot in self.slots)


def _quoted(slot: frozenset[str]) -> str:
    listed = " or ".join(json.dumps(text, ensure_ascii=False) for text in sorted(slot))
    return listed if len(slot) == 1 else f"({listed})"


@dataclass(frozen=True)
class Fit:
    """A rule and its F1 on the tokens it was learned from."""

    slots: tuple[Slot, ...]
    f1: float


class _Tokens:
    """The explain tokens of one latent, and which of them any slots let through."""

    def __init__(self, history_TL: Int[Array, "T L"], fires_T: Bool[Array, " T"], cap: int) -> None:
        self.column = [np.ascontiguousarray(history_TL[:, i]) for i in range(history_TL.shape[1])]
        self.fires = fires_T
        self.firing = int(fires_T.sum())
        self.vocabulary = int(history_TL.max(initial=0)) + 1
        self.cap = cap
        # With enough firings, an alternative seen firing once is more often chance than meaning.
        self.support = 2 if self.firing >= 10 else 1

    def passed(self, slots: Sequence[Slot], *, but: int) -> Int[Array, " M"] | None:
        """Tokens that every slot except one lets through; None for all of them."""
        mask: Bool[Array, " T"] | None = None
        for i, slot in enumerate(slots):
            if i == but or slot is None:
                continue
            listed = np.zeros(self.vocabulary + 1, dtype=bool)  # the last place answers for ABSENT
            listed[list(slot)] = True
            mask = listed[self.column[i]] if mask is None else mask & listed[self.column[i]]
        return None if mask is None else np.flatnonzero(mask)

    def best_slot(self, slots: Sequence[Slot], i: int) -> Fit:
        """The best content of slot i, the others held: the alternatives of highest F1, or a wildcard."""
        rows_M = self.passed(slots, but=i)
        fires_M = self.fires if rows_M is None else self.fires[rows_M]
        token_M = self.column[i] if rows_M is None else self.column[i][rows_M]
        open_f1 = 2 * int(fires_M.sum()) / max(len(fires_M) + self.firing, 1)
        candidates, hits = np.unique(token_M[fires_M], return_counts=True)
        keep = (hits >= self.support) & (candidates != ABSENT)
        candidates, hits = candidates[keep], hits[keep]
        if len(candidates) == 0:
            return Fit(_replaced(slots, i, None), open_f1)
        counts = np.bincount(token_M[token_M != ABSENT], minlength=self.vocabulary)[candidates]
        picked, f1 = best_alternatives(hits, counts, firing=self.firing, cap=self.cap)
        if f1 <= open_f1:
            return Fit(_replaced(slots, i, None), open_f1)
        return Fit(_replaced(slots, i, frozenset(candidates[picked].tolist())), f1)


def best_alternatives(
    hits: Int[Array, " A"], counts: Int[Array, " A"], *, firing: int, cap: int
) -> tuple[Int[Array, " chosen"], float]:
    """Which alternatives together have the highest F1 = 2·Σhits / (Σcounts + firing), at most `cap`.

    Exact: for a guess F, the best set is that of the largest 2·hits − F·counts
    above 0, and its own F1 is the next guess (Dinkelbach 1967, Management Science 13:492).
    """
    f1, chosen = 0.0, np.zeros(0, dtype=np.int64)
    while True:
        worth = 2 * hits - f1 * counts
        order = np.argsort(-worth, kind="stable")[:cap]
        better = order[worth[order] > 0]
        new = 2 * int(hits[better].sum()) / (int(counts[better].sum()) + firing)
        if new <= f1:
            return chosen, f1
        f1, chosen = new, better


def _replaced(slots: Sequence[Slot], i: int, slot: Slot) -> tuple[Slot, ...]:
    return (*slots[:i], slot, *slots[i + 1 :])


def learn(history_TL: Int[Array, "T L"], fires_T: Bool[Array, " T"], *, max_alternatives: int) -> Fit | None:
    """The rule of highest F1 that coordinate ascent finds, from a start at each slot; None without firings."""
    tokens = _Tokens(history_TL, fires_T, max_alternatives)
    if tokens.firing == 0:
        return None
    length = history_TL.shape[1]
    blank: tuple[Slot, ...] = (None,) * length
    starts = [tokens.best_slot(blank, i) for i in reversed(range(length))]
    # Later starts must be clearly better: the judged token itself is the plainest explanation.
    best = starts[0]
    for fit in (_ascend(tokens, start) for start in starts):
        if fit.f1 > best.f1 + (MIN_GAIN if fit.slots != best.slots else 0):
            best = fit
    return best


def _ascend(tokens: _Tokens, fit: Fit) -> Fit:
    while True:
        moves = [tokens.best_slot(fit.slots, i) for i in reversed(range(len(fit.slots)))]
        best = max(moves, key=lambda move: move.f1)
        if best.f1 < fit.f1 + MIN_GAIN:
            return fit
        fit = best


def as_rule(slots: Sequence[Slot], words: Sequence[str]) -> Rule:
    """In words, and without the wildcards in front, which ask for nothing."""
    first = next((i for i, slot in enumerate(slots) if slot is not None), len(slots) - 1)
    return Rule(tuple(None if slot is None else frozenset(words[i] for i in slot) for slot in slots[first:]))


class RuleLabeller:
    """The pattern labeller behind the common interface."""

    name = PATTERN
    batch = 1
    outside = False

    def __init__(self, config: PatternLabeller, spell: Spell) -> None:
        self._config = config
        self._spell = spell

    def explain(self, examples: Sequence[Examples]) -> list[Outcome]:
        return [self._explain(each) for each in examples]

    def _explain(self, examples: Examples) -> Outcome:
        history = examples.history.word[:, -self._config.max_length :]
        fit = learn(history, examples.fires, max_alternatives=self._config.max_alternatives)
        if fit is None:
            return Unparsed("it fires on none of the explain tokens that were read")
        rule = as_rule(fit.slots, examples.history.words)
        return Label(self.name, str(rule), rule.to_json())

    def detect(self, label: Label, snippets: Sequence[Snippet]) -> list[Verdict]:
        assert label.rule is not None, "a pattern's label carries its rule"
        rule = Rule.from_json(label.rule)
        return [rule.matches(self._last_words(snippet, len(rule.slots))) for snippet in snippets]

    def _last_words(self, snippet: Snippet, n: int) -> list[str]:
        ids = snippet.tokens[max(0, snippet.at + 1 - n) : snippet.at + 1]
        return [word(text) for text in self._spell(ids)]
