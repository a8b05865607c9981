"""Controls: SAEs that the dictionary is compared with, of a model that learnt nothing and of other seeds.

Format: docs/formats/controls.md.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saeops.activations.reader import MADE_BY as HARVEST
from saeops.activations.reader import ActivationSet
from saeops.activations.selection import reselect
from saeops.activations.sites import Sites
from saeops.errors import ModelMismatch, ParamsInvalid
from saeops.params import Params
from saeops.ports import Bar, LanguageModel, ModelIdentity, Watch
from saeops.refs import Ref, Workspace
from saeops.sae.canonical import Sae
from saeops.sealed import MANIFEST, Sealed, kept, open_sealed, seal
from saeops.stages import harvest, train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND = "controls"
VERSION = 1
MADE_BY = "saeops controls"
RANDOM_MODEL = "random_model"


@dataclass(frozen=True)
class ControlModel:
    """An SAE of the model with random weights, and what it read."""

    acts: ActivationSet
    sae: Sae
    seed: int
    """Draws the model's weights (`Services.random_model`)."""


@dataclass(frozen=True)
class Controls:
    """What is there to compare with."""

    sealed: Sealed
    random_model: ControlModel | None
    """None: switched off."""
    seeds: tuple[Sae, ...]
    """SAEs of other seeds on the dictionary's own activations."""


def run(params: Params, space: Workspace, *, random_model: Callable[[], LanguageModel], watch: Watch) -> Ref:
    """Make the controls that params want and leave a sealed `artifacts/controls`.

    Killed at any point, the same call goes on and ends with the same bytes. A control that did not
    change is kept when others do.

    Args:
        random_model: gives the model with random weights of `params.seed`, where it is needed.

    Raises:
        StageMissing: nothing has been harvested.
        ParamsInvalid: `controls.random_model_tokens` holds no batch.
        ModelMismatch: the activations are of another model.
        NonFinite, MemoryShort, CheckpointDamaged, DiskFull: as `harvest.run` and `train.run`.
    """
    acts = ActivationSet.open(space.activations)
    inputs = _inputs(params, acts)
    finished = kept(space.controls, kind=KIND, inputs=inputs)
    if finished is None:
        # Controls that stand stay in place, to be kept; without its manifest the folder counts as unfinished.
        (space.controls / MANIFEST).unlink(missing_ok=True)
        summary = _made(params, space, acts, random_model, watch)
        _tidy(space.controls, summary)
        finished = seal(space.controls, kind=KIND, version=VERSION, inputs=inputs, summary=summary)
    return Ref.of(finished)


def open_controls(space: Workspace) -> Controls:
    """What `saeops controls` left, with the activation sets and SAEs opened.

    Raises:
        StageMissing: the controls were not made.
        FolderDamaged: a file is missing, extra or of another size, or an SAE's tensors are none.
        ModelMismatch: they were made beside other activations than those of this workspace.
    """
    sealed = open_sealed(space.controls, kind=KIND, made_by=MADE_BY)
    beside = open_sealed(space.activations, kind="activations", made_by=HARVEST).digest
    if sealed.inputs["activations"] != beside:
        raise ModelMismatch(
            f"{sealed.path} was made beside other activations than the ones in {space.activations}",
            hint=f"run `{MADE_BY}` again",
        )
    found = sealed.summary[RANDOM_MODEL]
    random_model = None
    if found is not None:
        own = space.control(RANDOM_MODEL, same_activations=False)
        random_model = ControlModel(ActivationSet.open(own.activations), Sae.load(own.sae), int(found["seed"]))
    others = [space.control(name, same_activations=True) for name in sealed.summary["seeds"]]
    return Controls(sealed, random_model, tuple(Sae.load(other.sae) for other in others))


def random_identity(acts: ActivationSet, seed: int) -> ModelIdentity:
    """The identity of the model with random weights beside an activation set's own model."""
    return ModelIdentity(**acts.model).randomly_initialised(seed)


def _inputs(params: Params, acts: ActivationSet) -> dict[str, Any]:
    """Everything that determines the controls."""
    return {
        **train.inputs_of(train.fresh(params), acts),
        "model_dtype": params.model.dtype,
        "controls": params.controls.model_dump(mode="json"),
    }


def _made(
    params: Params,
    space: Workspace,
    acts: ActivationSet,
    random_model: Callable[[], LanguageModel],
    watch: Watch,
) -> dict[str, Any]:
    """Every control that is wanted, made or kept; what the manifest says of them."""
    made: dict[str, Any] = {RANDOM_MODEL: None, "seeds": {}, "dictionary_train_tokens": params.train.tokens}
    if params.controls.random_model_tokens:
        own = space.control(RANDOM_MODEL, same_activations=False)
        made[RANDOM_MODEL] = _of_random_model(params, own, acts, random_model, _Beside(watch, RANDOM_MODEL))
    for seed in range(params.seed + 1, params.seed + 1 + params.controls.seeds):
        name = f"seed-{seed}"
        own = space.control(name, same_activations=True)
        other = _shorter(params).model_copy(update={"seed": seed})
        trained = train.run(other, own, watch=_Beside(watch, name))
        made["seeds"][name] = {"seed": seed, "sae": trained.digest, "train_tokens": other.train.tokens}
    return made


def _of_random_model(
    params: Params,
    own: Workspace,
    acts: ActivationSet,
    random_model: Callable[[], LanguageModel],
    watch: Watch,
) -> dict[str, Any]:
    """Harvest the model with random weights on documents of the dictionary's own set, and train on that."""
    shorter = _shorter(params)
    sites = Sites.of(params.train.site, params.train.target_site)
    wanted = {
        "sites": tuple(dict.fromkeys((sites.input, sites.target))),
        "tokens": params.controls.random_model_tokens,
    }
    chosen = shorter.model_copy(update={"harvest": params.harvest.model_copy(update=wanted)})
    _check_batch(chosen, acts)
    model = random_model()
    expected = random_identity(acts, params.seed)
    if model.identity.digest != expected.digest:
        raise ModelMismatch(
            f"{acts.sealed.path} was harvested from another model than the one at hand",
            hint=f"run `{HARVEST}` again with this model, or set model.ref back",
        )
    read = harvest.run_again(chosen, own, acts=acts, model=model, watch=watch)
    trained = train.run(chosen, own, watch=watch)
    return {
        "seed": params.seed,
        "model": model.identity.to_json(),
        "activations": read.digest,
        "tokens": dict(ActivationSet.open(own.activations).sealed.summary["tokens"]),
        "sae": trained.digest,
        "train_tokens": chosen.train.tokens,
    }


def _shorter(params: Params) -> Params:
    """The same training, from a fresh start, on the tokens that a control may take."""
    tokens = min(params.train.tokens, params.controls.train_tokens or params.train.tokens)
    update = {"tokens": tokens, "start_from": None}
    return params.model_copy(update={"train": params.train.model_copy(update=update)})


def _check_batch(params: Params, acts: ActivationSet) -> None:
    """Refuse before the forward passes what training would refuse after them."""
    documents = reselect(acts.documents, tokens=params.harvest.tokens).documents
    left = int(documents.loc[documents["split"] == "train", "n_tokens"].sum())
    if left < params.train.batch_size:
        what = f"leaves {left} tokens to train on beside the held-out documents, fewer than train.batch_size"
        raise ParamsInvalid([("controls.random_model_tokens", f"{what} {params.train.batch_size}")])


def _tidy(folder: Path, summary: Mapping[str, Any]) -> None:
    """Remove controls that are not wanted any more, and what a kill left."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {folder / name / "sae" for name in summary["seeds"]}
    if summary[RANDOM_MODEL] is not None:
        wanted |= {folder / RANDOM_MODEL / "sae", folder / RANDOM_MODEL / "activations"}
    for path in [*folder.glob("*"), *folder.glob("*/*")]:
        if path not in wanted and not any(kept.is_relative_to(path) for kept in wanted):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


class _Beside:
    """A watch under a control's name, so that its curves do not run into those of another."""

    def __init__(self, watch: Watch, name: str) -> None:
        self._watch, self._name = watch, name

    @contextmanager
    def bar(self, title: str, total: float, unit: str) -> Iterator[Bar]:
        with self._watch.bar(f"{self._name}: {title}", total, unit) as bar:
            yield bar

    def say(self, text: str) -> None:
        self._watch.say(f"{self._name}: {text}")

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self._watch.metrics({f"{self._name}/{name}": value for name, value in values.items()}, step=step)

    def figure(self, name: str, figure: "Figure") -> None:
        self._watch.figure(f"{self._name}/{name}", figure)

    def file(self, path: Path) -> None:
        self._watch.file(path)
