"""The LLM labeller: a language model reads contexts and says what they share, then judges snippets by that.

It judges in one of two ways. An LLM that only writes gets several snippets a
prompt and answers with JSON. One whose logits can be read gets one snippet a
prompt and leans to yes or no; where its no ends and its yes begins is set on
the explain split, so that a weak model's bias to one answer does not decide.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float

from saeops.labelling.examples import Examples, Snippet
from saeops.labelling.labels import Label, Outcome, Unparsed, Verdict
from saeops.labelling.parsing import parse_label, parse_verdicts
from saeops.labelling.prompts import (
    EXPLAIN_PREFIX,
    EXPLAIN_SYSTEM,
    JUDGE_SYSTEM,
    detect_prompt,
    explain_prompt,
    lean_prompt,
)
from saeops.labelling.words import Spell

Array = np.ndarray
VERDICT_TOKENS = 8
"""Longest answer allowed, in tokens, for each verdict of a JSON list."""


class Answers(Protocol):
    """What this labeller needs of an LLM (the port `Llm` fits)."""

    name: str
    batch: int
    outside: bool

    def ask(self, prompts: Sequence[str], *, system: str = "", prefix: str = "", max_tokens: int) -> list[str]: ...

    def lean(self, prompts: Sequence[str], *, system: str = "") -> list[float] | None: ...


class LlmLabeller:
    """The LLM labeller behind the common interface."""

    def __init__(self, llm: Answers, spell: Spell, *, max_new_tokens: int, snippets_per_prompt: int) -> None:
        self.name = f"llm:{llm.name}"
        self.batch = llm.batch
        self.outside = llm.outside
        self._llm = llm
        self._spell = spell
        self._max_new_tokens = max_new_tokens
        self._snippets_per_prompt = snippets_per_prompt

    def explain(self, examples: Sequence[Examples]) -> list[Outcome]:
        prompts = [explain_prompt(each.contexts, self._spell) for each in examples]
        answers = self._llm.ask(
            prompts, system=EXPLAIN_SYSTEM, prefix=EXPLAIN_PREFIX, max_tokens=self._max_new_tokens
        )
        return [self._read(answer, each) for answer, each in zip(answers, examples, strict=True)]

    def _read(self, answer: str, examples: Examples) -> Outcome:
        text = parse_label(answer)
        if isinstance(text, Unparsed):
            return text
        label = Label(self.name, text)
        snippets = examples.calibration.snippets
        leans = self._leans(label, snippets)
        if leans is None:
            return label
        fires = np.array([snippet.fires for snippet in snippets])
        return replace(label, rule=json.dumps({"yes_above": yes_above(np.array(leans), fires)}))

    def detect(self, label: Label, snippets: Sequence[Snippet]) -> list[Verdict]:
        leans = self._leans(label, snippets)
        if leans is not None:
            assert label.rule is not None, "a leaning judge's label carries its calibration"
            limit = json.loads(label.rule)["yes_above"]
            return [lean > limit for lean in leans]
        size = self._snippets_per_prompt
        groups = [snippets[i : i + size] for i in range(0, len(snippets), size)]
        prompts = [detect_prompt(label.text, group, self._spell) for group in groups]
        answers = self._llm.ask(prompts, system=JUDGE_SYSTEM, max_tokens=VERDICT_TOKENS * size)
        read = [parse_verdicts(a, len(group)) for a, group in zip(answers, groups, strict=True)]
        return [verdict for verdicts in read for verdict in verdicts]

    def _leans(self, label: Label, snippets: Sequence[Snippet]) -> list[float] | None:
        prompts = [lean_prompt(label.text, snippet, self._spell) for snippet in snippets]
        return self._llm.lean(prompts, system=JUDGE_SYSTEM)


def yes_above(lean_S: Float[Array, " S"], fires_S: Bool[Array, " S"]) -> float:
    """The threshold on the lean that separates firing from silent best: highest TPR + TNR, half-way to the next.

    Where nothing separates, or one kind is missing, the judge keeps to its
    own zero.
    """
    if fires_S.all() or not fires_S.any():
        return 0.0
    values = np.unique(lean_S)
    limits = (values[:-1] + values[1:]) / 2
    youden = [float((lean_S[fires_S] > x).mean() - (lean_S[~fires_S] > x).mean()) for x in limits]
    if not youden or max(youden) <= 0:
        return 0.0
    return float(limits[int(np.argmax(youden))])
