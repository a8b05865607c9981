"""The training room: the traps, one test each, then schedule, normalisation and the loop's refusals."""

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from saeops.errors import NonFinite
from saeops.sae.build import build
from saeops.sae.topk import TopKSae
from saeops.sae.trainable import Outcome, Shape, TrainableSae
from saeops.sae.variants import BatchTopK, ReluL1, TopK, Variant
from saeops.training.adam import BETAS, EPS
from saeops.training.checkpoint import CheckpointFolder
from saeops.training.config import TrainingConfig
from saeops.training.curve import CurveTable, curve_frame, loss_curve
from saeops.training.dead import SilentTokens
from saeops.training.loop import Batches, StepDone, train
from saeops.training.memory import bytes_needed
from saeops.training.normalise import Normalisation
from saeops.training.pairs import Pair
from saeops.training.schedule import Schedule
from saeops.training.state import TrainState
from tests.planted import fresh, plant, short_config
from tests.variants import VARIANTS

DATA = plant(n_features=20, d_model=16, tokens=640, active=3)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run_all(
    state: TrainState, folder: Path, *, config: TrainingConfig, batches: Batches | None = None
) -> list[StepDone]:
    batches = batches or DATA.batches(config.batch_size)
    return list(
        train(state, batches, config=config, checkpoints=CheckpointFolder(folder, keep=config.keep_checkpoints))
    )


def outcome_of(sae: TrainableSae, x_TD: Tensor, *, dead: Tensor, progress: float = 0.5) -> Outcome:
    return sae.outcome(x_TD, x_TD, dead=dead, progress=progress)


# ── traps ───────────────────────────────────────────────────────────────────


def topk_sae(*, aux_coefficient: float = 1 / 32) -> TopKSae:
    variant = TopK(k=3, aux_k=4, aux_coefficient=aux_coefficient)
    sae = build(variant, Shape(16, 40, 16), generator=torch.Generator().manual_seed(0))
    assert isinstance(sae, TopKSae)
    return sae


def test_auxk_reaches_a_dead_encoder_row_even_where_it_is_negative_on_every_token() -> None:
    sae = topk_sae()
    dead = torch.zeros(40, dtype=torch.bool).index_fill(0, torch.tensor([7, 8]), True)
    with torch.no_grad():
        sae.b_enc[dead] = -1000.0
    outcome_of(sae, draw(1, 64, 16), dead=dead).loss.backward()
    assert sae.W_enc_FD.grad is not None
    assert bool((sae.W_enc_FD.grad[dead].norm(dim=1) > 0).all())


def test_auxk_moves_nothing_but_dead_rows() -> None:
    dead = torch.arange(40) < 10
    gradients = []
    for coefficient in (0.0, 5.0):
        sae = topk_sae(aux_coefficient=coefficient)
        with torch.no_grad():
            sae.b_enc[dead] = -1.0
        outcome_of(sae, draw(1, 64, 16), dead=dead).loss.backward()
        gradients.append({name: p.grad for name, p in sae.named_parameters() if p.grad is not None})
    without, with_aux = gradients
    for name in ("W_enc_FD", "b_enc", "W_dec_FE"):
        torch.testing.assert_close(with_aux[name][~dead], without[name][~dead])
        assert not torch.equal(with_aux[name][dead], without[name][dead]), name
    torch.testing.assert_close(with_aux["b_dec"], without["b_dec"])


def test_auxk_brings_dead_latents_back(tmp_path: Path) -> None:
    data = plant(n_features=256, d_model=32, tokens=8192, active=6)
    config = short_config(tokens=200 * 512, batch_size=512, dead_after_tokens=5_000, log_every_steps=200)
    left = {}
    for coefficient in (0.0, 1 / 32):
        state = fresh(TopK(k=6, aux_coefficient=coefficient), data, d_sae=256)
        with torch.no_grad():
            state.sae.b_enc[:128] = -2.0
        checkpoints = CheckpointFolder(tmp_path / str(coefficient), keep=1)
        steps = train(
            state,
            data.batches(512),
            config=config.model_copy(update={"checkpoint_every_steps": 200}),
            checkpoints=checkpoints,
        )
        for _ in steps:
            pass
        left[coefficient] = state.curve[-1].dead
    assert left[0.0] >= 5
    assert left[1 / 32] <= 1


def test_auxk_of_a_residual_without_variance_is_finite() -> None:
    sae = topk_sae()
    outcome = outcome_of(sae, draw(1, 1, 16), dead=torch.ones(40, dtype=torch.bool))
    assert bool(outcome.loss.isfinite())


def test_death_is_counted_in_tokens_not_in_steps() -> None:
    fired = torch.tensor([True, False])
    small, large = (SilentTokens(torch.zeros(2, dtype=torch.int64)) for _ in range(2))
    for _ in range(8):
        small.see(fired, tokens=100)
    large.see(fired, tokens=800)
    for silent in (small, large):
        assert silent.dead(after_tokens=800).tolist() == [False, True]
        assert silent.dead(after_tokens=801).tolist() == [False, False]


def test_a_latent_that_fires_again_is_alive_at_once() -> None:
    silent = SilentTokens(torch.tensor([5000, 5000]))
    silent.see(torch.tensor([True, False]), tokens=10)
    assert silent.dead(after_tokens=5000).tolist() == [False, True]


def test_the_decoder_gradient_loses_its_parallel_part_before_the_step_and_rows_their_length_after() -> None:
    state = fresh(TopK(k=3), DATA, d_sae=40)
    pair = state.normalisation.apply(Pair.same(DATA.x[:64]))
    plain = {name: parameter.detach().clone() for name, parameter in state.sae.named_parameters()}
    reference = torch.optim.Adam(plain.values(), lr=0.05, betas=BETAS, eps=EPS)
    for _ in range(3):
        outcome_of(state.sae, pair.x_TD, dead=torch.zeros(40, dtype=torch.bool)).loss.backward()
        state.sae.learn_centre()
        gradients = {name: p.grad.clone() for name, p in state.sae.named_parameters() if p.grad is not None}
        row, gradient = plain["W_dec_FE"], gradients["W_dec_FE"]
        gradients["W_dec_FE"] = gradient - (gradient * row).sum(1, keepdim=True) * row
        grad_norm = state.optimiser.grad_norm()
        assert grad_norm == pytest.approx(float(torch.cat([g.flatten() for g in gradients.values()]).norm()))
        for name, parameter in plain.items():
            parameter.grad = gradients[name] * min(1.0, 0.01 / grad_norm)
        reference.step()
        row.div_(row.norm(dim=1, keepdim=True))
        state.optimiser.step(lr=0.05, grad_norm=grad_norm, clip=0.01)
        state.optimiser.clear()
        for name, parameter in state.sae.named_parameters():
            torch.testing.assert_close(parameter.detach(), plain[name], atol=2e-4, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.variant)
def test_master_weights_and_moments_stay_fp32_on_half_precision_data(variant: Variant, tmp_path: Path) -> None:
    config = short_config()
    ten = itertools.islice(DATA.batches(64)(0), 10)
    half = (Pair.same(pair.x_TD.half()) for pair in itertools.cycle(ten))
    state = fresh(variant, DATA, d_sae=40)
    run_all(state, tmp_path, config=config, batches=lambda _: half)
    assert {parameter.dtype for parameter in state.sae.parameters()} == {torch.float32}
    moments = state.optimiser.moments.values()
    assert {t.dtype for m in moments for t in (m.first, m.second)} == {torch.float32}


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.variant)
def test_bfloat16_products_leave_weights_moments_gradients_and_losses_in_fp32(
    variant: Variant, tmp_path: Path
) -> None:
    curves = {}
    for precision in ("float32", "bfloat16"):
        config = short_config(precision=precision, dead_after_tokens=64)
        state = fresh(variant, DATA, d_sae=160)
        run_all(state, tmp_path / precision, config=config)
        curves[precision] = torch.tensor([[point.loss, point.mse] for point in state.curve])
    named = state.sae.state_dict() | {
        f"{n}.{m}": t for n, m in state.optimiser.moments.items() for t in vars(m).values()
    }
    assert {tensor.dtype for tensor in named.values()} == {torch.float32}
    # bfloat16 keeps 8 bits, which is 0.4 %; thirty steps may add a few of them up.
    torch.testing.assert_close(curves["bfloat16"], curves["float32"], rtol=0.03, atol=0)
    assert not torch.equal(curves["bfloat16"], curves["float32"])
    pair = state.normalisation.apply(Pair.same(DATA.x[:64]))
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        outcome = outcome_of(state.sae, pair.x_TD, dead=torch.arange(160) < 80)
    outcome.loss.backward()
    assert {outcome.loss.dtype, outcome.mse.dtype, outcome.aux.dtype} == {torch.float32}
    assert {p.grad.dtype for p in state.sae.parameters() if p.grad is not None} == {torch.float32}


def test_the_l1_penalty_grows_from_nothing() -> None:
    sae = build(
        ReluL1(l1_coefficient=4.0, l1_warmup_fraction=0.5),
        Shape(16, 40, 16),
        generator=torch.Generator().manual_seed(0),
    )
    dead = torch.zeros(40, dtype=torch.bool)
    weights = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        outcome = outcome_of(sae, draw(1, 64, 16), dead=dead, progress=progress)
        weights.append(float((outcome.loss.detach() - outcome.mse) / outcome.aux))
    assert weights == pytest.approx([0.0, 2.0, 4.0, 4.0], abs=1e-4)


# ── schedule, normalisation, memory ─────────────────────────────────────────


def test_the_learning_rate_rises_holds_and_falls_without_ever_being_zero() -> None:
    config = short_config(tokens=64 * 100, lr=1.0, warmup_fraction=0.1, decay_fraction=0.2)
    schedule = Schedule.of(config)
    rates = [schedule.lr(step) for step in range(schedule.steps)]
    assert rates[:10] == pytest.approx([0.1 * (n + 1) for n in range(10)])
    assert set(rates[10:80]) == {1.0}
    assert rates[-1] == pytest.approx(1 / 20)
    assert rates[80:] == sorted(rates[80:], reverse=True)


def test_without_warmup_and_decay_the_learning_rate_is_constant() -> None:
    schedule = Schedule.of(short_config(lr=2.0, warmup_fraction=0.0, decay_fraction=0.0))
    assert {schedule.lr(step) for step in range(schedule.steps)} == {2.0}


def test_a_last_part_of_a_batch_makes_one_more_step() -> None:
    assert Schedule.of(short_config(tokens=129)).steps == 3


def test_normalised_activations_have_mean_zero_and_squared_norm_d_model() -> None:
    x_TD = DATA.x * 1e3 + 1e5
    normal = Normalisation.estimate(x_TD).apply(x_TD)
    assert float(normal.mean(0).abs().max()) < 1e-3
    assert float(normal.square().sum(1).mean()) == pytest.approx(16, rel=1e-4)


@pytest.mark.parametrize(
    ("x", "message"), [(torch.full((4, 3), float("nan")), "NaN"), (torch.ones(4, 3), "all the same")]
)
def test_activations_that_cannot_be_normalised_are_refused(x: Tensor, message: str) -> None:
    with pytest.raises(NonFinite, match=message):
        Normalisation.estimate(x)


def test_memory_needed_covers_the_weights_and_grows_with_each_choice() -> None:
    config, topk = short_config(), TopK(k=3)
    base = bytes_needed(config, topk, d_model=64, d_sae=512)
    assert base > 4 * 4 * 2 * 64 * 512
    assert bytes_needed(config, topk, d_model=64, d_sae=1024) > base
    assert bytes_needed(short_config(batch_size=640), topk, d_model=64, d_sae=512) > base
    assert bytes_needed(short_config(buffer_tokens=10**6), topk, d_model=64, d_sae=512) > base
    assert bytes_needed(config, TopK(k=9), d_model=64, d_sae=512) > base


# ── the loop ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.variant)
def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(variant: Variant, tmp_path: Path) -> None:
    weights = []
    for number, seed in enumerate((1, 1, 2)):
        state = fresh(variant, DATA, d_sae=40, seed=seed)
        run_all(state, tmp_path / str(number), config=short_config())
        weights.append(state.sae.W_dec_FE.detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.variant)
def test_training_lowers_the_loss_and_logs_what_its_table_asks_for(variant: Variant, tmp_path: Path) -> None:
    state = fresh(variant, DATA, d_sae=40)
    steps = run_all(state, tmp_path, config=short_config(tokens=64 * 62))
    assert [done.step for done in steps] == list(range(1, 63))
    assert [point.step for point in state.curve] == [*range(5, 65, 5), 62][:13]
    assert state.curve[-1].explained_variance > state.curve[0].explained_variance + 0.2
    CurveTable.validate(curve_frame(state.curve))
    assert len(loss_curve(state.curve).axes) == 4
    assert {"loss", "mse", "explained_variance", "l0", "dead_latents", "dead_fraction", "lr"} <= state.curve[
        0
    ].metrics().keys()


def test_the_explained_variance_of_a_batch_is_the_one_defined(tmp_path: Path) -> None:
    state = fresh(TopK(k=3), DATA, d_sae=40)
    config = short_config(tokens=64 * 5)
    # The logged figures are those before the step's own update, so stop the updates.
    run_all(state, tmp_path, config=config.model_copy(update={"lr": 1e-30}))
    x_TD = state.normalisation.input.apply(DATA.x[256:320])
    with torch.no_grad():
        pre = x_TD @ state.sae.W_enc_FD.t() + state.sae.b_enc
        top = pre.topk(3, dim=1)
        f_TF = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
        error = x_TD - f_TF @ state.sae.W_dec_FE - state.sae.b_dec
        expected = 1 - error.square().sum() / (x_TD - x_TD.mean(0)).square().sum()
    assert state.curve[-1].explained_variance == pytest.approx(float(expected), abs=1e-5)


def test_nan_in_the_activations_is_named_as_such_with_its_step(tmp_path: Path) -> None:
    def poisoned(_: int) -> list[Pair]:
        return [*itertools.islice(DATA.batches(64)(0), 6), Pair.same(torch.full((64, 16), float("nan")))]

    with pytest.raises(NonFinite, match=r"activations at step 7 (.|\n)*saeops harvest"):
        run_all(fresh(TopK(k=3), DATA, d_sae=40), tmp_path, config=short_config(), batches=poisoned)
    assert CheckpointFolder(tmp_path, keep=3).newest().checkpoint is not None


def test_a_bad_value_in_one_row_is_named_with_where_that_row_comes_from(tmp_path: Path) -> None:
    def poisoned(_: int) -> list[Pair]:
        batches = list(itertools.islice(DATA.batches(64)(0), 6))
        bad = DATA.x[:64].clone()
        bad[17, 3] = float("inf")
        return [*batches, Pair.same(bad, origin=lambda row: f"document 5, position {row}")]

    with pytest.raises(NonFinite, match=r"activations at step 7 hold NaN or infinity \(document 5, position 17\)"):
        run_all(fresh(BatchTopK(k=3), DATA, d_sae=40), tmp_path, config=short_config(), batches=poisoned)


def test_large_activations_whose_sum_overflows_are_no_fault() -> None:
    Pair.same(torch.full((64, 16), 3e38)).check_finite("here")


def test_a_diverging_run_stops_with_its_step_and_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    config = short_config(lr=1e36, warmup_fraction=0.0, checkpoint_every_steps=1)
    with pytest.raises(NonFinite, match=r"loss at step \d+ is NaN(.|\n)*train.lr"):
        run_all(fresh(ReluL1(), DATA, d_sae=40), tmp_path, config=config)
    newest = CheckpointFolder(tmp_path, keep=3).newest()
    assert newest.checkpoint is not None
    assert newest.damaged == ()
