"""Disturbances of a camera's picture, seeded: the type, and the eight that the paper (arXiv 2503.15617) tests with, in pixel units.

The paper names the disturbances and the ranges of their levels, not what exactly each does; what ours do is said at each function. All
work on the whole picture and leave the label where it is.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.errors import ConfigError, ImageError

Pixels = npt.NDArray[np.uint8]
Apply = Callable[[Pixels, float, np.random.Generator], Pixels]


@dataclass(frozen=True)
class Disturbance:
    """One way to disturb a picture, at several levels.

    `apply(rgb, level, rng)` takes and gives RGB `(H, W, 3)` uint8 of the same size and leaves its argument alone. `levels` rise;
    `clean` is the level that changes nothing. `unit` and `does` are for people, `shown` is the level for an example picture.
    """

    name: str
    title: str
    unit: str
    does: str
    levels: tuple[float, ...]
    clean: float
    shown: float
    apply: Apply

    def __call__(self, rgb: Pixels, level: float, *, seed: int, frame: str) -> Pixels:
        """The disturbed picture. Seed, name of the disturbance, level and name of the frame decide every random number in it, so that
        it is the same byte for byte in whatever order and selection pictures are made; of other versions of NumPy or OpenCV, or on
        another kind of processor, single values may differ.

        Args:
            rgb: `(H, W, 3)` uint8.
            level: one of `levels`, or `clean`.
            seed: at least 0.
            frame: the picture's name.

        Raises:
            ConfigError: it has no such level.
            ImageError: the array has another shape or type.
        """
        if (
            not isinstance(rgb, np.ndarray)
            or rgb.dtype != np.uint8
            or rgb.ndim != 3
            or rgb.shape[2] != 3
            or rgb.size == 0
        ):
            found = (
                f"{rgb.shape} {rgb.dtype}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
            )
            raise ImageError(
                f"cannot disturb {found}: a picture is an RGB array (H, W, 3) of uint8, at least 1×1"
            )
        if level == self.clean:
            return rgb.copy()
        if level not in self.levels:
            levels = ", ".join(f"{each:g}" for each in self.levels)
            raise ConfigError(
                f"{self.title} has no level {level:g}; choose from {levels}, or {self.clean:g} for none"
            )
        return self.apply(rgb, level, generator(seed, self.name, f"{level:g}", frame))


def generator(seed: int, *names: str) -> np.random.Generator:
    """The generator that belongs to a seed and to names."""
    text = "\n".join([str(seed), *names])
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest(), "big"))


def gaussian_noise(rgb: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Normal noise for every pixel and channel with `level` as its standard deviation in grey values; the sum is cut at 0 and 255."""
    return to_pixels(rgb + np.float32(level) * rng.standard_normal(rgb.shape, np.float32))


def gaussian_blur(rgb: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Gaussian blur with `level` as its standard deviation in pixels, cut at four of them; the border is mirrored."""
    return to_pixels(blurred(rgb.astype(np.float32), level))


def motion_blur(rgb: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Even blur along a centred line `level` pixels long, in a direction drawn for every picture; the border is mirrored."""
    kernel = line_kernel(np.ones(round(level), np.float32), rng.uniform(0, np.pi))
    return to_pixels(
        cv2.filter2D(rgb.astype(np.float32), -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    )


def salt_and_pepper(rgb: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Every pixel turns white or black, each as often as the other, with `level` as the chance in per cent."""
    drawn = rng.random(rgb.shape[:2], np.float32)
    result = rgb.copy()
    result[drawn < level / 100] = 255
    result[drawn < level / 200] = 0
    return result


def brightness(rgb: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """All values times `level`; cut at 255."""
    return to_pixels(rgb * np.float32(level))


def contrast(rgb: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """The distance of all values from the picture's mean grey (ITU-R BT.601) times `level`."""
    mean = grey_of(rgb).mean(dtype=np.float64)
    return to_pixels(np.float32(mean) + np.float32(level) * (rgb - np.float32(mean)))


def saturation(rgb: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """The distance of every pixel's channels from its own grey (ITU-R BT.601) times `level`: 0 is a grey picture."""
    grey = grey_of(rgb)[..., None]
    return to_pixels(grey + np.float32(level) * (rgb - grey))


def hue(rgb: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Every pixel's hue (HSV) turned by `level` of a full turn; 1/3 takes red to green."""
    hsv = cv2.cvtColor(rgb.astype(np.float32), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + np.float32(360 * level)) % 360
    return to_pixels(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def _of_paper(
    title: str, unit: str, levels: tuple[float, ...], clean: float, shown: float, apply: Apply
) -> Disturbance:
    does = " ".join(
        (apply.__doc__ or "")
        .replace("`level` pixels", "so many pixels")
        .replace("`level`", "the level")
        .split()
    )
    return Disturbance(apply.__name__, title, unit, does, levels, clean, shown, apply)


PAPER: tuple[Disturbance, ...] = (
    _of_paper(
        "Gaussian noise", "σ in grey values", (5, 15, 30, 50, 75, 100), 0, 50, gaussian_noise
    ),
    _of_paper("Gaussian blur", "σ in pixels", (1, 2, 5, 10, 25, 50), 0, 5, gaussian_blur),
    _of_paper("Motion blur", "length in pixels", (3, 9, 21, 51, 105, 221), 1, 21, motion_blur),
    _of_paper("Salt and pepper", "% of the pixels", (1, 5, 10, 25, 50, 80), 0, 10, salt_and_pepper),
    _of_paper("Brightness", "factor", (0.5, 0.75, 1.25, 1.5), 1, 0.5, brightness),
    _of_paper("Contrast", "factor", (0.5, 0.75, 1.25, 1.5), 1, 0.5, contrast),
    _of_paper("Saturation", "factor", (0, 0.5, 1.5, 2), 1, 0, saturation),
    _of_paper("Hue", "of a turn", (-0.2, -0.1, 0.1, 0.2), 0, 0.2, hue),
)
"""The paper's eight disturbances over the paper's ranges; every level that it gives a value for is among ours."""


Floats = npt.NDArray[np.float32]

_GREY = np.array([[0.299, 0.587, 0.114]], np.float32)


def to_pixels(picture: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Values in 0..255 rounded, and cut where they are outside."""
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def grey_of(rgb: npt.NDArray[np.uint8] | Floats) -> Floats:
    """Luma of ITU-R BT.601 `(H, W)`, in the unit of the picture."""
    return np.asarray(cv2.transform(rgb.astype(np.float32, copy=False), _GREY), np.float32)


def blurred(picture: Floats, sigma: float, sigma_y: float | None = None) -> Floats:
    """Gaussian blur of so many pixels (`sigma_y` along columns, if it differs), cut at four sigma, mirrored at the border."""
    return np.asarray(
        cv2.GaussianBlur(
            picture, (0, 0), sigmaX=sigma, sigmaY=sigma if sigma_y is None else sigma_y
        ),
        np.float32,
    )


def line_kernel(weights: Floats, angle: float, start: float | None = None) -> Floats:
    """A kernel of points a pixel apart on a straight line, each spread over the four pixels around it; its sum is 1.

    Args:
        weights: of the points.
        angle: of the line, in radians; 0 is along a row.
        start: where on the line the first point is, in pixels from the kernel's centre; None: so that the line is centred.
    """
    count = len(weights)
    along = np.arange(count) + (-(count - 1) / 2 if start is None else start)
    half = math.ceil(float(np.abs(along).max()))
    x, y = half + along * math.cos(angle), half + along * math.sin(angle)
    left, top = np.floor(x + 1e-9).astype(int), np.floor(y + 1e-9).astype(int)
    kernel = np.zeros((2 * half + 2, 2 * half + 2))
    for right, share_x in ((0, 1 - (x - left)), (1, x - left)):
        for down, share_y in ((0, 1 - (y - top)), (1, y - top)):
            np.add.at(kernel, (top + down, left + right), weights * share_x * share_y)
    kernel = kernel[
        :-1, :-1
    ]  # only what is off by the rounding of a sine lies in the last row and column
    return (kernel / kernel.sum()).astype(np.float32)
