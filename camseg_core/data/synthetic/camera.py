"""Camera of the synthetic drive and the bend of its street.

Street coordinates are metres `(across, along, up)`: `across` is 0 on the centre line and grows to
the right, `along` grows in the direction of travel, `up` is 0 on the road. `PinholeCamera` bends
them along the street's curve.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from camseg_core.data.synthetic.textures import Floats

_BEND_M, _BEND_LENGTH_M = 4.0, 45.0


def bend(along: Floats) -> Floats:
    """Distance in metres of the street's centre line to the right of a straight one."""
    return np.asarray(_BEND_M * np.sin(along / _BEND_LENGTH_M), np.float32)


def bend_angle(along: float) -> float:
    """The street's heading at `along`, in radians to the right."""
    return float(np.arctan(_BEND_M / _BEND_LENGTH_M * np.cos(along / _BEND_LENGTH_M)))


@dataclass(frozen=True)
class PinholeCamera:
    """A pinhole camera: position in street coordinates, angles in radians (yaw right, pitch down).

    `height` and `width` are the picture's, in pixels.
    """

    height: int
    width: int
    across: float
    along: float
    up: float
    yaw: float
    pitch: float

    @property
    def focal(self) -> float:
        """Focal length in pixels, for a horizontal field of view of about 60 degrees."""
        return 0.85 * self.width

    @property
    def centre(self) -> tuple[float, float]:
        """Principal point `(x, y)` in pixels."""
        return (self.width - 1) / 2, (self.height - 1) / 2

    @property
    def horizon(self) -> float:
        """Image row of the horizon, in pixels."""
        return float(self.centre[1] - self.focal * np.tan(self.pitch))

    @cached_property
    def _origin_x(self) -> float:
        return self.across + float(bend(np.array(self.along, np.float32)))

    @cached_property
    def _rotation(self) -> Floats:
        sin_yaw, cos_yaw = np.sin(self.yaw), np.cos(self.yaw)
        sin_pitch, cos_pitch = np.sin(self.pitch), np.cos(self.pitch)
        right = [cos_yaw, -sin_yaw, 0.0]
        down = [-sin_yaw * sin_pitch, -cos_yaw * sin_pitch, -cos_pitch]
        forward = [sin_yaw * cos_pitch, cos_yaw * cos_pitch, -sin_pitch]
        return np.array([right, down, forward], np.float32)

    def view(self, points: Floats) -> Floats:
        """Street coordinates `(N, 3)` to camera coordinates `(N, 3)`: right, down, forward."""
        moved = points - np.array([self._origin_x, self.along, self.up], np.float32)
        moved[:, 0] += bend(points[:, 1])
        return moved @ self._rotation.T

    def may_see(self, places: Floats, margin: float) -> npt.NDArray[np.bool_]:
        """Whether a thing within `margin` metres of each place `(N, 3)` may be seen, `(N,)`."""
        right, _, ahead = self.view(places).T
        beside = np.abs(right) - margin < ahead * self.width / 2 / self.focal
        return np.asarray((ahead > 0) & beside, np.bool_)

    def project(self, view: Floats) -> Floats:
        """Camera coordinates `(N, 3)` in front of the camera to pixels `(N, 2)`."""
        centre = np.array(self.centre, np.float32)
        return view[:, :2] / view[:, 2:] * np.float32(self.focal) + centre

    def ground(self, first_row: int) -> tuple[Floats, Floats, Floats]:
        """Points where the rays of the rows from `first_row` down meet the road.

        Returns:
            `across` and `along`, both `(rows, W)`, and the depth `(rows, 1)`, in metres.
        """
        (cx, cy), focal = self.centre, self.focal
        slope = (np.arange(first_row, self.height, dtype=np.float32)[:, None] - cy) / focal
        depth = self.up / np.maximum(np.sin(self.pitch) + slope * np.cos(self.pitch), 1e-4)
        ahead = (np.cos(self.pitch) - slope * np.sin(self.pitch)) * depth
        right = (np.arange(self.width, dtype=np.float32)[None] - cx) / focal * depth
        along = np.asarray(
            self.along + ahead * np.cos(self.yaw) - right * np.sin(self.yaw), np.float32
        )
        across = self._origin_x + ahead * np.sin(self.yaw) + right * np.cos(self.yaw) - bend(along)
        return across.astype(np.float32), along, depth.astype(np.float32)
