from pathlib import Path

import pytest

from saeops.dictionary.bundle import open_bundle, seal_reviews
from saeops.errors import ParamsInvalid
from saeops.params import validate_params
from saeops.promotion.evidence import Evidence, gather, review_of
from saeops.promotion.judge import judge
from saeops.promotion.policy import Gate, PromotePolicy
from saeops.review.outcome import ReviewOutcome
from saeops.stats import wilson
from tests.bundles import decisions, interval, tiny_bundle

REVIEWED = ReviewOutcome(10, 10, (), 10, 0, 0, wilson(10, 10))


def evidence(*, bundle: str = "c" * 64, review: ReviewOutcome = REVIEWED, **metrics: float) -> Evidence:
    return Evidence(bundle, {name: interval(point) for name, point in metrics.items()}, review)


def gates(*gates: Gate, **policy: object) -> PromotePolicy:
    return PromotePolicy(gates=gates, **policy)


def test_a_missing_figure_fails_and_says_so():
    verdict = judge(evidence(), None, gates(Gate(metric="explained_variance", at_least=0.7)), {})
    assert verdict.outcome == "fail"
    assert "missing" in verdict.gates[0].reason


def test_what_is_relative_to_the_champion_is_listed_as_not_applicable_at_the_first_promotion():
    gate = Gate(metric="m", at_least=0.5, not_worse_than_champion_by=0.1)
    verdict = judge(evidence(m=0.9), None, gates(gate), {"m": "higher"})
    assert verdict.outcome == "pass"
    assert verdict.first_promotion
    assert [g.outcome for g in verdict.gates[:2]] == ["pass", "not applicable"]
    assert "first promotion" in verdict.gates[1].reason


@pytest.mark.parametrize(
    ("better", "theirs", "expected"),
    [("higher", 0.8, "pass"), ("higher", 1.5, "fail"), ("higher", 1.0, "inconclusive"),
     ("lower", 0.9, "pass"), ("lower", 0.3, "fail"), ("lower", 0.8, "inconclusive")],
)  # fmt: skip
def test_non_inferiority_follows_the_metric_s_direction(better: str, theirs: float, expected: str):
    gate = Gate(metric="m", not_worse_than_champion_by=0.1)
    champion = evidence(bundle="d" * 64, m=theirs)
    verdict = judge(evidence(m=0.9), champion, gates(gate), {"m": better})
    assert verdict.gates[0].outcome == expected


def test_a_champion_without_the_figure_proves_nothing():
    gate = Gate(metric="m", not_worse_than_champion_by=0.1)
    verdict = judge(evidence(m=0.9), evidence(bundle="d" * 64), gates(gate), {"m": "higher"})
    assert verdict.outcome == "fail"
    assert "champion lacks" in verdict.gates[0].reason


def test_a_metric_without_a_direction_cannot_be_compared():
    gate = Gate(metric="m", not_worse_than_champion_by=0.1)
    assert judge(evidence(m=1), evidence(bundle="d" * 64, m=1), gates(gate), {}).outcome == "fail"


def test_pending_labels_leave_the_verdict_open_and_name_the_command():
    waiting = ReviewOutcome(6, 2, (7, 8, 9, 10), 2, 0, 0, wilson(2, 2))
    verdict = judge(evidence(review=waiting), None, gates(), {})
    assert verdict.outcome == "inconclusive"
    assert "4 of 6 labels wait: `saeops review queue`" in verdict.explain()


def test_optional_review_does_not_wait_but_a_rejected_sample_still_fails():
    nobody = ReviewOutcome(6, 0, (1, 2, 3, 4, 5, 6), 0, 0, 0, wilson(0, 0))
    assert judge(evidence(review=nobody), None, gates(review="optional"), {}).outcome == "pass"
    rejected = ReviewOutcome(30, 30, (), 1, 0, 29, wilson(1, 30))
    assert judge(evidence(review=rejected), None, gates(review="optional"), {}).outcome == "fail"


def test_a_sample_too_small_to_tell_is_inconclusive_and_a_rejected_one_fails():
    small = ReviewOutcome(5, 5, (), 4, 0, 1, wilson(1, 2))
    assert judge(evidence(review=small), None, gates(), {}).outcome == "inconclusive"
    rejected = ReviewOutcome(30, 30, (), 2, 0, 28, wilson(1, 25))
    assert judge(evidence(review=rejected), None, gates(), {}).outcome == "fail"


def test_without_a_random_sample_all_reviewed_labels_are_judged():
    by_priority = ReviewOutcome(12, 12, (), 11, 1, 0, wilson(0, 0))
    assert judge(evidence(review=by_priority), None, gates(), {}).outcome == "pass"
    rejected = ReviewOutcome(12, 12, (), 1, 0, 11, wilson(0, 0))
    assert judge(evidence(review=rejected), None, gates(), {}).outcome == "fail"


def test_no_label_to_review_fails_where_review_is_required():
    nothing = ReviewOutcome(0, 0, (), 0, 0, 0, wilson(0, 0))
    assert judge(evidence(review=nothing), None, gates(), {}).outcome == "fail"
    assert judge(evidence(review=nothing), None, gates(review="optional"), {}).outcome == "pass"


def test_the_evidence_digest_covers_candidate_and_champion():
    policy = gates(Gate(metric="m", at_least=0))
    one = judge(evidence(m=1), None, policy, {})
    assert one.evidence != judge(evidence(m=1.5), None, policy, {}).evidence
    assert one.evidence != judge(evidence(m=1), evidence(bundle="d" * 64, m=1), policy, {}).evidence


def test_a_gate_that_requires_nothing_is_a_fault_in_params():
    with pytest.raises(ParamsInvalid, match=r"promote\.gates\.0.*requires nothing"):
        validate_params({"promote": {"gates": [{"metric": "l0"}]}})


def test_evidence_is_read_from_the_bundle_alone(tmp_path: Path):
    found = gather(tiny_bundle(tmp_path))
    assert {"explained_variance", "l0", "label_confidence", "steering_effect"} <= found.metrics.keys()
    assert (found.review.queued, found.review.decided) == (6, 0)


def test_sealed_decisions_count_on_the_queue_of_the_candidate(tmp_path: Path):
    bundle = tiny_bundle(tmp_path)
    queue = review_of(bundle).pending
    entries = decisions(bundle.digest, [(latent, "accept", None) for latent in queue])
    reviewed = seal_reviews(bundle.path, entries, tmp_path / "reviewed")
    outcome = review_of(open_bundle(reviewed.path))
    assert outcome.complete
    assert (outcome.accepted, outcome.acceptance.n) == (6, 3)
