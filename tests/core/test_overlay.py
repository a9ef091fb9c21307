"""Colours by class, blended by opacity, with unlabelled pixels left alone."""

import numpy as np
import pytest

from camseg_core.errors import ImageError
from camseg_core.labels import CITYSCAPES, UNLABELLED
from camseg_core.masks import colorize, overlay

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
MASK = np.arange(35, dtype=np.uint8).reshape(5, 7) % 20
MASK[MASK == 19] = UNLABELLED


def test_every_class_has_its_colour_and_unlabelled_is_black() -> None:
    colours = colorize(MASK)
    for label in CITYSCAPES:
        assert (colours[label.id == MASK] == label.color).all()
    assert (colours[MASK == UNLABELLED] == 0).all()


@pytest.mark.parametrize("opacity", [0.0, 0.3, 0.5, 1.0])
def test_the_colours_are_blended_over_labelled_pixels_only(opacity: float) -> None:
    before = RGB.copy()
    blended = overlay(RGB, MASK, opacity)
    expected = opacity * colorize(MASK) + (1 - opacity) * RGB.astype(float)
    expected[MASK == UNLABELLED] = RGB[MASK == UNLABELLED]
    assert np.abs(blended - expected).max() <= 0.5 + 1e-4
    assert np.array_equal(RGB, before)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ImageError, match="mask and image must have the same size, got 7x5 and 6x5"):
        overlay(RGB[:, :6], MASK, 0.5)


def test_one_pixel() -> None:
    assert overlay(RGB[:1, :1], np.zeros((1, 1), np.uint8), 1.0).tolist() == [
        [list(CITYSCAPES[0].color)]
    ]
