"""One training run on an activation set, as `train` and `sweep` make them: its data, its beginning, its steps."""

from collections.abc import Iterator

import torch

from saeops.activations.pairing import check_shards, shuffled_batches
from saeops.activations.reader import ActivationSet
from saeops.activations.sites import Sites
from saeops.errors import ParamsInvalid
from saeops.params import Params, TrainParams
from saeops.ports import Watch
from saeops.sae.canonical import Sae
from saeops.training.checkpoint import CheckpointFolder
from saeops.training.curve import loss_curve
from saeops.training.loop import coming, train
from saeops.training.machine import machine_memory
from saeops.training.memory import Memory, check_memory, in_gb, memory_needed
from saeops.training.normalise import SAMPLE_TOKENS
from saeops.training.pairs import Pair
from saeops.training.schedule import Schedule
from saeops.training.state import TrainState, begin, resume


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
    params: Params,
    data: TrainingData,
    checkpoints: CheckpointFolder,
    *,
    d_sae: int,
    title: str,
    watch: Watch,
    warm: Sae | None = None,
) -> TrainState:
    """The run as its newest whole checkpoint left it, or one before its first step."""
    device = device_of(params)
    needed = data.memory_needed(params.train, d_sae)
    watch.say(
        f"{title}: {params.train.variant} with {d_sae:,} latents on {data.d_model} dimensions, "
        f"needs up to {in_gb(needed.total)} of memory on {device}"
    )
    refuse_or_warn(needed, device, watch)
    resumed = resumed_state(params, checkpoints, device=device, title=title, watch=watch)
    if resumed is not None:
        return resumed
    return begin(params.train, data.sample(), d_sae=d_sae, seed=params.seed, device=device, warm=warm)


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
    state: TrainState,
    data: TrainingData,
    checkpoints: CheckpointFolder,
    *,
    config: TrainParams,
    title: str,
    watch: Watch,
) -> None:
    """Train to the end, showing each step."""
    left = (Schedule.of(config).steps - state.step) * config.batch_size
    facts = state.curve[-1].facts() if state.curve else {}
    with watch.bar(title, left, "tokens") as bar:
        for done in train(state, data.batches, config=config, checkpoints=checkpoints):
            if done.notice is not None:
                watch.say(f"{title}: step {done.step}: {done.notice}")
            if done.point is not None:
                facts = done.point.facts()
                watch.metrics(done.point.metrics(), step=done.step)
            bar.advance(done.tokens, **facts)
    watch.figure("loss_curve", loss_curve(state.curve))


def device_of(params: Params) -> torch.device:
    """Where training runs: `auto` is CUDA where there is one."""
    name = params.model.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
