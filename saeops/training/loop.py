"""The training loop.

# T token, D d_model
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from saeops.errors import NonFinite
from saeops.sae.trainable import Outcome
from saeops.training.checkpoint import CheckpointFolder
from saeops.training.config import TrainingConfig
from saeops.training.curve import Point
from saeops.training.pairs import Pair
from saeops.training.prefetch import prefetched
from saeops.training.schedule import Schedule
from saeops.training.state import TrainState

Batches = Callable[[int], Iterable[Pair]]
"""Endless raw activations from a step on: batches(n) gives what batches(0) gives after n batches."""


@dataclass(frozen=True)
class StepDone:
    """One step, for whoever watches."""

    step: int
    tokens: int
    point: Point | None
    """Figures, at the steps where they are due."""
    notice: str | None
    """What a person should be told, once."""


def train(
    state: TrainState, batches: Batches, *, config: TrainingConfig, checkpoints: CheckpointFolder
) -> Iterator[StepDone]:
    """Train to the end of the schedule, changing `state` in place and yielding after every step.

    Batches are loaded ahead by a thread of their own.

    Raises:
        NonFinite: NaN or infinity in the data, the loss or the gradient; the weights are still good.
    """
    schedule = Schedule.of(config)
    with prefetched(coming(batches, state.step, schedule.steps), device=state.device) as ahead:
        for raw in ahead:
            yield step(state, raw, config=config, schedule=schedule, checkpoints=checkpoints)


def coming(batches: Batches, done: int, steps: int) -> Iterator[Pair]:
    """The batches of the steps that are left after `done`, each checked.

    Raises:
        NonFinite: a batch holds NaN or infinity.
    """
    for number, raw in enumerate(islice(batches(done), steps - done), done + 1):
        raw.check_finite(f"at step {number}")
        yield raw


def step(
    state: TrainState, raw: Pair, *, config: TrainingConfig, schedule: Schedule, checkpoints: CheckpointFolder
) -> StepDone:
    """One step on one batch of raw activations, with its figures and its checkpoint where they are due.

    Raises:
        NonFinite: NaN or infinity in the loss or the gradient.
    """
    pair = state.normalisation.apply(raw.to(state.device))
    return step_on(state, pair, config=config, schedule=schedule, checkpoints=checkpoints)


def step_on(
    state: TrainState, pair: Pair, *, config: TrainingConfig, schedule: Schedule, checkpoints: CheckpointFolder
) -> StepDone:
    """`step` on a batch that is already normalised and where the weights are.

    Raises:
        NonFinite: as `step`.
    """
    lr, progress = schedule.lr(state.step), schedule.progress(state.step)
    dead = state.silent.dead(after_tokens=config.dead_after_tokens)
    # The copies in low precision are those of products; weights, moments and losses stay fp32. Without
    # autocast's cache: a copy cached where gradients are off would be used where they are on.
    with torch.autocast(
        state.device.type, torch.bfloat16, enabled=config.precision == "bfloat16", cache_enabled=False
    ):
        centred_TD = pair.x_TD - state.sae.centre.detach()
        outcome = state.sae.outcome(centred_TD, pair.y_TE, dead=dead, progress=progress)
    grad_norm = update(state, outcome.loss, lr=lr, gradient_clip=config.gradient_clip)
    state.silent.see(outcome.fired, tokens=len(pair))
    state.step += 1
    point = None
    if schedule.logs(state.step):
        point = measure(state, outcome, pair, config=config, lr=lr, grad_norm=grad_norm)
        state.curve.append(point)
    if schedule.checkpoints(state.step):
        checkpoints.write(state.checkpoint())
    return StepDone(state.step, len(pair), point, outcome.notice)


def update(state: TrainState, loss: Float[Tensor, ""], *, lr: float, gradient_clip: float) -> float:
    """One step down the gradient; gives the gradient's norm before clipping.

    Raises:
        NonFinite: as `step`; nothing has moved.
    """
    loss.backward()
    state.sae.learn_centre()
    grad_norm = state.optimiser.grad_norm()
    if not (math.isfinite(float(loss.detach())) and math.isfinite(grad_norm)):
        raise NonFinite(
            f"the loss at step {state.step + 1} is NaN or infinite (learning rate {lr:.2g})",
            hint="lower it, e.g. --set train.lr=1e-4; the checkpoints before this step are kept",
        )
    state.optimiser.step(lr=lr, grad_norm=grad_norm, clip=gradient_clip)
    state.optimiser.clear()
    return grad_norm


@torch.no_grad()
def measure(
    state: TrainState,
    outcome: Outcome,
    pair: Pair,
    *,
    config: TrainingConfig,
    lr: float,
    grad_norm: float,
) -> Point:
    """The figures of the step just done."""
    dead = int(state.silent.dead(after_tokens=config.dead_after_tokens).sum())
    variance = float(pair.y_TE.var(0, correction=0).mean())
    mse = float(outcome.mse)
    return Point(
        step=state.step,
        tokens=state.step * config.batch_size,
        loss=float(outcome.loss.detach()),
        mse=mse,
        explained_variance=1 - mse / variance if variance else 0.0,
        l0=float(outcome.l0),
        dead=dead,
        dead_fraction=dead / len(outcome.fired),
        lr=lr,
        aux_loss=float(outcome.aux),
        grad_norm=grad_norm,
        encoder_recall=outcome.encoder_recall,
    )
