import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from saeops.adapters.ledger import MemoryLedger
from saeops.digests import digest_bytes
from saeops.review.config import ReviewConfig
from saeops.review.ledger import VERDICTS, Decision
from saeops.review.outcome import apply_decisions, review_outcome
from saeops.review.queue import review_queue

DIGEST = digest_bytes(b"bundle")


def labels_frame(rows: int, seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    low = generator.uniform(0, 0.6, (rows, 2))
    high = np.minimum(low + generator.uniform(0, 0.5, (rows, 2)), 1.0)
    return pd.DataFrame(
        {
            "latent": np.arange(rows) * 3,
            "version": [f"v{i}" for i in range(rows)],
            "text": [None if i % 7 == 6 else f"label {i}" for i in range(rows)],
            "chosen": [i % 5 != 4 for i in range(rows)],
            "tpr_low": low[:, 0],
            "tpr_high": high[:, 0],
            "tnr_low": low[:, 1],
            "tnr_high": high[:, 1],
            "confidence": np.maximum(0.0, low.sum(1) - 0.6),
        }
    )


def latents_frame(labels: pd.DataFrame, seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "latent": labels["latent"],
            "density": generator.uniform(0, 0.1, len(labels)),
            "mean_activation": generator.uniform(0, 9, len(labels)),
        }
    )


@given(st.integers(0, 40), st.integers(0, 9), st.integers(0, 9), st.integers(0, 99))
def test_the_queue_is_the_highest_priorities_and_a_sample_of_the_rest(rows, by_priority, at_random, seed):
    labels = labels_frame(rows, seed)
    config = ReviewConfig(by_priority=by_priority, at_random=at_random)
    arguments = {"config": config, "trusted": 0.3, "digest": DIGEST}
    queue = review_queue(labels, latents_frame(labels, seed), {0: 0.5, 3: -2.0}, **arguments)
    assert queue == review_queue(labels, latents_frame(labels, seed), {0: 0.5, 3: -2.0}, **arguments)

    eligible = set(labels[labels["chosen"] & labels["text"].notna()]["latent"])
    first = [item for item in queue if item.why == "priority"]
    sample = [item for item in queue if item.why == "random"]
    assert len({item.latent for item in queue}) == len(queue)
    assert {item.latent for item in queue} <= eligible
    assert len(first) == min(by_priority, len(eligible))
    assert len(sample) == min(at_random, len(eligible) - len(first))
    everything = review_queue(
        labels, latents_frame(labels, seed), {0: 0.5, 3: -2.0},
        config=ReviewConfig(by_priority=1000, at_random=0), trusted=0.3, digest=DIGEST,
    )  # fmt: skip
    assert [item.latent for item in first] == [item.latent for item in everything[: len(first)]]
    assert all(0 <= item.uncertainty <= 1 for item in queue)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from(VERDICTS), st.booleans(), st.booleans()), max_size=30)
)
def test_only_the_last_decision_on_the_same_bundle_and_label_version_counts(steps):
    labels = labels_frame(13, 1)
    labels["text"] = "label"
    decisions = [
        Decision(
            bundle=DIGEST if right_bundle else "another",
            latent=index * 3,
            label_version=f"v{index}" if right_version else "another",
            verdict=verdict,
            text=f"edit {number}" if verdict == "edit" else None,
            reason="because",
            reviewer="ada",
            at="2026-01-01T00:00:00+00:00",
        )
        for number, (index, verdict, right_bundle, right_version) in enumerate(steps)
    ]
    expected = {f"v{i}": "label" for i in range(13)}
    for decision in decisions:
        if decision.bundle == DIGEST and decision.label_version in {f"v{i}" for i in range(13)}:
            expected[decision.label_version] = {"accept": "label", "edit": decision.text, "reject": None}[
                decision.verdict
            ]
    effective = apply_decisions(labels, MemoryLedger(decisions).entries(), bundle=DIGEST)
    kept = {version: text for version, text in expected.items() if text is not None}
    assert dict(zip(effective["version"], effective["text"], strict=True)) == kept
    assert list(effective.columns) == list(labels.columns)


@given(st.lists(st.sampled_from(VERDICTS), max_size=20))
def test_the_outcome_counts_each_queued_label_once(verdicts):
    labels = labels_frame(13, 1)
    config = ReviewConfig(by_priority=3, at_random=4)
    queue = review_queue(labels, latents_frame(labels, 1), {}, config=config, trusted=0.3, digest=DIGEST)
    ledger = MemoryLedger()
    for number, verdict in enumerate(verdicts):
        item = queue[number % len(queue)]
        text = "better" if verdict == "edit" else None
        ledger.append(Decision(DIGEST, item.latent, item.label_version, verdict, text, "why", "ada", "now"))
    outcome = review_outcome(queue, ledger.entries(), bundle=DIGEST)
    assert outcome.decided == min(len(verdicts), len(queue)) == outcome.queued - len(outcome.pending)
    assert outcome.accepted + outcome.edited + outcome.rejected == outcome.decided
    assert outcome.complete == (len(verdicts) >= len(queue))
    assert outcome.acceptance.n == max(0, min(len(verdicts), 7) - 3)
