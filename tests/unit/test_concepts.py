"""Known concepts: rules on text, planted latents, and nulls."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from saeops.activations.reader import ActivationSet
from saeops.activations.sites import Sites
from saeops.adapters.models import TransformersModel
from saeops.diagnostics.concepts.measure import Known, known_concepts
from saeops.diagnostics.concepts.metrics import ABSORPTION, PROBES
from saeops.diagnostics.concepts.probing import probe_concepts
from saeops.diagnostics.concepts.rules import CONCEPTS, NAMES
from saeops.diagnostics.concepts.sample import CodedTokens, Sample
from saeops.diagnostics.concepts.schema import ConceptTable, LetterTable
from saeops.diagnostics.concepts.text import RunningText
from saeops.diagnostics.concepts.words import NO_WORD, Vocabulary
from saeops.metrics import measure_all
from saeops.sae.canonical import Sae, SaeMeta
from saeops.sae.codes import Codes
from saeops.stats import Bootstrap
from saeops.tables import check_table

SITE = "blocks.1.resid_post"
DRAW = Bootstrap(200, 0)

SPOKEN = {
    "digit": ("Chapter| |12|:", "12"),
    "capitalised": ("the| Py|thon| NASA| a", " Py thon"),
    "all_caps": ("the| NA|SA| Py|thon", " NA SA"),
    "word_piece": ("the| Py|thon|_|x|!", "thon"),
    "full_stop": ("e|.|g|.| end|.", ". ."),
    "comma": ("one|,| two", ","),
    "colon": ("key|:| value", ":"),
    "backtick": ("see| `|x|`", " ` `"),
    "opening_bracket": ("f|(|x|)[|0|]", "( )["),
    "newline": ("a|.\n|\n|b", ".\n \n"),
    "blank_line": ("a|\n|b|\n\n|c", "\n\n"),
    "indent": ("a|\n|   | b|  c", "   "),
    "in_parentheses": ("so| (|as| said|)| and", "as  said"),
    "in_brackets": ("x|[|0|]", "0"),
    "in_quotes": ('say| "|a| b|"| c', "a  b"),
    "in_backticks": ("the| ``|x|.y|``| and| `|z|`| end", "x .y z"),
    "after_colon": ("key|:| some| value", " some"),
    "sentence_start": ("It| is|.| Then| go", " Then"),
    "list_item": ("As:\n|-| one| two|\nno", " one  two"),
    "code_line": (">>> |f|(|x|)\n|and| so", ">>>  f ( x )\n"),
    "snake_case": ("use| max|_|len| now", " max _ len"),
    "camel_case": ("use| max|Len| now", " max Len"),
    "dotted_path": ("use| os|.|path| now.", " os . path"),
    "url": ("at| https|://|a.b/c| now", " https :// a.b/c"),
    "file_path": ("in| setup|.py| or| /|usr|/bin", " setup .py  / usr /bin"),
    "version": ("since| v|1.|2| or| 3", " v 1. 2"),
    "markup_tag": ("a| <|br|/>| b| <| c", " < br />"),
    "article": ("The| cat| on| an| ant", "The  an"),
    "preposition": ("cat| of| often", " of"),
    "conjunction": ("a| and| band", " and"),
    "pronoun": ("they| item|it", "they"),
    "wh_word": ("when| whenever", "when"),
    "modal": ("can| candle", "can"),
    "to_be": ("is| island", "is"),
    "negation": ("not| nothing| don|'t", "not  don 't"),
    "number_word": ("two| twofold", "two"),
    "ending_ing": ("go|ing| ingot| see|ing", "ing ing"),
    "ending_ed": ("walk|ed| red| edge", "ed"),
    "ending_s": ("cat|s| bus| gl|ass", "s"),
    "ending_ly": ("quick|ly| ply", "ly"),
}


def labelled(name: str, spelled: str) -> str:
    texts = spelled.split("|")
    holds = CONCEPTS[NAMES.index(name)].rule(RunningText.of(texts))
    return " ".join(text for text, label in zip(texts, holds, strict=True) if label)


@pytest.mark.parametrize("name", NAMES)
def test_a_concept_holds_where_its_meaning_says(name: str) -> None:
    spelled, expected = SPOKEN[name]
    assert labelled(name, spelled) == expected


def test_tokens_without_text_hold_nothing_and_move_nothing() -> None:
    assert labelled("digit", "a||7||b") == "7"
    assert not CONCEPTS[0].rule(RunningText.of([])).size


def coded(label_TC: np.ndarray, f_TF: np.ndarray, documents: int = 10) -> CodedTokens:
    codes = Codes.from_dense(torch.from_numpy(f_TF).float())
    return CodedTokens(codes, np.arange(len(label_TC)) * documents // len(label_TC), label_TC, documents)


def planted(seed: int, tokens: int = 3000) -> CodedTokens:
    """Latent c is concept c for the first twenty; the others fire by chance."""
    generator = np.random.default_rng(seed)
    label_TC = generator.random((tokens, len(CONCEPTS))) < 0.06
    label_TC[:, 0] = True
    label_TC[:, 1] = np.arange(tokens) < 5
    chance_TF = generator.random((tokens, 40)) < 0.05
    f_TF = np.concatenate([label_TC[:, :20], chance_TF], axis=1) * (1 + generator.gamma(3.0, size=(tokens, 60)))
    return coded(label_TC, f_TF)


def test_a_latent_that_is_the_concept_loses_next_to_nothing() -> None:
    frame = check_table(
        probe_concepts(planted(0), planted(1)).assign(shuffled_loss=np.nan), ConceptTable, rows=len(CONCEPTS)
    )
    found = frame.iloc[2:20]
    assert found["latent"].tolist() == list(range(2, 20))
    assert (found["loss"] < 0.02 * found["entropy"]).all()
    assert (found["auc"] > 0.999).all()
    assert (found["f1"] == 1).all()
    rest = frame.iloc[20:]
    assert (rest["loss"] > 0.98 * rest["entropy"]).all(), "a latent chosen among many by chance tells nothing new"


def test_a_concept_that_always_or_hardly_ever_holds_is_left_out_and_says_so() -> None:
    frame = probe_concepts(planted(0), planted(1))
    assert not frame["measured"][:2].any()
    assert frame["measured"][2:].all()
    assert frame["loss"][:2].isna().all()
    assert measure_all(PROBES, frame, DRAW)["probe_explained"].point == pytest.approx(
        float((1 - frame["loss"] / frame["entropy"])[2:].mean())
    )


def test_labels_moved_along_the_text_keep_their_number_and_tell_nothing() -> None:
    learnt, held_out = planted(0).shifted(0), planted(1).shifted(1)
    assert (learnt.label_TC.sum(0) == planted(0).label_TC.sum(0)).all()
    null = probe_concepts(learnt, held_out)
    explained = measure_all(PROBES, null, DRAW)["probe_explained"]
    assert 0 <= explained.point < 0.005


def test_dead_and_dense_dictionaries_are_measured_without_complaint() -> None:
    tokens = planted(0)
    silent = replace(tokens, codes=Codes.from_dense(torch.zeros(len(tokens.label_TC), 60)))
    nothing = probe_concepts(silent, silent)
    assert not nothing["measured"].any()
    assert measure_all(PROBES, nothing, DRAW)["probe_loss_nats"].low is None
    newly_silent = probe_concepts(tokens, silent)
    measured = newly_silent[newly_silent["measured"]]
    assert measured["loss"].to_numpy() == pytest.approx(measured["entropy"].to_numpy())
    dense = Codes.from_dense(torch.rand(len(tokens.label_TC), 3, generator=torch.Generator().manual_seed(0)) + 1)
    everywhere = probe_concepts(replace(tokens, codes=dense), replace(tokens, codes=dense))
    assert everywhere["measured"].sum() == len(CONCEPTS) - 2


def test_a_word_counts_as_often_as_said_and_in_one_half_only() -> None:
    texts = ["<s>", " the", " The", " cat", "cat", " of", " über", " dog", "ing", " thing"]
    ids = np.array([1, 1, 2, 1, 3, 4, 5, 6, 7, 8, 9, 0] * 5)
    vocabulary = Vocabulary.of(ids, lambda chosen: [texts[i] for i in chosen])
    halves = [vocabulary.letters(ids, part, seed=0, occurrences=2) for part in ("learn", "test")]
    assert not ((halves[0] != NO_WORD) & (halves[1] != NO_WORD)).any()
    both = np.maximum(*halves)
    words = [texts[i].lower() for i in ids[both != NO_WORD]]
    assert ["abcdefghijklmnopqrstuvwxyz"[letter] for letter in both[both != NO_WORD]] == [
        word[1] for word in words
    ]
    assert sorted(words) == sorted([" the", " cat", " dog", " thing"] * 2)


def random_sae(acts: ActivationSet, latents: int = 64) -> Sae:
    width = acts.width(SITE)
    W_dec = torch.nn.functional.normalize(
        torch.randn(latents, width, generator=torch.Generator().manual_seed(0)), dim=1
    )
    meta = SaeMeta(variant="topk", site=SITE, d_model=width, d_sae=latents, k=4)
    return Sae(W_dec.T.contiguous(), torch.zeros(latents), W_dec, torch.zeros(width), None, meta)


def test_a_sample_knows_of_each_counted_token_what_its_text_says(
    tiny_activations: ActivationSet, tiny_model: TransformersModel
) -> None:
    acts, sae = tiny_activations, random_sae(tiny_activations)
    sample = Sample.draw(acts, "explain", "learn", tiny_model.tokens, seed=0, tokens=700)
    seen = sample.coded(acts, sae)
    table = acts.documents[acts.documents["split"] == "explain"].sort_values("document").reset_index(drop=True)
    drawn = set(sample.number_S.tolist())
    assert 0 < table.loc[table["document"].isin(drawn), "n_tokens"].sum() <= 700
    row = 0
    for batch in acts.batches(SITE, "explain", 64):
        for i in np.flatnonzero([int(document) in drawn for document in batch.document]):
            document = table.index[table["document"] == int(batch.document[i])][0]
            text = RunningText.of(tiny_model.tokens(table["tokens"][document].tolist()))
            expected = [bool(concept.rule(text)[int(batch.position[i])]) for concept in CONCEPTS[:3]]
            assert seen.tokens.label_TC[row, :3].tolist() == expected
            assert seen.tokens.document_T[row] == document
            mine = sae.encode(batch.activations[i : i + 1])
            assert torch.equal(seen.tokens.codes.take(torch.tensor([row])).latent, mine.latent)
            row += 1
    assert row == len(seen.tokens.document_T)
    assert len(seen.words.y_WE) == len(seen.words.letter_W) == seen.words.codes.tokens


def test_all_of_it_on_a_tiny_model_gives_whole_tables_and_the_same_twice(
    tiny_activations: ActivationSet, tiny_model: TransformersModel
) -> None:
    acts, sae = tiny_activations, random_sae(tiny_activations)
    first, second = (
        known_concepts(Known.read(acts, Sites.of(SITE, None), tiny_model.tokens, seed=1), sae) for _ in range(2)
    )
    for table in (first.concepts, first.shuffled):
        check_table(table, ConceptTable, rows=len(CONCEPTS))
    check_table(first.letters, LetterTable, rows=26)
    assert first.concepts["measured"].any()
    for name in ("concepts", "shuffled", "letters"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(second, name))
    assert measure_all(ABSORPTION, first.letters, DRAW).keys() == {"absorption_rate", "absorption_fraction"}
