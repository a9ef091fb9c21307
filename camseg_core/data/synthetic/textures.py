"""Textures of the synthetic drive from a seeded generator: noise, facades, foliage, fences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray["np.floating[Any]"]  # quoted for numpy 1.21, that of Humble
Image = npt.NDArray[np.uint8]
Color = tuple[float, float, float]

FACADE_TEXELS_PER_M = 28
STOREY_M = 3.0

_BRICKS: tuple[Color, ...] = (
    (112, 78, 64),
    (138, 112, 86),
    (150, 140, 118),
    (168, 164, 152),
    (96, 84, 76),
    (186, 180, 164),
    (128, 92, 70),
)
_SHOPS: tuple[Color, ...] = (
    (40, 60, 96),
    (120, 36, 34),
    (34, 70, 50),
    (150, 120, 50),
    (44, 42, 44),
    (160, 158, 150),
)


@dataclass(frozen=True)
class Texture:
    """An RGBA picture with smaller copies of itself, so that distant surfaces do not flicker."""

    levels: tuple[Image, ...]

    @classmethod
    def of(cls, rgba: npt.NDArray[np.generic]) -> "Texture":
        """Make a texture from RGBA `(H, W, 4)` in 0..255."""
        levels = [np.clip(rgba, 0, 255).astype(np.uint8)]
        while min(levels[-1].shape[:2]) > 8:
            smaller = np.asarray(
                cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8
            )
            # without this, twigs thinner than a texel would vanish
            smaller[..., 3] = cv2.convertScaleAbs(smaller[..., 3], alpha=1.35)
            levels.append(smaller)
        return cls(tuple(levels))

    def level(self, size: float) -> Image:
        """The smallest copy whose diagonal is at least `size` pixels."""
        fitting = [level for level in self.levels if float(np.hypot(*level.shape[:2])) >= size]
        return fitting[-1] if fitting else self.levels[0]


def noise(rng: np.random.Generator, shape: tuple[int, int], cells: Sequence[int]) -> Floats:
    """Smooth noise that tiles without a seam, mean 0 and standard deviation 1.

    There is one octave for each cell size in pixels.
    """
    total = np.zeros(shape, np.float32)
    for cell in cells:
        rows, cols = max(shape[0] // cell, 1), max(shape[1] // cell, 1)
        lattice = np.pad(rng.standard_normal((rows, cols)).astype(np.float32), 2, mode="wrap")
        # with a margin of two cells on each side, the interpolation continues across the seam
        scale_y, scale_x = shape[0] / rows, shape[1] / cols
        size = (round((cols + 4) * scale_x), round((rows + 4) * scale_y))
        octave = cv2.resize(lattice, size, interpolation=cv2.INTER_LINEAR)
        y0, x0 = round(2 * scale_y), round(2 * scale_x)
        total += octave[y0 : y0 + shape[0], x0 : x0 + shape[1]]
    return np.asarray((total - total.mean()) / (total.std() + 1e-6), np.float32)


def rgb_of(plane: Floats) -> Floats:
    """Three equal channels `(H, W, 3)` from `(H, W)`; several times faster than broadcasting."""
    plane = np.asarray(plane, np.float32)
    return np.asarray(cv2.merge([plane, plane, plane]), np.float32)


def opaque(rgb: Floats) -> Texture:
    """A texture without holes from RGB `(H, W, 3)`."""
    return Texture.of(np.dstack([rgb, np.full(rgb.shape[:2], 255, np.float32)]))


@dataclass(frozen=True)
class Facade:
    """A street front: texture, colour of the wall, and windows `(N, 4)`.

    Windows are left, bottom, right, top in metres from the lower left.
    """

    texture: Texture
    wall: Color
    windows: Floats


def facade(
    rng: np.random.Generator, width: float, storeys: int, light: float, shop: bool
) -> Facade:
    """A front of `width` metres and `storeys` floors with a shop or a door; full `light` is 1."""
    wall_color = np.array(_BRICKS[rng.integers(len(_BRICKS))]) * rng.uniform(0.85, 1.1)
    height = storeys * STOREY_M
    rgb = masonry(rng, width, height, wall_color)
    pane = np.array([206, 204, 198]) * rng.uniform(0.55, 1.05)
    columns = max(int(width / rng.uniform(2.0, 3.0)), 1)
    pitch, pane_width, pane_height = width / columns, rng.uniform(0.8, 1.3), rng.uniform(1.3, 1.7)
    windows = []
    for storey in range(1 if shop else 0, storeys):
        for column in range(columns):
            left, bottom = (column + 0.5) * pitch - pane_width / 2, storey * STOREY_M + 0.85
            door = storey == 0 and column == columns // 2
            box = (left, 0.05 if door else bottom, left + pane_width, bottom + pane_height)
            _paint_window(rgb, box, pane, rng, door)
            if not door:
                windows.append(box)
    if shop:
        windows += _paint_shop(rgb, width, rng)
    _band(rgb, 0.0, width, height - 0.25, height, np.array(wall_color) * 0.7)
    lit = rgb * light
    wall = (float(wall_color[0]), float(wall_color[1]), float(wall_color[2]))
    return Facade(opaque(lit), wall, np.array(windows, np.float32).reshape(-1, 4))


def masonry(
    rng: np.random.Generator, width: float, height: float, color: npt.NDArray[np.float64]
) -> Floats:
    """A weathered wall, RGB `(height, width, 3)` at `FACADE_TEXELS_PER_M`."""
    shape = (max(int(height * FACADE_TEXELS_PER_M), 8), max(int(width * FACADE_TEXELS_PER_M), 8))
    stains = noise(rng, shape, (64, 24, 4)) * 0.07
    courses = np.repeat(rng.uniform(-0.06, 0.06, (shape[0] // 3 + 1, 1)), 3, axis=0)[: shape[0]]
    grain = rng.standard_normal(shape) * 0.05
    return np.asarray((1 + stains + courses + grain)[..., None] * color, np.float32)


def _band(rgb: Floats, x0: float, x1: float, y0: float, y1: float, color: Any) -> None:
    """Paint a rectangle, in metres from the lower left."""
    top, bottom = (max(rgb.shape[0] - int(y * FACADE_TEXELS_PER_M), 0) for y in (y1, y0))
    left, right = (max(int(x * FACADE_TEXELS_PER_M), 0) for x in (x0, x1))
    rgb[top:bottom, left:right] = color


def _paint_window(
    rgb: Floats,
    box: tuple[float, float, float, float],
    frame: npt.NDArray[np.float64],
    rng: np.random.Generator,
    door: bool,
) -> None:
    left, bottom, right, top = box
    _band(rgb, left - 0.12, right + 0.12, top, top + 0.18, frame * 0.75)
    _band(rgb, left, right, bottom, top, frame)
    if door:
        color = _SHOPS[rng.integers(len(_SHOPS))]
        _band(rgb, left + 0.1, right - 0.1, bottom, top - 0.4, color)
        return
    glass = np.array([44, 50, 58]) * rng.uniform(0.6, 1.9)
    middle = (bottom + top) / 2
    _band(rgb, left + 0.08, right - 0.08, bottom + 0.08, middle - 0.03, glass * 0.85)
    _band(rgb, left + 0.08, right - 0.08, middle + 0.03, top - 0.08, glass * 1.15)
    _band(rgb, left - 0.1, right + 0.1, bottom - 0.12, bottom, frame * 0.9)


def _paint_shop(
    rgb: Floats, width: float, rng: np.random.Generator
) -> list[tuple[float, float, float, float]]:
    """A sign above large panes; returns the panes."""
    front = np.array(_SHOPS[rng.integers(len(_SHOPS))]) * rng.uniform(0.8, 1.1)
    _band(rgb, 0.15, width - 0.15, 0.0, 2.9, front * 0.8)
    _band(rgb, 0.15, width - 0.15, 2.4, 2.9, front * 1.2)
    start = rng.uniform(0.2, 0.35) * width
    for letter in np.arange(start, width - start, 0.34):
        _band(rgb, letter, letter + rng.uniform(0.12, 0.26), 2.52, 2.78, (205, 200, 180))
    panes = []
    count = max(int(width / 1.9), 1)
    for index in range(count):
        left, right = 0.3 + index * (width - 0.6) / count, 0.2 + (index + 1) * (width - 0.6) / count
        bottom = 0.1 if index == count // 2 else 0.55
        _band(rgb, left, right, bottom, 2.3, np.array([40, 44, 48]) * rng.uniform(0.5, 1.7))
        for _ in range(5):  # goods on display
            x, y = rng.uniform(left, right - 0.3), rng.uniform(bottom, 1.4)
            right_x, top = x + rng.uniform(0.1, 0.35), y + rng.uniform(0.1, 0.5)
            _band(rgb, x, right_x, y, top, rng.uniform(40, 170, 3))
        panes.append((left, bottom, right, 2.3))
    return panes


def crown(rng: np.random.Generator, texels: int = 160) -> Texture:
    """The crown of a tree: clumps of leaves with gaps, lit from the upper left."""
    y, x = np.mgrid[0:texels, 0:texels].astype(np.float32) / texels
    body = np.full((texels, texels), -1.0, np.float32)
    relief = np.zeros_like(body)
    for _ in range(26):
        angle, reach = rng.uniform(0, 2 * np.pi), 0.3 * np.sqrt(rng.uniform(0, 1))
        cx, cy = 0.5 + reach * np.cos(angle), 0.5 + reach * np.sin(angle)
        radius = rng.uniform(0.09, 0.19)
        clump = 1 - np.hypot(x - cx, y - cy) / radius
        body = np.maximum(body, clump)
        lit = 0.5 + ((cx - x) + (cy - y)) / (3 * radius)
        relief = np.where(clump > 0.0, 0.45 * relief + 0.55 * lit, relief)
    leaves = noise(rng, (texels, texels), (8, 4, 2))
    alpha = np.where(body + 0.13 * leaves > 0.1, 255, 0)
    color = np.array([62, 70, 38]) * rng.uniform(0.75, 1.15) + rng.uniform(-8, 10, 3)
    shade = np.clip(0.55 + 0.75 * relief + 0.24 * leaves, 0.2, 1.8) * (1.15 - 0.5 * y)
    return Texture.of(np.dstack([shade[..., None] * color, alpha]))


def bare_crown(rng: np.random.Generator, texels: int = 192) -> Texture:
    """A tree in winter: branches and a haze of twigs."""
    rgba = np.zeros((texels, texels, 4), np.uint8)
    color = np.array([58, 50, 44]) * rng.uniform(0.7, 1.2)
    twigs = [(texels / 2, texels - 1.0, -np.pi / 2, texels * 0.2)]
    for depth in range(8):
        grown = []
        for x, y, angle, length in twigs:
            end_x, end_y = x + length * np.cos(angle), y + length * np.sin(angle)
            tint = color * rng.uniform(0.8, 1.25)
            start, end = (int(x), int(y)), (int(end_x), int(end_y))
            cv2.line(rgba, start, end, (*tint, 255), max(5 - depth, 1))
            grown += [
                (end_x, end_y, angle + turn, length * rng.uniform(0.7, 0.9))
                for turn in rng.normal(0, 0.55, 2 if depth else 4)
            ]
        twigs = grown
    return Texture.of(rgba)


def leaves(rng: np.random.Generator, texels: tuple[int, int]) -> Texture:
    """A clipped hedge."""
    slope = np.linspace(0.25, -0.3, texels[0], dtype=np.float32)[:, None]
    relief = noise(rng, texels, (16, 4, 2)) * 0.28 + slope
    return opaque(np.clip(1 + relief, 0.2, 1.8)[..., None] * np.array([52, 62, 36], np.float32))


def boards(rng: np.random.Generator, texels: tuple[int, int]) -> Texture:
    """A fence of upright boards between two rails."""
    board = 7
    tints = np.repeat(rng.uniform(0.75, 1.15, texels[1] // board + 1), board)[: texels[1]]
    rgb = (tints + rng.standard_normal(texels) * 0.05)[..., None] * np.array([98, 82, 66])
    rgb[:, ::board] *= 0.45
    rgb[[texels[0] // 6, -texels[0] // 5]] *= 0.6
    return opaque(rgb.astype(np.float32))
