"""The random dictionary: of the SAE's form, and as good as random directions can be."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saeops.sae.canonical import Sae, SaeMeta
from saeops.sae.random_dictionary import random_dictionary

D, E, F, T = 12, 10, 48, 600


def tokens(seed: int, width: int = D) -> Tensor:
    """Correlated tokens off the origin."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(T, width, generator=generator) @ torch.randn(width, width, generator=generator)
    return mixed + 5 * torch.randn(width, generator=generator)


def sae_of(*, k: int | None, threshold: float | None = None, transcodes: bool = False) -> Sae:
    generator = torch.Generator().manual_seed(9)
    width = E if transcodes else D
    W_dec = torch.nn.functional.normalize(torch.randn(F, width, generator=generator), dim=1)
    meta = SaeMeta(
        variant="topk",
        site="blocks.0.resid_post",
        target_site="blocks.1.mlp_out" if transcodes else None,
        d_model=D,
        d_out=width,
        d_sae=F,
        k=k,
        apply_b_dec_to_input=not transcodes,
    )
    thresholds = None if threshold is None else torch.full((F,), threshold)
    W_enc = torch.randn(D, F, generator=generator) / D**0.5
    return Sae(W_enc, torch.zeros(F), W_dec, torch.zeros(width), thresholds, meta)


def target_of(x_TD: Tensor) -> Tensor:
    """What a transcoder is to foretell: partly linear in x."""
    generator = torch.Generator().manual_seed(4)
    linear = x_TD @ torch.randn(D, E, generator=generator)
    return linear + torch.relu(linear) + 3


def error(sae: Sae, x_TD: Tensor, y_TE: Tensor) -> float:
    return float((sae.reconstruct(x_TD) - y_TE).double().square().sum())


def times(sae: Sae, a: float) -> Sae:
    threshold = None if sae.threshold is None else sae.threshold * a
    return replace(sae, W_enc=sae.W_enc * a, b_enc=sae.b_enc * a, threshold=threshold)


beside = st.sampled_from([sae_of(k=4), sae_of(k=None, threshold=1.5), sae_of(k=None)])
seeds = st.integers(0, 30)


@given(beside, seeds)
def test_it_has_the_form_of_the_sae_and_random_unit_rows(sae: Sae, seed: int) -> None:
    x_TD = tokens(seed)
    null = random_dictionary(sae, x_TD, x_TD, seed=seed)
    assert null.meta == sae.meta.model_copy(update={"variant": "random_dictionary"})
    assert {name: t.shape for name, t in null.tensors().items() if name != "threshold"} == {
        name: t.shape for name, t in sae.tensors().items() if name != "threshold"
    }
    torch.testing.assert_close(null.W_dec.norm(dim=1), torch.ones(F))
    torch.testing.assert_close(null.W_enc / null.W_enc.norm(dim=0), null.W_dec.T)
    torch.testing.assert_close(null.b_dec, x_TD.mean(0), rtol=1e-5, atol=1e-5)
    # Directions that know nothing of the data stand at any angle to one another.
    cosines = (null.W_dec @ null.W_dec.T).fill_diagonal_(0)
    assert abs(float(cosines.sum() / (F * (F - 1)))) < 0.05


@given(beside, seeds)
def test_as_many_latents_fire_as_in_the_sae(sae: Sae, seed: int) -> None:
    x_TD = tokens(seed)
    null = random_dictionary(sae, x_TD, x_TD, seed=seed)
    l0 = float(null.encode(x_TD).l0().float().mean())
    if sae.k is not None:
        assert null.k == sae.k
        assert l0 == pytest.approx(sae.k)
    else:
        fires_at_most = float((null.pre(x_TD) > 0).sum(1).float().mean())
        expected = float(sae.encode(x_TD).l0().float().mean())
        assert l0 == pytest.approx(min(expected, fires_at_most), rel=0.01)


@settings(max_examples=25)
@given(beside, seeds, st.sampled_from([0.9, 0.99, 1.01, 1.1]))
def test_no_other_scale_explains_more(sae: Sae, seed: int, a: float) -> None:
    x_TD = tokens(seed)
    null = random_dictionary(sae, x_TD, x_TD, seed=seed)
    assert error(null, x_TD, x_TD) < error(times(null, a), x_TD, x_TD)
    assert error(null, x_TD, x_TD) < float((x_TD - x_TD.mean(0)).double().square().sum())


@pytest.mark.parametrize(("k", "threshold"), [(4, None), (None, 1.5)])
def test_a_transcoders_null_foretells_its_target_with_the_best_scale(
    k: int | None, threshold: float | None
) -> None:
    sae = sae_of(k=k, threshold=threshold, transcodes=True)
    x_TD = tokens(1)
    y_TE = target_of(x_TD)
    null = random_dictionary(sae, x_TD, y_TE, seed=3)
    assert null.meta.sites == sae.meta.sites
    assert not null.meta.apply_b_dec_to_input
    constant = float((y_TE - y_TE.mean(0)).double().square().sum())
    assert error(null, x_TD, y_TE) < 0.8 * constant
    for a in (0.95, 1.05):
        assert error(null, x_TD, y_TE) < error(times(null, a), x_TD, y_TE)
    shuffled = y_TE[torch.randperm(T, generator=torch.Generator().manual_seed(0))]
    unrelated = random_dictionary(sae, x_TD, shuffled, seed=3)
    assert error(unrelated, x_TD, shuffled) > 0.9 * constant, "it explains nothing where there is nothing to read"


def test_one_seed_gives_the_same_dictionary_and_another_another(tmp_path: Path) -> None:
    x_TD = tokens(0)
    one, again, other = (random_dictionary(sae_of(k=4), x_TD, x_TD, seed=s) for s in (1, 1, 2))
    one.save(tmp_path / "one")
    again.save(tmp_path / "again")
    assert (tmp_path / "one" / "sae.safetensors").read_bytes() == (
        tmp_path / "again" / "sae.safetensors"
    ).read_bytes()
    assert not torch.equal(one.W_dec, other.W_dec)
    assert Sae.load(tmp_path / "one").meta == one.meta


def test_constant_tokens_and_a_silent_sae_give_a_null_that_is_finite(tmp_path: Path) -> None:
    constant = torch.ones(T, D)
    for sae, x_TD in ((sae_of(k=4), constant), (sae_of(k=None, threshold=1e9), tokens(0))):
        null = random_dictionary(sae, x_TD, x_TD, seed=0)
        null.save(tmp_path)
        torch.testing.assert_close(null.reconstruct(x_TD), x_TD.mean(0).expand(T, -1))


def test_a_trained_dictionary_is_worth_more_than_a_random_one() -> None:
    """On tokens that are sparse sums of known directions, those directions beat random ones."""
    generator = torch.Generator().manual_seed(0)
    sae = sae_of(k=2)
    codes = torch.zeros(T, F)
    codes.scatter_(1, torch.randint(F, (T, 2), generator=generator), torch.rand(T, 2, generator=generator) + 1)
    x_TD = codes @ sae.W_dec
    own = replace(sae, W_enc=sae.W_dec.T.contiguous())
    null = random_dictionary(own, x_TD, x_TD, seed=1)
    assert error(own, x_TD, x_TD) < 0.7 * error(null, x_TD, x_TD)
