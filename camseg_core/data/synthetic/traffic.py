"""Traffic of the synthetic street, moving or parked: cars, persons and riders."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from camseg_core.data.synthetic.canvas import Canvas
from camseg_core.data.synthetic.street import box, foot, regular, upright
from camseg_core.data.synthetic.textures import Color, Floats
from camseg_core.labels import TRAIN_ID

_GLASS: Color = (44, 50, 56)
_RUBBER: Color = (24, 24, 26)
_DETAIL_M = 45.0

# side views, bonnet ahead, of a hatchback, an estate car and a van: outline (along, then up),
# ends of the cabin's base and roof, and height of the roof, in metres
_BODIES = (
    (
        ([-2.0, -2.05, -1.9, 0.9, 1.85, 2.0, 1.95], [0.2, 0.7, 0.92, 0.95, 0.74, 0.5, 0.2]),
        ([-1.85, -1.5, 0.15, 1.05], 1.46),
    ),
    (
        ([-2.2, -2.25, -2.1, 1.0, 2.1, 2.2, 2.15], [0.2, 0.75, 0.92, 0.93, 0.72, 0.5, 0.2]),
        ([-1.75, -1.2, 0.1, 0.95], 1.42),
    ),
    (
        ([-2.2, -2.25, -2.2, 1.5, 2.1, 2.25, 2.2], [0.22, 0.8, 1.1, 1.1, 0.85, 0.55, 0.22]),
        ([-2.18, -2.05, 0.75, 1.55], 1.95),
    ),
)
_VAN = 2


Solid = tuple[Floats, list[list[int]]]
"""Vertices `(N, 3)` in car coordinates (right, ahead, up), and faces as indices of them."""


def _prism(profile: Floats, half_bottom: float, half_top: float) -> Solid:
    """Extrude a side view `(N, 2)` to both sides.

    The half width goes from `half_bottom` to `half_top`.
    """
    count = len(profile)
    rise = (profile[:, 1] - profile[:, 1].min()) / np.ptp(profile[:, 1])
    half = half_bottom + (half_top - half_bottom) * rise
    left, right = np.column_stack([-half, profile]), np.column_stack([half, profile])
    around = [[i, (i + 1) % count, (i + 1) % count + count, i + count] for i in range(count)]
    ends = [list(range(count)), list(range(count, 2 * count))]
    return np.vstack([left, right]).astype(np.float32), around + ends


@dataclass(frozen=True)
class _CarShape:
    """The solids of a car, and where it ends along the street."""

    body: Solid
    cabin: Solid
    panes: Solid
    rear: float
    front: float


@lru_cache
def _car_shape(index: int) -> _CarShape:
    outline, (cabin_ends, roof) = _BODIES[index]
    profile = np.array(outline, np.float32).T
    base = float(profile[:, 1].max()) - 0.04
    shell = np.array(list(zip(cabin_ends, (base, roof, roof, base), strict=True)), np.float32)
    cabin, cabin_faces = _prism(shell, 0.83, 0.64)
    # rear window, windscreen and sides, each a little smaller than its face; the cabin's vertices
    # are kept because they determine which side is outside
    faces = [cabin[cabin_faces[index]] for index in (0, 2, 4, 5)]
    panes = np.vstack([cabin, *[face + (face.mean(0) - face) * 0.15 for face in faces]])
    pane_faces = [list(range(start, start + 4)) for start in range(len(cabin), len(panes), 4)]
    body, ahead = _prism(profile, 0.84, 0.88), profile[:, 0]
    solids = body, (cabin, cabin_faces), (panes, pane_faces)
    return _CarShape(*solids, float(ahead.min()), float(ahead.max()))


@dataclass(frozen=True)
class Car:
    """A car centred at `(across, along)`, heading along the street (1) or against it (-1)."""

    across: float
    along: float
    heading: int
    color: Color
    body: int
    braking: bool = False

    @property
    def far(self) -> float:
        """End along the street in metres."""
        return self.along + 2.0

    def draw(self, canvas: Canvas) -> None:
        """Paint shadow, body, cabin, wheels and lights."""
        shape = _car_shape(self.body)
        for grow in (0.25, 0.0):
            shadow = box(-0.88 - grow, -2.15 - grow, 0.88 + grow, 2.15 + grow)
            canvas.shade(self._place(np.column_stack([shadow, np.zeros(4)])), 0.6)
        red, green, blue = self.color
        skirt = (red * 0.75, green * 0.75, blue * 0.75)
        sides = [self.color] * (len(shape.body[1]) - 4)
        self._solid(canvas, shape.body, [skirt, *sides, _RUBBER, self.color, self.color])
        self._solid(canvas, shape.cabin, [self.color] * 6)
        distance = abs(self.along - canvas.camera.along)
        if distance < 2 * _DETAIL_M:
            side = self.color if self.body == _VAN else _GLASS
            self._solid(canvas, shape.panes, [_GLASS, (58, 66, 74), side, side])
            self._draw_ends(canvas, shape)
        if distance < _DETAIL_M:
            self._draw_wheels(canvas)

    def _solid(self, canvas: Canvas, solid: Solid, colors: Sequence[Color]) -> None:
        canvas.solid(self._place(solid[0]), solid[1], colors, TRAIN_ID["car"])

    def _place(self, local: Floats) -> Floats:
        """Car coordinates (right, ahead, up) to street coordinates."""
        turn = np.array([self.heading, self.heading, 1], np.float32)
        return np.asarray(
            local * turn + np.array([self.across, self.along, 0], np.float32), np.float32
        )

    def _draw_wheels(self, canvas: Canvas) -> None:
        seen_side = 0.89 if (canvas.camera.across - self.across) * self.heading > 0 else -0.89
        for ahead in (-1.3, 1.3):
            for radius, color in ((0.37, (18, 18, 19)), (0.32, _RUBBER), (0.19, (112, 114, 116))):
                ring = regular(12, radius, radius)
                points = [np.full(12, seen_side), ahead + ring[:, 0], 0.32 + ring[:, 1]]
                wheel = np.column_stack(points).astype(np.float32)
                canvas.fill(self._place(wheel), color, TRAIN_ID["car"])

    def _draw_ends(self, canvas: Canvas, shape: _CarShape) -> None:
        """Paint lights, bumper and number plate of the end that faces the camera."""
        facing = canvas.camera.along < self.along
        rear = facing == (self.heading > 0)
        ahead = shape.rear - 0.02 if rear else shape.front + 0.02
        color, glow = ((172, 34, 30), 0.55) if rear else ((226, 228, 222), 1.0)
        if rear and self.braking:
            color, glow = (236, 60, 44), 0.9
        parts: list[tuple[Floats, Color, float]] = [
            (box(-0.8, 0.22, 0.8, 0.44), (46, 46, 48), 0.0),
            (box(-0.27, 0.5, 0.27, 0.62), (196, 166, 60) if rear else (205, 205, 200), 0.0),
            (box(-0.82, 0.58, -0.52, 0.76), color, glow),
            (box(0.52, 0.58, 0.82, 0.76), color, glow),
        ]
        for outline, tint, shine in parts:
            part = np.column_stack([outline[:, 0], np.full(4, ahead), outline[:, 1]])
            shine = shine if canvas.lights_on else 0.0
            canvas.fill(self._place(part.astype(np.float32)), tint, TRAIN_ID["car"], shine)


@dataclass(frozen=True)
class Person:
    """A walker; `stride` is the phase of the gait in radians."""

    across: float
    far: float
    height: float
    stride: float
    coat: Color
    trousers: Color
    skin: Color

    def draw(self, canvas: Canvas) -> None:
        """Paint shadow, legs, arms, coat and head."""
        near = self.far < canvas.camera.along + _DETAIL_M
        if near:
            canvas.shade(foot(self.across, self.far, 0.3), 0.65)
        swing = 0.16 * np.sin(self.stride)
        dark = (self.coat[0] * 0.75, self.coat[1] * 0.75, self.coat[2] * 0.75)
        self._limb(canvas, (-0.07, 0.5), (-0.09 - swing, 0.03), 0.075, self.trousers)
        self._limb(canvas, (0.07, 0.5), (0.09 + swing, 0.03), 0.075, self.trousers)
        if near:
            self._limb(canvas, (-0.17, 0.82), (-0.22 + swing / 2, 0.5), 0.05, dark)
            self._limb(canvas, (0.17, 0.82), (0.22 - swing / 2, 0.5), 0.05, dark)
        right = [-0.13, 0.13, 0.16, 0.2, 0.1, -0.1, -0.2, -0.16]
        up = [0.44, 0.44, 0.65, 0.8, 0.87, 0.87, 0.8, 0.65]
        self._part(canvas, np.column_stack([right, up]).astype(np.float32), self.coat)
        head = regular(10, 0.085, 0.07)
        self._part(canvas, head + np.array([0, 0.935], np.float32), self.skin)
        if near:
            self._part(canvas, head * 0.95 + np.array([0, 0.955], np.float32), (44, 36, 32))

    def _limb(
        self,
        canvas: Canvas,
        start: tuple[float, float],
        end: tuple[float, float],
        half: float,
        color: Color,
    ) -> None:
        (x0, y0), (x1, y1), thin = start, end, half * 0.75
        outline = [(x0 - half, y0), (x0 + half, y0), (x1 + thin, y1), (x1 - thin, y1)]
        self._part(canvas, np.array(outline, np.float32), color)

    def _part(self, canvas: Canvas, outline: Floats, color: Color) -> None:
        """Paint an outline whose heights are shares of the person's height."""
        scaled = outline * np.array([1, self.height], np.float32)
        canvas.fill(upright(self.across, self.far, scaled), color, TRAIN_ID["person"])


@dataclass(frozen=True)
class Rider:
    """A cyclist seen from behind."""

    across: float
    far: float
    stride: float
    coat: Color
    skin: Color

    def draw(self, canvas: Canvas) -> None:
        """Paint the bicycle, then the rider."""
        x, s = self.across, self.far
        shadow = box(x - 0.3, s - 0.9, x + 0.3, s + 0.9)
        canvas.shade(np.column_stack([shadow, np.zeros(4, np.float32)]), 0.65)
        rear_wheel = regular(12, 0.05, 0.34) + np.array([0, 0.34], np.float32)
        lift = 0.12 * np.sin(self.stride)
        left_arm = np.array([(-0.33, 1.0), (-0.25, 1.0), (-0.14, 1.42), (-0.22, 1.42)], np.float32)
        back = [(-0.17, 0.9), (0.17, 0.9), (0.22, 1.4), (0.1, 1.5), (-0.1, 1.5), (-0.22, 1.4)]
        rider, bicycle = TRAIN_ID["rider"], TRAIN_ID["bicycle"]
        parts: list[tuple[Floats, Color, int]] = [
            (rear_wheel, _RUBBER, bicycle),
            (box(-0.03, 0.3, 0.03, 0.95), (60, 62, 66), bicycle),
            (box(-0.3, 0.98, 0.3, 1.03), (50, 50, 52), bicycle),
            (box(-0.2, 0.28 + lift, -0.07, 1.0), (40, 42, 50), rider),
            (box(0.07, 0.28 - lift, 0.2, 1.0), (40, 42, 50), rider),
            (left_arm, self.coat, rider),
            (left_arm * np.array([-1, 1], np.float32), self.coat, rider),
            (np.array(back, np.float32), self.coat, rider),
            (regular(10, 0.09, 0.12) + np.array([0, 1.6], np.float32), self.skin, rider),
            (regular(10, 0.11, 0.09) + np.array([0, 1.68], np.float32), (60, 60, 64), rider),
        ]
        for outline, color, train_id in parts:
            canvas.fill(upright(x, s, outline), color, train_id)
        if canvas.lights_on:
            light = upright(x, s, box(-0.04, 0.72, 0.04, 0.8))
            canvas.fill(light, (230, 40, 36), bicycle, glow=1.0)
