"""The outcome of an adaptation without labels: check, result file, and model card paragraph."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camseg_core.data import Samples
from camseg_core.errors import CamSegError
from camseg_core.training.mean_teacher import MeanTeacher, TeacherMeasurement


class NotAdapted(CamSegError):
    """Nothing was learned, or too much lost on the labelled frames: no checkpoint is written."""


@dataclass(frozen=True)
class Images:
    """Images to adapt to; labels of `samples` are dropped before anything reads them.

    `title` names their source, and `left_out` has a line for each image that cannot be used.
    """

    samples: Samples
    title: str
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Adapted:
    """An adaptation whose agreement rose.

    Attributes:
        images: the images that the model adapted to.
        learnt: how many of them were learned from.
        held_out: how many of them were held out to measure the agreement.
        labelled_share: share of the samples that had labels.
        measured: the start model, then the model after each validation.
        best: the measurement of the weights that are kept.
        start: name of the start model.
    """

    images: Images
    learnt: int
    held_out: int
    labelled_share: float
    measured: Sequence[TeacherMeasurement]
    best: TeacherMeasurement
    start: str

    @staticmethod
    def of(
        images: Images,
        learnt: int,
        held_out: int,
        labelled_share: float,
        teacher: MeanTeacher,
        start: str,
    ) -> "Adapted":
        """Return what `teacher` taught the model named `start`.

        Raises:
            NotAdapted: the agreement did not rise.
        """
        step, _ = teacher.best()
        measured = tuple(teacher.measured)
        if step == 0:
            after = ", ".join(f"{each.agreement:.4f}" for each in measured[1:])
            raise NotAdapted(
                f"nothing was written: the agreement must rise above that of {start}, "
                f"{measured[0].agreement:.4f}, without losing too much on the labelled frames, got "
                f"{after}; try a lower training.loop.lr or more images in another --run, or label "
                "some frames for camseg train --from"
            )
        best = next(each for each in measured if each.step == step)
        return Adapted(images, learnt, held_out, labelled_share, measured, best, start)

    def summary(self) -> str:
        """Return which weights are kept, and why, for the log."""
        return (
            f"kept the weights after {self.best.step} steps: agreement {self.best.agreement:.4f}, "
            f"{self.measured[0].agreement:.4f} at first; agreement is not accuracy"
        )

    def check(self, before: float, after: float, max_miou_drop: float, run: Path) -> None:
        """Check how much mean IoU was lost on the labelled frames.

        Raises:
            NotAdapted: more than `max_miou_drop` was lost.
        """
        if not before - after <= max_miou_drop:
            raise NotAdapted(
                f"nothing was written: the mean IoU on the labelled val frames may fall by at most "
                f"{max_miou_drop:g}, got {after:.4f} after {before:.4f} with "
                f"{self.start}; see {run / 'comparison'}; try a lower training.loop.lr or a higher "
                "labelled_share in another --run"
            )

    def paragraph(self) -> str:
        """Return the model card's paragraph on the images without labels."""
        share = 100 * self.labelled_share
        along = f"; {share:.0f} % of the samples were labelled frames" if share else ""
        left_out = f" Left out: {'; '.join(self.images.left_out)}." if self.images.left_out else ""
        return (
            f"**Adapted without labels, which is experimental.** {self.learnt} images of "
            f"{self.images.title} were used without labels: where the running average of the "
            f"model's own weights was confident, its masks served as labels{along}. "
            f"{self.held_out} more images were held out to decide when to stop: on these, the mean "
            f"IoU between masks of undisturbed and disturbed images was "
            f"{self.measured[0].agreement:.3f} before and {self.best.agreement:.3f} after. That is "
            f"agreement, not accuracy: whether the masks of these images improved was not "
            f"measured.{left_out}"
        )

    def result(self, before: float, after: float) -> dict[str, Any]:
        """Return the content of `result.json`, with the mean IoU on the labelled `val`."""
        return {
            "experimental": True,
            "images": {
                "from": self.images.title,
                "learnt": self.learnt,
                "held_out": self.held_out,
                "left_out": list(self.images.left_out),
            },
            "labelled_share": self.labelled_share,
            "steps": self.best.step,
            "validations": [
                {
                    "step": each.step,
                    "agreement": round(each.agreement, 4),
                    "labelled_pixels": round(each.labelled, 4),
                    "mean_iou_on_every_fifth_val_frame": round(each.source, 4),
                }
                for each in self.measured
            ],
            "val_mean_iou": {
                "before": round(before, 4),
                "after": round(after, 4),
            },
        }
