"""Answers of language models: read strictly, or not at all."""

import pytest

from saeops.labelling.labels import Unparsed
from saeops.labelling.parsing import parse_label, parse_verdicts


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("Label: words of cooking", "words of cooking"),
        ("words of cooking", "words of cooking"),
        ("Here it is.\n**Label:** `import` statements\n", "import` statements"),
        ('  "the word of."  ', "the word of"),
    ],
)
def test_a_label_is_its_one_line(answer: str, label: str) -> None:
    assert parse_label(answer) == label


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "   \n ",
        "...",
        "12 34",
        "I'm sorry, but I cannot tell.",
        "As an AI, I have no opinion.",
        "Label: one\nLabel: two",
        "first line\nsecond line",
        "word " * 60,
        "better, efficient, better, better, better, better",
        "Label: The marked words: doc, usage, well",
        "Label: the word between « and »",
    ],
)
def test_what_is_no_label_is_unparsed(answer: str) -> None:
    assert isinstance(parse_label(answer), Unparsed)


@pytest.mark.parametrize(
    "answer", ["[1, 0, 1]", "Sure: [1,0,1]", "```json\n[1, 0, 1]\n```", "[true, false, true]"]
)
def test_verdicts_are_one_list_of_zeros_and_ones(answer: str) -> None:
    assert parse_verdicts(answer, 3) == [True, False, True]


@pytest.mark.parametrize(
    "answer",
    ["", "yes no yes", "[1, 0]", "[1, 0, 1, 1]", "[1, 0, 2]", "[1, 0, null]", '["1", 0, 1]', "[1, 0, 1.0]",
     "[1,0,1] or [0,0,1]", "[1 0 1]", "[1, 0,"],
)  # fmt: skip
def test_a_list_that_is_not_whole_answers_for_no_snippet(answer: str) -> None:
    verdicts = parse_verdicts(answer, 3)
    assert len(verdicts) == 3
    assert all(isinstance(verdict, Unparsed) for verdict in verdicts)
