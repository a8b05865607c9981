"""Training that goes on from an earlier dictionary's SAE, beside a fresh start."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from saeops.activations.reader import ActivationSet
from saeops.adapters.watch import QuietWatch
from saeops.errors import DocumentsShared, ParamsInvalid
from saeops.params import Params
from saeops.refs import Workspace
from saeops.sae.canonical import Sae
from saeops.sae.variants import Variant
from saeops.sealed import open_sealed
from saeops.stages import sweep, train
from saeops.stages.warm_start import Contest
from saeops.stats import Interval
from saeops.tables import read_table, write_table
from saeops.training.config import TrainingConfig
from saeops.training.documents import DOCUMENTS, TrainedDocumentTable
from saeops.training.pairs import Pair
from saeops.training.state import begin
from tests.killing import Killed, KillingWatch
from tests.tiny import tiny_params
from tests.variants import VARIANTS

DIGEST = "ab" * 32
SHORT = {"tokens": 256 * 24, "checkpoint_every_steps": 5, "log_every_steps": 4}


def chosen(**changes: object) -> Params:
    return tiny_params(train={**SHORT, **changes})


def warm(**changes: object) -> Params:
    return chosen(start_from=DIGEST, **changes)


@pytest.fixture
def space(tmp_path: Path, tiny_activations: ActivationSet) -> Workspace:
    """A workspace that holds the tiny activations."""
    space = Workspace(root=tmp_path / "checkout")
    shutil.copytree(tiny_activations.sealed.path, space.activations)
    return space


@pytest.fixture
def earlier(space: Workspace, tmp_path: Path) -> Path:
    """The SAE folder of an earlier run, trained for longer than those that start from it."""
    train.run(chosen(tokens=256 * 200), space, watch=QuietWatch())
    return space.sae.rename(tmp_path / "earlier")


def run(params: Params, space: Workspace, earlier: Path, watch: QuietWatch | None = None) -> dict:
    """The manifest's word on the start."""
    train.run(params, space, watch=watch or QuietWatch(), find_sae={DIGEST: earlier}.__getitem__)
    return open_sealed(space.sae, kind="sae").summary["start"]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.variant)
def test_a_run_begins_with_the_function_of_the_sae_it_starts_from(space: Workspace, variant: Variant) -> None:
    base = tiny_params().model_dump(mode="json")
    shared = {name: base["train"][name] for name in TrainingConfig.model_fields}
    params = Params.model_validate({**base, "train": {**shared, **variant.model_dump(mode="json"), **SHORT}})
    train.run(params, space, watch=QuietWatch())
    sae, acts = Sae.load(space.sae), ActivationSet.open(space.activations)
    x_TD = next(acts.batches(params.train.site, "eval", 200)).activations.float()
    # Another normalisation than it was trained under.
    sample = Pair.same(2 * x_TD + 1)
    state = begin(params.train, sample, d_sae=sae.meta.d_sae, seed=1, device=torch.device("cpu"), warm=sae)
    again = train.folded(state, sae.meta)
    torch.testing.assert_close(again.reconstruct(x_TD), sae.reconstruct(x_TD), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(again.encode(x_TD).dense(), sae.encode(x_TD).dense(), rtol=1e-3, atol=1e-3)


def test_a_start_from_a_well_trained_sae_is_kept_and_its_figures_are_told(space: Workspace, earlier: Path) -> None:
    watch = QuietWatch()
    found = run(warm(), space, earlier, watch)
    assert (found["from"], found["kept"]) == (DIGEST, "warm")
    figures = {name: Interval.from_json(found["explained_variance"][name]) for name in ("warm", "fresh")}
    assert figures["warm"].point > figures["fresh"].point
    assert figures["warm"].n >= 8
    assert any("the warm start is kept" in line for line in watch.said)
    cosine = torch.nn.functional.cosine_similarity(Sae.load(space.sae).W_dec, Sae.load(earlier).W_dec)
    assert cosine.median() > 0.9, "latents keep their places"


def test_a_fresh_start_that_shows_itself_better_is_kept_and_is_what_a_fresh_run_leaves(
    space: Workspace, earlier: Path
) -> None:
    # An SAE of which nothing is left but one latent that fires on everything.
    sae = Sae.load(earlier)
    broken = {name: torch.zeros_like(tensor) for name, tensor in sae.tensors().items()} | {"W_dec": sae.W_dec[:1]}
    broken["W_dec"] = sae.W_dec[:1].expand_as(sae.W_dec).contiguous()
    Sae.of(broken, sae.meta).save(earlier)
    found = run(warm(), space, earlier)
    assert found["kept"] == "fresh"
    kept = Sae.load(space.sae)
    train.run(chosen(), space, watch=QuietWatch())
    for name, tensor in Sae.load(space.sae).tensors().items():
        assert torch.equal(tensor, kept.tensors()[name])


@pytest.mark.parametrize(
    ("low", "high", "kept"), [(-0.2, -0.1, "fresh"), (-0.2, 0.1, "warm"), (None, None, "warm")]
)
def test_only_a_fresh_start_that_is_surely_better_is_preferred(low: float, high: float, kept: str) -> None:
    figure = Interval(0.5, 0.4, 0.6, 20, "documents", 0.95)
    assert Contest(figure, figure, Interval(-0.1, low, high, 20, "documents", 0.95)).kept == kept


@pytest.mark.parametrize("after", [3, 20, 30, 47, 49])
def test_a_run_killed_in_either_start_and_rerun_ends_with_the_same_bytes(
    space: Workspace, earlier: Path, after: int
) -> None:
    run(warm(), space, earlier)
    whole = open_sealed(space.sae, kind="sae").digest
    shutil.rmtree(space.sae)
    with pytest.raises(Killed):
        run(warm(), space, earlier, KillingWatch(after))
    run(warm(), space, earlier)
    assert open_sealed(space.sae, kind="sae").digest == whole


def test_a_finished_run_is_kept_without_looking_for_what_it_started_from(space: Workspace, earlier: Path) -> None:
    run(warm(), space, earlier)
    train.run(warm(), space, watch=QuietWatch(), find_sae={}.__getitem__)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"expansion_factor": 2}, "d_sae 128 where this run has 64"),
        ({"variant": "batch_topk"}, "variant topk where this run has batch_topk"),
    ],
)
def test_an_sae_of_another_shape_or_variant_is_refused(
    space: Workspace, earlier: Path, changes: dict[str, object], fault: str
) -> None:
    with pytest.raises(ParamsInvalid, match=rf"train\.start_from.*{fault}.*null starts afresh"):
        run(warm(**changes), space, earlier)
    assert not space.sae.exists()


def test_an_sae_that_was_trained_on_what_is_held_out_here_is_refused(space: Workspace, earlier: Path) -> None:
    documents = ActivationSet.open(space.activations).documents
    held_out = documents.loc[documents["split"] == "eval", "sha256"].str[:32]
    write_table(pd.DataFrame({"sha256": sorted(held_out)}), earlier / DOCUMENTS, TrainedDocumentTable)
    with pytest.raises(DocumentsShared, match="trained the SAE"):
        run(warm(), space, earlier)


def test_what_trained_the_earlier_sae_counts_as_what_trained_this_one(space: Workspace, earlier: Path) -> None:
    more = pd.DataFrame({"sha256": ["0" * 32]})
    write_table(more, earlier / DOCUMENTS, TrainedDocumentTable)
    run(warm(), space, earlier)
    trained = read_table(space.sae / DOCUMENTS, TrainedDocumentTable)["sha256"]
    ours = ActivationSet.open(space.activations).documents
    assert set(trained) == {"0" * 32, *ours.loc[ours["split"] == "train", "sha256"].str[:32]}


def test_an_sae_that_does_not_say_what_trained_it_is_taken_with_a_warning(space: Workspace, earlier: Path) -> None:
    (earlier / DOCUMENTS).unlink()
    watch = QuietWatch()
    run(warm(), space, earlier, watch)
    assert any("held-out may be seen" in line for line in watch.said)


def test_the_members_of_a_sweep_start_afresh(space: Workspace) -> None:
    params = warm(sweep=[{"k": 3}])
    sweep.run(params, space, watch=QuietWatch())
    assert open_sealed(space.sweep, kind="sweep").summary["members"]
