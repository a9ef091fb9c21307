"""The common corruptions: 19 kinds of damage to a picture, each in severities 1 to 5.

Kinds, order of steps and constants are those of Hendrycks & Dietterich, "Benchmarking Neural
Network Robustness to Common Corruptions and Perturbations" (ICLR 2019, arXiv 1903.12261); for
pictures that are not square, and for elastic transform and motion blur, those of Michaelis et al.
(arXiv 1907.07484, the `imagecorruptions` package). Reimplemented with NumPy and OpenCV.
Lengths are in pixels and were chosen for 224x224, so they weigh less on larger pictures.

Differences: glass blur takes every pixel from a random neighbour instead of swapping pixels one
after the other, the drops of spatter are lit by a simpler rule, and frost is drawn instead of
overlaid from photographs, see `corruption_weather`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.data.corruption_weather import fog, frost, snow, spatter
from camseg_core.data.disturbances import (
    Disturbance,
    Floats,
    Pixels,
    blurred,
    description,
    jpeg,
    line_kernel,
    to_pixels,
)

SEVERITIES = (1, 2, 3, 4, 5)
SHOWN = 4

Corrupt = Callable[[Floats, Any, np.random.Generator], npt.NDArray[np.floating]]
"""Corrupts a picture `(H, W, 3)` float32 in 0..1 with the constants of a severity and a generator.

The result is clipped to 0..1 afterwards."""


def gaussian_noise(picture: Floats, sigma: float, rng: np.random.Generator) -> Floats:
    """Gaussian noise, as in low light."""
    return picture + np.float32(sigma) * rng.standard_normal(picture.shape, np.float32)


def shot_noise(
    picture: Floats, photons: float, rng: np.random.Generator
) -> npt.NDArray[np.floating]:
    """Poisson noise: a white pixel gets a given number of photons on average."""
    return rng.poisson(picture * photons) / photons


def impulse_noise(picture: Floats, share: float, rng: np.random.Generator) -> Floats:
    """Salt and pepper on single channels: a share of the values becomes 0 or 1."""
    drawn = rng.random(picture.shape, np.float32)
    return np.where(
        drawn < share / 2, np.float32(0), np.where(drawn < share, np.float32(1), picture)
    )


def speckle_noise(picture: Floats, sigma: float, rng: np.random.Generator) -> Floats:
    """Gaussian noise in proportion to the value."""
    return picture * (1 + np.float32(sigma) * rng.standard_normal(picture.shape, np.float32))


def gaussian_blur(picture: Floats, sigma: float, rng: np.random.Generator) -> Floats:
    """Gaussian blur."""
    return blurred(picture, sigma)


def glass_blur(
    picture: Floats, constants: tuple[float, int, int], rng: np.random.Generator
) -> Floats:
    """As through frosted glass: blurred, pixels taken from random places nearby, blurred again."""
    sigma, reach, times = constants
    scattered, (height, width) = blurred(picture, sigma), picture.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    for _ in range(times):
        down, right = rng.integers(-reach, reach + 1, (2, height, width))
        scattered = scattered[
            np.clip(rows + down, 0, height - 1), np.clip(columns + right, 0, width - 1)
        ]
    return blurred(scattered, sigma)


def defocus_blur(picture: Floats, constants: tuple[int, float], rng: np.random.Generator) -> Floats:
    """Out of focus: the mean over a disk with a soft edge."""
    radius, soften = constants
    reach = max(8, radius)
    along = np.arange(-reach, reach + 1)
    disk = (along[:, None] ** 2 + along**2 <= radius**2).astype(np.float32)
    size = 3 if radius <= 8 else 5
    kernel = cv2.GaussianBlur(disk / disk.sum(), (size, size), soften)
    return np.asarray(cv2.filter2D(picture, -1, kernel), np.float32)


def motion_blur(picture: Floats, constants: tuple[int, float], rng: np.random.Generator) -> Floats:
    """The camera moves, up to 45° from the rows: a trail that fades as half a Gaussian."""
    radius, sigma = constants
    weights = np.exp(-0.5 * (np.arange(2 * radius + 1) / sigma) ** 2).astype(np.float32)
    kernel = line_kernel(weights, rng.uniform(-np.pi / 4, np.pi / 4), start=0.0)
    return np.asarray(cv2.filter2D(picture, -1, kernel), np.float32)


def zoom_blur(picture: Floats, factors: Sequence[float], rng: np.random.Generator) -> Floats:
    """The camera moves forward: the mean of the picture and its enlargements about the centre."""
    height, width = picture.shape[:2]
    total = picture.copy()
    for factor in factors:
        shift = np.array(
            [
                [factor, 0, (1 - factor) * (width - 1) / 2],
                [0, factor, (1 - factor) * (height - 1) / 2],
            ]
        )
        total += cv2.warpAffine(
            picture, shift, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    return total / np.float32(len(factors) + 1)


def brightness(picture: Floats, more: float, rng: np.random.Generator) -> Floats:
    """A constant is added to the value (HSV)."""
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
    hsv[..., 2] = np.clip(hsv[..., 2] + np.float32(more), 0, 1)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32)


def contrast(picture: Floats, factor: float, rng: np.random.Generator) -> Floats:
    """The distance from each channel's mean is scaled down."""
    mean = picture.mean((0, 1), dtype=np.float64).astype(np.float32)
    return mean + np.float32(factor) * (picture - mean)


def saturate(picture: Floats, constants: tuple[float, float], rng: np.random.Generator) -> Floats:
    """The saturation (HSV) is scaled and raised: paler in severity 1 and 2, stronger from 3 on."""
    factor, more = constants
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
    hsv[..., 1] = np.clip(hsv[..., 1] * np.float32(factor) + np.float32(more), 0, 1)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32)


def jpeg_compression(picture: Floats, quality: int, rng: np.random.Generator) -> Floats:
    """Encoded as JPEG of low quality, and decoded."""
    return jpeg(to_pixels(255 * picture), quality, rng).astype(np.float32) / np.float32(255)


def pixelate(picture: Floats, factor: float, rng: np.random.Generator) -> Floats:
    """Made smaller by averaging areas, and larger again by repeating pixels."""
    height, width = picture.shape[:2]
    small = cv2.resize(
        picture,
        (max(1, int(width * factor)), max(1, int(height * factor))),
        interpolation=cv2.INTER_AREA,
    )
    return np.asarray(
        cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST), np.float32
    )


def elastic_transform(picture: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Bent by a smooth random field of a few pixels; the label stays, as in the published set."""
    height, width = picture.shape[:2]
    most = 0.005 * height
    down, right = (
        strength
        * blurred(
            rng.uniform(-most, most, (height, width)).astype(np.float32),
            0.01 * width,
            0.01 * height,
        )
        for _ in range(2)
    )
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return np.asarray(
        cv2.remap(
            picture, columns + right, rows + down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        ),
        np.float32,
    )


def _range(stop: float, step: float) -> tuple[float, ...]:
    return tuple(np.arange(1, stop, step).tolist())


def _corruption(
    title: str, corrupt: Corrupt, constants: Sequence[Any], name: str = ""
) -> Disturbance:
    def apply(rgb: Pixels, level: float, rng: np.random.Generator) -> Pixels:
        picture = rgb.astype(np.float32) / np.float32(255)
        return to_pixels(255 * corrupt(picture, constants[int(level) - 1], rng))

    name = name or corrupt.__name__
    does = description(corrupt)
    return Disturbance(name, title, "severity", does, SEVERITIES, 0, SHOWN, apply)


COMMON: tuple[Disturbance, ...] = (
    _corruption("Gaussian noise", gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    _corruption("Shot noise", shot_noise, (60, 25, 12, 5, 3)),
    _corruption("Impulse noise", impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    _corruption("Defocus blur", defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    _corruption(
        "Glass blur", glass_blur, ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
    ),
    _corruption("Motion blur", motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    _corruption(
        "Zoom blur",
        zoom_blur,
        [
            _range(*ends)
            for ends in ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
        ],
    ),
    _corruption(
        "Snow",
        snow,
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    _corruption(
        "Frost (drawn)",
        frost,
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        "frost_drawn",
    ),
    _corruption("Fog", fog, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
    _corruption("Brightness", brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    _corruption("Contrast", contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    _corruption("Elastic transform", elastic_transform, (12.5, 16.25, 21.25, 25, 30)),
    _corruption("Pixelate", pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    _corruption("JPEG compression", jpeg_compression, (25, 18, 15, 10, 7)),
    _corruption("Speckle noise", speckle_noise, (0.15, 0.2, 0.35, 0.45, 0.6)),
    _corruption("Gaussian blur", gaussian_blur, (1, 2, 3, 4, 6)),
    _corruption(
        "Spatter",
        spatter,
        (
            (0.65, 0.3, 4, 0.69, 0.6, "water"),
            (0.65, 0.3, 3, 0.68, 0.6, "water"),
            (0.65, 0.3, 2, 0.68, 0.5, "water"),
            (0.65, 0.3, 1, 0.65, 1.5, "mud"),
            (0.67, 0.4, 1, 0.65, 1.5, "mud"),
        ),
    ),
    _corruption("Saturate", saturate, ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))),
)
"""All 19; the publication keeps the last four for validation."""
