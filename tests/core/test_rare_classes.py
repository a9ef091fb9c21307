"""Rare class sampling: which frames and crops show a rare class on purpose."""

from collections import Counter

import numpy as np
import pytest
import torch

from camseg_core.data.augmentation import random_crops
from camseg_core.errors import ConfigError
from camseg_core.groups import Group
from camseg_core.labels import CITYSCAPES, UNLABELLED
from camseg_core.training.frames import HeldFrames
from camseg_core.training.loading import FrameStream
from camseg_core.training.rare_classes import RareClasses
from camseg_core.training.transformer import TransformerTraining, frame_stream

ROAD, CAR, TRAIN, RIDER, BUS = range(5)
LABELS = tuple(CITYSCAPES[index] for index in (0, 13, 16, 12, 15))
GROUP = len(LABELS)


def frames() -> HeldFrames:
    """Forty frames of road and car, of which two show a rider, one a train, and one a group."""
    indices = torch.full((40, 60, 80), ROAD, dtype=torch.uint8)
    indices[:, :20, :20] = CAR
    indices[5, 50:60, 70:80] = RIDER
    indices[6, 0, 0] = RIDER  # a speck, too small while a frame shows more
    indices[7, 40:42, 3:5] = TRAIN  # nowhere more
    indices[8, 30:40, 30:40] = GROUP
    indices[9] = UNLABELLED
    images = torch.randint(0, 255, (40, 3, 60, 80), dtype=torch.uint8)
    groups = (Group.of(200, (CITYSCAPES[14], CITYSCAPES[15])),)
    return HeldFrames(images, indices, [f"{n}" for n in range(40)], LABELS, groups)


def test_rare_classes_are_drawn_more_often_each_from_a_frame_that_shows_it() -> None:
    rare = RareClasses(frames(), 1.0, seed=3)
    drawn = [rare.drawn(number) for number in range(2000)]
    assert Counter(drawn).keys() == {(5, RIDER), (7, TRAIN)}
    counts = Counter(each[1] for each in drawn if each)
    pixels = frames().pixel_counts()[:GROUP]
    share = pixels / pixels.sum()
    ratio = np.exp((share[RIDER] - share[TRAIN]) / 0.01)
    assert counts[TRAIN] / counts[RIDER] == pytest.approx(ratio, rel=0.15)


def test_the_share_is_drawn_by_class_and_the_others_come_in_their_order() -> None:
    plain = FrameStream(frames(), None, 3)
    rare = RareClasses(frames(), 0.3, 3)
    stream = FrameStream(frames(), None, 3, rare.drawn)
    chosen = [rare.drawn(number) for number in range(1000)]
    assert 260 < sum(each is not None for each in chosen) < 340
    for number, each in enumerate(chosen):
        assert stream.frame(number) == (plain.frame(number) if each is None else each[0])
    again, other = RareClasses(frames(), 0.3, 3), RareClasses(frames(), 0.3, 4)
    assert chosen == [again.drawn(number) for number in range(1000)]
    assert chosen != [other.drawn(number) for number in range(1000)]


@pytest.mark.parametrize(("area", "beyond"), [((0.05, 0.2), False), ((0.05, 3.0), True)])
def test_the_crop_shows_the_class(area: tuple[float, float], beyond: bool) -> None:
    # a crop of the size of its part, so that scaling cannot lose the train's four pixels
    crops = random_crops((96, 128), area, True, (1.0, 1.6), beyond)
    rare = RareClasses(frames(), 1.0, 3)
    stream = FrameStream(frames(), crops, 3, rare.drawn)
    _, indices = stream.batch(range(40))
    for number, index in enumerate(indices):
        drawn = rare.drawn(number)
        assert drawn is not None
        if drawn[1] == RIDER or not beyond:
            assert (index == drawn[1]).any()


def test_the_share_fades_evenly_to_nothing() -> None:
    config = TransformerTraining(crop=(64, 96), batch=4, rare_share=1.0, rare_until=500)
    rare = RareClasses(frames(), config.rare_share, 3, config.rare_until * config.batch)
    shown = np.array([rare.drawn(number) is not None for number in range(3000)])
    assert [shown[at : at + 500].mean() for at in (0, 500, 1000, 1500)] == pytest.approx(
        [0.875, 0.625, 0.375, 0.125], abs=0.06
    )
    assert not shown[2000:].any()
    stream = frame_stream(config, frames(), 3)
    plain = FrameStream(frames(), None, 3)
    later = range(2000, 2040)
    assert [stream.frame(number) for number in later] == [plain.frame(number) for number in later]


def test_without_a_class_that_is_labelled_by_itself_nothing_is_drawn() -> None:
    grouped = frames()
    grouped.indices[:] = GROUP
    assert RareClasses(grouped, 1.0, 3).drawn(0) is None


def test_a_training_draws_them_where_its_configuration_says_so() -> None:
    config = TransformerTraining(crop=(64, 96), rare_share=1.0)
    drawn = [frame_stream(config, frames(), 0).frame(number) for number in range(20)]
    assert {*drawn} == {5, 7}
    plain = TransformerTraining(crop=(64, 96))
    assert len({frame_stream(plain, frames(), 0).frame(number) for number in range(20)}) == 20


@pytest.mark.parametrize(("share", "augment"), [(1.5, "crop"), (-0.1, "crop"), (0.2, "flip")])
def test_a_share_that_cannot_be_drawn_is_refused(share: float, augment: str) -> None:
    with pytest.raises(ConfigError, match="rare_share must be in .*, and 0 unless augment is crop"):
        TransformerTraining(rare_share=share, augment=augment)  # type: ignore[arg-type]
