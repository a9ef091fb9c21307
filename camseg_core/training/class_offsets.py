"""Class offsets: constants added to a trained model's logits, chosen for the mean IoU.

Cross-entropy counts pixels, and the Jaccard loss counts images; the mean IoU counts classes over
all frames. A model is therefore best for its losses where it predicts some rare classes too seldom,
and others too often. As logit adjustment (Menon et al., arXiv 2007.07314), but fitted to the score
rather than to how frequent the classes are.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from camseg_core.diffusion.sampling import Sampling
from camseg_core.evaluation.metrics import Confusion
from camseg_core.export.torch_engine import LatentsEngine
from camseg_core.groups import ScoredLabels
from camseg_core.labels import train_id_table
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime.geometry import Fit, scaled_ids
from camseg_core.runtime.segmenter import Segmenter
from camseg_core.training.frames import Frames
from camseg_core.training.validation import scored_labels

logger = logging.getLogger(__name__)

LEAST_FRAMES = 50
"""A set with fewer labelled frames says too little of how often a rare class is right."""

_FRAMES = 300
"""Frames of each set, evenly spread."""

_PIXELS = 8000
"""Labelled pixels of each frame, drawn at random."""

_STEPS = np.arange(-8, 9) / 4
_LIMIT = 2.0
_LEAST_GAIN = 1e-4
_PASSES = 3


@dataclass(frozen=True)
class ClassOffsets:
    """What was added to the logits of each class, `(K,)`, and the score before and after.

    The score is that of `best_offsets` on so many frames of `train`.
    """

    offsets: npt.NDArray[np.float64]
    frames: int
    before: float
    after: float


@dataclass(frozen=True)
class Pixels:
    """Pixels of a set.

    Attributes:
        logits: of the model's K classes, `(N, K)`.
        truth: place of the label among the set's C labels, `(N,)`.
        counted: place as which each class counts where each label is true, `(K, C)`; C for none.
        recall_only: see `Confusion`, `(C,)`.
    """

    logits: npt.NDArray[np.float32]
    truth: npt.NDArray[np.int64]
    counted: npt.NDArray[np.int64]
    recall_only: npt.NDArray[np.bool_]

    def scores(self, offsets: npt.NDArray[np.float64], changed: int) -> npt.NDArray[np.float64]:
        """Return the mean IoU with each of `_STEPS` added to the offset of one class."""
        steps, labels = len(_STEPS), self.counted.shape[1]
        logits = self.logits + offsets.astype(np.float32)
        own = logits[:, changed].copy()
        logits[:, changed] = -np.inf
        other = logits.argmax(1)
        lead = own - np.take_along_axis(logits, other[:, None], 1)[:, 0]
        # the first step with which the class is the likeliest
        first = np.searchsorted(_STEPS, -lead, side="right")
        place = self.truth * (labels + 1) + self.counted[other, self.truth]
        size = labels, labels + 1, steps + 1
        counts = np.bincount(place * (steps + 1) + first, minlength=np.prod(size)).reshape(size)
        total, won = counts.sum(2), counts.cumsum(2)
        found, rows = Confusion(labels, self.recall_only), np.arange(labels)
        scores = np.empty(steps)
        for step in range(steps):
            found.matrix = total - won[:, :, step]
            found.matrix[rows, self.counted[changed]] += won[:, :, step].sum(1)
            scores[step] = found.labelled_mean_iou()
        return scores


def add_class_offsets(model: CamSeg, train: Frames) -> ClassOffsets | None:
    """Add the offsets that suit the frames of `train` to the logits of a mask decoder, in place.

    Sets with fewer than `LEAST_FRAMES` labelled frames are left out; without another, nothing is
    done, and None returned.

    Args:
        model: on the CPU; its masks are those of one step, in fp32.
        train: frames of one or several sets, which count alike.
    """
    codec = model.mask_autoencoder
    assert codec is not None
    halves: tuple[list[Pixels], list[Pixels]] = ([], [])
    used = 0
    for part in train.parts():
        labels = len(model.labels) + len(part.frames.groups)
        known = np.flatnonzero(part.frames.pixels_by_frame()[:, :labels].any(1))
        if len(known) < LEAST_FRAMES:
            continue
        chosen = known[np.linspace(0, len(known) - 1, min(_FRAMES, len(known))).round().astype(int)]
        used, scored = used + len(chosen), scored_labels(part.frames)
        for half, numbers in zip(halves, np.array_split(chosen, 2), strict=True):
            half.append(_pixels(model, part.frames, scored, numbers.tolist()))
    if not used:
        return None
    offsets, before, after = best_offsets(halves)
    last = codec.decoder.layers[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    with torch.no_grad():  # a class has the logits of 2×2 pixels side by side
        last.bias += torch.from_numpy(offsets).float().repeat_interleave(4)
    logger.info(
        "class offsets: mean IoU %.4f on %d frames of train, %.4f before", after, used, before
    )
    return ClassOffsets(offsets, used, before, after)


def best_offsets(
    halves: Sequence[Sequence[Pixels]],
) -> tuple[npt.NDArray[np.float64], float, float]:
    """Search the offsets class by class, in steps of 0.25 up to 2; each half has the same sets.

    An offset counts only if it raises the score, the mean of the sets' mean IoU, of both halves of
    the frames: what only one half gains from does not carry over to other frames.

    Returns offsets `(K,)` and the mean score of the halves before and after.
    """
    offsets, unchanged = np.zeros(halves[0][0].logits.shape[1]), len(_STEPS) // 2

    def scores(changed: int) -> npt.NDArray[np.float64]:
        """Return the scores of both halves with each step, `(2, steps)`."""
        return np.array(
            [np.mean([each.scores(offsets, changed) for each in half], 0) for half in halves]
        )

    before = float(scores(0)[:, unchanged].mean())
    for _ in range(_PASSES):
        reached = offsets.copy()
        for changed in range(len(offsets)):
            found = scores(changed)
            gain = (found - found[:, unchanged, None]).min(0)
            gain[np.abs(offsets[changed] + _STEPS) > _LIMIT] = 0
            best = int(gain.argmax())
            if gain[best] > _LEAST_GAIN:
                offsets[changed] += _STEPS[best]
        if np.array_equal(offsets, reached):
            break
    return offsets, before, float(scores(0)[:, unchanged].mean())


@torch.no_grad()
def _pixels(model: CamSeg, frames: Frames, scored: ScoredLabels, numbers: Sequence[int]) -> Pixels:
    """Return random labelled pixels of the frames, at the size that the network sees."""
    codec = model.mask_autoencoder
    assert codec is not None
    engine, rng = LatentsEngine(model), np.random.default_rng(0)
    segmenter = Segmenter(model.config, model.labels, engine, Sampling())
    ids = train_id_table((*model.labels, *frames.groups))
    logits, truths = [], []
    for number in numbers:
        image, indices = frames[number]
        rgb = image.permute(1, 2, 0).contiguous().numpy()
        size = segmenter.segment(rgb, Fit(output="network")).mask.shape
        truth = scored.truth_of(ids[scaled_ids(indices.numpy(), size)])
        places = rng.permutation(np.flatnonzero(truth < len(scored.labels)))[:_PIXELS]
        found = codec.decode(torch.from_numpy(engine.latents[:, 0]))[0, :, : size[0], : size[1]]
        logits.append(found.flatten(1).numpy().T[places])
        truths.append(truth.ravel()[places])
    # every class of the model at every label
    shape = len(model.labels), len(scored.labels)
    predicted = np.repeat(np.array([label.id for label in model.labels], np.uint8), shape[1])
    labelled = np.tile(np.arange(shape[1], dtype=np.uint8), shape[0])
    return Pixels(
        np.concatenate(logits),
        np.concatenate(truths).astype(np.int64),
        scored.predicted_of(predicted.reshape(shape), labelled.reshape(shape)).astype(np.int64),
        scored.recall_only,
    )
