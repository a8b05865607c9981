"""Train: activations → one SAE in its canonical form, with the curve of its training."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from saeops.activations.pairing import check_shards, shuffled_batches
from saeops.activations.reader import ActivationSet
from saeops.activations.sites import Sites
from saeops.digests import digest_json
from saeops.errors import ParamsInvalid
from saeops.files import publish_folder
from saeops.params import Params, TrainParams, check_against_model
from saeops.ports import Watch
from saeops.refs import Ref, Workspace
from saeops.sae.canonical import Sae, SaeMeta
from saeops.sae.folding import fold
from saeops.sae.variants import TopK
from saeops.sealed import Sealed, kept, seal
from saeops.tables import write_table
from saeops.training.checkpoint import CheckpointFolder
from saeops.training.curve import CurveTable, curve_frame, loss_curve
from saeops.training.documents import DOCUMENTS, TrainedDocumentTable, trained_documents
from saeops.training.loop import coming, train
from saeops.training.machine import machine_memory
from saeops.training.memory import Memory, check_memory, in_gb, memory_needed
from saeops.training.normalise import SAMPLE_TOKENS
from saeops.training.pairs import Pair
from saeops.training.schedule import Schedule
from saeops.training.state import TrainState, begin, resume

KIND = "sae"
VERSION = 2
CURVE = "training.parquet"


def run(params: Params, space: Workspace, *, watch: Watch) -> Ref:
    """Train on the harvested activations and leave a sealed `artifacts/sae`.

    Killed at any point, the same call goes on from the newest checkpoint and ends with the same bytes.

    Raises:
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
        d_sae = check_against_model(params, d_model=data.d_model)
        checkpoints = CheckpointFolder(work / "checkpoints", params.train.keep_checkpoints, inputs)
        state = begin_or_resume(params, data, checkpoints, d_sae=d_sae, watch=watch)
        follow(state, data, checkpoints, config=params.train, watch=watch)
        meta = meta_of(params, acts, d_sae)
        finished = publish(state, acts, work / "sae", space.sae, meta=meta, inputs=inputs)
    shutil.rmtree(work, ignore_errors=True)
    return Ref.of(finished)


def inputs_of(params: Params, acts: ActivationSet) -> dict[str, Any]:
    """Everything that determines the SAE's bytes."""
    return {
        "activations": acts.sealed.digest,
        "seed": params.seed,
        "train": params.train.model_dump(mode="json", exclude={"sweep"}),
    }


class TrainingData:
    """The train split at the input and the target site, shuffled by token.

    Raises:
        SiteUnknown: a site was not harvested.
        SitesUnpaired: the sites do not hold the same tokens.
        ParamsInvalid: a batch larger than the split.
    """

    def __init__(self, acts: ActivationSet, train: TrainParams, *, seed: int) -> None:
        self.sites = Sites.of(train.site, train.target_site)
        self.d_model, self.d_out = acts.width(self.sites.input), acts.width(self.sites.target)
        check_shards(acts, self.sites, "train")
        self._acts, self._train, self._seed = acts, train, seed
        tokens = acts.count(train.site, "train")
        if train.batch_size > tokens:
            what = f"must be ≤ the {tokens} train tokens harvested at {train.site} (got {train.batch_size})"
            raise ParamsInvalid([("train.batch_size", what)])

    def batches(self, start_step: int) -> Iterator[Pair]:
        """Raw fp32 batches from a step on, for ever."""
        shuffled = shuffled_batches(
            self._acts,
            self.sites,
            batch_size=self._train.batch_size,
            buffer_tokens=self._train.buffer_tokens,
            seed=self._seed,
            start_step=start_step,
        )
        return (Pair(batch.x_TD, batch.y_TE, batch.tokens.origin) for batch in shuffled)

    def memory_needed(self, train: TrainParams, d_sae: int) -> Memory:
        """Of a run on this data."""
        d_out = self.d_out if self.sites.transcodes else None
        return memory_needed(train, train, d_model=self.d_model, d_sae=d_sae, d_out=d_out)

    def sample(self) -> Pair:
        """At most `SAMPLE_TOKENS` tokens of the first epoch, for the normalisation.

        Raises:
            NonFinite: NaN or infinity among them.
        """
        available = self._acts.count(self._train.site, "train")
        wanted = max(1, min(SAMPLE_TOKENS, available) // self._train.batch_size)
        pairs = list(coming(self.batches, 0, wanted))
        x_TD = torch.cat([pair.x_TD for pair in pairs])
        return Pair(x_TD, torch.cat([pair.y_TE for pair in pairs])) if self.sites.transcodes else Pair.same(x_TD)


def begin_or_resume(
    params: Params, data: TrainingData, checkpoints: CheckpointFolder, *, d_sae: int, watch: Watch
) -> TrainState:
    """The run as its newest whole checkpoint left it, or a fresh one."""
    device = device_of(params)
    needed = data.memory_needed(params.train, d_sae)
    watch.say(
        f"train: {params.train.variant} with {d_sae:,} latents on {data.d_model} dimensions, "
        f"needs up to {in_gb(needed.total)} of memory on {device}"
    )
    refuse_or_warn(needed, device, watch)
    resumed = resumed_state(params, checkpoints, device=device, title="train", watch=watch)
    if resumed is not None:
        return resumed
    return begin(params.train, data.sample(), d_sae=d_sae, seed=params.seed, device=device)


def resumed_state(
    params: Params, checkpoints: CheckpointFolder, *, device: torch.device, title: str, watch: Watch
) -> TrainState | None:
    """The run as its newest whole checkpoint left it, with a word on damaged ones; None before the first.

    Raises:
        CheckpointDamaged: there are checkpoints, and none can be trusted.
        CheckpointMismatch: the newest is of another run.
    """
    newest = checkpoints.newest()
    for fault in newest.damaged:
        watch.say(f"checkpoint damaged, taking the one before it: {fault}")
    if newest.checkpoint is None:
        return None
    watch.say(f"{title}: going on after step {newest.checkpoint.step}")
    return resume(params.train, newest.checkpoint, device=device)


def refuse_or_warn(needed: Memory, device: torch.device, watch: Watch) -> None:
    """Compare with what the machine has.

    Raises:
        MemoryShort: more is needed than there is at all.
    """
    warning = check_memory(needed, machine_memory(device), device=device)
    if warning is not None:
        watch.say(warning)


def follow(
    state: TrainState, data: TrainingData, checkpoints: CheckpointFolder, *, config: TrainParams, watch: Watch
) -> None:
    """Train to the end, showing each step."""
    left = (Schedule.of(config).steps - state.step) * config.batch_size
    facts = state.curve[-1].facts() if state.curve else {}
    with watch.bar("train", left, "tokens") as bar:
        for done in train(state, data.batches, config=config, checkpoints=checkpoints):
            if done.notice is not None:
                watch.say(f"train: step {done.step}: {done.notice}")
            if done.point is not None:
                facts = done.point.facts()
                watch.metrics(done.point.metrics(), step=done.step)
            bar.advance(done.tokens, **facts)
    watch.figure("loss_curve", loss_curve(state.curve))


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


def publish(
    state: TrainState,
    acts: ActivationSet,
    work: Path,
    target: Path,
    *,
    meta: SaeMeta,
    inputs: dict[str, object],
) -> Sealed:
    """Fold, write, seal, and put in place."""
    shutil.rmtree(work, ignore_errors=True)
    sae: Sae = fold(state.sae.weights(), meta, input=state.reading, target=state.normalisation.target)
    sae.save(work)
    write_table(curve_frame(state.curve), work / CURVE, CurveTable, rows=len(state.curve))
    write_table(trained_documents(acts.documents), work / DOCUMENTS, TrainedDocumentTable)
    last = state.curve[-1]
    summary = {
        **meta.model_dump(mode="json", exclude={"policy"}),
        "steps": state.step,
        "tokens": last.tokens,
        "train_loss": last.loss,
        "train_explained_variance": last.explained_variance,
        "train_l0": last.l0,
        "train_dead_fraction": last.dead_fraction,
        "normalisation_scale": state.normalisation.input.scale,
    }
    sealed = seal(work, kind=KIND, version=VERSION, inputs=inputs, summary=summary)
    publish_folder(work, target)
    return Sealed(**{**vars(sealed), "path": target})


def device_of(params: Params) -> torch.device:
    """Where training runs: `auto` is CUDA where there is one."""
    name = params.model.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
