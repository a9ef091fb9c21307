"""The mask's calibration: the camera's `sensor_msgs/CameraInfo`, moved and scaled like the image.

Calibration comes from outside: `check_camera_info` validates a message; pass only valid ones to `scaled_camera_info`.
"""

import copy

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import CameraInfo, RegionOfInterest
from std_msgs.msg import Header

MAX_COEFFICIENTS = 32
"""Most distortion coefficients accepted; OpenCV's largest model has 14."""

MAX_INFO_NAME = 256
"""Longest name accepted of a frame or distortion model."""


def check_camera_info(info: CameraInfo, image_width: int, image_height: int) -> str:
    """Return why `info` does not belong to an image of this size; empty if it does.

    The image size follows from the message as its definition says: of the full resolution `width` x
    `height`, the region `roi` (all zeros: everything) is read, with one pixel for each `binning_x`
    x `binning_y` (0 means 1).
    """
    names = (("frame_id", info.header.frame_id), ("distortion_model", info.distortion_model))
    for name, text in names:
        if len(text) > MAX_INFO_NAME:
            return f"its {name} must have at most {MAX_INFO_NAME} characters, has {len(text)}"
    if len(info.d) > MAX_COEFFICIENTS:
        return f"it must have at most {MAX_COEFFICIENTS} distortion coefficients, has {len(info.d)}"
    for name, values in (("D", info.d), ("K", info.k), ("R", info.r), ("P", info.p)):
        if not np.isfinite(values).all():
            return f"its {name} contains a number that is not finite"
    left, top, width, height = _region(info)
    if left + width > info.width or top + height > info.height:
        region = f"its roi of {width}x{height} pixels at ({left}, {top})"
        return f"{region} exceeds its {info.width}x{info.height} pixels"
    binned = width // max(info.binning_x, 1), height // max(info.binning_y, 1)
    if binned != (image_width, image_height):
        size = f"the image has {image_width}x{image_height}"
        return f"it is for images of {binned[0]}x{binned[1]} pixels, {size}"
    return ""


def scaled_camera_info(
    info: CameraInfo,
    header: Header,
    left: float,
    top: float,
    scale_x: float,
    scale_y: float,
    width: int,
    height: int,
) -> CameraInfo:
    """Return the calibration of a mask that shows the image's region from `(left, top)` on, scaled.

    Coordinates are pixel centres, and scaling keeps the region's edges in place: `mask_x = (x + 0.5
    - left) * scale_x - 0.5`. K and P are transformed accordingly, including skew and P's fourth
    column. D and R are unchanged: they act on the ray before it becomes a pixel. The K of zeros of
    an uncalibrated camera stays zero.

    The camera's own region and binning are included in K and P, and `roi` and `binning` of the
    result are reset: it is the full calibration of an image of the mask's size. If nothing changes,
    the message keeps everything except its header.

    Args:
        info: the image's calibration, accepted by `check_camera_info`.
        header: of the mask.
        left: x of the region's left edge in the image, in pixels.
        top: y of its upper edge.
        scale_x: mask pixels per image pixel.
        scale_y: the same, vertically.
        width: of the mask, in pixels.
        height: of the mask.
    """
    result = copy.deepcopy(info)  # messages share their arrays when assigned
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
    """Return left, top, width and height of the region; a `roi` of zeros means everything."""
    roi = info.roi
    width, height = roi.width or info.width - roi.x_offset, roi.height or info.height - roi.y_offset
    return roi.x_offset, roi.y_offset, width, height


def _shift_and_scale(
    left: float, top: float, scale_x: float, scale_y: float
) -> npt.NDArray[np.float64]:
    """Return the `(3, 3)` matrix of `x -> (x + 0.5 - left) * scale_x - 0.5`, same for y."""
    shift_x, shift_y = (0.5 - left) * scale_x - 0.5, (0.5 - top) * scale_y - 0.5
    return np.array([[scale_x, 0, shift_x], [0, scale_y, shift_y], [0, 0, 1]], np.float64)
