"""BatchTopK's selection: exact, the same whatever was guessed, and defined at its edges."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from saeops.sae.batch_topk import DECAY, BatchSelection, BatchTopKSae
from saeops.sae.trainable import Shape
from saeops.sae.variants import BatchTopK, Matryoshka
from tests.draws import gaussian, perturbed, seeds


def brute_force(pre_TF: Tensor, k: int) -> list[tuple[int, int]]:
    """Token and latent of the k·T largest positive values, the first among equals."""
    best = pre_TF.flatten().argsort(descending=True, stable=True)[: k * len(pre_TF)].sort().values.tolist()
    pairs = [divmod(place, pre_TF.shape[1]) for place in best]
    return [pair for pair in pairs if pre_TF[pair] > 0]


def entries(selection: BatchSelection, x_TD: Tensor, W_FD: Tensor, b_F: Tensor, k: int) -> list[tuple[int, int]]:
    pattern = selection.largest(x_TD, W_FD, b_F, k).pattern
    return list(zip(pattern.row.tolist(), pattern.latent.tolist(), strict=True))


@given(
    seed=seeds,
    tokens=st.integers(1, 90),
    latents=st.integers(1, 40),
    k=st.integers(1, 50),
    ties=st.booleans(),
    shift=st.sampled_from([-9.0, 0.0, 2.0]),
)
def test_selection_is_exact_with_ties_few_positives_and_small_dictionaries(
    seed: int, tokens: int, latents: int, k: int, ties: bool, shift: float
) -> None:
    # Whole numbers are exact in any order of addition, so ties are ties.
    x_TD, W_FD = gaussian(seed, tokens, 3), gaussian(seed + 1, latents, 3)
    if ties:
        x_TD, W_FD = x_TD.round(), W_FD.round()
    b_F = torch.full((latents,), shift, dtype=torch.float64)
    expected = brute_force(x_TD @ W_FD.t() + b_F, k)
    assert entries(BatchSelection(), x_TD, W_FD, b_F, k) == expected


@given(seed=seeds, factor=st.sampled_from([1e-3, 0.4, 0.97, 1.0, 1.5, 1e3]))
def test_what_the_batch_before_was_like_changes_nothing(seed: int, factor: float) -> None:
    """So a resumed run, which has seen no batch before, keeps the bits."""
    x_TD, W_FD, b_F = gaussian(seed, 70, 4), gaussian(seed + 1, 30, 4), gaussian(seed + 2, 30)
    experienced = BatchSelection()
    experienced.largest(factor * gaussian(seed + 3, 70, 4), W_FD, b_F, 3)
    found, fresh = (one.largest(x_TD, W_FD, b_F, 3) for one in (experienced, BatchSelection()))
    assert torch.equal(found.pre, fresh.pre)
    assert torch.equal(found.pattern.latent, fresh.pattern.latent)
    assert torch.equal(found.pattern.offsets, fresh.pattern.offsets)


def test_a_batch_without_positive_values_selects_nothing_and_still_trains() -> None:
    for variant in (BatchTopK(k=2), Matryoshka(k=2)):
        sae = perturbed(variant, Shape(4, 20, 4), 1, bias=-100)
        x_TD = gaussian(2, 1, 4)
        outcome = sae.outcome(x_TD, x_TD, dead=torch.ones(20, dtype=torch.bool), progress=0.5)
        outcome.loss.backward()
        assert float(outcome.l0) == 0
        assert not outcome.fired.any()
        torch.testing.assert_close(outcome.mse.detach(), (x_TD - sae.b_dec.detach()).square().mean())
        # All latents are dead and none is positive: AuxK reaches every encoder row nevertheless.
        assert sae.W_enc_FD.grad is not None
        assert bool((sae.W_enc_FD.grad.norm(dim=1) > 0).sum() >= 2)


def test_the_threshold_is_the_running_mean_of_the_smallest_kept_value() -> None:
    sae = perturbed(BatchTopK(k=2), Shape(4, 20, 4), 1)
    assert isinstance(sae, BatchTopKSae)
    level = None
    for seed in range(5):
        x_TD = gaussian(seed, 30, 4)
        least = (x_TD @ sae.W_enc_FD.t() + sae.b_enc).flatten().topk(60).values.min().detach()
        level = least if level is None else DECAY * level + (1 - DECAY) * least
        sae.outcome(x_TD, x_TD, dead=torch.zeros(20, dtype=torch.bool), progress=0.5)
    threshold = sae.weights().threshold
    assert threshold is not None
    torch.testing.assert_close(threshold, level.expand(20))
