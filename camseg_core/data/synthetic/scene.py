"""The street of the synthetic drive: all things, fixed and moving, from seed, place and time."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from camseg_core.data.synthetic.ground import PAVEMENT_M, ROAD_HALF_M
from camseg_core.data.synthetic.street import Building, Lamp, Screen, Sign, Thing, Tree
from camseg_core.data.synthetic.textures import (
    STOREY_M,
    Color,
    Floats,
    bare_crown,
    boards,
    crown,
    facade,
    leaves,
    masonry,
    opaque,
)
from camseg_core.data.synthetic.traffic import Car, Person, Rider
from camseg_core.labels import TRAIN_ID

BLOCK_M = 40.0
VIEW_M = 140.0
"""Distance in metres up to which things are drawn."""

_PAINTS: tuple[Color, ...] = (
    (34, 36, 40),
    (150, 152, 154),
    (188, 188, 184),
    (44, 58, 92),
    (112, 32, 32),
    (78, 82, 88),
    (58, 82, 74),
    (96, 112, 134),
)
_COATS: tuple[Color, ...] = (
    (36, 38, 44),
    (62, 56, 52),
    (96, 40, 40),
    (48, 62, 88),
    (110, 106, 98),
    (52, 70, 54),
    (150, 146, 138),
    (24, 24, 28),
)
_SKINS: tuple[Color, ...] = ((188, 148, 124), (158, 116, 92), (104, 74, 58))


@dataclass(frozen=True)
class Block:
    """40 m of street: its things, and the houses on the left for `paint_ground`."""

    things: tuple[Thing, ...]
    shadows: Floats


@dataclass(frozen=True)
class TrafficStream:
    """Endless traffic at one speed.

    Member `k` starts at about `k * spacing` metres and moves `speed` m/s along the street.
    """

    tag: int
    spacing: float
    speed: float
    jitter: float

    def members(
        self, seed: int, time: float, near: float, far: float
    ) -> Iterator[tuple[float, np.random.Generator]]:
        """Places of the members between `near` and `far` at `time`, each with its own generator."""
        drift = self.speed * time
        first, last = (int((end - drift) / self.spacing) for end in (near, far))
        for k in range(max(first - 1, 0), last + 1):
            rng = np.random.default_rng([seed, 3, self.tag, k])
            along = (k + 0.5) * self.spacing + rng.uniform(-self.jitter, self.jitter) + drift
            if near < along < far:
                yield along, rng


def choose(rng: np.random.Generator, colors: tuple[Color, ...], spread: float = 0.15) -> Color:
    """Choose a colour and make it a little lighter or darker."""
    red, green, blue = colors[rng.integers(len(colors))]
    gain = rng.uniform(1 - spread, 1 + spread)
    return red * gain, green * gain, blue * gain


def _car(
    rng: np.random.Generator, across: float, along: float, heading: int, braking: bool = False
) -> Car:
    """A car of random colour and body: mostly hatchbacks and estate cars, sometimes a van."""
    color = choose(rng, _PAINTS)
    body = int(rng.choice(3, p=[0.5, 0.35, 0.15]))
    return Car(across, along, heading, color, body, braking)


def moving_things(seed: int, time: float, speed: float, near: float) -> list[Thing]:
    """Traffic and walkers from `near` to the end of the view, `time` seconds into the drive.

    Cars in the lane of the camera drive at `speed`, in m/s.
    """
    far = near + VIEW_M
    things: list[Thing] = []
    for along, rng in TrafficStream(0, 34.0, speed, 5.0).members(seed, time, near, far):
        braking = bool(np.sin(time * 0.7 + along) > 0.6)
        things.append(_car(rng, -1.75 + rng.uniform(-0.15, 0.15), along, 1, braking))
    for along, rng in TrafficStream(1, 27.0, -9.0, 8.0).members(seed, time, near, far):
        things.append(_car(rng, 1.75 + rng.uniform(-0.15, 0.15), along, -1))
    for along, rng in TrafficStream(2, 45.0, 4.5, 12.0).members(seed, time, near, far):
        across = -3.2 + rng.uniform(-0.15, 0.1)
        coat, skin = choose(rng, _COATS), choose(rng, _SKINS)
        things.append(Rider(across, along, time * 7 + along, coat, skin))
    for tag, side, walk in ((3, -1, 1.3), (4, -1, -1.2), (5, 1, 1.2), (6, 1, -1.4)):
        for along, rng in TrafficStream(tag, 21.0, walk, 10.0).members(seed, time, near, far):
            across = side * rng.uniform(6.2, 8.3)
            stride = rng.uniform(0, 6) + time * 6
            coat, trousers, skin = (choose(rng, each) for each in (_COATS, _COATS[:4], _SKINS))
            height = rng.uniform(1.55, 1.88)
            things.append(Person(across, along, height, stride, coat, trousers, skin))
    return things


@lru_cache(maxsize=48)
def block(seed: int, index: int) -> Block:
    """Build the fixed things of one block; kept while the camera is near."""
    rng = np.random.default_rng([seed, 2, index])
    start = index * BLOCK_M
    things: list[Thing] = []
    for side in (-1, 1):
        kind = rng.choice(["terrace", "terrace", "gardens", "park"])
        park = kind == "park"
        things += _park(rng, side, start) if park else _houses(rng, side, start, kind == "gardens")
        things += _pavement_furniture(rng, side, start)
        things += _parked_cars(rng, side, start)
    houses = [
        (b.near, b.far, b.height - (abs(b.across) - PAVEMENT_M))
        for b in things
        if isinstance(b, Building) and b.across < 0
    ]
    return Block(tuple(things), np.array(houses, np.float32).reshape(-1, 3))


def _houses(rng: np.random.Generator, side: int, start: float, set_back: bool) -> list[Thing]:
    across = side * (PAVEMENT_M + (3.5 if set_back else 0.0))
    cuts = [0.0]
    while cuts[-1] < BLOCK_M - 11:
        cuts.append(cuts[-1] + rng.uniform(5.5, 10))
    cuts.append(BLOCK_M)
    things: list[Thing] = []
    neighbour = 0
    for near, far in pairwise(cuts):
        gap = rng.uniform(0.5, 1.5) if set_back else 0.0
        storeys = int(rng.integers(2, 4 if set_back else 5))
        gable = set_back or neighbour < storeys
        ends = (start + near, start + far - gap)
        things.append(_building(rng, across, ends, storeys, shop=not set_back, gable=gable))
        neighbour = storeys
    if set_back:
        things.append(_boundary(rng, side, start))
    return things


def _building(
    rng: np.random.Generator,
    across: float,
    ends: tuple[float, float],
    storeys: int,
    shop: bool,
    gable: bool,
) -> Building:
    near, far = ends
    light = 0.62 if across < 0 else 1.0
    front = facade(rng, far - near, storeys, light, shop and rng.random() < 0.6)
    end_wall = None
    if gable:
        end_wall = opaque(masonry(rng, 9.0, storeys * STOREY_M, np.array(front.wall) * 0.72))
    tint = np.array([74, 74, 78]) * rng.uniform(0.8, 1.3)
    slate = opaque(masonry(rng, far - near, 4.0, tint) * light)
    lit = tuple(int(index) for index in np.flatnonzero(rng.random(len(front.windows)) < 0.4))
    roof_m = float(rng.choice([0.2, 2.2, 3.0]))
    return Building(across, near, far, storeys, front, end_wall, slate, roof_m, lit)


def _boundary(rng: np.random.Generator, side: int, start: float) -> Screen:
    """A hedge or a fence."""
    hedge = rng.random() < 0.5
    height = rng.uniform(1.1, 1.7) if hedge else rng.uniform(1.0, 1.6)
    texture = leaves(rng, (32, 640)) if hedge else boards(rng, (28, 800))
    train_id = TRAIN_ID["vegetation" if hedge else "fence"]
    across = side * (PAVEMENT_M + 0.1)
    return Screen(across, start, start + BLOCK_M, height, texture, train_id)


def _park(rng: np.random.Generator, side: int, start: float) -> list[Thing]:
    things: list[Thing] = [_boundary(rng, side, start)]
    for row in (11.0, 16.0):
        for along in np.arange(start + rng.uniform(0, 3), start + BLOCK_M, 7.0):
            things.append(_tree(rng, side * (row + rng.uniform(-1, 1)), float(along)))
    return things


def _tree(rng: np.random.Generator, across: float, along: float) -> Tree:
    bare = rng.random() < 0.25
    height, spread = rng.uniform(5.5, 9), rng.uniform(4, 6)
    return Tree(across, along, height, spread, bare_crown(rng) if bare else crown(rng), bool(bare))


def _pavement_furniture(rng: np.random.Generator, side: int, start: float) -> list[Thing]:
    across = side * (ROAD_HALF_M + 0.5)
    grey = rng.uniform(60, 120)
    along = start + (8.0 if side < 0 else 26.0)
    lamp = Lamp(across, along, rng.uniform(6.5, 8.5), (grey, grey, grey * 1.02))
    place = start + rng.uniform(12, 22) + (14 if side > 0 else 0) * rng.integers(0, 2)
    things: list[Thing] = [lamp, Sign(across, place, int(rng.choice([3, 4, 24])))]
    if rng.random() < 0.6:
        things.append(_tree(rng, side * (ROAD_HALF_M + 1.0), start + rng.uniform(28, 38)))
    return things


def _parked_cars(rng: np.random.Generator, side: int, start: float) -> list[Thing]:
    things: list[Thing] = []
    for along in np.arange(start + 4, start + BLOCK_M - 3, 6.0):
        if rng.random() < 0.28:
            heading = 1 if rng.random() < (0.8 if side < 0 else 0.2) else -1
            across = side * (ROAD_HALF_M - 0.95) + rng.uniform(-0.05, 0.05)
            middle = float(along) + rng.uniform(-0.5, 0.5)
            things.append(_car(rng, across, middle, heading))
    return things
