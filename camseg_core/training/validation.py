"""Validation of a model between training steps: masks of whole frames, and their scores."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from camseg_core.diffusion.sampling import Sampling
from camseg_core.evaluation.metrics import Confusion
from camseg_core.evaluation.scorer import Scorer
from camseg_core.export.torch_engine import TorchEngine
from camseg_core.groups import ScoredLabels
from camseg_core.labels import index_table, train_id_table
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime.geometry import scaled_ids, scaled_picture
from camseg_core.runtime.segmenter import Segmenter
from camseg_core.training.frames import Frames, validation_picture
from camseg_core.training.trainer import Validation
from camseg_core.training.transformer import TransformerTraining


def validation(config: TransformerTraining, val: Frames) -> Callable[[nn.Module], Validation]:
    """Return a function that scores a model in one and in ten steps on every fifth `val` frame.

    Frames without a labelled pixel are passed over: a set of them alone has no score.
    With several sets, the scores are means over the sets, followed by each set's own in one step.
    The picture shows three of the frames, or one of each set. Where training scales whole frames,
    the published layout is validated on frames of that size.

    Raises:
        DataError: no frame of a set has a labelled pixel.
    """
    some = val.labelled_every(5)
    shown = some.every(max(1, len(some) // 3))
    parts = some.parts()

    def validate(model: nn.Module) -> Validation:
        assert isinstance(model, CamSeg)
        model.eval()
        whole = model.autoencoder is not None and config.augment != "crop"
        size = config.crop if whole else None
        one, ten = (
            [
                confusion_of(model, part.frames, sampler, 10, size).labelled_mean_iou()
                for part in parts
            ]
            for sampler in ("one_step", "ddim")
        )
        figures = {"mIoU": float(np.mean(one)), "mIoU with 10 steps": float(np.mean(ten))}
        if len(parts) > 1:
            figures |= {
                f"mIoU of {part.name}": score for part, score in zip(parts, one, strict=True)
            }
        images, truths = zip(*shown, strict=True)
        found = [torch.from_numpy(each) for each in class_indices(model, shown, size=size)]
        return figures, validation_picture(images, truths, found, (*val.labels, *val.groups))

    return validate


def confusion_of(
    model: CamSeg,
    frames: Frames,
    sampler: str = "one_step",
    steps: int = 10,
    size: tuple[int, int] | None = None,
) -> Confusion:
    """Compare predicted class indices of whole frames with the true ones, see `class_indices`.

    The scored labels are those of `scored_labels`.
    """
    scorer = Scorer(scored_labels(frames), boundary_tolerance=None)
    ids = train_id_table((*model.labels, *frames.groups))
    for (_, indices), predicted in zip(
        frames, class_indices(model, frames, sampler, steps, size), strict=True
    ):
        scorer.add(ids[indices.numpy()], ids[predicted])
    return scorer.confusion


def scored_labels(frames: Frames) -> ScoredLabels:
    """Return the labels that masks of frames are scored against: the model's classes.

    With groups, these are the classes and groups that the frames show.
    """
    labels, groups = frames.labels, frames.groups
    if groups:
        shown = frames.pixel_counts() > 0
        labels = tuple(label for i, label in enumerate(labels) if shown[i])
        groups = tuple(g for i, g in enumerate(groups, len(frames.labels)) if shown[i])
    return ScoredLabels.of(labels, groups)


def class_indices(
    model: CamSeg,
    frames: Frames,
    sampler: str = "one_step",
    steps: int = 10,
    size: tuple[int, int] | None = None,
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield predicted class indices `(H, W)` of whole frames, 255 for classes outside the labels.

    Frames are scaled for the network as on a vehicle; with `size` (height, width), they are scaled
    to it, and masks are scaled back by the nearest pixel. In bf16, except for models that decode
    masks as pictures, whose colours need fp32.
    """
    engine = TorchEngine(model, "bf16" if model.autoencoder is None else "fp32")
    sampling, index = Sampling(sampler, steps), index_table(model.labels)
    config = model.config
    if size is not None:
        # the area of the padded picture, so that the segmenter does not scale it
        padded = (math.ceil(side / config.size_multiple) * config.size_multiple for side in size)
        config = config.without_scaling(math.prod(padded))
    segmenter = Segmenter(config, model.labels, engine, sampling)
    for image, _ in frames:
        rgb = image.permute(1, 2, 0).contiguous().numpy()
        picture = np.asarray(rgb if size is None else scaled_picture(rgb, size), np.uint8)
        yield index[scaled_ids(segmenter.segment(picture).mask, rgb.shape[:2])]
