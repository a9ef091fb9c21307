"""Fixed things of the synthetic street: buildings, trees, hedges, fences, lamps and signs."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from camseg_core.data.synthetic.canvas import Canvas
from camseg_core.data.synthetic.textures import STOREY_M, Color, Facade, Floats, Texture
from camseg_core.labels import TRAIN_ID

LIT_WINDOW: Color = (236, 196, 128)
_DETAIL_M = 60.0


class Thing(Protocol):
    """Something in the street that draws itself; things are drawn in the order of `far`."""

    @property
    def across(self) -> float:
        """Position across the street in metres."""

    @property
    def far(self) -> float:
        """End along the street in metres."""

    def draw(self, canvas: Canvas) -> None:
        """Paint it."""


def upright(across: float, along: float, outline: Floats) -> Floats:
    """Place an outline `(N, 2)` (right, up) upright and across the street: `(N, 3)`."""
    return np.column_stack(
        [across + outline[:, 0], np.full(len(outline), along, np.float32), outline[:, 1]]
    ).astype(np.float32)


def box(left: float, bottom: float, right: float, top: float) -> Floats:
    """The outline `(4, 2)` of a rectangle."""
    return np.array([[left, bottom], [right, bottom], [right, top], [left, top]], np.float32)


def regular(sides: int, radius_x: float, radius_y: float, turn: float = 0.0) -> Floats:
    """The outline `(sides, 2)` of a regular polygon, stretched to two radii."""
    angle = turn + np.arange(sides) * 2 * np.pi / sides
    return np.column_stack([radius_x * np.cos(angle), radius_y * np.sin(angle)]).astype(np.float32)


def corner(*points: tuple[float, float, float]) -> Floats:
    """Street coordinates `(N, 3)` from points."""
    return np.array(points, np.float32)


def wall_along(across: float, start: float, end: float, top: float) -> Floats:
    """Corners, for `Canvas.texture`, of a wall along the street, from `start` to `end`."""
    return corner((across, start, top), (across, end, top), (across, start, 0))


def wall_across(left: float, right: float, along: float, top: float, bottom: float = 0) -> Floats:
    """Corners, for `Canvas.texture`, of a wall across the street."""
    return corner((left, along, top), (right, along, top), (left, along, bottom))


def foot(across: float, along: float, radius: float) -> Floats:
    """A disc on the ground `(8, 3)`, for a contact shadow."""
    ring = regular(8, radius, radius)
    return np.column_stack([across + ring[:, 0], along + ring[:, 1], np.zeros(8)]).astype(
        np.float32
    )


@dataclass(frozen=True)
class Building:
    """A house from `near` to `far`, its front at `across`, 9 m deep, with a pitched roof.

    `gable` is the near end wall, None if a neighbour hides it; `lit` are the indices of the windows
    that shine at night.
    """

    across: float
    near: float
    far: float
    storeys: int
    front: Facade
    gable: Texture | None
    roof: Texture
    roof_m: float
    lit: tuple[int, ...]

    @property
    def height(self) -> float:
        """Height of the eaves in metres."""
        return self.storeys * STOREY_M

    def draw(self, canvas: Canvas) -> None:
        """Paint roof, gable and front, which may hide each other in this order."""
        side = 1.0 if self.across > 0 else -1.0
        back, ridge, top = self.across + 9 * side, self.across + 4.5 * side, self.height
        building = TRAIN_ID["building"]
        ridge_m, x = top + self.roof_m, self.across
        eaves = (x - 0.2 * side, self.near, top)
        roof = corner((ridge, self.near, ridge_m), (ridge, self.far, ridge_m), eaves)
        canvas.texture(self.roof, roof, building)
        peak = corner((x, self.near, top), (back, self.near, top), (ridge, self.near, ridge_m))
        red, green, blue = self.front.wall
        canvas.fill(peak, (red * 0.72, green * 0.72, blue * 0.72), building)
        if self.gable:
            canvas.texture(self.gable, wall_across(x, back, self.near, top), building)
        # the texture runs from left to right as seen from the street
        left, right = (self.near, self.far) if side < 0 else (self.far, self.near)
        canvas.texture(self.front.texture, wall_along(x, left, right, top), building)
        if canvas.lights_on and self.near < canvas.camera.along + _DETAIL_M:
            for index in self.lit:
                x0, z0, x1, z1 = (float(value) for value in self.front.windows[index])
                along0, along1 = (left + x0, left + x1) if side < 0 else (left - x0, left - x1)
                x = self.across - 0.02 * side
                pane = corner((x, along0, z0), (x, along1, z0), (x, along1, z1), (x, along0, z1))
                canvas.fill(pane, LIT_WINDOW, building, glow=0.75)


@dataclass(frozen=True)
class Screen:
    """A textured wall along the street, 0.5 m deep: a hedge or a fence."""

    across: float
    near: float
    far: float
    height: float
    texture: Texture
    train_id: int

    def draw(self, canvas: Canvas) -> None:
        """Paint the near end and the front."""
        back = self.across + (0.5 if self.across > 0 else -0.5)
        near_end = wall_across(self.across, back, self.near, self.height)
        front = wall_along(self.across, self.near, self.far, self.height)
        canvas.texture(self.texture, near_end, self.train_id)
        canvas.texture(self.texture, front, self.train_id)


@dataclass(frozen=True)
class Tree:
    """A trunk and a crown that faces the camera."""

    across: float
    far: float
    height: float
    spread: float
    crown: Texture
    bare: bool

    def draw(self, canvas: Canvas) -> None:
        """Paint the trunk, then the crown."""
        base = 0.24 * self.height
        trunk = np.array([[-0.17, 0], [0.17, 0], [0.1, base + 0.9], [-0.1, base + 0.9]], np.float32)
        vegetation = TRAIN_ID["vegetation"]
        canvas.shade(foot(self.across, self.far, 0.6), 0.7)
        canvas.fill(upright(self.across, self.far, trunk), (58, 50, 42), vegetation)
        left, right = self.across - self.spread / 2, self.across + self.spread / 2
        top, bottom = self.height, base if not self.bare else base + 0.5
        canvas.texture(self.crown, wall_across(left, right, self.far, top, bottom), vegetation)


@dataclass(frozen=True)
class Lamp:
    """A street lamp whose arm reaches over the road."""

    across: float
    far: float
    height: float
    color: Color

    def draw(self, canvas: Canvas) -> None:
        """Paint mast, arm and head."""
        reach = -1.3 if self.across > 0 else 1.3
        pole = TRAIN_ID["pole"]
        top = self.height
        mast = np.array([[-0.1, 0], [0.1, 0], [0.06, top], [-0.06, top]], np.float32)
        lower, upper = [[0, top - 0.1], [reach, top + 0.12]], [[reach, top + 0.2], [0, top]]
        arm = np.array(lower + upper, np.float32)
        canvas.fill(upright(self.across, self.far, mast), self.color, pole)
        canvas.fill(upright(self.across, self.far, arm), self.color, pole)
        head = box(reach - 0.3, top + 0.06, reach + 0.3, top + 0.24)
        color, glow = ((255, 214, 150), 1.0) if canvas.lights_on else (self.color, 0.0)
        canvas.fill(upright(self.across, self.far, head), color, pole, glow)


@dataclass(frozen=True)
class Sign:
    """A traffic sign on a pole; `sides` 3 is a warning, 4 a notice, 24 a prohibition."""

    across: float
    far: float
    sides: int

    def draw(self, canvas: Canvas) -> None:
        """Paint the pole, the rim, the face and its symbol."""
        mast = upright(self.across, self.far, box(-0.04, 0, 0.04, 2.2))
        canvas.fill(mast, (96, 98, 100), TRAIN_ID["pole"])
        sign, turn = TRAIN_ID["traffic sign"], np.pi / 2 if self.sides == 3 else np.pi / 4
        rim, face, symbol = (168, 30, 34), (214, 214, 210), (30, 30, 32)
        if self.sides == 4:
            rim, face, symbol = (30, 66, 130), (36, 78, 150), (210, 212, 214)
        for radius, color in ((0.45, rim), (0.31, face)):
            outline = regular(self.sides, radius, radius, turn) + np.array([0, 2.45], np.float32)
            canvas.fill(upright(self.across, self.far, outline), color, sign)
        canvas.fill(upright(self.across, self.far, box(-0.05, 2.32, 0.05, 2.58)), symbol, sign)
