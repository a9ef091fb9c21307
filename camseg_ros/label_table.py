"""What the ids in the mask mean, for other nodes: as JSON, and as `vision_msgs/LabelInfo` where that package is installed."""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Header, String

from camseg_core.labels import UNLABELLED, Label

LATCHED = QoSProfile(
    depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
"""For what is published once: who subscribes later, with the same durability, still gets it."""

Info = TypeVar("Info")


def label_table(model: str, labels: Sequence[Label]) -> String:
    """The classes as JSON: `{"model": name, "unlabelled": 255, "classes": [{"id": 0, "name": "road", "color": [r, g, b]}, ...]}`.

    `unlabelled` is the id of pixels without a class; it is not among the classes.
    """
    classes = [{"id": label.id, "name": label.name, "color": list(label.color)} for label in labels]
    return String(data=json.dumps({"model": model, "unlabelled": UNLABELLED, "classes": classes}, ensure_ascii=False))


def label_info_types() -> tuple[Any, Any] | None:
    """`vision_msgs`' classes LabelInfo and VisionClass; None where the package is missing or too old to have them."""
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
    """The classes as a `vision_msgs/LabelInfo`, which Nav2's semantic segmentation layer reads.

    Its definition gives the greatest id of a uint8 mask, 255, to unlabelled pixels; no entry is made for it.

    Args:
        make_info: the class LabelInfo, with the fields header, class_map and threshold.
        make_class: the class VisionClass, with the fields class_id and class_name.
        labels: the classes that the mask can hold.
        header: its stamp and frame.
        threshold: the confidence, 0 to 1, below which pixels were left unlabelled; 0: none were.
    """
    class_map = [make_class(class_id=label.id, class_name=label.name) for label in labels]
    return make_info(header=header, class_map=class_map, threshold=float(threshold))
