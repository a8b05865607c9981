"""Several runs over one pass of the data: a batch is read, shuffled and normalised once, then each steps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from saeops.training.checkpoint import CheckpointFolder
from saeops.training.config import TrainingConfig
from saeops.training.loop import Batches, StepDone, coming, step_on
from saeops.training.prefetch import prefetched
from saeops.training.schedule import Schedule
from saeops.training.state import TrainState


@dataclass
class Run:
    """One of several runs: its own weights, schedule and checkpoints."""

    name: str
    state: TrainState
    config: TrainingConfig
    checkpoints: CheckpointFolder


def train_together(runs: Sequence[Run], batches: Batches) -> Iterator[tuple[Run, StepDone]]:
    """Train all to the end, yielding after every step of each.

    They begin with the one that is furthest behind; the others pass over the
    batches they have had. Each ends with the bits of a run of its own.

    Args:
        runs: at least one; all with the same batches, steps, normalisation and device.

    Raises:
        NonFinite: as `train`; the checkpoints of all runs are kept.
    """
    schedules = [Schedule.of(run.config) for run in runs]
    assert len({(schedule.steps, schedule.batch_size) for schedule in schedules}) == 1
    first, start = runs[0].state, min(run.state.step for run in runs)
    with prefetched(coming(batches, start, schedules[0].steps), device=first.device) as ahead:
        for number, raw in enumerate(ahead, start):
            pair = first.normalisation.apply(raw.to(first.device))
            for run, schedule in zip(runs, schedules, strict=True):
                if run.state.step == number:
                    done = step_on(
                        run.state, pair, config=run.config, schedule=schedule, checkpoints=run.checkpoints
                    )
                    yield run, done
