"""Matching finds what was planted, and little else."""

from collections.abc import Collection

import numpy as np
import pytest
import torch

from saeops.drift.matching.calibrate import Reference, permuted_null, seed_reference
from saeops.drift.matching.config import MatchConfig
from saeops.drift.matching.kinds import explained
from saeops.drift.matching.match import Matching, Seeds, match
from saeops.drift.matching.metrics import BESIDE_SEEDS, MATCHING
from saeops.drift.matching.schema import MatchTable, match_frame
from saeops.drift.matching.scores import Likeness, Side
from saeops.errors import NotComparable
from saeops.metrics import measure_all
from saeops.sae.codes import Codes
from saeops.stats import Bootstrap, wilson
from saeops.tables import check_table
from tests.planted_drift import PlantedDrift, plant_drift

CONFIG = MatchConfig(null_latents=200)


def side(W_dec: torch.Tensor, codes: Codes | None = None) -> Side:
    return Side.of(W_dec, codes, np.ones(len(W_dec), dtype=bool))


def matched(world: PlantedDrift, config: MatchConfig = CONFIG) -> Matching:
    return match(side(world.first, world.first_codes), side(world.second, world.second_codes), config, seed=0)


def precision_and_recall(found: Collection[object], truth: Collection[object]) -> tuple[float, float]:
    both = len(set(found) & set(truth))
    return both / max(len(found), 1), both / max(len(truth), 1)


@pytest.mark.parametrize(("tokens", "turn"), [(0, 10), (0, 40), (2000, 25)])
def test_planted_drift_is_found_again(tokens: int, turn: float) -> None:
    world = plant_drift(
        latents=600, width=96, split=40, merged=40, killed=60, added=60, turn_degrees=turn, tokens=tokens
    )
    found = matched(world)
    kinds = found.kinds
    pairs = [(int(f), int(found.found.column_F[f])) for f in found.row_P if kinds.first_F[f] == "matched"]
    figures = {
        "matched": precision_and_recall(pairs, world.partner.items()),
        "split": precision_and_recall(
            [(group.whole, tuple(sorted(group.parts))) for group in kinds.splits],
            [(whole, tuple(sorted(parts))) for whole, parts in world.splits.items()],
        ),
        "merged": precision_and_recall(
            [(group.whole, tuple(sorted(group.parts))) for group in kinds.merges],
            [(whole, tuple(sorted(parts))) for whole, parts in world.merges.items()],
        ),
        "vanished": precision_and_recall(np.flatnonzero(kinds.first_F == "vanished").tolist(), world.vanished),
        "new": precision_and_recall(np.flatnonzero(kinds.second_G == "new").tolist(), world.new),
    }
    assert min(figures["matched"]) == 1
    assert min(min(both) for both in figures.values()) >= 0.95, figures
    assert found.found.gap == 0


def test_two_dictionaries_that_share_nothing_hardly_match() -> None:
    world = plant_drift(latents=500, width=96, killed=500, added=500)
    found = matched(world)
    assert found.count("matched") == 0
    assert found.count("split") + found.count("merged") <= 5
    beyond = measure_all(MATCHING, found, Bootstrap(200, 0))["match_beyond_null"]
    assert beyond.low is not None
    assert beyond.low < 0.5 + 0.1


def test_a_dictionary_beside_one_as_far_as_another_seed_is_as_alike_as_seeds_are() -> None:
    one = plant_drift(latents=300, width=64, turn_degrees=30, seed=1)
    again = plant_drift(latents=300, width=64, turn_degrees=30, seed=1)
    near = plant_drift(latents=300, width=64, turn_degrees=5, seed=1)
    seeds = [Seeds(side(one.first), side(one.second))]
    figures = []
    for world in (again, near):
        found = match(side(world.first), side(world.second), CONFIG, seed=0, seeds=seeds)
        figures.append(measure_all(BESIDE_SEEDS, found, Bootstrap(200, 0))["match_beside_seeds"].point)
    assert figures[0] == pytest.approx(0.5, abs=0.01)
    assert figures[1] > 0.95


def test_scores_are_cosine_and_pearson_correlation() -> None:
    world = plant_drift(latents=30, width=16, tokens=400, density=0.2)
    likeness = Likeness(side(world.first, world.first_codes), side(world.second, world.second_codes), 0.5)
    assert world.first_codes is not None
    assert world.second_codes is not None
    dense = [codes.dense().double().numpy() for codes in (world.first_codes, world.second_codes)]
    expected = np.corrcoef(dense[0].T, dense[1].T)[:30, 30:]
    cosine = (world.first @ world.second.T).numpy()
    block = likeness.block(torch.arange(30)).numpy()
    assert np.allclose(block, (cosine + expected) / 2, atol=1e-5)
    rows, columns = np.array([0, 7]), np.array([3, 2])
    pairs = likeness.pairs(rows, columns)
    assert pairs.correlation_P is not None
    assert np.allclose((pairs.cosine_P + pairs.correlation_P) / 2, block[rows, columns], atol=1e-5)


def test_silent_latents_correlate_with_nobody_and_are_compared_by_direction_among_themselves() -> None:
    W_dec = torch.eye(3)
    fires = Codes.from_dense(torch.tensor([[1.0, 0, 0], [0, 2.0, 0], [3.0, 0, 0]]))
    likeness = Likeness(side(W_dec, fires), side(W_dec, fires), 0.5)
    block = likeness.block(torch.arange(3))
    assert block[2, 2] == 1
    assert torch.allclose(block[2, :2], torch.zeros(2))
    assert torch.allclose(block.diagonal(), torch.ones(3), atol=1e-6)


def test_dead_latents_take_no_part() -> None:
    world = plant_drift(latents=40, width=32)
    living = np.arange(40) % 4 > 0
    found = match(Side.of(world.first, None, living), side(world.second), CONFIG, seed=0)
    frame = match_frame(found)
    assert set(frame.loc[frame["side"] == "A", "latent"]) == set(np.flatnonzero(living))
    assert (frame[(frame["side"] == "B") & (frame["kind"] == "new")].shape[0]) == 10


def test_the_permuted_null_keeps_what_all_latents_share() -> None:
    """A common direction makes strangers alike, and the null must know that."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(64, generator=generator) * 2
    first, second = (torch.randn(400, 64, generator=generator) + common for _ in range(2))
    null = permuted_null(side(first), side(second), CONFIG, seed=0)
    strangers = Likeness(side(first), side(second), 0.5).block(torch.arange(400)).max(dim=1).values
    assert null.quantile(0.5) == pytest.approx(float(strangers.median()), abs=0.03)
    assert null.quantile(0.5) > 0.7


def test_shares_are_wilsons_intervals() -> None:
    reference = Reference(np.sort(np.random.default_rng(0).normal(size=50)))
    scores = np.array([-9.0, 0.0, 9.0])
    at_least, at_most = reference.at_least(scores), reference.at_most(scores)
    for place in range(3):
        hits = int((reference.score_N >= scores[place]).sum())
        expected = wilson(hits, 50)
        assert at_least.point_P[place] == expected.point
        assert at_least.low_P[place] == pytest.approx(expected.low)
        assert at_least.high_P[place] == pytest.approx(expected.high)
    assert np.allclose(at_least.point_P + at_most.point_P, 1)


def test_another_seeds_reference_counts_latents_without_a_partner() -> None:
    world = plant_drift(latents=60, width=48, killed=20)
    config = MatchConfig(least_score=0.6, part=0.6)
    reference = seed_reference(side(world.first), side(world.second), config)
    assert len(reference) == 60
    assert (reference.score_N == -1).sum() == 20


def test_opposite_parts_make_nothing_up() -> None:
    """Activations are not negative, so −d does not make up d."""
    direction = np.array([1.0, 0, 0])
    assert explained(direction, np.array([[-1.0, 0, 0], [0, 1.0, 0]])) == pytest.approx(0)
    assert explained(direction, np.array([[0.8, 0.6, 0], [0.8, -0.6, 0]])) == pytest.approx(1)


def test_the_table_fits_its_schema_and_names_latents_not_places() -> None:
    world = plant_drift(latents=120, width=64, split=10, merged=10, killed=20, added=10, tokens=2000)
    living = np.ones(len(world.first), dtype=bool)
    living[min(world.vanished)] = False
    codes = world.first_codes
    assert codes is not None
    found = match(Side.of(world.first, codes, living), side(world.second, world.second_codes), CONFIG, seed=0)
    frame = check_table(match_frame(found), MatchTable)
    ours = frame[frame["side"] == "A"].set_index("latent")
    assert {int(a): int(b) for a, b in ours.loc[ours["kind"] == "matched", "partner"].items()} == world.partner
    wholes = ours[ours["parts"].map(len) > 0]
    assert {int(a): tuple(sorted(parts)) for a, parts in wholes["parts"].items()} == {
        whole: tuple(sorted(parts)) for whole, parts in world.splits.items()
    }
    theirs = frame[frame["side"] == "B"].set_index("latent")
    assert {int(b) for b in theirs.index[theirs["whole"].notna()]} == {b for p in world.splits.values() for b in p}


def test_dictionaries_of_other_widths_are_refused_and_so_are_dead_ones() -> None:
    with pytest.raises(NotComparable, match="width 8"):
        match(side(torch.eye(8)), side(torch.eye(9)), CONFIG, seed=0)
    with pytest.raises(NotComparable, match="B has no living latent"):
        match(side(torch.eye(8)), Side.of(torch.eye(8), None, np.zeros(8, dtype=bool)), CONFIG, seed=0)
