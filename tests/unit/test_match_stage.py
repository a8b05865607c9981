"""The match stage and its verb, on small real bundles and activation sets."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from saeops.activations.reader import ActivationSet
from saeops.cli import app
from saeops.digests import digest_json
from saeops.drift.matching.paired import Reading, codes_on_both
from saeops.drift.matching.schema import FIGURE, METRICS_FILE, TABLE, MatchTable
from saeops.errors import NotComparable
from saeops.files import write_atomic
from saeops.metrics import read_metrics
from saeops.refs import Workspace
from saeops.sae.canonical import Sae, SaeMeta
from saeops.sealed import open_sealed, seal
from saeops.stages import match
from saeops.stages.matchable import Matchable
from saeops.tables import read_table
from tests.bundles import F, tiny_bundle, tiny_params
from tests.tiny import D_MODEL, RecordingWatch

SITE = "blocks.1.resid_post"


def sae_of(acts: ActivationSet, *, latents: int = 48, seed: int = 0) -> Sae:
    """Random directions, read as they are written, four a token."""
    W_dec = torch.nn.functional.normalize(
        torch.randn(latents, D_MODEL, generator=torch.Generator().manual_seed(seed))
    )
    meta = SaeMeta(variant="topk", site=SITE, d_model=D_MODEL, d_sae=latents, k=4, model=acts.model)
    return Sae(W_dec.T.contiguous(), torch.zeros(latents), W_dec, torch.zeros(D_MODEL), None, meta)


def in_other_order(sae: Sae, order: list[int]) -> Sae:
    return Sae(sae.W_enc[:, order], sae.b_enc[order], sae.W_dec[order], sae.b_dec, None, sae.meta)


def matchable(sae: Sae, model: str, called: str = "tiny") -> Matchable:
    return Matchable(called, digest_json(called), sae, np.ones(sae.meta.d_sae, bool), model, "", {0: "the first"})


def test_a_dictionary_in_another_order_is_found_latent_by_latent(
    tmp_path: Path, tiny_activations: ActivationSet
) -> None:
    sae, order = sae_of(tiny_activations), np.random.default_rng(0).permutation(48).tolist()
    sides = [matchable(each, tiny_activations.model["digest"]) for each in (sae, in_other_order(sae, order))]
    space = Workspace(root=tmp_path)
    done = match.run(*sides, tiny_params(), space, activations=[tiny_activations], watch=RecordingWatch())
    frame = read_table(space.match / TABLE, MatchTable)
    ours = frame[frame["side"] == "A"]
    assert [order[partner] for partner in ours["partner"]] == list(range(48))
    assert (ours["kind"] == "matched").all()
    fired = ours[ours["correlation"] > 0]
    assert len(fired) > 10
    assert np.allclose(fired["correlation"], 1, atol=1e-4)
    assert open_sealed(space.match, kind="match").summary["tokens"] > 1000
    assert read_metrics(space.match / METRICS_FILE)["match_matched_fraction"].point == 1
    assert (space.match / FIGURE).stat().st_size > 1000
    assert done.seconds is not None


def test_what_was_matched_is_kept_and_the_same_matching_has_the_same_bytes(
    tmp_path: Path, tiny_activations: ActivationSet
) -> None:
    sides = [matchable(sae_of(tiny_activations, seed=seed), "m" * 64, f"tiny {seed}") for seed in (0, 1)]
    runs = []
    for root in (tmp_path / "one", tmp_path / "one", tmp_path / "two"):
        space = Workspace(root=root)
        runs.append(match.run(*sides, tiny_params(), space, activations=[], watch=RecordingWatch()))
    assert runs[1].seconds is None
    assert len({done.ref.digest for done in runs}) == 1


def test_without_activations_of_both_models_decoders_alone_are_compared_and_that_is_said(
    tmp_path: Path, tiny_activations: ActivationSet
) -> None:
    sae = sae_of(tiny_activations)
    sides = [matchable(sae, model) for model in (tiny_activations.model["digest"], "other" * 12)]
    watch, space = RecordingWatch(), Workspace(root=tmp_path)
    match.run(*sides, tiny_params(), space, activations=[tiny_activations], watch=watch)
    assert any("decoder directions alone" in line for line in watch.said)
    frame = read_table(space.match / TABLE, MatchTable)
    assert frame["correlation"].isna().all()
    assert np.allclose(frame["score"], 1, atol=1e-6)


def test_tokens_are_paired_by_document_and_position_over_two_sets(
    tmp_path: Path, tiny_activations: ActivationSet
) -> None:
    sae = sae_of(tiny_activations)
    once = codes_on_both(*(Reading(sae, tiny_activations),) * 2, tokens=1500)
    shutil.copytree(tiny_activations.sealed.path, tmp_path / "copy")
    twice = codes_on_both(
        Reading(sae, tiny_activations), Reading(sae, ActivationSet.open(tmp_path / "copy")), tokens=1500
    )
    assert once is not None
    assert twice is not None
    assert torch.equal(once[0].value, twice[1].value)
    assert 1500 <= once[0].tokens < 3000


def test_pairs_are_placed_among_those_of_another_seed_where_the_controls_are_the_dictionarys_own(
    tmp_path: Path, tiny_activations: ActivationSet
) -> None:
    space, model = Workspace(root=tmp_path), tiny_activations.model["digest"]
    shutil.copytree(tiny_activations.sealed.path, space.activations)
    sae_of(tiny_activations, seed=1).save(space.control("seed-1", same_activations=True).sae)
    inputs, summary = (
        {"activations": tiny_activations.sealed.digest},
        {"random_model": None, "seeds": {"seed-1": {}}},
    )
    controls = seal(space.controls, kind="controls", version=1, inputs=inputs, summary=summary).digest
    sae = sae_of(tiny_activations)
    theirs = matchable(in_other_order(sae, list(range(47, -1, -1))), model, "B")
    for owner, pairs in ((replace(theirs, controls=controls), 48), (theirs, 0)):
        sides = matchable(sae, model, "A"), owner
        match.run(*sides, tiny_params(), space, activations=[tiny_activations], watch=RecordingWatch())
        assert open_sealed(space.match, kind="match").summary["seed_pairs"] == pairs
        assert ("match_beside_seeds" in read_metrics(space.match / METRICS_FILE)) == bool(pairs)
        shares = read_table(space.match / TABLE, MatchTable)["seed_share"]
        assert shares.notna().all() if pairs else shares.isna().all()
        if pairs:
            assert shares.mean() > 0.9, "the same dictionary is nearer than one of another seed"


def test_dictionaries_of_other_sites_or_widths_are_refused(
    tmp_path: Path, tiny_activations: ActivationSet
) -> None:
    sae = sae_of(tiny_activations)
    elsewhere = Sae.of(sae.tensors(), sae.meta.model_copy(update={"site": "blocks.2.resid_post"}))
    narrow = tiny_bundle(tmp_path / "narrow")
    ours = matchable(sae, "m" * 64)
    for theirs in (matchable(elsewhere, "m" * 64), Matchable.of(narrow)):
        with pytest.raises(NotComparable):
            match.run(
                ours, theirs, tiny_params(), Workspace(root=tmp_path), activations=[], watch=RecordingWatch()
            )


def test_the_verb_shows_counts_examples_gap_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEOPS_TRACKING", "none")
    root = tmp_path / "checkout"
    write_atomic(root / "params.yaml", b"match: {null_latents: 16}\n")
    folders = [str(tiny_bundle(tmp_path / name, seed=seed).path) for name, seed in (("a", 0), ("b", 1))]
    shown = CliRunner().invoke(app, ["match", *folders, "--root", str(root)])
    assert shown.exit_code == 0, shown.output
    for words in ("16 living latents", "matched", "vanished", "none is better", "Beside B permuted", "Matched in"):
        assert words in shown.output
    again = CliRunner().invoke(app, ["match", *folders, "--root", str(root), "--json"])
    found = json.loads(again.output)
    assert found["seconds"] is None
    assert sum(found["counts"][kind] for kind in ("matched", "split", "vanished")) <= F
    assert {example["kind"] for example in found["examples"]} <= {"matched", "split", "merged", "vanished", "new"}
