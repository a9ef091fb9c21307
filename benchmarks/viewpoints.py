"""Frames as a camera would take them that is mounted otherwise: turned, or with a longer lens."""

import math
from dataclasses import replace

import cv2
import numpy as np

from camseg_core.data import Sample
from camseg_core.labels import UNLABELLED

FOCAL = 0.85
"""Assumed focal length, as a share of a frame's width: about 60 degrees across."""


def turned(sample: Sample, pitch: float = 0.0, roll: float = 0.0) -> Sample:
    """Turn the camera on the spot: `pitch` degrees down, then `roll` degrees clockwise.

    Pixels that the frame did not see mirror it, and are not labelled. The scene's depth does not
    matter, as the camera does not move.
    """
    height, width = sample.label.shape
    camera = np.array(
        [[FOCAL * width, 0, (width - 1) / 2], [0, FOCAL * width, (height - 1) / 2], [0, 0, 1]]
    )
    down, over = math.radians(pitch), math.radians(roll)
    tilt = np.array(
        [[1, 0, 0], [0, math.cos(down), -math.sin(down)], [0, math.sin(down), math.cos(down)]]
    )
    twist = np.array(
        [[math.cos(over), math.sin(over), 0], [-math.sin(over), math.cos(over), 0], [0, 0, 1]]
    )
    homography = camera @ twist @ tilt @ np.linalg.inv(camera)
    image = cv2.warpPerspective(
        sample.image,
        homography,
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    label = cv2.warpPerspective(
        sample.label,
        homography,
        (width, height),
        flags=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(UNLABELLED,),
    )
    return replace(sample, image=np.asarray(image, np.uint8), label=np.asarray(label, np.uint8))


def zoomed(sample: Sample, share: float) -> Sample:
    """Return the middle `share` of the frame's height and width, at the frame's own size."""
    height, width = sample.label.shape
    rows, columns = max(1, round(share * height)), max(1, round(share * width))
    top, left = (height - rows) // 2, (width - columns) // 2
    part = slice(top, top + rows), slice(left, left + columns)
    image, label = (
        cv2.resize(np.ascontiguousarray(plane[part]), (width, height), interpolation=method)
        for plane, method in (
            (sample.image, cv2.INTER_LINEAR),
            (sample.label, cv2.INTER_NEAREST_EXACT),
        )
    )
    return replace(sample, image=np.asarray(image, np.uint8), label=np.asarray(label, np.uint8))
