"""Callbacks that report a training: display or log lines, TensorBoard, pictures, log file."""

import json
import logging
import math
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from camseg_core.data.image_files import write_image
from camseg_core.long_runs import atomic_write, naming
from camseg_core.training.trainer import Callback, Picture

logger = logging.getLogger(__name__)

Clock = Callable[[], float]


class Means(Callback):
    """Calls `report` with the means over every few steps, and with the rest at the end."""

    def __init__(self, every: int = 10, clock: Clock = time.monotonic) -> None:
        self._every, self._clock = every, clock
        self._done = self._steps = self._samples_per_step = 0
        self._gathered: dict[str, list[float]] = {}
        self._learning_rate = 0.0
        # step and time in s: of the start of the run, and of the last report
        self._first = self._last = (0, 0.0)
        self._stepped = 0.0

    def report(
        self, done: int, figures: Mapping[str, float], learning_rate: float, samples_per_s: float
    ) -> None:
        """Receive the means over the last steps up to `done`, and the last `learning_rate`."""

    def on_train_begin(self, done: int, steps: int, samples_per_step: int) -> None:
        self._done, self._steps, self._samples_per_step = done, steps, samples_per_step
        self._first = self._last = (done, self._clock())
        self._gathered.clear()

    def on_step_end(self, done: int, figures: Mapping[str, float], learning_rate: float) -> None:
        self._done, self._learning_rate, self._stepped = done, learning_rate, self._clock()
        for name, figure in figures.items():
            self._gathered.setdefault(name, []).append(figure)
        if done % self._every == 0 or done == self._steps:
            self._report()

    def on_validation_end(
        self, done: int, scores: Mapping[str, float], picture: Picture | None
    ) -> None:
        step, then = self._last
        # samples per second exclude the validation
        self._last = (step, then + self._clock() - self._stepped)

    def on_train_end(self, done: int, reason: str) -> None:
        if self._gathered:
            self._report()

    def seconds_left(self) -> float:
        """Return the time for the remaining steps at the mean pace so far, with validations."""
        done, began = self._first
        return (self._clock() - began) / max(1, self._done - done) * (self._steps - self._done)

    def _report(self) -> None:
        (step, then), now = self._last, self._clock()
        pace = (self._done - step) * self._samples_per_step / max(now - then, 1e-9)
        means = {name: sum(figures) / len(figures) for name, figures in self._gathered.items()}
        self._gathered.clear()
        self._last = (self._done, now)
        self.report(self._done, means, self._learning_rate, pace)


class Display(Means):
    """Shows a bar on a terminal and log lines elsewhere; logs validation scores in both.

    `title` names what is trained.
    """

    def __init__(
        self,
        title: str = "",
        console: Console | None = None,
        every: int = 10,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(every, clock)
        self._title = title
        self._console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._loss, self._seen = 0.0, 0

    def on_train_begin(self, done: int, steps: int, samples_per_step: int) -> None:
        super().on_train_begin(done, steps, samples_per_step)
        if self._console.is_terminal:
            figures = TextColumn("loss {task.fields[loss]}  {task.fields[pace]} samples/s")
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                figures,
                TimeRemainingColumn(),
                TextColumn("left  {task.fields[scores]}"),
            )
            self._bar = Progress(*columns, console=self._console, speed_estimate_period=300)
            self._bar.add_task(
                self._title, total=steps, completed=done, loss="-", pace="-", scores=""
            )
            self._bar.start()
            # a run that ends with an error must not leave the terminal without a cursor
            weakref.finalize(self, self._bar.stop)

    def on_step_end(self, done: int, figures: Mapping[str, float], learning_rate: float) -> None:
        super().on_step_end(done, figures, learning_rate)
        self._seen += 1
        # of about the last 20 steps
        self._loss += (figures["loss"] - self._loss) * max(0.05, 1 / self._seen)
        self._update(completed=done, loss=f"{self._loss:.4f}")

    def report(
        self, done: int, figures: Mapping[str, float], learning_rate: float, samples_per_s: float
    ) -> None:
        self._update(pace=f"{samples_per_s:.1f}")
        if self._bar is None:
            logger.info(
                "%s %s  %.1f samples/s, %s left",
                self._step(done),
                _text(figures),
                samples_per_s,
                _span(self.seconds_left()),
            )

    def on_validation_end(
        self, done: int, scores: Mapping[str, float], picture: Picture | None
    ) -> None:
        super().on_validation_end(done, scores, picture)
        self._update(scores=_text(scores))
        logger.info("%s validation: %s", self._step(done), _text(scores))

    def on_train_end(self, done: int, reason: str) -> None:
        super().on_train_end(done, reason)
        if self._bar is not None:
            self._bar.stop()
        logger.info("%s ended: %s", self._step(done), reason)

    def _step(self, done: int) -> str:
        return f"{self._title} step {done}/{self._steps}".lstrip()

    def _update(self, completed: int | None = None, **fields: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=completed, **fields)


class TensorBoard(Means):
    """Writes curves and validation pictures to `RUN/tensorboard`.

    On resume, points after the resumed step are hidden, so that no curve doubles back.
    """

    def __init__(self, run: Path, every: int = 10, clock: Clock = time.monotonic) -> None:
        super().__init__(every, clock)
        self._folder = run / "tensorboard"

    def on_train_begin(self, done: int, steps: int, samples_per_step: int) -> None:
        super().on_train_begin(done, steps, samples_per_step)
        self._writer = SummaryWriter(str(self._folder), purge_step=done + 1)

    def report(
        self, done: int, figures: Mapping[str, float], learning_rate: float, samples_per_s: float
    ) -> None:
        self._add(done, {f"training/{name}": figure for name, figure in figures.items()})
        self._add(done, {"pace/learning rate": learning_rate, "pace/samples per s": samples_per_s})

    def on_validation_end(
        self, done: int, scores: Mapping[str, float], picture: Picture | None
    ) -> None:
        super().on_validation_end(done, scores, picture)
        self._add(done, {f"validation/{name}": score for name, score in scores.items()})
        if picture is not None:
            self._writer.add_image(
                "validation: image, truth, prediction", picture, done, dataformats="HWC"
            )
        self._writer.flush()

    def on_train_end(self, done: int, reason: str) -> None:
        super().on_train_end(done, reason)
        self._writer.close()

    def _add(self, done: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, done)


class Pictures(Callback):
    """Writes validation pictures as `RUN/pictures/step-000300.jpg`.

    Raises:
        DataError: on validation, if a picture cannot be written.
    """

    def __init__(self, run: Path) -> None:
        self._folder = run / "pictures"

    def on_validation_end(
        self, done: int, scores: Mapping[str, float], picture: Picture | None
    ) -> None:
        if picture is None:
            return
        write_image(self._folder / f"step-{done:06}.jpg", picture)


class JsonLines(Means):
    """Writes `RUN/log.jsonl`, an object a line.

    Means over ten steps are `{"step", "training", "learning_rate", "samples_per_s"}`, validations
    `{"step", "validation"}`; NaN and infinity are null. On resume, lines after the resumed step are
    removed.
    """

    def __init__(self, run: Path, every: int = 10, clock: Clock = time.monotonic) -> None:
        super().__init__(every, clock)
        self._path = run / "log.jsonl"

    def on_train_begin(self, done: int, steps: int, samples_per_step: int) -> None:
        super().on_train_begin(done, steps, samples_per_step)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.is_file():
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines(True)
            kept = "".join(line for line in lines if _step_of(line) <= done)
            with atomic_write(self._path) as temporary:
                temporary.write_text(kept, encoding="utf-8")

    def report(
        self, done: int, figures: Mapping[str, float], learning_rate: float, samples_per_s: float
    ) -> None:
        rate, pace = float(f"{learning_rate:.6g}"), round(samples_per_s, 2)
        means = {"training": _rounded(figures), "learning_rate": rate, "samples_per_s": pace}
        self._write({"step": done, **means})

    def on_validation_end(
        self, done: int, scores: Mapping[str, float], picture: Picture | None
    ) -> None:
        super().on_validation_end(done, scores, picture)
        self._write({"step": done, "validation": _rounded(scores)})

    def _write(self, content: Mapping[str, object]) -> None:
        with naming(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(content, allow_nan=False) + "\n")


def default_callbacks(run: Path, title: str) -> tuple[Callback, ...]:
    """Return the callbacks of every run, which write to its folder."""
    return (Display(title), JsonLines(run), TensorBoard(run), Pictures(run))


def _text(figures: Mapping[str, float]) -> str:
    return " ".join(f"{name} {figure:.4f}" for name, figure in figures.items())


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 3 * 3600 else f"{seconds / 3600:.1f} h"


def _rounded(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {
        name: float(f"{figure:.6g}") if math.isfinite(figure) else None
        for name, figure in figures.items()
    }


def _step_of(line: str) -> float:
    """Return the step of a line of the log; infinite for a line that was cut off."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
