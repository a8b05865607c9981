"""Absorption in a world where it was planted."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from saeops.diagnostics.concepts.absorption import Absorbed, absorbed, absorption, main_latents
from saeops.diagnostics.concepts.letters import LetterProbes
from saeops.diagnostics.concepts.metrics import ABSORPTION
from saeops.diagnostics.concepts.sample import CodedWords
from saeops.diagnostics.concepts.schema import LetterTable
from saeops.diagnostics.concepts.words import LETTERS
from saeops.metrics import measure_all
from saeops.sae.canonical import Sae, SaeMeta
from saeops.sae.codes import Codes
from saeops.stats import Bootstrap
from saeops.tables import check_table

KINDS, WORDS, WIDTH, DOCUMENTS = 5, 16, 200, 12
"""Letters in use, words of each in each half, width of the activations."""
LETTER_LATENTS = KINDS


@dataclass(frozen=True)
class World:
    """Words are a letter's direction and one of their own; latents stand for letters and for words."""

    sae: Sae
    learnt: CodedWords
    tested: CodedWords
    probes: LetterProbes


def world(absorbed_words: int, *, letter_latents: bool = True, seed: int = 0) -> World:
    """Of each letter's words in either half the first few are absorbed.

    Their own latents carry the letter with them, and the letter's latent keeps silent.
    """
    g = torch.Generator().manual_seed(seed)
    axes, _ = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=g))
    letters_KE, words_NE = axes[:KINDS], axes[KINDS : KINDS + 2 * KINDS * WORDS]
    kind_N = torch.arange(len(words_NE)) % KINDS
    taken_N = (torch.arange(len(words_NE)) // KINDS) % WORDS < absorbed_words
    own_NE = torch.nn.functional.normalize(words_NE + taken_N[:, None] * letters_KE[kind_N], dim=1)
    W_dec = torch.cat([letters_KE, own_NE])
    f_NF = torch.zeros(len(words_NE), len(W_dec))
    f_NF[torch.arange(len(words_NE)), KINDS + torch.arange(len(words_NE))] = torch.where(taken_N, 2**0.5, 1.0)
    f_NF[torch.arange(len(words_NE)), kind_N] = (~taken_N).float() * letter_latents
    y_NE = letters_KE[kind_N] + words_NE + 0.3 * axes[-1]
    meta = SaeMeta(variant="topk", site="blocks.1.resid_post", d_model=WIDTH, d_sae=len(W_dec), k=2)
    b_dec = 0.3 * axes[-1]
    sae = Sae(W_dec.T.contiguous(), torch.zeros(len(W_dec)), W_dec, b_dec, None, meta)
    half = KINDS * WORDS
    learnt, tested = (
        CodedWords(
            Codes.from_dense(f_NF[part]), y_NE[part], kind_N[part].numpy(), np.arange(half) % DOCUMENTS, DOCUMENTS
        )
        for part in (slice(0, half), slice(half, None))
    )
    noisy_WE = learnt.y_WE.repeat(6, 1) + 0.05 * torch.randn(6 * half, WIDTH, generator=g)
    return World(sae, learnt, tested, LetterProbes.fit(noisy_WE, np.tile(learnt.letter_W, 6)))


@pytest.mark.parametrize("planted", [0, 4, 8])
def test_the_planted_rate_is_found(planted: int) -> None:
    made = world(planted)
    table = check_table(absorption(made.probes, made.learnt, made.tested, made.sae), LetterTable, rows=26)
    assert table["measured"].tolist() == [True] * KINDS + [False] * (26 - KINDS)
    used = table[:KINDS]
    assert (used["probe_f1"] == 1).all()
    assert (used["right"] == WORDS).all()
    assert used["main_latents"].tolist() == [(kind,) for kind in range(KINDS)]
    assert (used["main_fires"] == WORDS - planted).all()
    assert (used["absorbed"] == planted).all()
    assert (used["low"] <= planted / WORDS).all()
    assert (used["high"] >= planted / WORDS).all()
    figures = measure_all(ABSORPTION, table, Bootstrap(200, 0))
    assert figures["absorption_rate"].point == pytest.approx(planted / WORDS)
    assert figures["absorption_fraction"].point == pytest.approx(planted / WORDS, abs=1e-6)
    assert figures["absorption_rate"].n == DOCUMENTS
    assert figures["absorption_rate"].high is not None
    assert figures["absorption_rate"].high > planted / WORDS or planted == 4, (
        "with nothing seen, some may still be"
    )


def test_a_letter_that_no_latent_stands_for_is_not_measured() -> None:
    made = world(0, letter_latents=False)
    table = check_table(absorption(made.probes, made.learnt, made.tested, made.sae), LetterTable, rows=26)
    assert not table["measured"].any()
    figure = measure_all(ABSORPTION, table, Bootstrap(200, 0))["absorption_rate"]
    assert figure.low is None
    assert figure.note


def test_a_probe_that_never_learnt_leaves_every_letter_out() -> None:
    made = world(4)
    table = check_table(absorption(None, made.learnt, made.tested, made.sae), LetterTable, rows=26)
    assert not table["measured"].any()
    random = torch.Generator().manual_seed(1)
    ignorant = LetterProbes.fit(torch.randn(60, WIDTH, generator=random), np.arange(60) % KINDS)
    weak = check_table(absorption(ignorant, made.learnt, made.tested, made.sae), LetterTable, rows=26)
    assert (weak["probe_f1"] < 0.6).all()
    assert not weak["measured"].any()


def test_main_latents_are_added_while_each_tells_more_of_the_letter() -> None:
    letter_W = np.repeat([0, 1], 30)
    f_WF = np.zeros((60, 5))
    f_WF[:18, 0] = 1
    f_WF[18:27, 1] = 1
    f_WF[27:29, 2] = 1  # two words are too few to stand for a letter
    f_WF[:40, 3] = 1  # a latent that fires on other letters as well
    f_WF[:10, 4] = 1  # nothing new
    words = CodedWords(
        Codes.from_dense(torch.from_numpy(f_WF)), torch.zeros(60, 2), letter_W, np.zeros(60, dtype=int), 1
    )
    main = main_latents(words, 0)
    assert main.latents == (3,)
    without = CodedWords(
        Codes.from_dense(torch.from_numpy(f_WF[:, [0, 1, 2, 4]])),
        torch.zeros(60, 2),
        letter_W,
        words.document_W,
        1,
    )
    main = main_latents(without, 0)
    assert main.latents == (0, 1)
    assert main.f1 == pytest.approx(2 * 27 / (27 + 30))


def one_word(value: list[float], cosine: list[float], main: tuple[int, ...], projection: float = 1.0) -> Absorbed:
    return absorbed(np.array([projection]), np.array([value]), np.array(cosine), main)


def test_each_condition_of_absorption_can_fail_alone() -> None:
    whole = one_word([0.0, 1.0], [1.0, 0.5], (0,))
    assert whole.full_W.all()
    assert whole.fraction_W == pytest.approx(1)
    assert not one_word([0.1, 1.0], [1.0, 0.5], (0,)).full_W.any(), "its own latent fires"
    assert not one_word([0.0, 20.0], [1.0, 0.024], (0,)).full_W.any(), "the other is not aligned with the probe"
    assert not one_word([0.0, 0.7], [1.0, 0.5], (0,)).full_W.any(), "the other carries too little"
    assert not one_word([0.0, 1.0], [1.0, 0.5], (0,), projection=-1.0).full_W.any(), "the letter is not there"
    assert not one_word([0.0, 1.0, 30.0], [1.0, 0.5, 0.02], (0,)).full_W.any(), "the strongest is another one"


def test_what_is_absorbed_in_part_is_the_others_share() -> None:
    shared = one_word([0.5, 0.25, 0.25, 0.01], [1.0, 1.0, 1.0, 1.0], (0,))
    assert shared.fraction_W == pytest.approx(0.5), "three absorbers carry 0.51, of which 0.5 was missing"
    assert one_word([1.0, 1.0], [1.0, 1.0], (0,)).fraction_W == pytest.approx(0), "nothing is missing"
    assert one_word([0.8, 0.3], [1.0, 1.0], (0,)).fraction_W == pytest.approx(0), "too little is carried"


def test_probes_know_letters_of_words_they_never_saw() -> None:
    made = world(0)
    says_WL = made.probes.says(made.tested.y_WE)
    assert (says_WL[:, :KINDS].argmax(1) == made.tested.letter_W).all()
    assert not says_WL[:, KINDS:].any()
    assert made.probes.words_L[:KINDS].tolist() == [6 * WORDS] * KINDS
    assert len(made.probes.words_L) == len(LETTERS)
