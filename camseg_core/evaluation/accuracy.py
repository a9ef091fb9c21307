"""Accuracy of the runtime, as shipped, on labelled frames."""

from collections.abc import Iterable

from camseg_core.data.sample import Sample
from camseg_core.evaluation.metrics import Confusion
from camseg_core.labels import CITYSCAPES, Label
from camseg_core.runtime import Segmenter


def segment_all(segmenter: Segmenter, samples: Iterable[Sample]) -> Confusion:
    """Segment every sample at its own size and count train ids against its label."""
    confusion = Confusion(len(CITYSCAPES))
    for sample in samples:
        confusion.add(sample.label, segmenter.segment(sample.image).mask)
    return confusion


def scores(confusion: Confusion, labels: tuple[Label, ...]) -> dict[str, object]:
    """Mean IoU over the classes that occur, pixel accuracy, and IoU by name of `labels`, whose ids index the confusion; four decimals."""
    iou = confusion.iou()
    return {
        "mean_iou": round(confusion.mean_iou(), 4),
        "pixel_accuracy": round(confusion.accuracy(), 4),
        "iou": {label.name: round(float(iou[label.id]), 4) for label in labels},
    }
