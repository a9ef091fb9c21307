"""Offsets of a trained model's logits, chosen for the mean IoU."""

import logging
from copy import deepcopy

import numpy as np
import pytest
import torch
from lite import LABELS, tiny_lite
from torch import nn

from camseg_core.diffusion.sampling import Sampling
from camseg_core.evaluation.scorer import Scorer
from camseg_core.export.torch_engine import TorchEngine
from camseg_core.groups import FIRST_GROUP, Group
from camseg_core.labels import train_id_table
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime import Segmenter
from camseg_core.training.class_offsets import (
    LEAST_FRAMES,
    Pixels,
    add_class_offsets,
    best_offsets,
)
from camseg_core.training.frames import Frames, HeldFrames, Part
from camseg_core.training.joined import JoinedFrames
from camseg_core.training.validation import scored_labels

SIZE = (64, 96)
SELDOM, OFTEN = (0.0, 0.0, -3.0), (0.0, 0.0, 1.0)
"""Shifts of the logits, with which the rarest class is predicted too seldom, or too often."""


def pixels(seed: int, shift: tuple[float, ...], counted: object = None) -> Pixels:
    """Return pixels of classes as frequent as 90 to 9 to 1, and noisy logits, shifted by class."""
    random = np.random.default_rng(seed)
    truth = random.choice(3, 60_000, p=(0.9, 0.09, 0.01))
    logits = random.normal(size=(60_000, 3)) + 3 * np.eye(3)[truth] + np.array(shift)
    places = np.repeat(np.arange(3)[:, None], 3, 1) if counted is None else np.asarray(counted)
    logits, labels = logits.astype(np.float32), places.shape[1]
    return Pixels(logits, np.minimum(truth, labels - 1), places, np.zeros(labels, np.bool_))


def iou_of(found: Pixels, offsets: object) -> float:
    """Return the mean IoU by its definition."""
    predicted = (found.logits + np.asarray(offsets, np.float32)).argmax(1)
    place = found.counted[predicted, found.truth]
    ious = []
    for label in range(found.counted.shape[1]):
        both = (place == label) & (found.truth == label)
        ious.append(both.sum() / ((place == label) | (found.truth == label)).sum())
    return float(np.mean(ious))


def test_a_class_that_is_predicted_too_seldom_is_raised() -> None:
    halves = [[pixels(seed, SELDOM)] for seed in (0, 1)]
    offsets, before, after = best_offsets(halves)
    assert before == pytest.approx(np.mean([iou_of(half[0], 0) for half in halves]))
    assert after == pytest.approx(np.mean([iou_of(half[0], offsets) for half in halves]))
    assert after > before + 0.05
    assert (offsets - offsets[0])[2] >= 1
    # of other frames as well
    fresh = pixels(2, SELDOM)
    assert iou_of(fresh, offsets) > iou_of(fresh, 0) + 0.05


def test_what_only_one_half_gains_from_is_left_alone() -> None:
    offsets, before, after = best_offsets([[pixels(0, SELDOM)], [pixels(1, OFTEN)]])
    assert abs((offsets - offsets[0])[2]) <= 0.25
    assert after >= before
    for shift, sign in ((SELDOM, 1), (OFTEN, -1)):
        alone, *_ = best_offsets([[pixels(0, shift)], [pixels(1, shift)]])
        assert sign * (alone - alone[0])[2] >= 1


def test_sets_count_alike_and_classes_of_one_label_count_together() -> None:
    merged = [[0, 0], [1, 1], [1, 1]]  # the second label stands for classes 1 and 2
    halves = [[pixels(seed, SELDOM), pixels(seed + 2, SELDOM, merged)] for seed in (0, 1)]
    offsets, before, after = best_offsets(halves)

    def score(offsets: object) -> float:
        return float(np.mean([iou_of(each, offsets) for half in halves for each in half]))

    assert before == pytest.approx(score(0))
    assert after == pytest.approx(score(offsets))
    assert after > before


def frames(count: int, groups: tuple[Group, ...] = ()) -> Frames:
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.integers(0, 256, (count, 3, *SIZE), np.uint8))
    classes = len(LABELS) + len(groups)
    blocks = random.integers(0, classes + 1, (count, SIZE[0] // 8, SIZE[1] // 8))
    indices = blocks.repeat(8, 1).repeat(8, 2)
    indices[indices == classes] = 255
    names = [str(i) for i in range(count)]
    return HeldFrames(images, torch.from_numpy(indices.astype(np.uint8)), names, LABELS, groups)


def bias(model: CamSeg) -> torch.Tensor:
    assert model.mask_autoencoder is not None
    last = model.mask_autoencoder.decoder.layers[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    return last.bias.detach().clone()


def halves_iou(model: CamSeg, train: Frames) -> float:
    """Score both halves of the frames with the runtime and the scorer, and return the mean."""
    segmenter = Segmenter(model.config, model.labels, TorchEngine(model), Sampling())
    ids, scores = train_id_table((*model.labels, *train.groups)), []
    for numbers in np.array_split(np.arange(len(train)), 2):
        scorer = Scorer(scored_labels(train), boundary_tolerance=None)
        for number in numbers.tolist():
            image, indices = train[number]
            mask = segmenter.segment(image.permute(1, 2, 0).contiguous().numpy()).mask
            scorer.add(ids[indices.numpy()], mask)
        scores.append(scorer.confusion.labelled_mean_iou())
    return float(np.mean(scores))


@pytest.mark.parametrize("grouped", [False, True])
def test_the_scores_are_those_of_the_masks_that_the_model_gives(
    grouped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    members = LABELS[:2]
    groups = (Group.of(FIRST_GROUP, members),) if grouped else ()
    model, train = deepcopy(tiny_lite()), frames(LEAST_FRAMES, groups)
    before, unshifted = halves_iou(model, train), bias(model)
    with caplog.at_level(logging.INFO):
        found = add_class_offsets(model, train)
    assert found is not None
    assert found.frames == LEAST_FRAMES
    assert found.before == pytest.approx(before, abs=1e-6)
    assert found.after == pytest.approx(halves_iou(model, train), abs=1e-6)
    assert found.after > found.before
    shift = (bias(model) - unshifted).view(-1, 4)
    np.testing.assert_allclose(shift.numpy(), np.repeat(found.offsets[:, None], 4, 1), atol=1e-6)
    assert f"on {LEAST_FRAMES} frames of train" in caplog.text


def test_too_few_labelled_frames_say_nothing() -> None:
    model = deepcopy(tiny_lite())
    few, many = frames(LEAST_FRAMES - 1), frames(LEAST_FRAMES)
    assert add_class_offsets(model, few) is None
    unlabelled = many
    assert isinstance(unlabelled, HeldFrames)
    unlabelled.indices[0] = 255
    assert add_class_offsets(model, unlabelled) is None
    torch.testing.assert_close(bias(model), bias(tiny_lite()), rtol=0, atol=0)
    joined = JoinedFrames([Part("few", few, 1), Part("many", frames(LEAST_FRAMES), 1)])
    found = add_class_offsets(model, joined)
    assert found is not None
    assert found.frames == LEAST_FRAMES
