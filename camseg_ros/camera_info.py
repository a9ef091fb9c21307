"""The camera's calibration for the mask: the camera's own `sensor_msgs/CameraInfo`, moved and
scaled as the image was.

Calibration comes from outside: `check` says whether a message can be believed, and `scaled` takes
only such ones.
"""

import copy

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import CameraInfo, RegionOfInterest
from std_msgs.msg import Header

MAX_COEFFICIENTS = 32
"""Most distortion coefficients that a message may have; OpenCV's largest model has 14."""

MAX_NAME = 256
"""Most characters of a frame's or distortion model's name."""


def check(
    info: CameraInfo, image_width: int, image_height: int, frame_id: str | None = None
) -> str:
    """Why `info` does not belong to an image of this size, and frame unless that is None; empty if
    it does.

    The image's size follows from the message as its definition says: of the full resolution `width`
    x `height` the region `roi` (all zeros: everything) was read, every `binning_x` x `binning_y`
    pixels (0 is 1) in one.
    """
    for name, text in (
        ("frame_id", info.header.frame_id),
        ("distortion_model", info.distortion_model),
    ):
        if len(text) > MAX_NAME:
            return f"its {name} has {len(text)} characters, over {MAX_NAME}"
    if len(info.d) > MAX_COEFFICIENTS:
        return f"it has {len(info.d)} distortion coefficients, over {MAX_COEFFICIENTS}"
    for name, values in (("D", info.d), ("K", info.k), ("R", info.r), ("P", info.p)):
        if not np.isfinite(values).all():
            return f"its {name} has a number that is not finite"
    left, top, width, height = _region(info)
    if left + width > info.width or top + height > info.height:
        return f"its roi of {width}x{height} pixels at ({left}, {top}) reaches over its {info.width}x{info.height} pixels"
    binned = width // max(info.binning_x, 1), height // max(info.binning_y, 1)
    if binned != (image_width, image_height):
        return f"it is for images of {binned[0]}x{binned[1]} pixels, the image has {image_width}x{image_height}"
    if frame_id is not None and info.header.frame_id != frame_id:
        return f"its frame is {info.header.frame_id!r}, the image's {frame_id[:MAX_NAME]!r}"
    return ""


def scaled(
    info: CameraInfo,
    header: Header,
    left: float,
    top: float,
    scale_x: float,
    scale_y: float,
    width: int,
    height: int,
) -> CameraInfo:
    """The calibration of a mask made of the image's region that starts at the pixel edge `(left,
    top)`, scaled.

    Coordinates are those of pixel centres, and scaling keeps the edges of the region in place:
    `mask_x = (x + 0.5 - left) * scale_x - 0.5`. K and P are moved by exactly that, skew and P's
    fourth column included. D and R stay: they act on the ray before it becomes a pixel. An
    uncalibrated camera's K of zeros stays zeros.

    The camera's own region and binning, if it has any, are worked into K and P as well, and `roi`
    and `binning` of the result are reset: it is the full calibration of an image of just the mask's
    size. Without any change to make, the message stays as it is but for the header.

    Args:
        info: the image's calibration, for which `check` gave no objection.
        header: the mask's.
        left: x of the region's left edge in the image, pixels.
        top: y of its upper edge.
        scale_x: mask pixels per image pixel.
        scale_y: the same, down.
        width: of the mask, pixels.
        height: of the mask.
    """
    # A copy of its own: messages share their arrays when they are assigned.
    result = copy.deepcopy(info)
    result.header = header
    region_left, region_top, region_width, region_height = _region(info)
    binning_x, binning_y = max(info.binning_x, 1), max(info.binning_y, 1)
    image_size = region_width // binning_x, region_height // binning_y
    if (left, top, scale_x, scale_y) == (0, 0, 1, 1) and (width, height) == image_size:
        return result
    to_image = _shift_and_scale(region_left, region_top, 1 / binning_x, 1 / binning_y)
    to_mask = _shift_and_scale(left, top, scale_x, scale_y) @ to_image
    result.k = (to_mask @ np.reshape(info.k, (3, 3))).reshape(-1)
    result.p = (to_mask @ np.reshape(info.p, (3, 4))).reshape(-1)
    result.width, result.height = width, height
    result.binning_x = result.binning_y = 0
    result.roi = RegionOfInterest()
    return result


def _region(info: CameraInfo) -> tuple[int, int, int, int]:
    """Left, top, width and height of what was read of the sensor; a `roi` of zeros stands for everything."""
    roi = info.roi
    return (
        roi.x_offset,
        roi.y_offset,
        roi.width or info.width - roi.x_offset,
        roi.height or info.height - roi.y_offset,
    )


def _shift_and_scale(
    left: float, top: float, scale_x: float, scale_y: float
) -> npt.NDArray[np.float64]:
    """The `(3, 3)` matrix of homogeneous pixel coordinates for `x -> (x + 0.5 - left) * scale_x - 0.5`, and y alike."""
    return np.array(
        [
            [scale_x, 0, (0.5 - left) * scale_x - 0.5],
            [0, scale_y, (0.5 - top) * scale_y - 0.5],
            [0, 0, 1],
        ],
        np.float64,
    )
