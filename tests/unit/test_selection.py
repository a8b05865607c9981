"""Selection: which documents are harvested, which are dropped, and where it stops."""

from collections.abc import Iterable
from typing import Any

import pytest

from saeops.activations.policy import TokenPolicy
from saeops.activations.selection import Choice, Selection, Tokenizer, select, text_fault
from saeops.activations.split import SplitFractions
from saeops.errors import CorpusMissing, CorpusTooSmall
from saeops.ports import Document

LETTERS = Tokenizer(encode=lambda text: [ord(letter) for letter in text], bos_id=0, special_ids=frozenset({0}))
EVEN = SplitFractions(train=0.2, eval=0.2, explain=0.2, score=0.2, panel=0.2)


def choice(**changes: Any) -> Choice:
    usual: dict[str, Any] = {
        "tokens": 10**9,
        "min_chars": 10,
        "max_chars": 100,
        "max_documents": None,
        "context_size": 16,
        "policy": TokenPolicy(),
        "splits": EVEN,
        "seed": 0,
    }
    return Choice(**(usual | changes))


def documents(count: int = 80) -> list[Document]:
    return [Document(f"document number {n:03d}, of which nothing else is known", f"s{n}") for n in range(count)]


def chosen(texts: Iterable[Document], **changes: Any) -> Selection:
    told: list[int] = []
    result = select(texts, LETTERS, choice(**changes), progress=told.append)
    assert sum(told) == result.tokens
    return result


def test_exact_duplicates_are_dropped_and_counted() -> None:
    result = chosen([*documents(), *documents(5)])
    assert len(result.documents) == 80
    assert result.dropped == {"too_short": 0, "not_text": 0, "duplicate": 5, "masked": 0}


def test_documents_alike_up_to_the_cut_are_duplicates_too() -> None:
    # What the model would read of them is the same, and could land in two splits.
    twins = [Document("x" * 100 + tail, tail) for tail in ("one", "two")]
    assert chosen([*documents(), *twins]).dropped["duplicate"] == 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("short", "too_short"),
        (" " * 500, "too_short"),
        ("binary \x00\x01\x02 and so on, for a while", "not_text"),
        ("undecodable \ufffd\ufffd\ufffd bytes, for a while", "not_text"),
        ("a lone surrogate \ud800" + "x" * 500, "not_text"),
        ("tabs\tand\nnewlines\r\nare text, like any other", None),
        ("naïve café 你好世界 are text, like any other", None),
    ],
)
def test_what_is_no_text_is_told_from_what_is(text: str, fault: str | None) -> None:
    assert text_fault(text, min_chars=10) == fault


def test_bad_documents_are_counted_by_reason() -> None:
    bad = [Document("short", "a"), Document("\x00" * 50, "b"), Document("\ud800" * 50, "c")]
    assert chosen([*documents(), *bad]).dropped == {"too_short": 1, "not_text": 2, "duplicate": 0, "masked": 0}


def test_it_stops_at_the_tokens_asked_for_and_cuts_the_last_document() -> None:
    result = chosen(documents(), tokens=3001)
    assert result.tokens == 3001
    assert result.documents["n_tokens"].iloc[:-1].nunique() == 1
    assert result.documents["n_tokens"].iloc[-1] < result.documents["n_tokens"].iloc[0]
    assert result.read == len(result.documents) < 80


def test_it_reads_no_further_than_it_needs() -> None:
    def endless() -> Iterable[Document]:
        yield from documents()
        raise AssertionError("read on")

    chosen(endless(), tokens=3001)


def test_tokens_that_the_policy_leaves_out_do_not_count() -> None:
    whole = chosen(documents(), policy=TokenPolicy())
    skipping = chosen(documents(), policy=TokenPolicy(skip_positions=3))
    # Each document takes four windows of 15 own tokens, and each window loses two more.
    windows = -(-int(whole.documents["n_tokens"].iloc[0]) // 15)
    assert whole.tokens - skipping.tokens == 80 * windows * 2
    assert whole.tokens == whole.documents["n_tokens"].sum()


def test_at_most_max_documents_are_read() -> None:
    assert chosen(documents(), max_documents=70).read == 70


def test_documents_of_which_no_token_counts_are_dropped() -> None:
    with pytest.raises(CorpusTooSmall, match="80 masked"):
        chosen(documents(), policy=TokenPolicy(skip_positions=16))


def test_too_few_documents_are_refused_with_the_numbers() -> None:
    with pytest.raises(CorpusTooSmall, match=r"eval \d+ of 8.*9 documents .* of 10 read .*1 too_short") as caught:
        chosen([*documents(9), Document("short", "a")])
    assert "add documents" in caught.value.hint


def test_too_few_tokens_are_refused_with_another_way_out() -> None:
    with pytest.raises(CorpusTooSmall) as caught:
        chosen(documents(), tokens=100)
    assert "raise harvest.tokens" in caught.value.hint


def test_an_empty_corpus_is_missing() -> None:
    with pytest.raises(CorpusMissing, match="no document"):
        chosen([])
