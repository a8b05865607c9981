"""The parts of the benchmarks that need no peer installed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.contender import fvu
from benchmarks.environment import absent, pins
from benchmarks.losses import kept_or_made, summarise, verdicts
from benchmarks.machine import command
from benchmarks.racing import Sample, race, ratio, timed, timing
from benchmarks.recipe import Recipe, contenders
from benchmarks.report import page
from benchmarks.same import common_weights, oracle
from benchmarks.scaling import Point, draw, fit, law
from benchmarks.tables import catalog_table, loss_table
from tests.planted import Planted, plant_hierarchy, plant_pairs, plant_zipf


def samples(*pairs: tuple[float, float]) -> list[Sample]:
    return [Sample(seconds, foreign) for seconds, foreign in pairs]


def test_samples_in_which_others_were_busy_do_not_move_the_median() -> None:
    found = timing(samples((1.0, 0.0), (9.0, 0.5), (1.2, 0.01), (1.1, 0.02)), tolerance=0.04)
    assert (found.median, found.low, found.high, found.clean, found.quiet) == (1.1, 1.0, 1.2, 3, True)


def test_a_machine_that_was_never_quiet_is_said_so_and_the_calmest_samples_stand_in() -> None:
    found = timing(samples((2.0, 0.3), (5.0, 0.9), (3.0, 0.2)), tolerance=0.04)
    assert (found.median, found.clean, found.quiet) == (2.5, 0, False)


def test_ratios_pair_rounds_so_that_drift_of_the_machine_cancels() -> None:
    ours = samples((1.0, 0), (2.0, 0), (4.0, 0))
    theirs = samples((3.0, 0), (6.0, 0), (12.0, 0))
    found = ratio(ours, theirs, tolerance=0.04)
    assert found is not None
    assert (found.median, found.low, found.high, found.rounds) == (3.0, 3.0, 3.0, 3)


def test_a_round_counts_for_a_ratio_only_where_both_were_clean() -> None:
    ours = samples((1.0, 0), (1.0, 0.5), (1.0, 0))
    theirs = samples((2.0, 0), (9.0, 0), (9.0, 0.5))
    found = ratio(ours, theirs, tolerance=0.04)
    assert found is not None
    assert (found.median, found.rounds) == (2.0, 1)
    assert ratio(ours[1:], theirs[1:], tolerance=0.04) is None


def test_a_race_takes_turns_until_everybody_has_enough_clean_samples() -> None:
    order: list[str] = []
    dirty = iter([True, False, False])

    def turn(name: str) -> Sample:
        order.append(name)
        busy = name == "a" and len(order) > 4 and next(dirty, False)
        return Sample(1.0, 0.5 if busy else 0.0)

    found = race({name: lambda _, name=name: turn(name) for name in "ab"}, rounds=2, most_rounds=9)
    # Two turns each to warm up and to learn how long a step takes.
    assert order == [*"aabb", *"ababab"]
    assert [sample.foreign for sample in found["a"]] == [0.5, 0.0, 0.0]
    assert len(found["a"]) == len(found["b"])


def test_a_race_ends_on_a_machine_that_is_never_quiet() -> None:
    found = race({"a": lambda _: Sample(1.0, 1.0)}, rounds=2, most_rounds=4)
    assert len(found["a"]) == 4


def test_a_sample_is_the_time_of_one_call_and_foreign_work_a_share() -> None:
    calls: list[None] = []
    found = timed(lambda: calls.append(None), 5)
    assert len(calls) == 5
    assert found.seconds > 0
    assert found.foreign >= 0


def test_a_finished_run_is_kept_and_another_seed_is_made(tmp_path: Path) -> None:
    made: list[int] = []

    def key(seed: int) -> dict[str, Any]:
        return {"variant": "topk", "label": "saelens@lr=0.001", "seed": seed}

    def make() -> dict[str, Any]:
        made.append(len(made))
        return {"fvu": float(len(made))}

    first = kept_or_made(tmp_path, key(0), make)
    assert kept_or_made(tmp_path, key(0), make) == first
    assert kept_or_made(tmp_path, key(1), make)["fvu"] == 2.0
    assert len(made) == 2


def test_a_run_of_other_settings_is_not_taken_for_this_one(tmp_path: Path) -> None:
    key = {"variant": "topk", "label": "ours", "seed": 0}
    kept_or_made(tmp_path, {**key, "problem": {"batch": 64}}, lambda: {"fvu": 1.0})
    assert kept_or_made(tmp_path, {**key, "problem": {"batch": 128}}, lambda: {"fvu": 2.0})["fvu"] == 2.0


def results(label: str, *fvus: float) -> list[dict[str, Any]]:
    rest = dict.fromkeys(("train_fvu", "l0", "silent", "seconds", "fvu_training_path", "l0_training_path"), 0.0)
    return [
        {"key": {"variant": "topk", "label": label}, "version": "1", "settings": {}, "fvu": value, **rest}
        for value in fvus
    ]


@pytest.mark.parametrize(("ours", "place"), [(0.17, "below"), (0.19, "within"), (0.21, "above")])
def test_our_mean_is_placed_beside_the_seeds_of_the_peer_with_the_lowest_mean(ours: float, place: str) -> None:
    rows = summarise(
        [*results("ours", ours), *results("saelens", 0.18, 0.19, 0.2), *results("sparsify", 0.1, 0.5)]
    )
    (found,) = verdicts(rows)
    assert (found["best_peer"], found["place"]) == ("saelens", place)
    assert "0.1900 (0.1800–0.2000)" in loss_table(rows, [found])


def test_a_recipe_reads_back_from_its_label() -> None:
    recipe = Recipe.parse("saelens@normalise=true,lr=1e-3")
    assert (recipe.lr, recipe.normalise, recipe.decay) == (1e-3, True, None)
    assert Recipe.parse(recipe.label) == recipe
    assert Recipe.parse("ours").label == "ours"


def test_recipes_of_unknown_libraries_or_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="no library"):
        Recipe.parse("sealens")
    with pytest.raises(ValueError, match="learning"):
        Recipe.parse("saelens@learning=1")


def test_a_library_races_only_the_variants_it_trains() -> None:
    recipes = [Recipe.parse("saelens"), Recipe.parse("sparsify")]
    assert [each.library for each in contenders("gated", recipes)] == ["saelens"]


def test_only_versions_that_differ_are_installed() -> None:
    wanted = pins("# made by hand\ntorch==2.13.0\nsae_lens==6.54.12  # pinned\nnatsort==8.4.0\n")
    assert absent(wanted, {"torch": "2.13.0+cpu", "sae-lens": "6.53.0"}) == ["sae-lens==6.54.12", "natsort==8.4.0"]


@pytest.mark.parametrize("variant", ["topk", "batch_topk", "matryoshka", "jumprelu", "relu_l1", "gated"])
def test_the_common_weights_fire_about_k_latents_a_token_in_every_variant(variant: str) -> None:
    x_TD = torch.randn(512, 24, generator=torch.Generator().manual_seed(1))
    weights = common_weights(x_TD, d_sae=96, k=6)
    reading = oracle(variant, weights, x_TD, k=6)
    assert reading.l0 == pytest.approx(6, rel=0.05)
    assert 0 < fvu(x_TD, reading.x_hat_TD) < 1.5


def test_fvu_of_the_mean_is_one() -> None:
    x_TD = torch.randn(100, 8, generator=torch.Generator().manual_seed(1)) + 4
    assert fvu(x_TD, x_TD.mean(0).expand_as(x_TD)) == pytest.approx(1)
    assert fvu(x_TD, x_TD) == 0


def fires(planted: Planted) -> torch.Tensor:
    """Which planted features each token holds: more dimensions than features, so that they can be read off."""
    centred_TD = planted.x - planted.x.mean(0)
    coordinates_TF = torch.linalg.lstsq(planted.directions.t(), centred_TD.t()).solution.t()
    return coordinates_TF - coordinates_TF.amin(0) > 1.0


def test_zipf_features_fire_as_often_as_their_rank_says() -> None:
    rate_F = fires(plant_zipf(n_features=32, d_model=64, tokens=20_000, active=4)).float().mean(0)
    assert float(rate_F.sum()) == pytest.approx(4, rel=0.05)
    assert float(rate_F[3] / rate_F[15]) == pytest.approx(4, rel=0.15)


def test_paired_features_fire_together_and_equally_often() -> None:
    fires_TF = fires(plant_pairs(n_features=32, d_model=64, tokens=20_000, active=4))
    first_TP, second_TP = fires_TF[:, 0::2], fires_TF[:, 1::2]
    assert float((first_TP & second_TP).sum() / first_TP.sum()) == pytest.approx(0.8, abs=0.02)
    assert float(second_TP.float().mean()) == pytest.approx(4 / 32, rel=0.05)


def test_children_fire_only_where_their_parent_does() -> None:
    fires_TF = fires(plant_hierarchy(n_features=32, d_model=64, tokens=20_000, active=4))
    parent_TP1, child_TPC = fires_TF.view(-1, 8, 4).split([1, 3], dim=2)
    assert not (child_TPC & ~parent_TP1).any()
    assert float(child_TPC.any(2).sum() / parent_TP1.sum()) == pytest.approx(0.8, abs=0.02)
    assert float(fires_TF.sum(1).float().mean()) == pytest.approx(4, rel=0.05)


def points(values: tuple[float, ...], *, noise: float) -> list[Point]:
    generator = np.random.default_rng(3)
    return [
        Point(size, tokens, seed, float(law(np.array([[size], [tokens]]), *values)[0] * (1 + noise * draw)))
        for size in (1000, 2000, 4000, 8000)
        for tokens in (125_000, 250_000, 500_000, 1_000_000)
        for seed, draw in enumerate(generator.standard_normal(2))
    ]


def test_a_scaling_law_is_found_again_from_its_points() -> None:
    fitted = fit(points((0.1, 0.12, 0.5, 0.05, 0.4), noise=0.0), draws=2)
    assert fitted.values == pytest.approx({"c": 0.1, "a": 0.12, "alpha": 0.5, "b": 0.05, "beta": 0.4}, rel=0.02)
    assert fitted.residual < 1e-4


def test_noisy_runs_widen_the_intervals_round_the_truth(tmp_path: Path) -> None:
    truth = (0.1, 0.12, 0.5, 0.05, 0.4)
    noisy = points(truth, noise=0.005)
    fitted = fit(noisy, draws=60)
    low, high = fitted.intervals["alpha"]
    assert low < 0.5 < high
    draw(noisy, fitted).savefig(tmp_path / "scaling.png")


def test_two_sizes_are_too_few_for_a_law() -> None:
    with pytest.raises(ValueError, match="three sizes"):
        fit([point for point in points((0.1, 0.1, 0.5, 0.1, 0.5), noise=0) if point.d_sae < 3000])


def test_a_command_is_shown_without_the_paths_of_one_machine() -> None:
    shown = command(
        "benchmarks/training.py", ["race", "--activations", "/somewhere/artifacts/activations", "--k", "32"]
    )
    assert shown == "python benchmarks/training.py race --activations artifacts/activations --k 32"


def test_a_page_names_the_command_and_the_machine_of_each_result() -> None:
    machine = dict.fromkeys(
        ("processor", "cores", "threads", "instructions", "memory_gb", "torch", "python"), "x1"
    )
    rows = summarise([*results("ours", 0.2), *results("saelens", 0.1)])
    problem = {"d_model": 8, "d_sae": 64, "k": 4, "batch": 16}
    result = {"kind": "losses", "command": "python it", "machine": machine, "problem": problem, "rows": rows}
    text = page([{**result, "trained_tokens": 160, "tokens": "some", "verdicts": verdicts(rows)}])
    assert "python it" in text
    assert "lies above every seed of the best peer, saelens" in text


def test_the_catalogs_cost_counts_what_is_made_once_at_the_end() -> None:
    row = {"sae": "F = 64: topk", "d_sae": 64, "k": 4, "tokens": 1000, "alone_s": 9.0, "with_catalog_s": 9.5}
    row |= {"ratio": {"median": 0.95, "low": 0.94, "high": 0.96, "rounds": 5}, "finishing_s": 0.5}
    text = catalog_table([row | {"writing_s": 1.0, "contexts": 30, "kept_bytes": 2_000_000, "foreign": 0.1}])
    assert "| 0.950× (0.940–0.960) | 100 | 0.900× |" in text
