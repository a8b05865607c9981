"""Train: activations → one SAE in its canonical form, with the curve of its training."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saeops.activations.reader import ActivationSet
from saeops.digests import digest_json
from saeops.files import publish_folder
from saeops.params import Params, check_against_model
from saeops.ports import Watch
from saeops.refs import Ref, Workspace
from saeops.sae.canonical import Sae, SaeMeta
from saeops.sae.folding import fold
from saeops.sae.variants import TopK
from saeops.sealed import Sealed, kept, seal
from saeops.stages.training import TrainingData, begin_or_resume, follow
from saeops.stages.warm_start import Earlier, FindSae, Start, contest
from saeops.stats import Bootstrap
from saeops.tables import write_table
from saeops.training.checkpoint import CheckpointFolder
from saeops.training.curve import CurveTable, curve_frame
from saeops.training.documents import DOCUMENTS, TrainedDocumentTable, trained_documents
from saeops.training.state import TrainState

if TYPE_CHECKING:
    import pandas as pd

KIND = "sae"
VERSION = 2
CURVE = "training.parquet"


def run(params: Params, space: Workspace, *, watch: Watch, find_sae: FindSae | None = None) -> Ref:
    """Train on the harvested activations and leave a sealed `artifacts/sae`.

    Killed at any point, the same call goes on from the newest checkpoint and ends with the same bytes.
    Where `train.start_from` names a bundle, a warm start from its SAE and a fresh one are trained, each on
    all tokens, and the better one is left.

    Args:
        find_sae: finds what `train.start_from` names.

    Raises:
        DocumentsShared, VersionUnknown, StoreUnreachable, FolderDamaged: of the SAE to start from.
        StageMissing: nothing has been harvested.
        ParamsInvalid: k or the batch does not fit.
        NonFinite: training diverged, or the activations hold NaN.
        MemoryShort: the machine has less memory than is needed.
        CheckpointDamaged: there are checkpoints, and none can be trusted.
        CheckpointMismatch: a checkpoint of another run lies among this run's.
    """
    acts = ActivationSet.open(space.activations)
    inputs = inputs_of(params, acts)
    work = space.work("train", digest_json(inputs))
    finished = kept(space.sae, kind=KIND, inputs=inputs)
    if finished is None:
        data = TrainingData(acts, params.train, seed=params.seed)
        meta = meta_of(params, acts, check_against_model(params, d_model=data.d_model))
        trained = trained_documents(acts.documents)
        digest, starts = params.train.start_from, _Starts(params, data, meta, work, inputs, watch)
        if digest is None:
            made = Made(starts.trained("fresh"), meta, trained)
        else:
            assert find_sae is not None, "a warm start has somewhere to find its SAE"
            earlier = Earlier.open(digest, find_sae, meta, acts, watch=watch)
            made = starts.better(earlier, acts, trained, Bootstrap(params.diagnose.resamples, params.seed))
        finished = publish(made, work / "sae", space.sae, inputs=inputs)
    shutil.rmtree(work, ignore_errors=True)
    return Ref.of(finished)


def inputs_of(params: Params, acts: ActivationSet) -> dict[str, Any]:
    """Everything that determines the SAE's bytes."""
    inputs = {
        "activations": acts.sealed.digest,
        "seed": params.seed,
        "train": params.train.model_dump(mode="json", exclude={"sweep", "start_from"}),
    }
    if params.train.start_from is not None:
        inputs |= {"start_from": params.train.start_from, "resamples": params.diagnose.resamples}
    return inputs


def fresh(params: Params) -> Params:
    """The same choices without a warm start."""
    return params.model_copy(update={"train": params.train.model_copy(update={"start_from": None})})


@dataclass(frozen=True)
class Made:
    """A finished run, and what is said about it."""

    state: TrainState
    meta: SaeMeta
    trained: "pd.DataFrame"
    """TrainedDocumentTable."""
    start: Mapping[str, Any] | None = None
    """How a warm start fared beside a fresh one; None where there was none."""

    @property
    def sae(self) -> Sae:
        return folded(self.state, self.meta)


@dataclass(frozen=True)
class _Starts:
    """One run's data and choices, from which it is trained once a start."""

    params: Params
    data: TrainingData
    meta: SaeMeta
    work: Path
    inputs: Mapping[str, Any]
    watch: Watch

    def trained(self, start: Start, warm: Sae | None = None) -> TrainState:
        """Trained to the end."""
        inputs = dict(self.inputs) if warm is None else {**self.inputs, "start": start}
        folder = self.work / ("checkpoints" if warm is None else f"checkpoints-{start}")
        config = self.params.train
        checkpoints = CheckpointFolder(folder, config.keep_checkpoints, inputs)
        title = "train" if config.start_from is None else f"train, {start} start"
        state = begin_or_resume(
            self.params, self.data, checkpoints, d_sae=self.meta.d_sae, title=title, watch=self.watch, warm=warm
        )
        follow(state, self.data, checkpoints, config=config, title=title, watch=self.watch)
        return state

    def better(self, earlier: Earlier, acts: ActivationSet, trained: "pd.DataFrame", draw: Bootstrap) -> Made:
        """The better of a warm and a fresh start."""
        made: dict[Start, Made] = {
            "warm": Made(self.trained("warm", earlier.sae), self.meta, earlier.and_also(trained)),
            "fresh": Made(self.trained("fresh"), self.meta, trained),
        }
        found = contest(acts, {start: one.sae for start, one in made.items()}, draw, watch=self.watch)
        self.watch.say(f"train: {found}")
        return replace(made[found.kept], start=found.to_json(earlier.digest))


def meta_of(params: Params, acts: ActivationSet, d_sae: int) -> SaeMeta:
    """What goes into sae.json."""
    site, target = params.train.site, params.train.target_site
    return SaeMeta(
        variant=params.train.variant,
        site=site,
        target_site=target,
        d_model=acts.width(site),
        d_out=None if target is None else acts.width(target),
        d_sae=d_sae,
        k=params.train.k if isinstance(params.train, TopK) else None,
        apply_b_dec_to_input=target is None,
        model=acts.model,
        policy=acts.policy,
        norm_limit=acts.norm_limit(site),
        target_norm_limit=None if target is None else acts.norm_limit(target),
    )


def folded(state: TrainState, meta: SaeMeta) -> Sae:
    """The canonical form of a finished run."""
    return fold(state.sae.weights(), meta, input=state.reading, target=state.normalisation.target)


def publish(made: Made, work: Path, target: Path, *, inputs: dict[str, Any]) -> Sealed:
    """Fold, write, seal, and put in place."""
    shutil.rmtree(work, ignore_errors=True)
    state = made.state
    made.sae.save(work)
    write_table(curve_frame(state.curve), work / CURVE, CurveTable, rows=len(state.curve))
    write_table(made.trained, work / DOCUMENTS, TrainedDocumentTable)
    last = state.curve[-1]
    summary = {
        **made.meta.model_dump(mode="json", exclude={"policy"}),
        "steps": state.step,
        "tokens": last.tokens,
        "train_loss": last.loss,
        "train_explained_variance": last.explained_variance,
        "train_l0": last.l0,
        "train_dead_fraction": last.dead_fraction,
        "normalisation_scale": state.normalisation.input.scale,
    }
    if made.start is not None:
        summary["start"] = dict(made.start)
    sealed = seal(work, kind=KIND, version=VERSION, inputs=inputs, summary=summary)
    publish_folder(work, target)
    return Sealed(**{**vars(sealed), "path": target})
