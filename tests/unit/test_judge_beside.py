"""What the judge stands a candidate beside: champion, nulls, slices; and what dry runs and budgets do."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from saeops.activations.policy import TokenPolicy
from saeops.activations.sites import Sites
from saeops.errors import ParamsInvalid
from saeops.params import validate_params
from saeops.promotion.evidence import (
    DIFFERENCES_AS_FIGURES,
    NULLS_AS_FIGURES,
    Basis,
    Evidence,
    Slice,
    gather,
)
from saeops.promotion.judge import judge
from saeops.promotion.policy import PromotePolicy
from saeops.promotion.verdict import GateResult, Verdict
from saeops.report.rows import NULLS
from saeops.review.outcome import ReviewOutcome
from saeops.stats import wilson
from tests.bundles import interval
from tests.report_fixture import write_fixture

REVIEWED = ReviewOutcome(10, 10, (), 10, 0, 0, wilson(10, 10))
DIRECTIONS = {
    "explained_variance": "higher",
    "delta_ce_nats": "lower",
    "label_confidence": "higher",
    "steering_effect_nats": "higher",
}
BASIS = Basis("m" * 64, TokenPolicy(), Sites("blocks.1.resid_post", "blocks.1.resid_post"))
EV = "explained_variance"


def evidence(bundle: str = "c", **more: object) -> Evidence:
    figures = {"metrics": {EV: interval(0.9)}, "review": REVIEWED} | more
    return Evidence(bundle * 64, **figures)


def ruled(
    candidate: Evidence, champion: Evidence | None, *gates: Mapping[str, object], **policy: object
) -> Verdict:
    return judge(candidate, champion, PromotePolicy(gates=gates, **policy), DIRECTIONS)


def only(verdict: Verdict) -> GateResult:
    """The one gate that params asked for; two on the review follow it."""
    assert len(verdict.gates) == 3
    return verdict.gates[0]


def documents(errors: np.ndarray) -> pd.DataFrame:
    """Documents of one length whose error differs wildly, as it does."""
    ones = np.ones(len(errors))
    columns = ("tokens", "values", "square", "cosine", "norm_out", "dot", "fired", "predictions", "spread")
    names = {"document": range(len(errors)), "sha256": [f"{i:064x}" for i in range(len(errors))]}
    return pd.DataFrame(names | dict.fromkeys(columns, ones) | {"error": errors})


HARD = np.random.default_rng(0).uniform(0.0, 0.6, 40)


# ── the champion ────────────────────────────────────────────────────────────


def test_pairing_shows_a_small_difference_that_both_intervals_hide():
    wide = {EV: interval(0.7, half=0.06)}
    champion = evidence("d", metrics=wide, documents=documents(HARD))
    gate = {"metric": EV, "not_worse_than_champion_by": 0.02}
    slightly_worse = HARD + np.random.default_rng(1).normal(0.005, 0.005, 40)
    paired = only(ruled(evidence(metrics=wide, documents=documents(slightly_worse)), champion, gate))
    assert paired.outcome == "pass"
    assert "champion 0.7, difference -0.00" in paired.reason
    assert "paired by document" in paired.reason
    assert paired.difference.n == 40
    unpaired = only(ruled(evidence(metrics=wide), champion, gate))
    assert unpaired.outcome == "inconclusive"
    assert "unpaired, since one of the bundles keeps no sums by document" in unpaired.reason
    much_worse = evidence(metrics=wide, documents=documents(HARD + 0.1))
    assert only(ruled(much_worse, champion, gate)).outcome == "fail"


def test_what_cannot_be_paired_says_why():
    gate = {"metric": EV, "not_worse_than_champion_by": 0.5}
    strangers = documents(HARD).assign(sha256=[f"{i:064x}" for i in range(1000, 1040)])
    here, there = evidence(documents=documents(HARD)), evidence("d", documents=strangers)
    assert "fewer than 8 documents are shared" in only(ruled(here, there, gate)).reason
    labels = {"label_confidence": interval(0.4)}
    gate = {"metric": "label_confidence", "not_worse_than_champion_by": 0.5}
    here, there = (evidence(name, metrics=labels, documents=documents(HARD)) for name in "cd")
    assert "it is no sum over documents" in only(ruled(here, there, gate)).reason


@pytest.mark.parametrize(
    ("basis", "said"),
    [
        (replace(BASIS, model="n" * 64), "on model nnnnnnnnnnnn"),
        (replace(BASIS, policy=TokenPolicy(skip_positions=3)), "harvest.policy differs"),
        (replace(BASIS, sites=Sites("blocks.1.resid_post", "blocks.2.resid_post")), "blocks.2"),
    ],
)
def test_figures_of_different_things_wait_for_a_person(basis: Basis, said: str):
    gate = {"metric": EV, "at_least": 0.5, "not_worse_than_champion_by": 0.5}
    verdict = ruled(evidence(basis=BASIS), evidence("d", basis=basis), gate)
    assert verdict.outcome == "inconclusive"
    assert said in verdict.gates[1].reason
    assert [gate.outcome for gate in verdict.gates[:2]] == ["pass", "inconclusive"]


def test_other_sites_leave_labels_comparable():
    labels = {"label_confidence": interval(0.4)}
    other = replace(BASIS, sites=Sites("blocks.1.resid_post", "blocks.2.resid_post"))
    sides = [evidence("c", metrics=labels, basis=BASIS), evidence("d", metrics=labels, basis=other)]
    gate = {"metric": "label_confidence", "not_worse_than_champion_by": 0.3}
    assert only(ruled(*sides, gate)).outcome == "pass"


# ── nulls ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("pca", "outcome"), [(0.5, "pass"), (0.78, "inconclusive"), (0.89, "fail")])
def test_a_figure_must_beat_its_null_by_the_bound(pca: float, outcome: str):
    nulls = {"pca": {EV: interval(pca, half=0.01)}}
    candidate = evidence(metrics={EV: interval(0.9, half=0.02)}, nulls=nulls)
    gate = only(ruled(candidate, None, {"metric": EV, "beats": {"pca": 0.1}}))
    assert gate.outcome == outcome
    assert gate.requirement == "explained_variance better than pca by at least 0.1"
    assert f"pca {pca:g}" in gate.reason


def test_where_lower_is_better_the_null_must_be_higher():
    candidate = evidence(metrics={"delta_ce_nats": interval(0.2)}, nulls={"pca": {"delta_ce_nats": interval(2.0)}})
    assert only(ruled(candidate, None, {"metric": "delta_ce_nats", "beats": {"pca": 1}})).outcome == "pass"
    assert only(ruled(candidate, None, {"metric": "delta_ce_nats", "beats": {"pca": 2}})).outcome == "fail"


def test_a_null_that_was_not_measured_fails_and_names_those_that_were():
    gate = only(ruled(evidence(nulls={"pca": {EV: interval(0.5)}}), None, {"metric": EV, "beats": {"pcq": 0}}))
    assert (gate.outcome, gate.level) == ("fail", None)
    assert "pcq was not measured on this figure; measured: pca" in gate.reason


def test_nulls_that_labelling_and_the_bench_report_themselves_are_found():
    metrics = {
        "label_confidence": interval(0.4),
        "label_shuffled_confidence": interval(0.01, half=0.01),
        "steering_effect_nats": interval(1.0, half=0.9),
        "steering_vs_random_nats": interval(0.5, half=0.1),
    }
    labels, steering = ruled(
        evidence(metrics=metrics),
        None,
        {"metric": "label_confidence", "beats": {"shuffled": 0.2}},
        {"metric": "steering_effect_nats", "beats": {"random_directions": 0.3}},
    ).gates[:2]
    assert (labels.outcome, labels.beside) == ("pass", metrics["label_shuffled_confidence"])
    assert (steering.outcome, steering.difference) == ("pass", metrics["steering_vs_random_nats"])
    assert "paired by the bench" in steering.reason


# ── slices ──────────────────────────────────────────────────────────────────


def sliced(bundle: str = "c", **buckets: float) -> Evidence:
    found = {Slice("token_frequency", name, EV): interval(point) for name, point in buckets.items()}
    return evidence(bundle, slices=found)


def test_a_bucket_is_judged_alone_and_a_slice_bucket_by_bucket():
    candidate = sliced(rare=0.5, common=0.9)
    gate = {"metric": EV, "slice": "token_frequency", "at_least": 0.7}
    assert only(ruled(candidate, None, gate | {"bucket": "common"})).outcome == "pass"
    verdict = ruled(candidate, None, gate)
    assert [gate.outcome for gate in verdict.gates[:2]] == ["fail", "pass"]
    assert verdict.gates[0].requirement == "explained_variance at least 0.7 where token_frequency is rare"


def test_slices_stand_beside_the_champion_s_and_none_is_lost_unseen():
    gate = {"metric": EV, "slice": "token_frequency", "not_worse_than_champion_by": 0.1}
    verdict = ruled(sliced(common=0.9), sliced("d", rare=0.5, common=0.9), gate)
    assert [gate.outcome for gate in verdict.gates[:2]] == ["pass", "fail"]
    assert "unpaired, since slices keep no sums by document" in verdict.gates[0].reason
    assert "missing" in verdict.gates[1].reason


@pytest.mark.parametrize("bucket", [None, "rare"])
def test_a_slice_that_was_not_measured_fails(bucket: str | None):
    gate = {"metric": EV, "slice": "position", "bucket": bucket, "at_least": 0.1}
    assert only(ruled(evidence(), None, gate)).outcome == "fail"


def test_slices_and_nulls_are_read_from_the_bundle(tmp_path):
    from saeops.dictionary.bundle import open_bundle

    found = gather(open_bundle(write_fixture(tmp_path).bundle))
    assert found.buckets("token_frequency", EV)[:2] == ["unseen in training", "under 0.01 %"]
    assert found.slices[Slice("position", "1", EV)].n == 38
    assert {"pca", "random_dictionary"} <= found.nulls.keys()
    assert found.basis.model == gather(open_bundle(write_fixture(tmp_path / "again").bundle)).basis.model


# ── dry runs, and the budget ────────────────────────────────────────────────


def test_a_dry_run_is_judged_and_shown_and_does_not_count():
    verdict = ruled(evidence(), None, {"metric": EV, "at_least": 0.97, "dry_run": True})
    assert (verdict.outcome, only(verdict).outcome, only(verdict).dry_run) == ("pass", "fail", True)
    assert ruled(evidence(), None, {"metric": EV, "at_least": 0.97}).outcome == "fail"


def test_the_family_s_error_is_shared_among_the_differences_that_count():
    nulls = {name: {EV: interval(0.2)} for name in ("pca", "random_dictionary")}
    candidate, champion = evidence(nulls=nulls), evidence("d")
    gate = {
        "metric": EV,
        "at_least": 0.5,
        "not_worse_than_champion_by": 0.3,
        "beats": {"pca": 0, "random_dictionary": 0},
    }
    tried = {"metric": EV, "beats": {"pca": 0.1}, "dry_run": True}
    verdict = ruled(candidate, champion, gate, tried, family_error=0.06)
    assert [gate.level for gate in verdict.gates[:5]] == pytest.approx([0.95, 0.98, 0.98, 0.98, 0.98])
    first = ruled(candidate, None, gate, family_error=0.06)
    assert [gate.level for gate in first.gates[:4]] == [0.95, None, pytest.approx(0.97), pytest.approx(0.97)]


def test_a_verdict_states_how_often_it_is_wrong():
    nulls = {name: {EV: interval(0.2)} for name in ("pca", "random_dictionary")}
    gate = {"metric": EV, "at_least": 0.5, "beats": {"pca": 0, "random_dictionary": 0}}
    verdict = ruled(evidence(nulls=nulls), None, gate, family_error=0.02)
    # The floor's interval and that of the acceptance at 95 %, the differences' two at 99 %.
    assert verdict.wrongly_passed == pytest.approx(0.025)
    assert verdict.wrongly_failed == pytest.approx(0.025 + 0.025 + 2 * 0.005)


@pytest.mark.parametrize(
    ("gate", "fault"),
    [
        ({"metric": "l0", "bucket": "rare", "at_most": 3}, "names a bucket and no slice"),
        ({"metric": "l0", "slice": "position", "beats": {"pca": 1}}, "nulls are not measured by slice"),
        ({"metric": "l0", "beats": {"pca": -1}}, "greater than or equal to 0"),
        ({"metric": "l0", "beats": {}}, "requires nothing"),
    ],
)
def test_a_gate_that_cannot_be_judged_is_a_fault_in_params(gate: Mapping[str, object], fault: str):
    with pytest.raises(ParamsInvalid, match=fault):
        validate_params({"promote": {"gates": [gate]}})


def test_the_report_shows_the_nulls_that_the_judge_finds():
    found = {**NULLS_AS_FIGURES, **DIFFERENCES_AS_FIGURES}
    judged = {(metric, figure, figure in DIFFERENCES_AS_FIGURES.values()) for (_, metric), figure in found.items()}
    assert judged == {(metric, null.metric, null.is_difference) for metric, null in NULLS.items()}
