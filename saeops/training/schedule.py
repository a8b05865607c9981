"""When what happens: steps, learning rate, logging, checkpoints."""

import math
from dataclasses import dataclass
from typing import Self

from saeops.training.config import TrainingConfig


@dataclass(frozen=True)
class Schedule:
    """The course of one training run, known before it starts."""

    steps: int
    batch_size: int
    peak_lr: float
    warmup_steps: int
    decay_steps: int
    log_every: int
    checkpoint_every: int

    @classmethod
    def of(cls, config: TrainingConfig) -> Self:
        """Whole batches only: the tokens asked for are rounded up to the next batch."""
        steps = math.ceil(config.tokens / config.batch_size)
        return cls(
            steps=steps,
            batch_size=config.batch_size,
            peak_lr=config.lr,
            warmup_steps=round(config.warmup_fraction * steps),
            decay_steps=round(config.decay_fraction * steps),
            log_every=config.log_every_steps,
            checkpoint_every=config.checkpoint_every_steps,
        )

    def lr(self, step: int) -> float:
        """Learning rate of step `step`, counted from 0: rises to the peak, holds, falls towards 0; never 0."""
        rising = (step + 1) / max(1, self.warmup_steps)
        falling = (self.steps - step) / max(1, self.decay_steps)
        return self.peak_lr * min(1.0, rising, falling)

    def progress(self, step: int) -> float:
        """Share of the steps that are done before step `step`."""
        return step / self.steps

    def logs(self, done: int) -> bool:
        """Whether figures are due after `done` steps; always after the last."""
        return done % self.log_every == 0 or done == self.steps

    def checkpoints(self, done: int) -> bool:
        """Whether a checkpoint is due after `done` steps; always after the last."""
        return done % self.checkpoint_every == 0 or done == self.steps
