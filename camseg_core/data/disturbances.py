"""Seeded disturbances of a camera's picture: their type, the paper's eight, and shared filters.

The paper (arXiv 2503.15617) names the disturbances and the ranges of their levels, but does not
define them exactly; the docstrings here say what ours do. All work on the whole picture and leave
the label alone. `corruptions.COMMON` has the common corruptions.
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
Floats = npt.NDArray[np.float32]
Apply = Callable[[Pixels, float, np.random.Generator], Pixels]

_GREY = np.array([[0.299, 0.587, 0.114]], np.float32)


@dataclass(frozen=True)
class Disturbance:
    """A way to disturb a picture, at several levels.

    It has two uses. For measurements, a call returns the picture determined by a seed and a frame's
    name. For training, `apply(rgb, level, rng)` draws from a generator at any level. Both take RGB
    `(H, W, 3)` uint8 and return a new array of the same size.

    `levels` rise; `clean` is the level that changes nothing, and `shown` the level of example
    pictures. `unit` and `does` describe level and effect for readers.
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
        """Return the disturbed picture.

        Seed, name of the disturbance, level and frame determine every byte, in any order of calls.
        With other versions of NumPy or OpenCV, or another kind of processor, single values may
        differ.

        Args:
            rgb: `(H, W, 3)` uint8.
            level: one of `levels`, or `clean`.
            seed: at least 0.
            frame: the picture's name.

        Raises:
            ConfigError: `level` is not one of the levels.
            ImageError: the array has another shape or type.
        """
        if not _is_rgb(rgb):
            found = (
                f"{rgb.shape} {rgb.dtype}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
            )
            raise ImageError(
                f"cannot disturb {found}: the image must be RGB (H, W, 3) uint8, at least 1x1"
            )
        if level == self.clean:
            return rgb.copy()
        if level not in self.levels:
            levels = ", ".join(f"{each:g}" for each in self.levels)
            raise ConfigError(
                f"{self.title} has no level {level:g}; choose from {levels}, "
                f"or {self.clean:g} for none"
            )
        return self.apply(rgb, level, generator(seed, self.name, f"{level:g}", frame))


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return a generator that is determined by a seed and names."""
    text = "\n".join([str(seed), *names])
    return np.random.default_rng(
        int.from_bytes(hashlib.sha256(text.encode(errors="surrogateescape")).digest(), "big")
    )


def _is_rgb(picture: object) -> bool:
    return (
        isinstance(picture, np.ndarray)
        and picture.dtype == np.uint8
        and picture.ndim == 3
        and picture.shape[2] == 3
        and picture.size > 0
    )


def description(function: Callable[..., object]) -> str:
    """Return the docstring of a disturbance in one line, without backquotes."""
    return " ".join((function.__doc__ or "").replace("`", "").split())


def gaussian_noise(rgb: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Gaussian noise on every pixel and channel; level: standard deviation in grey values."""
    return to_pixels(rgb + np.float32(level) * rng.standard_normal(rgb.shape, np.float32))


def gaussian_blur(rgb: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Gaussian blur, cut at 4 σ, borders mirrored; level: standard deviation σ in pixels."""
    return to_pixels(blurred(rgb.astype(np.float32), level))


def motion_blur(rgb: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Even blur along a centred line with the level as length in pixels, in a random direction;
    borders mirrored."""
    kernel = line_kernel(np.ones(round(level), np.float32), rng.uniform(0, np.pi))
    blur = cv2.filter2D(rgb.astype(np.float32), -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    return to_pixels(blur)


def salt_and_pepper(rgb: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Pixels turn white or black, equally often, with the level as probability in per cent."""
    drawn = rng.random(rgb.shape[:2], np.float32)
    result = rgb.copy()
    result[drawn < level / 100] = 255
    result[drawn < level / 200] = 0
    return result


def brightness(rgb: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """All values times the level, cut at 255."""
    return to_pixels(rgb * np.float32(level))


def contrast(rgb: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Distance of all values from the picture's mean grey (ITU-R BT.601) times the level."""
    mean = grey_of(rgb).mean(dtype=np.float64)
    return to_pixels(np.float32(mean) + np.float32(level) * (rgb - np.float32(mean)))


def saturation(rgb: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Distance of every pixel from its own grey (ITU-R BT.601) times the level: 0 is grey."""
    grey = grey_of(rgb)[..., None]
    return to_pixels(grey + np.float32(level) * (rgb - grey))


def hue(rgb: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Every pixel's hue (HSV) turned by the level, a share of a turn: 1/3 takes red to green."""
    hsv = cv2.cvtColor(rgb.astype(np.float32), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + np.float32(360 * level)) % 360
    return to_pixels(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def jpeg(rgb: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Encoded as JPEG with the level as quality, 1 to 100, and decoded."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, round(level)])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None  # it was just encoded
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def _of_paper(
    title: str, unit: str, levels: tuple[float, ...], clean: float, shown: float, apply: Apply
) -> Disturbance:
    return Disturbance(apply.__name__, title, unit, description(apply), levels, clean, shown, apply)


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
"""The paper's eight over its ranges; every level for which it reports a value is included."""


def to_pixels(picture: npt.ArrayLike) -> Pixels:
    """Round values to 8 bits, clipped to 0..255."""
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def grey_of(rgb: Pixels | Floats) -> Floats:
    """Luma of ITU-R BT.601 `(H, W)`, in the unit of the picture."""
    return np.asarray(cv2.transform(rgb.astype(np.float32, copy=False), _GREY), np.float32)


def blurred(picture: Floats, sigma: float, sigma_y: float | None = None) -> Floats:
    """Apply a Gaussian blur of `sigma` pixels (`sigma_y` along columns, if it differs).

    The kernel is cut at four sigma, and the border is mirrored.
    """
    vertical = sigma if sigma_y is None else sigma_y
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigmaX=sigma, sigmaY=vertical), np.float32)


def line_kernel(weights: Floats, angle: float, start: float | None = None) -> Floats:
    """Return a blur kernel: points on a line, one pixel apart, spread over their nearest pixels.

    Args:
        weights: of the points, `(N,)`; the kernel's sum is 1.
        angle: of the line in radians; 0 is along a row.
        start: position of the first point on the line, in pixels from the kernel's centre; None
            centres the line.
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
    kernel = kernel[:-1, :-1]  # the last row and column hold only the rounding of a sine
    return (kernel / kernel.sum()).astype(np.float32)
