"""Reading a language model's answers, strictly: what is not clearly an answer is Unparsed."""

import json
import re

from saeops.labelling.labels import Unparsed, Verdict

LONGEST_LABEL = 160
"""Characters; a longer "label" is an essay, a loop, or an echo of the prompt."""
_LABEL_LINE = re.compile(r"^\W*label\W*:\s*(.+)$", re.IGNORECASE)
_REFUSAL = re.compile(
    r"\b(i('m| am) (sorry|unable|not able)|i (cannot|can't|can not)|as an ai|cannot be determined|no label)\b",
    re.I,
)
_ECHO = re.compile(r"marked words|«|»|which word, meaning|what kind of words", re.I)
_ARRAY = re.compile(r"\[[^\[\]]*\]")


def parse_label(answer: str) -> str | Unparsed:
    """The label in an answer: its one `Label: …` line, else its one line."""
    lines = [line.strip() for line in answer.strip().splitlines() if line.strip()]
    marked = [match[1] for line in lines if (match := _LABEL_LINE.match(line))]
    if len(marked) > 1:
        return Unparsed(f"{len(marked)} labels in one answer")
    if not marked and len(lines) != 1:
        return Unparsed(f"{len(lines)} lines and no line that begins with `Label:`")
    text = " ".join((marked or lines)[0].strip(" \t\"'`*.,").split())
    if _REFUSAL.search(text):
        return Unparsed("a refusal")
    if _ECHO.search(text):
        return Unparsed("an echo of the question")
    words = re.findall(r"\w+", text.casefold())
    if words and max(map(words.count, words)) > max(3, len(words) // 3):
        return Unparsed("it repeats itself")
    if len(text) > LONGEST_LABEL:
        return Unparsed(f"{len(text)} characters long")
    if not any(character.isalpha() for character in text):
        return Unparsed("no word in it")
    return text


def parse_verdicts(answer: str, n: int) -> list[Verdict]:
    """`n` verdicts from one JSON list of 0 and 1, else `n` times Unparsed.

    A list of another length says nothing about any snippet: nobody knows
    which one is missing, so nothing is padded and nothing is cut.
    """
    found = _ARRAY.findall(answer)
    if len(found) != 1:
        return [Unparsed(f"{len(found)} JSON lists in the answer, not one")] * n
    try:
        values = json.loads(found[0])
    except ValueError:
        return [Unparsed("the list is not JSON")] * n
    if len(values) != n:
        return [Unparsed(f"{len(values)} verdicts for {n} snippets")] * n
    if any(value not in (0, 1) or isinstance(value, float) for value in values):
        return [Unparsed("a verdict that is neither 0 nor 1")] * n
    return [bool(value) for value in values]
