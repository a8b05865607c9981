"""Drawing what labels are made from and tested on; the two labellers behind one interface."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from saeops.adapters.llm import ScriptedLlm
from saeops.labelling.asking import LlmLabeller, yes_above
from saeops.labelling.config import PatternLabeller
from saeops.labelling.examples import Context, Counts, DocumentTokens, spread_contexts
from saeops.labelling.labels import Label, Labeller, Unparsed
from saeops.labelling.material import draw_latents
from saeops.labelling.patterns import Rule, RuleLabeller
from saeops.labelling.prompts import detect_prompt, lean_prompt, marked_context, marked_snippet
from saeops.labelling.schema import LabelTable, label_frame, label_row
from saeops.labelling.scoring import score
from saeops.labelling.words import ABSENT, History, word
from saeops.tables import check_table
from tests.labelling_world import drawn_from, examples_of, random_documents, snippet, spell, split_of

IMPORT, AS, NP = 5, 6, 7
COUNTS = Counts(20, 20, 10)


def after_import_any(tokens: Sequence[int]) -> float:
    """`import`, any token, `as`: fires on the `as`."""
    return 2.0 if len(tokens) >= 3 and tokens[-3] == IMPORT and tokens[-1] == AS else 0.0


def on_np(tokens: Sequence[int]) -> float:
    return float(len(tokens)) if tokens[-1] == NP else 0.0


def llm(answer: str, lean: float | None = None) -> LlmLabeller:
    script = ScriptedLlm(lambda _: answer, lean=None if lean is None else lambda _: lean)
    return LlmLabeller(script, spell, max_new_tokens=8, snippets_per_prompt=4)


# ── drawing ─────────────────────────────────────────────────────────────────


def test_histories_stop_at_the_beginning_of_a_window() -> None:
    documents = DocumentTokens(np.arange(10, dtype=np.int32), np.array([0, 6, 10]), window=4)
    history = documents.histories(np.array([0, 0, 0, 1]), np.array([2, 4, 5, 0]), 3)
    assert history.tolist() == [[0, 1, 2], [ABSENT, ABSENT, 4], [ABSENT, 4, 5], [ABSENT, ABSENT, 6]]


def test_a_snippet_shows_no_token_the_model_did_not_see_before_it() -> None:
    documents = DocumentTokens(np.arange(20, dtype=np.int32), np.array([0, 20]), window=8)
    tokens, at = documents.around(0, 10, before=6)
    assert tokens[: at + 1] == (8, 9, 10)
    assert tokens[at + 1 :] == (11, 12, 13)
    assert documents.around(0, 19, before=2) == ((17, 18, 19), 2)


def test_documents_of_other_splits_hold_no_tokens() -> None:
    table = pd.DataFrame({"document": [0, 1, 2], "split": ["explain", "score", "score"]})
    table["tokens"] = [[1, 2], [3, 4, 5], [6]]
    documents = DocumentTokens.of(table, split="score", window=8)
    assert documents.flat.tolist() == [3, 4, 5, 6]
    assert documents.around(2, 0, before=4) == ((6,), 0)


def test_snippets_are_what_they_say() -> None:
    split = split_of(random_documents(8, 60, seed=0), on_np)
    test = drawn_from(split, COUNTS)
    for each in test.snippets:
        judged = each.tokens[each.at]
        assert judged == split.documents.flat[split.documents.start[each.document] + each.position]
        assert each.fires == (judged == NP)
        assert each.look_alike == (judged == NP)
    kinds = [each.drawn for each in test.snippets]
    assert kinds.count("positive") == 20
    assert kinds.count("random") == 20
    assert kinds.count("hard") == 0  # it fires on every such token
    assert test.base_rate == pytest.approx(np.mean(split.token == NP))
    assert test.look_alike_share == 0


def test_hard_negatives_are_silent_tokens_it_fires_on_elsewhere() -> None:
    split = split_of(random_documents(20, 60, seed=1), after_import_any)
    test = drawn_from(split, COUNTS)
    hard = [each for each in test.snippets if each.drawn == "hard"]
    assert len(hard) == 10
    assert {each.tokens[each.at] for each in hard} == {AS}
    assert not any(after_import_any(each.tokens[: each.at + 1]) for each in hard)
    silent = np.mean((split.token == AS)[~split.fires(0)])
    assert test.look_alike_share == pytest.approx(silent)


def test_positives_are_spread_over_the_activation_quantiles() -> None:
    split = split_of([[NP] * 60 for _ in range(10)], on_np)  # activations 1 to 60, ten times each
    strengths = [each.position + 1 for each in drawn_from(split, Counts(20, 0, 0)).snippets]
    assert all(np.histogram(strengths, bins=4, range=(1, 61))[0] == 5)


def test_draws_depend_on_the_seed_alone() -> None:
    split = split_of(random_documents(8, 60, seed=2), on_np)
    assert drawn_from(split, COUNTS, seed=5) == drawn_from(split, COUNTS, seed=5)
    assert drawn_from(split, COUNTS, seed=5) != drawn_from(split, COUNTS, seed=6)


def test_latents_are_drawn_from_the_living_in_random_order() -> None:
    living = list(range(0, 1000, 3))
    drawn = draw_latents(living, 50, seed=0)
    assert len(set(drawn)) == 50
    assert set(drawn) <= set(living)
    assert drawn != sorted(drawn)
    assert draw_latents(living, 20, seed=0) == drawn[:20]
    assert sorted(draw_latents(living, 10_000, seed=0)) == living


def test_contexts_for_a_labeller_are_the_strongest_and_some_of_every_quantile() -> None:
    rows = [{"kind": "top", "quantile": -1, "rank": r, "position": r} for r in range(10)]
    rows += [
        {"kind": "quantile", "quantile": q, "rank": r, "position": 100 + 10 * q + r}
        for q in range(5)
        for r in (0, 1)
    ]
    frame = pd.DataFrame(rows).assign(document=0, start=0, tokens=[[1] * 200] * 20, activations=[[1.0] * 200] * 20)
    at = [context.at for context in spread_contexts(frame, 10)]
    assert at == [0, 1, 2, 3, 4, 100, 110, 120, 130, 140]
    assert len(spread_contexts(frame, 100)) == 20


# ── the pattern labeller ────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fires", "text"),
    [
        (on_np, '"np"'),
        (after_import_any, '"import" then any token then "as"'),
        (lambda t: 1.0 if t[-1] in (1, 2) else 0.0, '("cat" or "dog")'),
        (lambda t: 1.0 if len(t) > 1 and t[-2] == 9 else 0.0, '"\\n" then any token'),
        (lambda t: 1.0 if len(t) > 1 and t[-2] == 0 and t[-1] in (1, 2) else 0.0, '"the" then ("cat" or "dog")'),
    ],
)  # fmt: skip
def test_the_rule_behind_a_latent_is_found_and_detects_it(fires: object, text: str) -> None:
    explain = split_of(random_documents(30, 60, seed=3), fires)  # type: ignore[arg-type]
    labeller: Labeller = RuleLabeller(PatternLabeller(), spell)
    (label,) = labeller.explain([examples_of(explain)])
    assert isinstance(label, Label)
    assert label.text == text
    held_out = drawn_from(split_of(random_documents(30, 60, seed=4), fires, first=30), COUNTS)  # type: ignore[arg-type]
    verdicts = labeller.detect(label, held_out.snippets)
    assert verdicts == [each.fires for each in held_out.snippets]


def test_a_latent_that_fires_at_random_gets_no_confidence() -> None:
    generator = np.random.default_rng(5)
    explain, held_out = (
        split_of(random_documents(30, 60, seed=s), lambda _: float(generator.random() < 0.05)) for s in (6, 7)
    )
    labeller = RuleLabeller(PatternLabeller(), spell)
    (label,) = labeller.explain([examples_of(explain)])
    test = drawn_from(held_out, Counts(200, 200, 0))
    assert isinstance(label, Label)
    assert score(labeller.detect(label, test.snippets), test, competing=1, min_positives=5).confidence < 0.05


def test_a_latent_that_never_fires_while_explaining_has_no_rule() -> None:
    silent = split_of(random_documents(3, 30, seed=8), lambda _: 0.0)
    (outcome,) = RuleLabeller(PatternLabeller(), spell).explain([examples_of(silent)])
    assert isinstance(outcome, Unparsed)


def test_a_rule_does_not_reach_back_before_the_window() -> None:
    assert not Rule((frozenset({"import"}), None, frozenset({"as"}))).matches(["np", "as"])


def test_a_word_stands_for_all_tokens_that_differ_by_case_and_space() -> None:
    assert [word(text) for text in ("index", " Index", "INDEX ", "\n   ", " ")] == ["index"] * 3 + ["\n   ", " "]
    texts = ["index", " Index", "of"]
    history = History.of(np.array([[ABSENT, 0], [0, 1], [1, 2]]), lambda ids: [texts[i] for i in ids])
    assert history.words == ("index", "of")
    assert history.word.tolist() == [[ABSENT, 0], [0, 0], [0, 1]]


# ── the LLM labeller ────────────────────────────────────────────────────────


def test_the_firing_tokens_are_marked_in_what_a_model_reads() -> None:
    context = Context(0, (0, 1, 3, 9, 4), at=1, activations=(0.0, 2.0, 1.0, 0.0, 0.1))
    assert marked_context(context, spell) == "the« cat sat»\\n on"
    assert marked_snippet(snippet([0, 1, NP], "random"), spell) == "the cat« np»"


def test_prompts_never_say_what_is_true() -> None:
    for text in (
        detect_prompt("cats", [snippet([0, 1], "positive")], spell),
        lean_prompt("cats", snippet([0, 1], "positive"), spell),
    ):
        assert text.replace("positive", "") == text
        assert "the« cat»" in text
        twin = [snippet([0, 1], "hard", look_alike=True)]
        assert text in (detect_prompt("cats", twin, spell), lean_prompt("cats", twin[0], spell))


def test_an_llm_that_only_writes_judges_several_snippets_a_prompt() -> None:
    script = ScriptedLlm(lambda p: "Label: cats" if "Label:" in p else json_verdicts(p))
    labeller: Labeller = LlmLabeller(script, spell, max_new_tokens=8, snippets_per_prompt=4)
    split = split_of(random_documents(8, 60, seed=9), on_np)
    (label,) = labeller.explain([examples_of(split)])
    assert isinstance(label, Label)
    assert label.text == "cats"
    assert label.labeller == "llm:script"
    snippets = drawn_from(split, Counts(5, 5, 0)).snippets
    assert labeller.detect(label, snippets) == [each.fires for each in snippets]
    assert len(script.asked) == 1 + 3


def json_verdicts(prompt: str) -> str:
    """A judge that knows the latent: 1 where ` np` is marked."""
    lines = [line for line in prompt.splitlines() if "«" in line and line[0].isdigit()]
    return str([int("« np»" in line) for line in lines])


def test_one_list_of_the_wrong_length_loses_its_own_snippets_only() -> None:
    script = ScriptedLlm(lambda p: "[1]" if "4. " in p else json_verdicts(p))
    labeller = LlmLabeller(script, spell, max_new_tokens=8, snippets_per_prompt=4)
    snippets = [snippet([0, NP], "positive")] * 6
    verdicts = labeller.detect(Label("llm:script", "np"), snippets)
    assert [isinstance(v, Unparsed) for v in verdicts] == [True] * 4 + [False] * 2
    assert verdicts[4:] == [True, True]


def test_a_refusal_is_no_label() -> None:
    split = split_of(random_documents(8, 60, seed=9), on_np)
    (outcome,) = llm("I'm sorry, I cannot say.").explain([examples_of(split)])
    assert isinstance(outcome, Unparsed)


def test_a_model_biased_to_yes_is_read_against_its_own_leaning() -> None:
    """It leans to yes everywhere, more so on ` np`: the threshold set on the explain split finds that."""
    script = ScriptedLlm(lambda _: "np", lean=lambda p: 5.0 if "« np»" in p else 3.0)
    labeller = LlmLabeller(script, spell, max_new_tokens=8, snippets_per_prompt=4)
    (label,) = labeller.explain([examples_of(split_of(random_documents(8, 60, seed=9), on_np))])
    assert isinstance(label, Label)
    held_out = drawn_from(split_of(random_documents(8, 60, seed=10), on_np, first=8), COUNTS).snippets
    assert labeller.detect(label, held_out) == [each.fires for each in held_out]


def test_a_judge_whose_leaning_tells_nothing_keeps_to_its_zero() -> None:
    fires = np.array([True, True, False, False])
    assert yes_above(np.array([1.0, 1.0, 1.0, 1.0]), fires) == 0
    assert yes_above(np.array([1.0, 2.0, 3.0, 4.0]), fires) == 0  # leans the wrong way
    assert yes_above(np.array([1.0, 2.0]), np.array([True, True])) == 0
    assert yes_above(np.array([4.0, 3.0, 2.0, 1.0]), fires) == 2.5


# ── the table ───────────────────────────────────────────────────────────────


def test_a_version_follows_labeller_and_text_alone() -> None:
    label = Label("pattern", "cats", rule="{}")
    assert label.version == Label("pattern", "cats", rule="[]").version
    assert label.version != Label("pattern", "dogs").version
    assert label.version != Label("llm:x", "cats").version
    assert len(label.version) == 16


def test_of_competing_labels_the_one_of_highest_confidence_is_chosen() -> None:
    test = drawn_from(split_of(random_documents(20, 60, seed=11), on_np), Counts(20, 20, 0))
    right = score([each.fires for each in test.snippets], test, competing=2, min_positives=5)
    wrong = score([True] * len(test.snippets), test, competing=2, min_positives=5)
    rows = [
        label_row(3, "llm:x", Label("llm:x", "np"), right),
        label_row(3, "pattern", Label("pattern", "any"), wrong),
        label_row(1, "pattern", Unparsed("nothing"), wrong),
        label_row(1, "llm:x", Label("llm:x", "np"), wrong),
    ]
    frame = check_table(label_frame(rows), LabelTable, rows=4)
    assert frame["latent"].tolist() == [1, 1, 3, 3]
    chosen = frame[frame["chosen"]]
    assert chosen["labeller"].tolist() == ["llm:x", "llm:x"]  # a text before none, then the better one
    assert frame["text"].isna().tolist() == [False, True, False, False]
    assert frame.loc[frame["text"].isna(), "unparsed"].tolist() == ["nothing"]
