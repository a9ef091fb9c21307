"""Converts the pixels of one encoding to RGB, with `cv_bridge` where it works, else
`rosbags-image`.

Every converter must first convert a small known image of every encoding exactly. cv_bridge in
particular can return wrong pixels without an error: with a row step that is not a multiple of
three, with big-endian data on numpy 2, or with a compiled part built for another numpy. Converters
only receive 8-bit rows without padding; `camseg_ros.images` prepares them.
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
"""Raw bytes of an image, or RGB; the docstrings give the shape."""

CONVERTED = (
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
"""The encodings that a converter must prove; rgb8 needs none, and OpenCV converts planar ones."""

PLANAR = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}
"""Encodings that neither cv_bridge nor rosbags-image supports."""

HOW_TO_INSTALL = (
    "install rosbags-image (pip install rosbags-image) or, on a ROS machine, "
    "ros-$ROS_DISTRO-cv-bridge"
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TightImage:
    """An image without row padding, with the fields of `sensor_msgs/Image` that converters read."""

    height: int
    width: int
    encoding: str
    step: int
    data: Pixels = field(repr=False)
    is_bigendian: int = 0


Convert = Callable[[TightImage], Pixels]
"""Converts a `TightImage` to RGB `(H, W, 3)` uint8."""


@dataclass(frozen=True)
class Converter:
    """Converts pixels to RGB on this machine; `name` lists the libraries used."""

    name: str
    functions: dict[str, Convert]

    def to_rgb(self, rows: Pixels, encoding: str, width: int, height: int) -> Pixels:
        """Convert `rows` (row count, bytes per row), C-contiguous, to RGB `(height, width, 3)`.

        Raises:
            ConfigError: no installed library converts this encoding.
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
    """Return cv_bridge's conversion, or None if it is not installed or cannot be loaded."""
    try:
        from cv_bridge import CvBridge

        bridge = CvBridge()
    except Exception as error:  # a part compiled for another numpy or OpenCV fails in many ways
        logger.debug("cv_bridge cannot be loaded: %r", error)
        return None
    return lambda image: np.asarray(bridge.imgmsg_to_cv2(image, "rgb8"), np.uint8)


def load_rosbags_image() -> Convert | None:
    """Return the conversion of rosbags-image, or None if it is not installed."""
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
    """Return, for every encoding, the first of cv_bridge and rosbags-image that is exact.

    Raises:
        ConfigError: no library is installed, or none is exact for any encoding.
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
                "%s is installed but fails its check (wrong pixels, or an error with this numpy "
                "and OpenCV); not used",
                name,
            )
    if not functions:
        raise ConfigError(f"no library to convert image messages; {HOW_TO_INSTALL}")
    return Converter(" + ".join(used), functions)


def is_exact(convert: Convert, encoding: str) -> bool:
    """Return whether `convert` converts the known image of `encoding` exactly."""
    image, expected = known_image(encoding)
    try:
        return np.array_equal(convert(image), expected)
    except Exception as error:  # a broken converter may raise anything
        logger.debug("conversion of the known %s image failed: %r", encoding, error)
        return False


def known_image(encoding: str) -> tuple[TightImage, Pixels]:
    """Return a 4x4 image in `encoding` and its RGB `(4, 4, 3)`, neither made by a converter.

    Packed encodings have 16 different colours; Bayer a single colour, which interpolation cannot
    change; YUV the four BT.601 values of black, white, red and blue, whose RGB is known.
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
