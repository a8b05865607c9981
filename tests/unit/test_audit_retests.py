"""Labels and effects measured again on the new model."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from saeops.drift.audit.effects import effect_rows, remeasured
from saeops.drift.audit.labels import retest, split_tokens, standing_labels
from saeops.drift.audit.part import Read, Side
from saeops.interventions.config import BenchConfig
from saeops.interventions.effects import LatentEffects, Paired, SteerEffects
from saeops.labelling.config import LabelConfig, PatternLabeller
from saeops.labelling.labels import PATTERN, Label
from saeops.labelling.patterns import Rule, RuleLabeller
from saeops.sae.codes import Codes
from saeops.stages.audit_retests import document_tokens

DOCUMENTS, LENGTH, LATENT = 20, 30, 2
WORDS = ["zero", "one", "two", "three", "four"]
IDS = np.random.default_rng(0).integers(len(WORDS), size=(DOCUMENTS, LENGTH))


def spell(ids: Sequence[int]) -> list[str]:
    return [WORDS[number] for number in ids]


def side_firing_on(word: int) -> Side:
    """A model under which the latent fires wherever this word stands."""
    dense = torch.zeros(IDS.size, 4)
    dense[torch.tensor(IDS.ravel() == word), LATENT] = 1.0
    document = torch.arange(DOCUMENTS).repeat_interleave(LENGTH)
    y = torch.zeros(IDS.size, 3)
    read = Read(document, torch.arange(LENGTH).repeat(DOCUMENTS), document, y, y, Codes.from_dense(dense))
    return Side.of(read, first=0, documents=DOCUMENTS, top=3, labelled=np.array([LATENT]))


def confidences(before: int, after: int) -> tuple[float | None, float | None]:
    documents = document_tokens(IDS.tolist(), window=LENGTH)
    old, new = (split_tokens([side_firing_on(word)], documents, [LATENT]) for word in (before, after))
    label = Label(PATTERN, '"two"', Rule((frozenset({"two"}),)).to_json())
    judges = {PATTERN: RuleLabeller(PatternLabeller(), spell)}
    [found] = retest({LATENT: label}, old, new, judges, LabelConfig(), seed=0)
    return found.old, found.new


def test_a_label_holds_where_its_latent_fires_on_the_same() -> None:
    old, new = confidences(2, 2)
    assert old == new
    assert old is not None
    assert old > 0.8


def test_a_label_falls_where_its_latent_fires_on_something_else() -> None:
    old, new = confidences(2, 3)
    assert old is not None
    assert old > 0.8
    assert new == 0.0


def test_a_label_whose_latent_is_silent_is_not_judged() -> None:
    assert confidences(2, 99)[1] is None


def test_rules_are_judged_again_and_of_written_labels_as_many_as_asked_for() -> None:
    labels = pd.DataFrame(
        {
            "latent": [0, 1, 2, 3],
            "labeller": [PATTERN, "llm:m", "llm:m", PATTERN],
            "text": ["a", "b", "c", None],
            "rule": ["{}", None, None, None],
            "chosen": True,
        }
    )
    assert sorted(standing_labels(labels, llm=0)) == [0]
    assert sorted(standing_labels(labels, llm=1)) == [0, 1]


def effects(target: float) -> LatentEffects:
    one = Paired((target,) * 10, (0.0,) * 10)
    return LatentEffects(1, "random", (SteerEffects(2.0, 4.0, one, (0.0,) * 10, one, one),), one, one, one)


def test_effects_are_new_less_old_prompt_by_prompt() -> None:
    rows = effect_rows([effects(1.0)], [effects(0.25)], resamples=100, seed=0)
    steered = rows[rows["metric"] == "steer_target_logprob"].iloc[0]
    assert (steered["old"], steered["new"], steered["difference"], steered["n"]) == (1.0, 0.25, -0.75, 10)
    assert set(rows["unit"]) == {"prompts", "contexts"}


def test_effects_are_measured_again_at_the_reference_strength_alone() -> None:
    config = remeasured(BenchConfig(strengths=(1.0, 2.0, 4.0)), documents=3)
    assert config.strengths == (2.0,)
    assert (config.random_directions, config.neutral_documents) == (1, 3)
