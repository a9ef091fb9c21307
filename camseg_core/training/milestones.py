"""Names what a configuration plans for steps that its training does not reach."""

import logging
from collections.abc import Iterator
from typing import Protocol

from camseg_core.training.settings import LoopConfig
from camseg_core.training.transformer import TransformerTraining

logger = logging.getLogger(__name__)


class Training(Protocol):
    """What all trainings have in common."""

    @property
    def loop(self) -> LoopConfig: ...
    @property
    def batch(self) -> int: ...


def warn_of_unreached(training: Training, entry: str, frames: int, with_task: bool = False) -> None:
    """Log a warning if a training on so many frames ends before all that it plans has happened.

    `entry` is the training's in the configuration, such as `training`. `with_task` says whether
    the model has a mask autoencoder, so that the task loss counts.
    """
    steps = training.loop.in_steps(frames, training.batch).steps
    late = {f"{entry}.{name}": step for name, step in _late(training, frames, with_task)}
    if late:
        logger.warning(
            "the %d steps of %s end before what is planned for later has taken effect: %s; lower "
            "it, as with --set %s=%d, or raise the steps",
            steps,
            entry,
            ", ".join(f"{name} ({step} steps)" for name, step in late.items()),
            next(iter(late)),
            steps // 2,
        )


def _late(training: Training, frames: int, with_task: bool) -> Iterator[tuple[str, int]]:
    loop = training.loop.in_steps(frames, training.batch)
    if loop.warmup > loop.steps:
        in_epochs = training.loop.warmup_epochs is not None
        yield "loop.warmup_epochs" if in_epochs else "loop.warmup", loop.warmup
    if not isinstance(training, TransformerTraining):
        return
    if training.rare_share > 0 and training.rare_until > loop.steps:
        yield "rare_until", training.rare_until
    task = training.task
    if with_task and task.decoder_joins >= loop.steps:
        yield "task.decoder_joins", task.decoder_joins
    if with_task and task.late_own_share != task.own_share and task.late_from >= loop.steps:
        yield "task.late_from", task.late_from
    if with_task and task.balanced_until > loop.steps:
        yield "task.balanced_until", task.balanced_until
