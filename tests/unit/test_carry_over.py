"""Labels carry over to where their latent went, are tested there again, and fall where policy says so."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from saeops.activations.reader import ActivationSet
from saeops.adapters.ledger import MemoryLedger
from saeops.adapters.models import TransformersModel
from saeops.dictionary.bundle import Bundle
from saeops.dictionary.format import PROVENANCE
from saeops.dictionary.provenance import Provenance
from saeops.drift.matching.carried import CARRIED, CarriedTable, carried_frame, carried_over
from saeops.drift.matching.carry import (
    Carried,
    Dropped,
    Offer,
    OldLabel,
    Origin,
    Remark,
    carried_row,
    offers,
    settle,
)
from saeops.drift.matching.config import CarryConfig
from saeops.drift.matching.match import match
from saeops.drift.matching.schema import match_frame
from saeops.drift.matching.scores import Side
from saeops.errors import ModelMismatch
from saeops.files import write_atomic
from saeops.labelling.labels import Label
from saeops.labelling.schema import METRICS_FILE, TABLE, LabelTable
from saeops.metrics import read_metrics
from saeops.params import Params
from saeops.refs import Ref, Workspace
from saeops.review.outcome import decisions_on
from saeops.sae.canonical import Sae
from saeops.sealed import open_sealed, seal
from saeops.stages import carry, label, review, train
from saeops.stages.carry import Carrying, old_labels, prepare
from saeops.tables import check_table, read_table, write_table
from tests.bundles import decisions
from tests.diagnosing import without_controls
from tests.planted_drift import plant_drift
from tests.tiny import RecordingWatch, tiny_params
from tests.unit.test_review_stage import write_bundle

OLD = "a" * 64
CONFIG = CarryConfig(least_confidence=0.3, most_loss=0.3)


def old_label(latent: int, confidence: float = 0.8, *, rejected: bool = False) -> OldLabel:
    return OldLabel(latent, Label("pattern", f"word {latent}", "{}"), confidence, rejected)


def offer(confidence: float = 0.8, probability: float = 1.0) -> Offer:
    return Offer(old_label(3, confidence), 5, Origin(OLD, 3, confidence, 0.9, probability))


def test_labels_go_where_their_latent_went_and_the_rest_say_why_not() -> None:
    world = plant_drift(latents=60, width=48, split=5, merged=5, killed=10, added=5)
    sides = [Side.of(each, None, np.ones(len(each), bool)) for each in (world.first, world.second)]
    found = match(*sides, tiny_params().match, seed=0)
    labels = [old_label(latent) for latent in range(len(world.first))]
    kept = min(world.partner)
    labels[kept] = old_label(kept, rejected=True)
    moving, dropped = offers(labels, match_frame(found), bundle=OLD)
    assert {each.old.latent: each.latent for each in moving} == {
        one: other for one, other in world.partner.items() if one != kept
    }
    why = {each.old.latent: each.reason for each in dropped}
    assert why[kept] == "a reviewer rejected it"
    assert all("split" in why[latent] for latent in world.splits)
    assert all("merged" in why[part] for parts in world.merges.values() for part in parts)
    assert all("vanished" in why[latent] for latent in world.vanished)


def test_the_confidence_is_that_of_its_new_test_times_that_of_the_match() -> None:
    settled = settle(offer(0.8, probability=0.9), 0.7, CONFIG)
    assert isinstance(settled, Carried)
    assert settled.confidence == pytest.approx(0.63)


@pytest.mark.parametrize(
    ("old", "rescored", "reason"),
    [(0.5, 0.29, "below 0.3"), (0.9, 0.5, "fell from 0.90 to 0.50"), (0.9, None, "could not be tested")],
)
def test_a_label_below_the_policy_is_dropped(old: float, rescored: float | None, reason: str) -> None:
    settled = settle(offer(old), rescored, CONFIG)
    assert isinstance(settled, Dropped)
    assert reason in settled.reason
    assert settled.offer is not None, "its latent is labelled anew, and queued"


def test_coverage_counts_labels_that_consumers_saw() -> None:
    settled = [
        settle(replace(offer(0.8), old=old_label(1, 0.8)), 0.7, CONFIG),
        settle(replace(offer(0.9), old=old_label(2, 0.9)), 0.1, CONFIG),
        Dropped(old_label(3, 0.1), "its latent vanished"),
        Dropped(old_label(4, 0.9, rejected=True), "a reviewer rejected it"),
    ]
    frame = carried_frame([carried_row(each, bundle=OLD, trusted=0.3) for each in settled])
    check_table(frame, CarriedTable, rows=4)
    evidence = carried_over(frame)
    assert (evidence.trusted, evidence.kept) == (2, 1)
    assert evidence.confidences == [0.7]
    check_table(carried_frame([]), CarriedTable, rows=0)


# ── the stages ──────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def params(tiny_corpus: Path) -> Params:
    return tiny_params(
        corpus={"path": str(tiny_corpus)},
        label={"llm_latents": 0, "latents": 30, "min_positives": 3},
        promote={"trusted_confidence": 0.05},
        match={"null_latents": 64, "carry": {"least_confidence": 0.02, "most_loss": 0.5}},
    )


@pytest.fixture(scope="module")
def spaces(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_activations: ActivationSet,
    tiny_model: TransformersModel,
    params: Params,
) -> tuple[Workspace, Workspace, list[int]]:
    """A labelled dictionary, and its latents in another order with a catalog of their own; old latent by new."""
    old, new = (Workspace(root=tmp_path_factory.mktemp(name)) for name in ("old", "new"))
    for space in (old, new):
        shutil.copytree(tiny_activations.sealed.path, space.activations)
    train.run(params, old, watch=RecordingWatch())
    trained, sae = open_sealed(old.sae, kind="sae"), Sae.load(old.sae)
    order = np.random.default_rng(3).permutation(sae.meta.d_sae).tolist()
    tensors = {
        "W_enc": sae.W_enc[:, order],
        "b_enc": sae.b_enc[order],
        "W_dec": sae.W_dec[order],
        "b_dec": sae.b_dec,
    }
    Sae.of(tensors, sae.meta).save(new.sae)
    seal(
        new.sae,
        kind="sae",
        version=trained.version,
        inputs={**trained.inputs, "order": 3},
        summary=trained.summary,
    )
    for space in (old, new):
        without_controls(params, space, tiny_model)
    label.run(params, old, model=tiny_model, llm=None, watch=RecordingWatch())
    return old, new, order


def bundle_of(space: Workspace, said: list[tuple[int, str, str | None]]) -> Bundle:
    """What carry-over reads of a bundle: labels, and decisions on them."""
    table = read_table(space.labels / TABLE, LabelTable)
    version = dict(zip(table["latent"], table["version"], strict=True))
    entries = [
        replace(entry, decision=replace(entry.decision, label_version=version[entry.decision.latent]))
        for entry in decisions(OLD, said)
    ]
    lines = "".join(json.dumps(entry.to_json()) + "\n" for entry in entries)
    write_atomic(space.root / "artifacts" / "reviews.jsonl", lines.encode())
    return Bundle(space.root / "artifacts", OLD, {})


def carrying_of(old: Workspace, new: Workspace, bundle: Bundle, params: Params) -> Carrying:
    acts = ActivationSet.open(old.activations)
    provenance = Provenance(
        name=params.name, model=acts.model, corpus={}, policy=acts.policy, params={}, code="",
        version="", lock=None, activations_md5="", upstream={},
    )  # fmt: skip
    write_atomic(old.root / "artifacts" / PROVENANCE, provenance.to_bytes())
    return carry.run(bundle, params, new, activations=[acts], watch=RecordingWatch())


def test_labelling_starts_from_the_labels_that_stand(
    spaces: tuple[Workspace, Workspace, list[int]], params: Params, tiny_model: TransformersModel
) -> None:
    old, new, order = spaces
    before = read_table(old.labels / TABLE, LabelTable)
    strong = before[before["confidence"] > 0.05]["latent"].astype(int).tolist()
    assert len(strong) >= 4, "some labels must be worth carrying"
    bundle = bundle_of(
        old, [(strong[0], "accept", None), (strong[1], "edit", "better"), (strong[2], "reject", None)]
    )
    carrying = carrying_of(old, new, bundle, params)
    watch = RecordingWatch()
    once = label.run(params, new, model=tiny_model, llm=None, watch=watch, carrying=carrying)
    carried = read_table(new.labels / CARRIED, CarriedTable)
    after = read_table(new.labels / TABLE, LabelTable)
    kept = carried[carried["outcome"] == "carried"]
    assert len(kept) >= 3
    for row in kept.to_dict("records"):
        assert order[int(row["latent"])] == row["from_latent"]
        here = after[(after["latent"] == row["latent"]) & (after["version"] == row["version"])]
        assert len(here) == 1
        assert row["confidence"] == pytest.approx(row["rescored"] * row["match_probability"])
        assert json.loads(row["history"])[-1]["bundle"] == OLD
    assert carried.set_index("from_latent").loc[strong[2], "reason"] == "a reviewer rejected it"
    remarks = {int(row["from_latent"]): json.loads(row["remarks"]) for row in carried.to_dict("records")}
    assert remarks[strong[1]][0]["text"] == "better"
    assert remarks[strong[1]][0]["verdict"] == "edit"
    assert decisions_on(bundle.reviews(), once.digest) == {}, "what was said is evidence, and decides nothing here"
    metrics = read_metrics(new.labels / METRICS_FILE)
    assert metrics["carry_over_coverage"].n == int(carried["trusted"].sum())
    assert metrics["carry_over_coverage"].point == pytest.approx(
        (kept["trusted"]).sum() / carried["trusted"].sum()
    )
    drawn = open_sealed(new.labels, kind="labels").summary["drawn"]
    assert metrics["label_confidence"].n == drawn, "carried labels are not among those drawn at random"
    assert any("stand" in line for line in watch.said)
    again = label.run(params, new, model=tiny_model, llm=None, watch=RecordingWatch(), carrying=carrying)
    assert again.digest == once.digest


def test_history_grows_from_dictionary_to_dictionary(
    spaces: tuple[Workspace, Workspace, list[int]], params: Params, tiny_model: TransformersModel
) -> None:
    old, new, _ = spaces
    first = carrying_of(old, new, bundle_of(old, []), params)
    label.run(params, new, model=tiny_model, llm=None, watch=RecordingWatch(), carrying=first)
    write_atomic(new.root / "artifacts" / "reviews.jsonl", b"")
    second = Bundle(new.root / "artifacts", "b" * 64, {})
    carried = pd.read_parquet(new.labels / CARRIED)
    moved = {(row.latent, row.version) for row in carried.itertuples() if row.outcome == "carried"}
    here = [each for each in old_labels(second) if (each.latent, each.label.version) in moved]
    assert here
    assert all([origin.bundle for origin in each.history] == [OLD] for each in here)


def test_labels_matched_to_another_sae_are_refused(
    spaces: tuple[Workspace, Workspace, list[int]], params: Params, tiny_model: TransformersModel
) -> None:
    old, new, _ = spaces
    carrying = replace(carrying_of(old, new, bundle_of(old, []), params), sae="c" * 64)
    with pytest.raises(ModelMismatch, match="another SAE"):
        label.run(params, new, model=tiny_model, llm=None, watch=RecordingWatch(), carrying=carrying)
    other = Bundle(old.root / "artifacts", "d" * 64, {})
    with pytest.raises(ModelMismatch, match="not dddd"):
        prepare(other, Ref.of(open_sealed(new.match, kind="match")))


def test_latents_whose_old_label_fell_are_queued_first_with_what_was_said_of_it(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    remark = Remark(OLD, 3, "edit", "a better one", "because", "ada", "2026-03-01T12:00:00+00:00")
    old = replace(old_label(3), remarks=(remark,))
    settled = settle(replace(offer(), old=old, latent=0), 0.0, CONFIG)
    frame = carried_frame([carried_row(settled, bundle=OLD, trusted=0.3)])
    write_table(frame, bundle / "labels" / CARRIED, CarriedTable, rows=1)
    seal(bundle, kind="bundle", version=1, inputs={}, summary={})
    first, *rest = review.queue(bundle, MemoryLedger()).rows
    assert (first.latent, first.why, first.decided) == (0, "dropped", None)
    assert "word 3 (0.80), dropped: carried confidence 0.00 is below 0.3" in first.before[0]
    assert first.before[1] == f"ada said edit to a better one on {OLD[:12]}"
    assert all(row.why != "dropped" and not row.before for row in rest)
