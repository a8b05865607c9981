import pandas as pd
import pytest

from saeops.review.config import ReviewConfig
from saeops.review.queue import measured_effects, review_queue

LABELS = pd.DataFrame(
    {
        "latent": [1, 2, 3, 4],
        "version": ["a", "b", "c", "d"],
        "text": ["one", "two", "three", "four"],
        "chosen": True,
        "tpr_low": [0.4, 0.4, 0.4, 0.9],
        "tpr_high": [0.8, 0.8, 0.8, 1.0],
        "tnr_low": [0.9, 0.9, 0.9, 0.9],
        "tnr_high": [1.0, 1.0, 1.0, 1.0],
        "confidence": [0.3, 0.3, 0.8, 0.3],
    }
)
LATENTS = pd.DataFrame(
    {"latent": [1, 2, 3, 4], "density": [0.01, 0.02, 0.02, 0.02], "mean_activation": [2.0, 2.0, 2.0, 2.0]}
)


def queue_of(effects=None, **config):
    return review_queue(
        LABELS, LATENTS, effects or {}, config=ReviewConfig(**config), trusted=0.3, digest="ab" * 32
    )


def test_priority_is_impact_times_uncertainty_as_the_docstring_says():
    items = {item.latent: item for item in queue_of(by_priority=4, at_random=0)}
    assert items[1].impact == pytest.approx(0.02 / 0.14)
    assert items[1].uncertainty == 1.0
    assert items[3].uncertainty == pytest.approx(0.25 / 0.75)
    assert items[3].priority == pytest.approx(0.04 / 0.14 * 0.25 / 0.75)
    # Most mass on the threshold first; equal ones by latent; far from the threshold last.
    assert [item.latent for item in queue_of(by_priority=4, at_random=0)] == [2, 4, 1, 3]


def test_a_measured_effect_raises_impact_within_a_factor_of_four():
    unmeasured = {item.latent: item.impact for item in queue_of(by_priority=4, at_random=0)}
    effects = {1: 1000.0, 2: 1.0, 3: -5.0}
    measured = {item.latent: item.impact for item in queue_of(effects, by_priority=4, at_random=0)}
    assert measured[1] == pytest.approx(4 * unmeasured[1])
    assert measured[2] == pytest.approx(unmeasured[2])
    assert measured[3] == pytest.approx(unmeasured[3] / 4)
    assert measured[4] == pytest.approx(unmeasured[4])


def test_another_bundle_draws_another_sample():
    labels = pd.concat([LABELS.assign(latent=LABELS["latent"] + 4 * i) for i in range(20)])
    latents = labels[["latent"]].assign(density=0.1, mean_activation=1.0)
    arguments = {"config": ReviewConfig(by_priority=0, at_random=10), "trusted": 0.3}
    one = review_queue(labels, latents, {}, digest="ab" * 32, **arguments)
    other = review_queue(labels, latents, {}, digest="cd" * 32, **arguments)
    assert [item.latent for item in one] != [item.latent for item in other]


def test_the_measured_effect_is_steering_on_the_latents_own_tokens():
    effects = pd.DataFrame(
        {
            "latent": [1, 1, 1, 2, 2],
            "kind": ["steer", "steer", "steer", "ablate", "steer"],
            "metric": ["target_logprob", "target_logprob", "off_target_kl", "target_logprob", "target_logprob"],
            "difference_point": [1.0, 3.0, 50.0, 60.0, 0.5],
        }
    )
    assert measured_effects(effects) == {1: 2.0, 2: 0.5}
