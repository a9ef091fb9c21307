"""Views of a whole frame in which a random subset of changes is made: the kind of augmentation of arXiv 2503.15617."""

import math
from dataclasses import dataclass, fields
from typing import Any

import cv2
import kornia.augmentation as K
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from camseg_core.errors import ConfigError

Picture = npt.NDArray[np.uint8]
Range = tuple[float, float]


@dataclass(frozen=True)
class Variation:
    """What may be changed, and how much; the defaults are the published ones. Each change is made with probability `share`.

    Image and label together: mirrored left to right (`flip`) and top to bottom (`upside_down`); `crop`, the share of each side that a part
    takes, which is scaled to the whole; `rotation` and `shear`, the largest in degrees; `shift`, the largest share of a side; `cutout`, the
    side in pixels of a square that becomes black and unlabelled. The image alone: `noise`, the deviation of normal noise in levels of
    0..255; `salt_and_pepper`, the share of pixels that become white or black; `blur`, the width in pixels of a Gaussian kernel, and
    `motion_blur` of a straight one (odd numbers are taken); `jitter`, the largest relative change of brightness, contrast and saturation.
    Ranges are drawn from evenly; zeros, or for `crop` ones, leave a change out. The published text has no widths for `blur`: they are ours.
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
                    f"{entry.name} is {list(value)}; it is two rising numbers from 0 up"
                )
        if not (
            0 <= self.share <= 1
            and self.crop[0] > 0
            and self.crop[1] <= 1
            and self.salt_and_pepper[1] <= 1
        ):
            raise ConfigError(
                "share and salt_and_pepper are shares from 0 to 1, and crop from above 0 to 1"
            )
        if not (
            0 <= self.rotation <= 180
            and 0 <= self.shear < 80
            and 0 <= self.shift <= 1
            and 0 <= self.jitter < 1
        ):
            raise ConfigError(
                "rotation is 0 to 180, shear 0 to below 80, shift 0 to 1 and jitter 0 to below 1"
            )


class Vary:
    """A view of `size` (height, width) of a whole frame, varied at random; see `Variation`.

    Draws one number from torch's global generator, from which everything else follows: fork and seed it around the call.
    """

    def __init__(self, variation: Variation, size: tuple[int, int], ignore: int) -> None:
        self._variation, self._size, self._ignore = variation, size, ignore

    def __call__(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """`image` (1, 3, H, W) in 0..1 and `label` (1, H, W) integer to the same at the view's size; label as int64."""
        random = np.random.default_rng(int(torch.randint(2**62, ())))
        rgb = np.ascontiguousarray(
            (image[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        )
        rgb, ids = self.view(rgb, label[0].to(torch.uint8).numpy(), random)
        varied = torch.from_numpy(rgb).permute(2, 0, 1).unsqueeze(0).float() / 255
        return varied, torch.from_numpy(ids).unsqueeze(0).long()

    def view(
        self, rgb: Picture, label: Picture, random: np.random.Generator
    ) -> tuple[Picture, Picture]:
        """`rgb` (H, W, 3) and `label` (H, W) to a view of them."""
        choose = _Chooser(self._variation, random)
        rgb, label = self._moved(rgb, label, choose)
        for change in (_jitter, _blur, _motion_blur, _noise, _salt_and_pepper):
            rgb = change(rgb, choose)
        if choose.any(self._variation.cutout):
            self._cut_out(rgb, label, choose)
        return rgb, label

    def _moved(self, rgb: Picture, label: Picture, choose: "_Chooser") -> tuple[Picture, Picture]:
        """One resampling for all changes of place, after the frame is scaled as the part needs it: what shrinks is averaged."""
        variation, (height, width) = self._variation, self._size
        part = (
            choose.within(variation.crop) if variation.crop != (1, 1) and choose.chance() else 1.0
        )
        scaled = max(height, round(height / part)), max(width, round(width / part))
        rgb, label = _scaled(rgb, scaled, smooth=True), _scaled(label, scaled, smooth=False)
        down, right = (
            int(choose.random.integers(0, there - here + 1))
            for there, here in zip(scaled, self._size, strict=True)
        )
        moves = np.array([[1, 0, -right], [0, 1, -down], [0, 0, 1]], np.float64)
        straight = True
        for chosen, flip in ((variation.flip, (-1, 1)), (variation.upside_down, (1, -1))):
            if chosen and choose.chance():
                moves, straight = _about_centre(np.diag([*flip, 1]), self._size) @ moves, False
        angle, across, along = (
            choose.up_to(largest)
            for largest in (variation.rotation, variation.shear, variation.shear)
        )
        turn, lean, tilt = (math.radians(degrees) for degrees in (angle, across, along))
        if angle or across or along:
            sheared = np.array([[1, math.tan(lean), 0], [math.tan(tilt), 1, 0], [0, 0, 1]])
            turned = np.array(
                [
                    [math.cos(turn), -math.sin(turn), 0],
                    [math.sin(turn), math.cos(turn), 0],
                    [0, 0, 1],
                ]
            )
            moves, straight = _about_centre(turned @ sheared, self._size) @ moves, False
        shift = choose.up_to(variation.shift) * width, choose.up_to(variation.shift) * height
        if any(shift):
            moves, straight = (
                np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]]) @ moves,
                False,
            )
        if straight:
            window = np.s_[down : down + height, right : right + width]
            return rgb[window].copy(), label[window].copy()
        black, unknown = (0.0, 0.0, 0.0), (float(self._ignore),)
        moved = cv2.warpAffine(
            rgb, moves[:2], (width, height), flags=cv2.INTER_LINEAR, borderValue=black
        )
        ids = cv2.warpAffine(
            label, moves[:2], (width, height), flags=cv2.INTER_NEAREST, borderValue=unknown
        )
        return np.asarray(moved, np.uint8), np.asarray(ids, np.uint8)

    def _cut_out(self, rgb: Picture, label: Picture, choose: "_Chooser") -> None:
        side = round(choose.within(self._variation.cutout))
        top, left = (
            int(choose.random.integers(0, max(1, length - side + 1))) for length in self._size
        )
        hole = np.s_[top : top + side, left : left + side]
        rgb[hole] = 0
        label[hole] = self._ignore


class _Chooser:
    """The random numbers of one view."""

    def __init__(self, variation: Variation, random: np.random.Generator) -> None:
        self.variation, self.random = variation, random

    def chance(self) -> bool:
        return bool(self.random.random() < self.variation.share)

    def any(self, amount: Range) -> bool:
        """Whether a change that may be this large is made."""
        return amount[1] > 0 and self.chance()

    def within(self, amount: Range) -> float:
        return float(self.random.uniform(*amount))

    def up_to(self, largest: float) -> float:
        """An amount to either side, or 0 where the change is not made."""
        return (
            float(self.random.uniform(-largest, largest)) if largest > 0 and self.chance() else 0.0
        )


def _scaled(picture: Picture, size: tuple[int, int], smooth: bool) -> Picture:
    height, width = size
    if picture.shape[:2] == size:
        return picture
    if not smooth:
        return np.asarray(
            cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8
        )
    smaller = height <= picture.shape[0] and width <= picture.shape[1]
    return np.asarray(
        cv2.resize(
            picture, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        ),
        np.uint8,
    )


def _about_centre(move: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[np.float64]:
    height, width = size
    there = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1]])
    back = np.array([[1, 0, -(width - 1) / 2], [0, 1, -(height - 1) / 2], [0, 0, 1]])
    return np.asarray(there @ move @ back, np.float64)


def _clipped(picture: npt.NDArray[Any]) -> Picture:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _jitter(rgb: Picture, choose: _Chooser) -> Picture:
    brightness, contrast, saturation = (1 + choose.up_to(choose.variation.jitter) for _ in range(3))
    if brightness == contrast == saturation == 1:
        return rgb
    lit = rgb.astype(np.float32) * brightness
    grey = cv2.cvtColor(lit, cv2.COLOR_RGB2GRAY)
    lit = grey.mean() + contrast * (lit - grey.mean())
    grey = cv2.cvtColor(np.asarray(lit, np.float32), cv2.COLOR_RGB2GRAY)[..., None]
    return _clipped(grey + saturation * (lit - grey))


def _blur(rgb: Picture, choose: _Chooser) -> Picture:
    if not choose.any(choose.variation.blur):
        return rgb
    width = _odd(choose.within(choose.variation.blur))
    return np.asarray(cv2.GaussianBlur(rgb, (width, width), 0), np.uint8)


def _motion_blur(rgb: Picture, choose: _Chooser) -> Picture:
    if not choose.any(choose.variation.motion_blur):
        return rgb
    width = _odd(choose.within(choose.variation.motion_blur))
    angle, middle = choose.random.uniform(0, math.pi), (width - 1) / 2
    kernel = np.zeros((width, width), np.float32)
    ends = [
        tuple(round(middle + sign * middle * way) for way in (math.cos(angle), math.sin(angle)))
        for sign in (-1, 1)
    ]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    return np.asarray(cv2.filter2D(rgb, -1, kernel / kernel.sum()), np.uint8)


def _odd(width: float) -> int:
    return 2 * int(width / 2) + 1


def _noise(rgb: Picture, choose: _Chooser) -> Picture:
    if not choose.any(choose.variation.noise):
        return rgb
    deviation = choose.within(choose.variation.noise)
    return _clipped(rgb + deviation * choose.random.standard_normal(rgb.shape, np.float32))


def _salt_and_pepper(rgb: Picture, choose: _Chooser) -> Picture:
    if not choose.any(choose.variation.salt_and_pepper):
        return rgb
    share = choose.within(choose.variation.salt_and_pepper)
    drawn = choose.random.random(rgb.shape[:2], np.float32)
    result = rgb.copy()
    result[drawn < share / 2] = 0
    result[drawn > 1 - share / 2] = 255
    return result


class Augment:
    """Random scale, crop, flip and colour for a batch.

    Geometry moves image and label alike (label by nearest neighbour; pixels from outside become `ignore`). Draws from
    torch's global generator, as kornia does: fork and seed it around the call.
    """

    def __init__(
        self, size: tuple[int, int], scale: tuple[float, float], ignore: int, color: bool
    ) -> None:
        self._ignore = ignore
        self._geometry = K.AugmentationSequential(
            K.RandomHorizontalFlip(p=0.5),
            K.RandomResizedCrop(size, scale=scale, ratio=(1.1, 1.6)),
            data_keys=["input", "mask"],
        )
        self._color = (
            K.ImageSequential(
                K.ColorJiggle(0.4, 0.4, 0.4, 0.08, p=0.8),
                K.RandomGrayscale(p=0.05),
                K.RandomGaussianBlur((3, 3), (0.1, 1.5), p=0.15),
                K.RandomGaussianNoise(std=0.03, p=0.15),
            )
            if color
            else None
        )

    @torch.no_grad()
    def __call__(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """`image` (B, 3, H, W) in 0..1 and `label` (B, H, W) integer to the same at the crop's size."""
        # kornia fills what it moves in from outside with zeros, which is a class: shift ids by one so that zero means ignore
        shifted = torch.where(label == self._ignore, 0, label.long() + 1).unsqueeze(1).float()
        image, shifted = self._geometry(image, shifted)
        moved = shifted.squeeze(1).round().long() - 1
        if self._color is not None:
            image = self._color(image)
        return image.clamp(0, 1), torch.where(moved < 0, self._ignore, moved)
