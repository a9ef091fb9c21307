"""Messages beside the mask: labels of its ids, its calibration, and compressed forms of the images.

The `format` strings are those of `compressed_publisher.cpp` in image_transport_plugins: the pixel
encoding, then `; png compressed ` or `; jpeg compressed `, then, for colour, the channel order in
the file. image_transport's subscriber converts bgr8 back to the encoding named first. Foxglove
looks at the first bytes of the file.

The run-length format is that of `run_length_encoder.cpp` in Autoware's `perception_utils`, as
published by `tensorrt_yolox`: an image labelled mono8 with the mask's height, width and step, whose
data are runs. A run is one byte of id and an int32 length, and continues over row ends. Autoware
copies the int as it lies in memory, which is little-endian on the x86 and ARM machines it runs on.

Calibration comes from outside: `check_camera_info` validates a message; pass only valid ones to
`scaled_camera_info`.
"""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

import copy
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header, String

from camseg_core.errors import ConfigError, ImageError
from camseg_core.labels import UNLABELLED, Label
from camseg_ros.image_conversion import Pixels

LATCHED = QoSProfile(
    depth=1,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""For topics published once: late subscribers with the same durability receive the last message."""

Info = TypeVar("Info")

JPEG_QUALITY = 90
"""Enough for viewing: 1 MB and 8 ms at 1080p; image_transport's 95 takes 1.4 MB and 10 ms."""

# PNG gets no options. By default OpenCV optimises for speed: level 1, one filter (difference to the
# previous pixel), run lengths. Any explicit level, even 1, makes libpng try every filter on every
# row. 1080p on one core: ids 13 ms (level 1: 22, level 3: 38), confidence 17 ms (29, 46), colours
# 29 ms (50, 59). That saves at most a tenth of the file size, except for colours: 0.7 MB in place
# of 1.4.
OPTIONS: dict[str, list[int]] = {"png": [], "jpeg": [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]}

RUN = np.dtype([("id", "u1"), ("length", "<i4")])
"""One run: 5 bytes, without padding."""


def compressed_message(
    pixels: Pixels, encoding: Literal["mono8", "rgb8"], header: Header, kind: Literal["png", "jpeg"]
) -> CompressedImage:
    """Encode `pixels`, `(H, W)` uint8 for mono8 or `(H, W, 3)` for rgb8, as PNG (lossless) or JPEG.

    Raises:
        ConfigError: mono8 as JPEG, which would change the values, or an unknown kind.
        ImageError: OpenCV cannot encode the pixels (JPEG: more than 65500 a side).
    """
    if kind not in OPTIONS:
        raise ConfigError(f"kind must be png or jpeg, got {kind!r}")
    if encoding == "mono8" and kind == "jpeg":
        raise ConfigError("mono8 holds ids or confidence, whose values JPEG would change; use png")
    order = "bgr8" if encoding == "rgb8" else ""
    message = CompressedImage(header=header, format=f"{encoding}; {kind} compressed {order}")
    stored = pixels if encoding == "mono8" else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    try:
        done, data = cv2.imencode(f".{kind}", stored, OPTIONS[kind])
    except cv2.error as error:
        reason = " ".join(str(error).split())
        raise ImageError(f"cannot compress pixels {pixels.shape} as {kind}: {reason}") from error
    if not done:
        raise ImageError(f"cannot compress pixels {pixels.shape} as {kind}")
    message.data.frombytes(np.ascontiguousarray(data).data)
    return message


def run_lengths(mask: Pixels) -> Pixels:
    """Return the runs of `mask` `(H, W)` uint8 as bytes `(5 * runs,)` uint8.

    A driving scene has a few thousand runs; pure noise takes five times the bytes of the mask.
    """
    ids = np.ascontiguousarray(mask).reshape(-1)
    starts = np.flatnonzero(ids[1:] != ids[:-1]) + 1
    edges = np.concatenate([[0], starts, [ids.size]])
    runs = np.empty(len(edges) - 1, RUN)
    runs["id"] = ids[edges[:-1]]
    runs["length"] = np.diff(edges)
    return runs.view(np.uint8)


def run_length_message(mask: Pixels, header: Header) -> Image:
    """Return `mask` `(H, W)` uint8 as Autoware's run-length image with the stamp and frame of
    `header`.

    Only nodes that know the format can read it: it claims to be mono8, but its data have another
    size.
    """
    height, width = mask.shape
    message = Image(header=header, height=height, width=width, encoding="mono8", step=width)
    message.data.frombytes(run_lengths(mask).data)
    return message


def label_table(model: str, labels: Sequence[Label]) -> String:
    """Return the classes as JSON.

    `{"model": name, "unlabelled": 255, "classes": [{"id": 0, "name": "road", "color": [r, g, b]},
    ...]}`: `unlabelled` is the id of pixels without a class; it is not in `classes`.
    """
    classes = [{"id": label.id, "name": label.name, "color": list(label.color)} for label in labels]
    table = {"model": model, "unlabelled": UNLABELLED, "classes": classes}
    return String(data=json.dumps(table, ensure_ascii=False))


def label_info_types() -> tuple[Any, Any] | None:
    """Return LabelInfo and VisionClass of `vision_msgs`; None if it is missing or too old."""
    try:
        from vision_msgs.msg import LabelInfo, VisionClass
    except ImportError:
        return None
    return LabelInfo, VisionClass


def label_info(
    make_info: Callable[..., Info],
    make_class: Callable[..., object],
    labels: Sequence[Label],
    header: Header,
    threshold: float = 0.0,
) -> Info:
    """Return the classes as `vision_msgs/LabelInfo`, which Nav2's semantic segmentation layer
    reads.

    Its definition reserves the largest uint8 id, 255, for unlabelled pixels; that id has no entry.

    Args:
        make_info: LabelInfo, with the fields header, class_map and threshold.
        make_class: VisionClass, with the fields class_id and class_name.
        labels: the classes that the mask can contain.
        header: stamp and frame.
        threshold: confidence, 0 to 1, below which pixels are unlabelled; 0 for none.
    """
    class_map = [make_class(class_id=label.id, class_name=label.name) for label in labels]
    return make_info(header=header, class_map=class_map, threshold=float(threshold))


def publish_each(messages: Iterable[tuple[Publisher[Any], Any]]) -> list[str]:
    """Publish messages; return one error text per failed topic, as the masks must go on."""
    failures = []
    for publisher, message in messages:
        try:
            publisher.publish(message)
        except Exception as error:  # a saturated reliable writer raises
            failures.append(publish_failure(publisher, error))
    return failures


def publish_failure(publisher: Publisher[Any], error: Exception) -> str:
    """Return what could not be published, and the likely reason."""
    hint = "a reliable subscriber may be too slow"
    return f"cannot publish on {publisher.topic_name}: {error}; {hint}"


class LabelTopics:
    """The latched `segmentation/labels`, and with vision_msgs `segmentation/label_info`."""

    def __init__(self, node: Node) -> None:
        self._node, self._types = node, label_info_types()
        self._table = node.create_publisher(String, "segmentation/labels", LATCHED)
        self._info: Publisher[Any] | None = None
        if self._types is not None:
            self._info = node.create_publisher(self._types[0], "segmentation/label_info", LATCHED)

    def publish(self, model: str, labels: Sequence[Label]) -> list[str]:
        """Publish the meaning of the ids from now on; returns one error text per failed topic."""
        messages: list[tuple[Publisher[Any], Any]] = [(self._table, label_table(model, labels))]
        if self._info is not None and self._types is not None:
            header = Header(stamp=self._node.get_clock().now().to_msg())
            messages.append((self._info, label_info(*self._types, labels, header)))
        return publish_each(messages)

    def destroy(self) -> None:
        """Remove the publishers from the middleware."""
        for publisher in (self._table, self._info):
            if publisher is not None:
                self._node.destroy_publisher(publisher)


MAX_COEFFICIENTS = 32
"""Most distortion coefficients accepted; OpenCV's largest model has 14."""

MAX_INFO_NAME = 256
"""Longest name accepted of a frame or distortion model."""


def oversized_info(info: CameraInfo) -> str:
    """Return which part of `info` is larger than any calibration needs; empty if none is."""
    names = (("frame_id", info.header.frame_id), ("distortion_model", info.distortion_model))
    for name, text in names:
        if len(text) > MAX_INFO_NAME:
            return f"its {name} must have at most {MAX_INFO_NAME} characters, has {len(text)}"
    if len(info.d) > MAX_COEFFICIENTS:
        return f"it must have at most {MAX_COEFFICIENTS} distortion coefficients, has {len(info.d)}"
    return ""


def check_camera_info(info: CameraInfo, image_width: int, image_height: int) -> str:
    """Return why `info` does not belong to an image of this size; empty if it does.

    The image size follows from the message as its definition says: of the full resolution `width` x
    `height`, the region `roi` (all zeros: everything) is read, with one pixel for each `binning_x`
    x `binning_y` (0 means 1).
    """
    if oversized := oversized_info(info):
        return oversized
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
