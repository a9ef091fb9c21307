"""What an adaptation without labels did: its check, its result, its paragraph of the card."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camseg_core.data import Samples
from camseg_core.errors import CamSegError
from camseg_core.training.mean_teacher import MeanTeacher, Measured


class NotAdapted(CamSegError):
    """Nothing was learnt, or too much was lost on the labelled frames: no checkpoint is written."""


@dataclass(frozen=True)
class Images:
    """Images to adapt to; labels that `samples` have are dropped before anything reads them.

    `title` names where they are from, and `left_out` has a line for each that cannot be used.
    """

    samples: Samples
    title: str
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Adapted:
    """An adaptation whose agreement rose.

    Attributes:
        images: it adapted to.
        learnt: number of them that were learnt from.
        watched: number of them that the agreement was measured on.
        labelled_share: share of the samples that had labels.
        measured: the model as it came, then after each validation.
        best: the one that is kept.
        start: the name of the model as it came.
    """

    images: Images
    learnt: int
    watched: int
    labelled_share: float
    measured: Sequence[Measured]
    best: Measured
    start: str

    @staticmethod
    def of(
        images: Images,
        learnt: int,
        watched: int,
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
        return Adapted(images, learnt, watched, labelled_share, measured, best, start)

    def summary(self) -> str:
        """Return which weights are kept, and why, for the log."""
        return (
            f"kept the weights after {self.best.step} steps: agreement {self.best.agreement:.4f}, "
            f"{self.measured[0].agreement:.4f} at first; it is no accuracy"
        )

    def check(self, before: float, after: float, most_loss: float, run: Path) -> None:
        """Check what was lost on the labelled frames, of mean IoU.

        Raises:
            NotAdapted: it is more than `most_loss`.
        """
        if not before - after <= most_loss:
            raise NotAdapted(
                f"nothing was written: the mean IoU on the labelled val frames may fall by at most "
                f"{most_loss:g}, got {after:.4f} after {before:.4f} with "
                f"{self.start}; see {run / 'comparison'}; try a lower training.loop.lr or a higher "
                "labelled_share in another --run"
            )

    def paragraph(self) -> str:
        """Return what the card says of the images without labels."""
        share = 100 * self.labelled_share
        along = f"; {share:.0f} % of the samples were labelled frames" if share else ""
        left_out = f" Left out: {'; '.join(self.images.left_out)}." if self.images.left_out else ""
        return (
            f"**Adapted without labels, which is experimental.** {self.learnt} images of "
            f"{self.images.title} took part without labels: where the average of the model's own "
            f"weights was sure, its masks were the labels{along}. {self.watched} more images only "
            "decided when to stop: on these, the mean IoU between masks of the images as they are "
            f"and disturbed was {self.measured[0].agreement:.3f} before and "
            f"{self.best.agreement:.3f} after. That is agreement, not accuracy: whether masks of "
            f"these images got better was not measured.{left_out}"
        )

    def result(self, before: float, after: float) -> dict[str, Any]:
        """Return the content of `result.json`, with the mean IoU on the labelled `val`."""
        return {
            "experimental": True,
            "images": {
                "from": self.images.title,
                "learnt": self.learnt,
                "watched": self.watched,
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
