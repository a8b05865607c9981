"""The controls stage: a model with random weights and other seeds, through the real stages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from saeops.activations.reader import ActivationSet
from saeops.activations.selection import MIN_DOCUMENTS, reselect
from saeops.adapters.models import TransformersModel, load_model, load_random_model
from saeops.errors import FolderDamaged, ModelMismatch, ParamsInvalid, StageMissing
from saeops.params import ModelParams, Params
from saeops.ports import Bar, LanguageModel
from saeops.refs import Workspace
from saeops.sealed import open_sealed, verify
from saeops.stages import controls, train
from saeops.stages.controls import open_controls
from tests.killing import Killed, KillingWatch
from tests.tiny import RecordingWatch, save_tiny_model, tiny_params

SITE = "blocks.1.resid_post"


class Lender:
    """Lends the model with random weights, and counts how often it was asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.asked = folder, 0

    def __call__(self, seed: int = 0) -> LanguageModel:
        self.asked += 1
        return load_random_model(ModelParams(ref=str(self._folder), device="cpu"), Path("unused"), seed=seed)


@pytest.fixture
def lender(tiny_model_folder: Path) -> Lender:
    return Lender(tiny_model_folder)


@pytest.fixture
def space(tmp_path: Path, tiny_activations: ActivationSet) -> Workspace:
    space = Workspace(root=tmp_path / "checkout")
    shutil.copytree(tiny_activations.sealed.path, space.activations)
    return space


class KillingAt(KillingWatch):
    """Ends everything when one bar, named by a part of its title, has advanced so many times."""

    def __init__(self, title: str, after: int) -> None:
        super().__init__(after)
        self._title = title

    @contextmanager
    def bar(self, title: str, total: float, unit: str) -> Iterator[Bar]:
        yield self if self._title in title else RecordingWatch()


def params_for(**changes: Any) -> Params:
    chosen = {"random_model_tokens": 4000, "seeds": 1, "train_tokens": 256 * 8, **changes}
    return tiny_params(controls=chosen, train={"checkpoint_every_steps": 3})


def made(space: Workspace, lender: Lender, params: Params) -> str:
    return controls.run(params, space, random_model=lender, watch=RecordingWatch()).digest


@pytest.fixture(scope="module")
def unbroken(
    tmp_path_factory: pytest.TempPathFactory, tiny_activations: ActivationSet, tiny_model_folder: Path
) -> str:
    """The digest of a run that nobody killed."""
    space = Workspace(root=tmp_path_factory.mktemp("unbroken"))
    shutil.copytree(tiny_activations.sealed.path, space.activations)
    return made(space, Lender(tiny_model_folder), params_for())


def test_both_controls_are_made_by_the_stages_and_opened_in_one_call(space: Workspace, lender: Lender) -> None:
    params = params_for(seeds=2)
    assert made(space, lender, params) == verify(space.controls, kind="controls").digest
    opened = open_controls(space)
    assert opened.random_model is not None
    own = opened.random_model
    real = ActivationSet.open(space.activations)
    expected = controls.random_identity(real, params.seed)
    assert own.acts.model["digest"] == expected.digest == own.sae.meta.model["digest"]
    assert expected.digest != real.model["digest"]
    assert own.acts.sites == (SITE,)
    assert own.acts.policy == real.policy
    assert own.sae.meta.d_sae == 128
    assert [sae.meta.model for sae in opened.seeds] == [real.model] * 2
    assert not torch.equal(opened.seeds[0].W_dec, opened.seeds[1].W_dec)
    assert {path.name for path in space.controls.iterdir()} == {
        "random_model",
        "seed-1",
        "seed-2",
        "manifest.json",
    }
    assert not list((space.root / "artifacts" / ".work").iterdir())


def test_the_seeds_are_what_train_gives_with_that_seed(space: Workspace, lender: Lender) -> None:
    params = params_for(random_model_tokens=0)
    made(space, lender, params)
    chosen = params.train.model_copy(update={"tokens": 256 * 8})
    alone = train.run(params.model_copy(update={"seed": 1, "train": chosen}), space, watch=RecordingWatch())
    assert open_sealed(space.controls / "seed-1" / "sae", kind="sae").digest == alone.digest


def test_a_control_trains_on_no_more_tokens_than_the_dictionary(space: Workspace, lender: Lender) -> None:
    made(space, lender, params_for(random_model_tokens=0, train_tokens=None))
    summary = open_sealed(space.controls, kind="controls").summary
    assert summary["seeds"]["seed-1"]["train_tokens"] == summary["dictionary_train_tokens"] == 16_000


def test_the_random_model_reads_documents_of_the_set_in_their_splits(space: Workspace, lender: Lender) -> None:
    made(space, lender, params_for(seeds=0))
    own = open_controls(space).random_model
    assert own is not None
    real = ActivationSet.open(space.activations).documents.set_index("sha256")
    mine = own.acts.documents.set_index("sha256")
    assert set(mine["split"]) == {"train", "eval", "explain"}
    assert mine["document"].tolist() == list(range(len(mine)))
    for sha256, row in mine.iterrows():
        assert row["split"] == real.loc[sha256, "split"]
        assert row["tokens"].tolist() == real.loc[sha256, "tokens"].tolist()
    window = own.acts.windows("eval")[0]
    batch = next(own.acts.shards(SITE, "eval"))
    captured = lender().capture(torch.tensor([window.ids]), [SITE])[SITE][0, 1:]
    torch.testing.assert_close(batch.activations[: len(captured)].float(), captured, rtol=2e-3, atol=2e-3)


def test_with_both_switched_off_the_folder_says_so_and_no_model_is_made(space: Workspace, lender: Lender) -> None:
    made(space, lender, params_for(random_model_tokens=0, seeds=0))
    opened = open_controls(space)
    assert (opened.random_model, opened.seeds, lender.asked) == (None, (), 0)


def test_a_second_run_keeps_everything_and_makes_no_model(space: Workspace, lender: Lender) -> None:
    first = made(space, lender, params_for())
    assert made(space, lender, params_for()) == first
    assert lender.asked == 1


def test_what_did_not_change_is_kept_and_what_is_not_wanted_goes(space: Workspace, lender: Lender) -> None:
    made(space, lender, params_for())
    kept = [space.controls / name for name in ("random_model/sae", "random_model/activations", "seed-1/sae")]
    stamps = [(path / "manifest.json").stat().st_mtime_ns for path in kept]
    more = made(space, lender, params_for(seeds=2))
    assert [(path / "manifest.json").stat().st_mtime_ns for path in kept] == stamps
    (space.controls / "left by a kill").write_text("x")
    (space.controls / "manifest.json").unlink()
    assert made(space, lender, params_for(seeds=2)) == more
    made(space, lender, params_for(random_model_tokens=0))
    assert {path.name for path in space.controls.iterdir()} == {"seed-1", "manifest.json"}


def test_the_same_inputs_give_the_same_bytes_elsewhere(space: Workspace, lender: Lender, unbroken: str) -> None:
    assert made(space, lender, params_for()) == unbroken


@pytest.mark.parametrize(
    ("at", "after"),
    [("harvesting", 9), ("random_model: train", 2), ("random_model: train", 7), ("seed-1: train", 5)],
)
def test_killed_anywhere_it_goes_on_to_the_same_bytes(
    space: Workspace, lender: Lender, unbroken: str, at: str, after: int
) -> None:
    with pytest.raises(Killed):
        controls.run(params_for(), space, random_model=lender, watch=KillingAt(at, after))
    with pytest.raises(StageMissing, match="saeops controls"):
        open_controls(space)
    assert made(space, lender, params_for()) == unbroken
    assert not list((space.root / "artifacts" / ".work").iterdir())


def test_a_changed_control_is_not_silently_used(space: Workspace, lender: Lender) -> None:
    made(space, lender, params_for(random_model_tokens=0))
    path = space.controls / "seed-1" / "sae" / "sae.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(FolderDamaged, match=r"sae\.safetensors"):
        made(space, lender, params_for(random_model_tokens=0))


def test_controls_beside_other_activations_are_refused(space: Workspace, lender: Lender) -> None:
    made(space, lender, params_for())
    own = space.control("random_model", same_activations=False)
    shutil.rmtree(space.activations)
    shutil.copytree(own.activations, space.activations)
    with pytest.raises(ModelMismatch, match="other activations"):
        open_controls(space)


def test_another_model_than_the_one_harvested_is_refused(space: Workspace, tmp_path: Path) -> None:
    other = Lender(save_tiny_model(tmp_path / "other", seed=5))
    with pytest.raises(ModelMismatch, match="another model"):
        made(space, other, params_for())


def test_too_few_tokens_for_a_batch_are_refused_before_any_pass(space: Workspace, lender: Lender) -> None:
    params = tiny_params(controls={"random_model_tokens": 10}, train={"batch_size": 600})
    with pytest.raises(ParamsInvalid, match=r"controls\.random_model_tokens: leaves \d+ tokens.*batch_size 600"):
        made(space, lender, params)
    assert lender.asked == 0


# ── the model with random weights ───────────────────────────────────────────


def test_random_weights_follow_the_seed_and_leave_the_global_stream_alone(lender: Lender) -> None:
    before = torch.random.get_rng_state()
    one, again, other = lender(0), lender(0), lender(1)
    assert torch.equal(torch.random.get_rng_state(), before)
    ids = torch.tensor([[0, 5, 9]])
    assert torch.equal(one.logits(ids), again.logits(ids))
    assert not torch.equal(one.logits(ids), other.logits(ids))
    assert one.identity == again.identity
    assert one.identity.digest != other.identity.digest


def test_a_random_model_shares_everything_but_the_weights(
    lender: Lender, tiny_model_folder: Path, tiny_model: TransformersModel
) -> None:
    random = lender(1)
    assert random.encode("The if statement") == tiny_model.encode("The if statement")
    assert (random.bos_id, random.special_ids) == (tiny_model.bos_id, tiny_model.special_ids)
    shape = ("architecture", "n_layers", "d_model", "vocabulary")
    assert [getattr(random.identity, n) for n in shape] == [getattr(tiny_model.identity, n) for n in shape]
    trained = load_model(ModelParams(ref=str(tiny_model_folder), device="cpu"), Path("unused"))
    ids = torch.tensor([[0, 5, 9]])
    assert not torch.allclose(random.logits(ids), trained.logits(ids))


# ── which documents ─────────────────────────────────────────────────────────


@pytest.mark.parametrize("tokens", [1, 2000, 6000, 10**6])
def test_a_smaller_harvest_takes_the_first_documents_of_each_split_whole(
    tiny_activations: ActivationSet, tokens: int
) -> None:
    documents = tiny_activations.documents
    chosen = reselect(documents, tokens=tokens)
    table = chosen.documents
    assert chosen.tokens == table["n_tokens"].sum()
    assert set(table["split"]) == {"train", "eval", "explain"}
    longest = int(documents["n_tokens"].max())
    held = {split: table[table["split"] == split] for split in ("eval", "explain", "train")}
    for split, part in held.items():
        assert len(part) >= MIN_DOCUMENTS[split]
        first = documents[documents["split"] == split]
        assert part["sha256"].tolist() == first["sha256"].tolist()[: len(part)]
        taken = int(part["n_tokens"].sum())
        if split == "train":
            left = tokens - (chosen.tokens - taken)
            assert min(left, int(first["n_tokens"].sum())) <= taken <= max(left, 0) + longest
        else:
            assert taken <= max(tokens // 4, (MIN_DOCUMENTS[split] - 1) * longest) + longest
