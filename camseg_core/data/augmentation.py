"""Random views of labelled frames for training: crops, moved and changed in colour.

`random_crops` and `varied_views` are the two recipes; `Augmentation` is the engine behind both.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.data import disturbances
from camseg_core.data.crop_parts import (
    Part,
    Target,
    by_area,
    of_any_size,
    pixel_of_class,
    start_of,
)
from camseg_core.data.disturbances import Apply, Pixels
from camseg_core.data.random_changes import COLOR_CHANGES, Change, Range, at_random, maybe
from camseg_core.errors import ConfigError
from camseg_core.labels import UNLABELLED


@dataclass(frozen=True)
class Variation:
    """Options of `varied_views`; the defaults are the published ones (arXiv 2503.15617).

    Each change is made with probability `share`, by an amount drawn uniformly from a range. Zeros,
    or ones for `crop`, switch a change off. Image and label change together:

    - `flip`: mirror left to right; `upside_down`: mirror top to bottom.
    - `crop`: share of each side that a part takes, which is scaled to the view.
    - `rotation`, `shear`: largest angle to either side in degrees.
    - `shift`: largest share of a side.
    - `cutout`: side in pixels of a square that becomes black and unlabelled.

    The image alone changes:

    - `noise`: standard deviation of Gaussian noise in levels of 0..255.
    - `salt_and_pepper`: share of pixels that become white or black.
    - `blur`: kernel width in pixels, from which OpenCV's rule gives the Gaussian's σ. The
      paper publishes no widths; these are ours.
    - `motion_blur`: length in pixels. Both widths are rounded down to an odd number.
    - `jitter`: largest relative change of brightness, contrast and saturation, each independently.
    """

    share: float = 0.5
    flip: bool = True
    upside_down: bool = True
    crop: Range = (0.6, 0.9)
    rotation: float = 90.0
    shear: float = 10.0
    shift: float = 0.2
    cutout: Range = (90, 210)
    noise: Range = (5, 20)
    salt_and_pepper: Range = (0.01, 0.03)
    blur: Range = (3, 7)
    motion_blur: Range = (3, 15)
    jitter: float = 0.2

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, tuple) and not 0 <= value[0] <= value[1]:
                raise ConfigError(
                    f"{entry.name} must be two numbers >= 0 in rising order, got {list(value)}"
                )
        for name, most in (("share", 1), ("rotation", 180), ("shift", 1)):
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(f"{name} must be from 0 to {most}, got {getattr(self, name):g}")
        for name, end in (("shear", 80), ("jitter", 1)):
            if not 0 <= getattr(self, name) < end:
                raise ConfigError(
                    f"{name} must be at least 0 and below {end}, got {getattr(self, name):g}"
                )
        if self.crop[0] <= 0 or self.crop[1] > 1:
            raise ConfigError(f"crop must be above 0 and at most 1, got {list(self.crop)}")
        if self.salt_and_pepper[1] > 1:
            raise ConfigError(
                f"salt_and_pepper must be at most 1, got {list(self.salt_and_pepper)}"
            )


@dataclass(frozen=True)
class Augmentation:
    """Random views of `size` (height, width) of labelled frames of any size.

    `part` draws the part that a view shows. Flips, `rotation`, `shear`, `shift` and `cutout` are
    those of `Variation`, each with probability `chance`. `changes` are applied to the picture in
    order; each draws whether and how much. With `beyond`, parts may reach beyond the frame: the
    frame's mirror image, unlabelled, fills the rest, and `flip` is the only move.
    """

    size: tuple[int, int]
    part: Part
    chance: float = 0.5
    flip: bool = False
    upside_down: bool = False
    rotation: float = 0.0
    shear: float = 0.0
    shift: float = 0.0
    changes: tuple[Change, ...] = ()
    cutout: Range = (0, 0)
    beyond: bool = False

    def __call__(
        self, rgb: Pixels, label: Pixels, rng: np.random.Generator, shown: int | None = None
    ) -> tuple[Pixels, Pixels]:
        """Return a view of a frame, RGB `(H, W, 3)` and class indices `(H, W)`, as new arrays.

        Both are uint8. Indices are taken from the nearest pixel; outside the frame they are 255.
        The view contains a random pixel of class `shown`, if the frame has one.
        """
        place = self._cut if self.beyond else self._placed
        target = (None, None) if shown is None else pixel_of_class(label, shown, rng)
        rgb, label = place(rgb, label, rng, target)
        for change in self.changes:
            rgb = change(rgb, rng)
        if self.cutout[1] > 0 and rng.random() < self.chance:
            side = round(rng.uniform(*self.cutout))
            top, left = (int(rng.integers(0, max(1, length - side + 1))) for length in self.size)
            rgb[top : top + side, left : left + side] = 0
            label[top : top + side, left : left + side] = UNLABELLED
        return rgb, label

    def _placed(
        self, rgb: Pixels, label: Pixels, rng: np.random.Generator, target: Target
    ) -> tuple[Pixels, Pixels]:
        """Scale the frame until the part has the view's size, then move it in one resampling.

        Scaling comes first because it averages where it shrinks; an affine warp does not.
        """
        height, width = self.size
        share_y, share_x = self.part((label.shape[0], label.shape[1]), rng)
        scaled = max(height, round(height / share_y)), max(width, round(width / share_x))
        rgb, label = _scaled(rgb, scaled), _scaled(label, scaled)
        top, left = (
            start_of(side, length, place, rng)
            for side, length, place in zip(self.size, scaled, target, strict=True)
        )
        move = self._draw_move(rng)
        if move is None:
            window = np.s_[top : top + height, left : left + width]
            return rgb[window].copy(), label[window].copy()
        matrix = (move @ _translation(-left, -top))[:2]
        moved = cv2.warpAffine(rgb, matrix, (width, height), flags=cv2.INTER_LINEAR)
        ids = cv2.warpAffine(
            label, matrix, (width, height), flags=cv2.INTER_NEAREST, borderValue=[UNLABELLED]
        )
        return np.asarray(moved, np.uint8), np.asarray(ids, np.uint8)

    def _cut(
        self, rgb: Pixels, label: Pixels, rng: np.random.Generator, target: Target
    ) -> tuple[Pixels, Pixels]:
        """Cut the part out, fill it where it reaches beyond the frame, and scale it to the view."""
        frame = (label.shape[0], label.shape[1])
        inside, fill = [], []
        for share, length, place in zip(self.part(frame, rng), frame, target, strict=True):
            side = max(1, round(share * length))
            start = start_of(side, length, place, rng)
            inside.append(slice(max(0, start), min(length, start + side)))
            fill += [max(0, -start), max(0, start + side - length)]
        rgb, label = rgb[tuple(inside)], label[tuple(inside)]
        if any(fill):
            rgb = _bordered(rgb, fill, cv2.BORDER_REFLECT_101)
            label = _bordered(label, fill, cv2.BORDER_CONSTANT)
        rgb, label = _scaled(rgb, self.size), _scaled(label, self.size)
        if self.flip and rng.random() < self.chance:
            rgb, label = rgb[:, ::-1], label[:, ::-1]
        return rgb.copy(), label.copy()

    def _draw_move(self, rng: np.random.Generator) -> npt.NDArray[np.float64] | None:
        """Draw the affine map `(3, 3)` of the view's pixels, or None if they stay."""
        height, width = self.size
        centre = _translation((width - 1) / 2, (height - 1) / 2)
        move = np.eye(3)
        for wanted, flip in ((self.flip, (-1, 1, 1)), (self.upside_down, (1, -1, 1))):
            if wanted and rng.random() < self.chance:
                move = centre @ np.diag(flip) @ np.linalg.inv(centre) @ move
        turn, lean, tilt = (
            math.radians(_to_either_side(largest, self.chance, rng))
            for largest in (self.rotation, self.shear, self.shear)
        )
        if turn or lean or tilt:
            cos, sin = math.cos(turn), math.sin(turn)
            sheared = np.array([[1, math.tan(lean), 0], [math.tan(tilt), 1, 0], [0, 0, 1]])
            turned = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
            move = centre @ turned @ sheared @ np.linalg.inv(centre) @ move
        right = _to_either_side(self.shift, self.chance, rng) * width
        down = _to_either_side(self.shift, self.chance, rng) * height
        move = _translation(right, down) @ move
        return None if np.array_equal(move, np.eye(3)) else move


def random_crops(
    size: tuple[int, int],
    area: Range,
    color: bool,
    aspect: Range = (1.1, 1.6),
    beyond: bool = False,
) -> Augmentation:
    """Return random crops of a frame, mirrored at random and, with `color`, changed in colour.

    A crop takes a share of the frame's area from the range `area`, is `aspect` times as wide as
    high, and is scaled to `size`. With `beyond` it may exceed the frame, see `Augmentation`.
    """
    part = of_any_size(area, aspect) if beyond else by_area(area, aspect)
    return Augmentation(size, part, 0.5, True, changes=COLOR_CHANGES * color, beyond=beyond)


def varied_views(size: tuple[int, int], options: Variation) -> Augmentation:
    """Return views of a whole frame, or most of it, with a random subset of changes."""
    share, factors = options.share, (1 - options.jitter, 1 + options.jitter)

    def part(frame: tuple[int, int], rng: np.random.Generator) -> tuple[float, float]:
        if options.crop == (1, 1) or rng.random() >= share:
            return 1.0, 1.0
        side = rng.uniform(*options.crop)
        return side, side

    def blur(rgb: Pixels, width: float, rng: np.random.Generator) -> Pixels:
        return disturbances.gaussian_blur(rgb, 0.3 * ((_odd(width) - 1) / 2 - 1) + 0.8, rng)

    def motion_blur(rgb: Pixels, width: float, rng: np.random.Generator) -> Pixels:
        return disturbances.motion_blur(rgb, _odd(width), rng)

    per_cent = (100 * options.salt_and_pepper[0], 100 * options.salt_and_pepper[1])
    jitter = (disturbances.brightness, disturbances.contrast, disturbances.saturation)
    ranges: list[tuple[Apply, Range]] = [
        *((apply, factors) for apply in jitter if options.jitter),
        (blur, options.blur),
        (motion_blur, options.motion_blur),
        (disturbances.gaussian_noise, options.noise),
        (disturbances.salt_and_pepper, per_cent),
    ]
    return Augmentation(
        *(size, part, share, options.flip, options.upside_down),
        *(options.rotation, options.shear, options.shift),
        tuple(maybe(share, at_random(apply, levels)) for apply, levels in ranges if levels[1] > 0),
        options.cutout,
    )


def _to_either_side(largest: float, chance: float, rng: np.random.Generator) -> float:
    made = largest > 0 and rng.random() < chance
    return float(rng.uniform(-largest, largest)) if made else 0.0


def _translation(right: float, down: float) -> npt.NDArray[np.float64]:
    return np.array([[1, 0, right], [0, 1, down], [0, 0, 1]], np.float64)


def _odd(width: float) -> int:
    return 2 * int(width / 2) + 1


def _bordered(picture: Pixels, widths: Sequence[int], kind: int) -> Pixels:
    """Add borders at top, bottom, left and right; constant ones are unlabelled."""
    top, bottom, left, right = widths
    wider = cv2.copyMakeBorder(picture, top, bottom, left, right, kind, value=[UNLABELLED])
    return np.asarray(wider, np.uint8)


def _scaled(picture: Pixels, size: tuple[int, int]) -> Pixels:
    """Scale RGB or a label to `size` (height, width)."""
    if picture.shape[:2] == size:
        return picture
    smaller = size[0] <= picture.shape[0] and size[1] <= picture.shape[1]
    smooth = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    method = smooth if picture.ndim == 3 else cv2.INTER_NEAREST_EXACT
    return np.asarray(cv2.resize(picture, size[::-1], interpolation=method), np.uint8)
