"""Edits of activations against a plain reference, one token at a time."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from saeops.interventions.hooks import (
    ablate,
    clamp,
    latent_activation,
    only_at,
    project_out,
    random_directions,
    steer,
)
from saeops.interventions.passes import token_kl
from saeops.sae.canonical import Sae, SaeMeta

D, F = 6, 10


def sae_of(seed: int, k: int | None) -> Sae:
    generator = torch.Generator().manual_seed(seed)
    W_dec = random_directions(F, D, generator=generator)
    W_enc = torch.randn(D, F, generator=generator)
    b_dec = torch.randn(D, generator=generator)
    threshold = None if k else torch.full((F,), 0.3)
    meta = SaeMeta(variant="topk" if k else "relu_l1", site="blocks.0.resid_post", d_model=D, d_sae=F, k=k)
    return Sae(W_enc, torch.zeros(F), W_dec, b_dec, threshold, meta)


def hidden(seed: int) -> Tensor:
    return torch.randn(2, 3, D, generator=torch.Generator().manual_seed(seed + 1))


def plain_activation(sae: Sae, x_D: Tensor, latent: int) -> float:
    """One token by the formula, with nothing batched or sparse."""
    pre_F = (x_D - sae.b_dec) @ sae.W_enc + sae.b_enc
    if sae.k is not None and latent not in pre_F.topk(sae.k).indices.tolist():
        return 0.0
    floor = 0.0 if sae.threshold is None else float(sae.threshold[latent])
    return float(pre_F[latent]) if pre_F[latent] > floor else 0.0


saes = st.builds(sae_of, st.integers(0, 50), st.sampled_from([None, 2, 4]))
latents = st.integers(0, F - 1)
seeds = st.integers(0, 50)


@given(saes, seeds, latents, st.floats(-5, 5))
def test_clamp_puts_the_target_in_the_place_of_the_latents_part(sae: Sae, seed: int, latent: int, target: float):
    h_BWD = hidden(seed)
    edited = clamp(sae, latent, target)(h_BWD, h_BWD)
    for b in range(2):
        for w in range(3):
            f = plain_activation(sae, h_BWD[b, w], latent)
            expected = h_BWD[b, w] + (target - f) * sae.W_dec[latent]
            torch.testing.assert_close(edited[b, w], expected, atol=1e-5, rtol=1e-5)


@given(saes, seeds, latents)
def test_ablation_takes_away_what_the_latent_adds_and_keeps_the_error(sae: Sae, seed: int, latent: int):
    h_BWD = hidden(seed)
    x_TD = h_BWD.reshape(-1, D)
    f_TF = sae.encode(x_TD).dense()
    error_TD = x_TD - (f_TF @ sae.W_dec + sae.b_dec)
    f_TF[:, latent] = 0
    expected = f_TF @ sae.W_dec + sae.b_dec + error_TD
    torch.testing.assert_close(ablate(sae, latent)(h_BWD, h_BWD).reshape(-1, D), expected, atol=1e-5, rtol=1e-5)


@given(saes, seeds, latents)
def test_ablation_changes_nothing_where_the_latent_is_silent(sae: Sae, seed: int, latent: int):
    h_BWD = hidden(seed)
    silent_BW = latent_activation(sae, h_BWD, latent) == 0
    assert torch.equal(ablate(sae, latent)(h_BWD, h_BWD)[silent_BW], h_BWD[silent_BW])


@given(saes, seeds, latents)
def test_the_random_control_of_an_ablation_moves_as_far_elsewhere(sae: Sae, seed: int, latent: int):
    h_BWD = hidden(seed)
    along_D = random_directions(1, D, generator=torch.Generator().manual_seed(seed))[0]
    own = (ablate(sae, latent)(h_BWD, h_BWD) - h_BWD).norm(dim=-1)
    control = (ablate(sae, latent, along=along_D)(h_BWD, h_BWD) - h_BWD).norm(dim=-1)
    torch.testing.assert_close(own, control, atol=1e-4, rtol=1e-4)


@given(seeds, st.floats(-9, 9))
def test_steering_adds_the_amount_along_the_direction(seed: int, amount: float):
    h_BWD = hidden(seed)
    direction_D = random_directions(1, D, generator=torch.Generator().manual_seed(seed))[0]
    moved = steer(direction_D, amount)(h_BWD, h_BWD) - h_BWD
    torch.testing.assert_close(moved, (amount * direction_D).expand_as(moved), atol=1e-5, rtol=1e-5)


@given(seeds, st.integers(1, 4))
def test_projecting_out_leaves_nothing_in_the_span_and_all_of_the_rest(seed: int, count: int):
    h_BWD = hidden(seed)
    directions_KD = random_directions(count, D, generator=torch.Generator().manual_seed(seed))
    once = project_out(directions_KD)(h_BWD, h_BWD)
    assert (once @ directions_KD.T).abs().max() < 1e-4
    torch.testing.assert_close(project_out(directions_KD)(once, once), once, atol=1e-5, rtol=1e-5)
    taken = (h_BWD - once).reshape(-1, D)
    in_span = torch.linalg.lstsq(directions_KD.T, taken.T).solution
    torch.testing.assert_close((directions_KD.T @ in_span).T, taken, atol=1e-3, rtol=1e-3)


@given(seeds, st.lists(st.booleans(), min_size=6, max_size=6), st.floats(1.0, 4.0))
def test_masked_positions_and_outliers_stay_bit_for_bit(seed: int, mask: list[bool], limit: float):
    h_BWD = hidden(seed)
    mask_BW = torch.tensor(mask).reshape(2, 3)
    edited = only_at(steer(torch.ones(D), 2.0), mask_BW, norm_limit=limit)(h_BWD, h_BWD)
    touched_BW = mask_BW & (h_BWD.norm(dim=-1) <= limit)
    assert torch.equal(edited[~touched_BW], h_BWD[~touched_BW])
    assert torch.equal(edited[touched_BW], h_BWD[touched_BW] + 2.0)


@given(st.integers(1, 40), st.integers(2, 64), seeds)
def test_random_directions_have_unit_norm(count: int, width: int, seed: int):
    drawn = random_directions(count, width, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(count))


@given(seeds)
def test_kl_is_zero_for_no_edit_and_never_negative(seed: int):
    clean = hidden(seed).log_softmax(-1)
    edited = hidden(seed + 7).log_softmax(-1)
    assert torch.equal(token_kl(clean, clean), torch.zeros(2, 3))
    plain = torch.nn.functional.kl_div(edited, clean, reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(token_kl(clean, edited), plain)
    assert (token_kl(clean, edited) >= -1e-6).all()
