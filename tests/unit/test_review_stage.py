from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from saeops.adapters.ledger import MemoryLedger
from saeops.dictionary.provenance import Provenance
from saeops.errors import FolderDamaged, ReviewInvalid, StageMissing
from saeops.params import validate_params
from saeops.sealed import seal
from saeops.stages import review

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
PARAMS = validate_params({"review": {"by_priority": 3, "at_random": 2}})


def write_bundle(folder: Path, *, version: str = "v") -> Path:
    """The parts of a bundle that review reads: ten labels, of which two are not chosen."""
    numbers = list(range(10))
    tables = {
        "labels/labels.parquet": pd.DataFrame(
            {
                "latent": numbers,
                "labeller": "pattern",
                "version": [f"{version}{i}" for i in numbers],
                "text": [f"label {i}" for i in numbers],
                "chosen": [i < 8 for i in numbers],
                "confidence": [i / 10 for i in numbers],
                "tpr_low": 0.5, "tpr_high": 0.9, "tnr_low": 0.6, "tnr_high": 1.0,
            }
        ),
        "catalog/latents.parquet": pd.DataFrame(
            {"latent": numbers, "density": 0.01, "mean_activation": 2.0}
        ),
        "catalog/contexts.parquet": pd.DataFrame(
            {
                "latent": [i for i in numbers for _ in range(4)],
                "kind": ["top", "top", "top", "quantile"] * 10,
                "quantile": [-1, -1, -1, 0] * 10,
                "rank": [0, 1, 2, 0] * 10,
                "tokens": [[i, 100 + j] for i in numbers for j in range(4)],
                "activations": [[0.0, 4.0 - j] for _ in numbers for j in range(4)],
            }
        ),
        "effects/effects.parquet": pd.DataFrame(
            {"latent": [3], "kind": "steer", "metric": "target_logprob", "difference_point": [0.25]}
        ),
    }  # fmt: skip
    for name, frame in tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(folder / name)
    provenance = Provenance(
        name="tiny/site", model={}, corpus={}, policy=PARAMS.harvest.policy, params=PARAMS.model_dump(mode="json"),
        code="c", version="0", lock=None, activations_md5="m", upstream={},
    )  # fmt: skip
    (folder / "provenance.json").write_bytes(provenance.to_bytes())
    seal(folder, kind="bundle", version=1, inputs={}, summary={})
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def decide(bundle: Path, ledger: MemoryLedger, latent: int, verdict: str = "accept", **more: str):
    return review.decide(bundle, ledger, latent=latent, verdict=verdict, now=NOW, **({"reviewer": "ada"} | more))


def test_a_reviewer_sees_label_evidence_and_contexts(bundle: Path):
    found = review.queue(bundle, MemoryLedger(), texts=lambda ids: [f"<{i}>" for i in ids])
    assert len(found.rows) == 5
    assert [row.why for row in found.rows] == ["priority"] * 3 + ["random"] * 2
    row = next(row for row in found.rows if row.latent == 3)
    assert (row.label, row.label_version, row.effect_nats) == ("label 3", "v3", 0.25)
    assert [context.tokens for context in row.contexts] == [("<3>", "<100>"), ("<3>", "<101>"), ("<3>", "<103>")]
    assert row.contexts[0].activations == (0.0, 4.0)
    assert row.decided is None


def test_without_a_tokenizer_contexts_show_token_ids(bundle: Path):
    row = review.queue(bundle, MemoryLedger()).rows[0]
    assert row.contexts[0].tokens == (f"#{row.latent}", "#100")


def test_a_decision_is_bound_to_bundle_and_label_version_and_shows_in_the_queue(bundle: Path):
    ledger = MemoryLedger()
    before = review.queue(bundle, ledger)
    latent = before.rows[0].latent
    entry = decide(bundle, ledger, latent, "edit", text="  better  ", reason="was vague")
    assert entry.decision.bundle == before.bundle
    assert entry.decision.label_version == f"v{latent}"
    assert entry.decision.text == "better"
    assert entry.decision.at == "2026-03-01T12:30:00+00:00"
    after = review.queue(bundle, ledger)
    assert after.rows[0].decided == entry.decision
    assert [row.latent for row in after.rows] == [row.latent for row in before.rows]
    assert after.outcome.decided == 1
    assert latent not in after.outcome.pending


def test_a_review_is_complete_when_every_queued_label_is_decided(bundle: Path):
    ledger = MemoryLedger()
    for row in review.queue(bundle, ledger).rows:
        assert not review.outcome(bundle, ledger).complete
        decide(bundle, ledger, row.latent)
    outcome = review.outcome(bundle, ledger)
    assert outcome.complete
    assert (outcome.accepted, outcome.acceptance.point, outcome.acceptance.n) == (5, 1.0, 2)


def test_decisions_on_another_bundle_count_for_nothing(bundle: Path, tmp_path: Path):
    ledger = MemoryLedger()
    for row in review.queue(bundle, ledger).rows:
        decide(bundle, ledger, row.latent)
    other = write_bundle(tmp_path / "other", version="w")
    assert review.outcome(other, ledger).decided == 0


@pytest.mark.parametrize(
    ("verdict", "more", "complaint"),
    [
        ("maybe", {}, "'maybe' is not one of accept, edit, reject"),
        ("edit", {}, "an edit needs the better text"),
        ("edit", {"text": "   "}, "an edit needs the better text"),
        ("accept", {"text": "better"}, "a text belongs to an edit"),
        ("reject", {}, "a reject needs a reason"),
        ("accept", {"reviewer": " "}, "needs a reviewer's name"),
        ("accept", {"label_version": "older"}, "not older: look again"),
    ],
)
def test_a_decision_that_cannot_be_meant_is_refused(bundle: Path, verdict: str, more: dict, complaint: str):
    ledger = MemoryLedger()
    latent = review.queue(bundle, ledger).rows[0].latent
    with pytest.raises(ReviewInvalid, match=complaint):
        decide(bundle, ledger, latent, verdict, **more)
    assert ledger.entries() == []


def test_every_fault_of_a_decision_is_named_at_once(bundle: Path):
    with pytest.raises(ReviewInvalid) as caught:
        decide(bundle, MemoryLedger(), 9, "reject", reviewer="")
    assert "not in this bundle's queue" in str(caught.value)
    assert "needs a reason" in str(caught.value)
    assert "reviewer's name" in str(caught.value)


def test_a_bundle_with_a_changed_byte_cannot_be_reviewed(bundle: Path):
    path = bundle / "effects" / "effects.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(FolderDamaged, match="effects"):
        decide(bundle, MemoryLedger(), 5)


def test_no_bundle_yet_says_which_command_makes_one(tmp_path: Path):
    with pytest.raises(StageMissing, match="saeops bundle"):
        review.queue(tmp_path / "bundle", MemoryLedger())
