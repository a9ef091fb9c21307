"""Canvas of the synthetic drive: every call draws picture, label and depth together."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.data.synthetic.camera import PinholeCamera
from camseg_core.data.synthetic.textures import Color, Floats, Image, Texture
from camseg_core.labels import TRAIN_ID

Mask = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int]
"""A part of an image in pixels: x0, y0, x1, y1."""

SUN = np.array([-0.5, -0.4, 0.77], np.float32)
"""Unit vector to the sun, behind the camera on the left."""

NEAR = 0.4
"""Depth in metres of the plane at which polygons are clipped."""

_SUBPIXEL_BITS = 4
_SHADOW_M = 60.0


def sunlight(normals: Floats) -> Floats:
    """Brightness `(N,)` of faces with unit normals `(N, 3)`: 0.55 in shade to 1.1 in the sun."""
    return np.asarray(0.55 + 0.55 * np.maximum(0, normals @ SUN), np.float32)


class Canvas:
    """Picture, label and depth, painted by the same calls so that they always agree.

    `image` is RGB `(H, W, 3)` uint8, `label` train ids `(H, W)` uint8, `geometry` `(H, W, 2)`
    float32: inverse depth in 1/m (0 for the sky) and glow, the share of a pixel's light that it
    emits. `lights_on` says whether lamps shine. Polygons must be drawn far to near.
    """

    def __init__(self, camera: PinholeCamera, lights_on: bool) -> None:
        self.camera = camera
        self.lights_on = lights_on
        self.image: Image = np.zeros((camera.height, camera.width, 3), np.uint8)
        self.label: Image = np.full((camera.height, camera.width), TRAIN_ID["sky"], np.uint8)
        self.geometry: Floats = np.zeros((camera.height, camera.width, 2), np.float32)

    def paint(
        self,
        first_row: int,
        rgb: Floats,
        train_ids: Image,
        inverse_depth: Floats | float,
        mask: Mask | None = None,
    ) -> None:
        """Paint the rows from `first_row` on, pixel by pixel, where `mask` `(rows, W)` is true.

        Args:
            first_row: the first row.
            rgb: `(rows, W, 3)` in 0..255.
            train_ids: `(rows, W)`.
            inverse_depth: in 1/m; one value, `(rows, 1)` or `(rows, W)`.
            mask: all pixels if None.
        """
        rows = slice(first_row, first_row + len(rgb))
        where = np.ones(train_ids.shape, np.uint8) if mask is None else mask.astype(np.uint8)
        geometry = np.zeros((*train_ids.shape, 2), np.float32)
        geometry[..., 0] = inverse_depth
        cv2.copyTo(np.clip(rgb, 0, 255).astype(np.uint8), where, self.image[rows])
        cv2.copyTo(train_ids, where, self.label[rows])
        cv2.copyTo(geometry, where, self.geometry[rows])

    def fill(self, polygon: Floats, color: Color, train_id: int, glow: float = 0.0) -> None:
        """Paint a flat convex polygon, `(N, 3)` street coordinates."""
        self._fill_view(self.camera.view(polygon), color, train_id, glow)

    def solid(
        self,
        vertices: Floats,
        faces: Sequence[Sequence[int]],
        colors: Sequence[Color],
        train_id: int,
    ) -> None:
        """Paint the visible faces of a sunlit convex solid: indices into `vertices` `(N, 3)`."""
        view = self.camera.view(vertices)
        corners = np.array([face[:3] for face in faces])
        lights = sunlight(_outward_normals(vertices, corners))
        towards = (_outward_normals(view, corners) * view[corners[:, 0]]).sum(1) < 0
        for face, color, light, visible in zip(
            faces, colors, lights.tolist(), towards.tolist(), strict=True
        ):
            if visible:
                lit = (color[0] * light, color[1] * light, color[2] * light)
                self._fill_view(view[list(face)], lit, train_id, 0.0)

    def shade(self, polygon: Floats, factor: float) -> None:
        """Darken the picture under a convex polygon (a contact shadow); the label stays."""
        view = self.camera.view(polygon)
        if view[0, 2] > _SHADOW_M:
            return
        pixels, _ = self._pixels(view)
        if box := self._box(pixels):
            x0, y0, x1, y1 = box
            mask = _polygon_mask(pixels, box, cv2.LINE_AA)
            shade = 255 - cv2.merge([cv2.convertScaleAbs(mask, alpha=1 - factor)] * 3)
            area = self.image[y0:y1, x0:x1]
            area[:] = cv2.multiply(area, shade, scale=1 / 255)

    def texture(self, texture: Texture, corners: Floats, train_id: int) -> None:
        """Paint a texture on a parallelogram with perspective.

        `corners` `(3, 3)` are the texture's top left, top right and bottom left in street
        coordinates. Transparent texels keep what is behind them.
        """
        origin, top_right, bottom_left = self.camera.view(corners)
        u, v = top_right - origin, bottom_left - origin
        pixels, _ = self._pixels(np.stack([origin, origin + u, origin + u + v, origin + v]))
        box = self._box(pixels)
        if box is None:
            return
        x0, y0, x1, y1 = box
        texels = texture.level(float(np.hypot(*np.ptp(pixels, axis=0))) / 1.2)
        rows, cols = texels.shape[:2]
        focal, (cx, cy) = self.camera.focal, self.camera.centre
        intrinsics = np.array([[focal, 0, cx - x0], [0, focal, cy - y0], [0, 0, 1]])
        # texel centres are half a texel inside the corners
        plane = np.stack([u / cols, v / rows, origin + 0.5 * (u / cols + v / rows)], axis=1)
        warped = cv2.warpPerspective(
            *(texels, intrinsics @ plane, (x1 - x0, y1 - y0)),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        mask = _polygon_mask(pixels, box, cv2.LINE_8)
        color, alpha = warped[..., :3], warped[..., 3]
        mask &= cv2.threshold(alpha, 127, 255, cv2.THRESH_BINARY)[1].astype(np.uint8)
        geometry = np.zeros((*mask.shape, 2), np.float32)
        geometry[..., 0] = self._plane_inverse_depth(origin, _cross(u, v), box)
        cv2.copyTo(np.ascontiguousarray(color), mask, self.image[y0:y1, x0:x1])
        cv2.copyTo(np.full_like(mask, train_id), mask, self.label[y0:y1, x0:x1])
        cv2.copyTo(geometry, mask, self.geometry[y0:y1, x0:x1])

    def _plane_inverse_depth(self, point: Floats, normal: Floats, box: Box) -> Floats:
        """Inverse depth is linear in the image for the points of a plane."""
        x0, y0, x1, y1 = box
        offset = float(normal @ point)
        if abs(offset) < 1e-6:  # seen edge-on
            return np.full((y1 - y0, x1 - x0), 1 / max(float(point[2]), NEAR), np.float32)
        a, b, c = normal / offset
        x = (np.arange(x0, x1, dtype=np.float32) - self.camera.centre[0]) / self.camera.focal
        y = (np.arange(y0, y1, dtype=np.float32) - self.camera.centre[1]) / self.camera.focal
        return np.asarray(np.clip((a * x + c)[None] + (b * y)[:, None], 1e-4, 1 / NEAR), np.float32)

    def _fill_view(self, view: Floats, color: Color, train_id: int, glow: float) -> None:
        pixels, inverse_depth = self._pixels(view)
        if self._box(pixels) is None:
            return
        corners = _fixed_point(pixels)
        cv2.fillConvexPoly(self.image, corners, color, cv2.LINE_AA, _SUBPIXEL_BITS)
        cv2.fillConvexPoly(self.label, corners, train_id, cv2.LINE_8, _SUBPIXEL_BITS)
        cv2.fillConvexPoly(
            self.geometry, corners, (inverse_depth, glow), cv2.LINE_8, _SUBPIXEL_BITS
        )

    def _pixels(self, view: Floats) -> tuple[Floats, float]:
        """Clip at the near plane and project: pixels `(N, 2)` and the mean inverse depth.

        N is 0 if all points are behind the plane.
        """
        if view[:, 2].min() < NEAR:
            view = _clip_near(view)
            if len(view) == 0:
                return np.zeros((0, 2), np.float32), 0.0
        return self.camera.project(view), float((1 / view[:, 2]).sum()) / len(view)

    def _box(self, pixels: Floats) -> Box | None:
        """The part of the image that a polygon can touch, or None."""
        if len(pixels) == 0:
            return None
        (left, top), (right, bottom) = pixels.min(0), pixels.max(0)
        x0, y0 = max(int(left), 0), max(int(top), 0)
        x1, y1 = min(int(right) + 2, self.camera.width), min(int(bottom) + 2, self.camera.height)
        return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _cross(a: Floats, b: Floats) -> Floats:
    """Cross products of `(..., 3)`; `np.cross` costs several times as much on small arrays."""
    return np.asarray(
        a[..., [1, 2, 0]] * b[..., [2, 0, 1]] - a[..., [2, 0, 1]] * b[..., [1, 2, 0]], np.float32
    )


def _outward_normals(vertices: Floats, corners: npt.NDArray[np.int_]) -> Floats:
    """Unit normals `(F, 3)` of a convex solid's faces, each given by three vertices' indices."""
    start = vertices[corners[:, 0]]
    normals = _cross(vertices[corners[:, 1]] - start, vertices[corners[:, 2]] - start)
    outward = ((start - vertices.mean(0)) * normals).sum(1, keepdims=True)
    return np.asarray(
        normals * np.sign(outward) / (np.sqrt((normals * normals).sum(1, keepdims=True)) + 1e-9),
        np.float32,
    )


def _clip_near(view: Floats) -> Floats:
    """Cut a polygon in camera coordinates at the near plane."""
    kept = []
    for start, end in zip(view, np.roll(view, -1, axis=0), strict=True):
        if start[2] >= NEAR:
            kept.append(start)
        if (start[2] >= NEAR) != (end[2] >= NEAR):
            kept.append(start + (end - start) * ((NEAR - start[2]) / (end[2] - start[2])))
    return np.array(kept, np.float32).reshape(-1, 3)


def _polygon_mask(pixels: Floats, box: Box, line_type: int) -> Image:
    """Coverage of a convex polygon within a box, 0 to 255."""
    x0, y0, x1, y1 = box
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    cv2.fillConvexPoly(mask, _fixed_point(pixels - (x0, y0)), 255, line_type, _SUBPIXEL_BITS)
    return mask


def _fixed_point(pixels: Floats) -> npt.NDArray[np.int32]:
    return np.rint(pixels * (1 << _SUBPIXEL_BITS)).astype(np.int32)
