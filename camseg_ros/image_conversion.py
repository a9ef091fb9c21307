"""Pixels of one encoding -> RGB, by `cv_bridge` where one works here and by `rosbags-image` where
none does.

Neither is trusted unseen. cv_bridge in particular breaks in ways that give wrong pixels and no
error (a row step that is not a multiple of three, big-endian data on numpy 2, a compiled part built
for another numpy), so every converter has to turn one small known picture of every encoding into
exact pixels before it is used, and it only ever sees tight, little-endian 8-bit rows
(`camseg_ros.images` takes care of that).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.errors import ConfigError

Pixels = npt.NDArray[np.uint8]
"""Raw bytes of an image, or RGB: the docstrings say which and give the shape."""

CONVERTED = (
    "rgb8",
    "bgr8",
    "mono8",
    "rgba8",
    "bgra8",
    "bayer_rggb8",
    "bayer_bggr8",
    "bayer_gbrg8",
    "bayer_grbg8",
    "yuv422",
    "yuv422_yuy2",
)
"""The encodings that a converter has to prove; the planar ones below are OpenCV's in every case."""

PLANAR = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}
"""Encodings that neither cv_bridge nor rosbags-image can read."""

HOW_TO_INSTALL = "install rosbags-image (`pip install 'camseg_ros[ros]'`) or, on a ROS machine, ros-$ROS_DISTRO-cv-bridge"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TightImage:
    """A picture without row padding, with the fields of `sensor_msgs/Image` that the converters read."""

    height: int
    width: int
    encoding: str
    step: int
    data: Pixels = field(repr=False)
    is_bigendian: int = 0


Convert = Callable[[TightImage], Pixels]
"""A tight picture -> RGB, `(H, W, 3)` uint8."""


@dataclass(frozen=True)
class Converter:
    """What turns pixels into RGB on this machine; `name` says what it is made of."""

    name: str
    functions: dict[str, Convert]

    def to_rgb(self, rows: Pixels, encoding: str, width: int, height: int) -> Pixels:
        """Convert `rows` (row count, bytes per row), C-contiguous, into RGB `(height, width, 3)`.

        For rgb8 the result may share memory with `rows`.

        Raises:
            ConfigError: nothing installed here converts this encoding.
        """
        if encoding in PLANAR:
            return np.asarray(cv2.cvtColor(rows, PLANAR[encoding]), np.uint8)
        function = self.functions.get(encoding)
        if function is None:
            raise ConfigError(
                f"{self.name} on this machine cannot convert {encoding} images; {HOW_TO_INSTALL}"
            )
        return function(TightImage(height, width, encoding, rows.shape[1], rows.reshape(-1)))


def load_cv_bridge() -> Convert | None:
    """cv_bridge's conversion, or None where it is not installed or cannot be loaded."""
    try:
        from cv_bridge import CvBridge

        bridge = CvBridge()
    except Exception as error:  # a compiled part for another numpy or OpenCV fails in many ways, not only with ImportError
        logger.debug("cv_bridge cannot be loaded: %r", error)
        return None
    return lambda image: np.asarray(bridge.imgmsg_to_cv2(image, "rgb8"), np.uint8)


def load_rosbags_image() -> Convert | None:
    """The conversion of rosbags-image, or None where it is not installed."""
    try:
        from rosbags.image import image_to_cvimage
    except ImportError as error:
        logger.debug("rosbags-image cannot be loaded: %r", error)
        return None
    return lambda image: np.asarray(image_to_cvimage(cast(Any, image), "rgb8"), np.uint8)


LOADERS: tuple[tuple[str, Callable[[], Convert | None]], ...] = (
    ("cv_bridge", load_cv_bridge),
    ("rosbags-image", load_rosbags_image),
)


def choose_converter() -> Converter:
    """The best conversion for every encoding: the first of cv_bridge and rosbags-image that gives
    exact pixels for it.

    Raises:
        ConfigError: neither is there, or neither gives right pixels for anything; says what to
            install.
    """
    functions: dict[str, Convert] = {}
    used: list[str] = []
    for name, load in LOADERS:
        missing = [encoding for encoding in CONVERTED if encoding not in functions]
        convert = load() if missing else None
        if convert is None:
            continue
        proven = [encoding for encoding in missing if is_exact(convert, encoding)]
        functions.update(dict.fromkeys(proven, convert))
        if proven:
            used.append(name if len(proven) == len(CONVERTED) else f"{name} ({', '.join(proven)})")
        else:
            logger.warning(
                "%s is installed but fails its check (wrong pixels, or an error with this numpy and OpenCV); not used",
                name,
            )
    if not functions:
        raise ConfigError(f"nothing here can convert image messages; {HOW_TO_INSTALL}")
    return Converter(" + ".join(used), functions)


def is_exact(convert: Convert, encoding: str) -> bool:
    """Whether `convert` turns the known picture of `encoding` into exactly the known pixels."""
    image, expected = known_picture(encoding)
    try:
        return np.array_equal(convert(image), expected)
    except Exception as error:  # whatever a broken converter raises, the answer is no
        logger.debug("conversion of the known %s picture failed: %r", encoding, error)
        return False


def known_picture(encoding: str) -> tuple[TightImage, Pixels]:
    """A 4x4 picture in `encoding` and its RGB `(4, 4, 3)`, both written down here and not computed
    by any converter.

    Packed encodings get 16 different colours; Bayer one colour all over, so that interpolation
    cannot change it; YUV the four BT.601 values of black, white, red and blue, whose RGB is known.
    """
    rgb = (np.arange(48).reshape(4, 4, 3) * 5 + 3).astype(np.uint8)
    if encoding.startswith("bayer_"):
        rgb[:] = (200, 90, 30)
        cell = np.array(
            [(200, 90, 30)["rgb".index(letter)] for letter in encoding[6:10]], np.uint8
        ).reshape(2, 2)
        data = np.tile(cell, (2, 2))
    elif encoding.startswith("yuv422"):
        bt601 = np.array(
            [(16, 128, 128), (235, 128, 128), (81, 90, 240), (41, 240, 110)], np.uint8
        )  # Y, U, V of one row each
        luma, u, v = (np.repeat(column[:, None], 4, 1) for column in bt601.T)
        chroma = np.where(np.arange(4) % 2 == 0, u, v)
        data = np.stack([chroma, luma] if encoding == "yuv422" else [luma, chroma], -1)
        rgb[:] = np.array([(0, 0, 0), (255, 255, 255), (254, 0, 0), (0, 0, 255)], np.uint8)[:, None]
    elif encoding == "mono8":
        data = np.ascontiguousarray(rgb[..., 0])
        rgb = np.repeat(data[..., None], 3, -1)
    else:
        alpha = np.full((4, 4, 1), 7, np.uint8)
        colours = rgb if encoding.startswith("rgb") else rgb[..., ::-1]
        data = (
            np.concatenate([colours, alpha], -1)
            if "a8" in encoding
            else np.ascontiguousarray(colours)
        )
    return TightImage(4, 4, encoding, data.nbytes // 4, data.reshape(-1)), rgb
