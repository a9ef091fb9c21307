"""Sky, skyline and ground of the synthetic street, painted per pixel."""

from functools import lru_cache

import cv2
import numpy as np

from camseg_core.data.synthetic.camera import PinholeCamera
from camseg_core.data.synthetic.canvas import SUN, Canvas
from camseg_core.data.synthetic.textures import Floats, noise, rgb_of
from camseg_core.labels import TRAIN_ID

ROAD_HALF_M = 5.2
KERB_M = ROAD_HALF_M + 0.2
PAVEMENT_M = 8.8
"""Distances from the centre line where road, kerb and pavement end; grass follows."""

_TILE, _TILE_M = 512, 8.0
_SKYLINE_M = 150.0
_ZEBRA_EVERY_M, _ZEBRA_M = 110.0, 3.0

# zones from the centre line outwards: road, kerb, pavement, grass
_ZONE_COLORS = np.array([(80, 82, 85), (142, 141, 137), (116, 114, 110), (74, 84, 50)], np.float32)
_ZONE_LABELS = np.array(
    [TRAIN_ID[name] for name in ("road", "sidewalk", "sidewalk", "terrain")], np.uint8
)
_ZONE_GRAIN = np.array([0.06, 0.05, 0.06, 0.22], np.float32)
_PAINT_WHITE = np.array([196, 196, 192], np.float32)
_PAINT_YELLOW = np.array([168, 142, 66], np.float32)


@lru_cache(maxsize=4)
def _tiles(seed: int) -> tuple[Floats, Floats, Floats]:
    """Tiling noise: fine grain and broad stains of the ground, and clouds."""
    rng = np.random.default_rng([seed, 1])
    shape = (_TILE, _TILE)
    grain, stains = noise(rng, shape, (1, 2, 4)), noise(rng, shape, (32, 128))
    return grain, stains, noise(rng, shape, (16, 32, 64, 128, 128))


def _lookup(tile: Floats, x: Floats, y: Floats) -> Floats:
    x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
    found = cv2.remap(tile, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return np.asarray(found, np.float32)


def _bearing(camera: PinholeCamera) -> Floats:
    """Bearing of each column `(W,)`, to the right of the street, in radians for small angles."""
    columns = np.arange(camera.width, dtype=np.float32) - camera.centre[0]
    return np.asarray(columns / camera.focal + camera.yaw)


def paint_sky(canvas: Canvas, seed: int) -> None:
    """Paint a bright sky with thin clouds; label and geometry start as sky."""
    camera = canvas.camera
    rows = min(max(int(camera.horizon) + 1, 0), camera.height)
    if rows == 0:
        return
    rise = (camera.horizon - np.arange(rows, dtype=np.float32)[:, None]) / camera.focal
    bearing = _bearing(camera)[None]
    # the clouds are a plane far above, which perspective compresses towards the horizon
    distance = 40 / (rise + 0.12)
    along = np.broadcast_to(distance * 2, (rows, camera.width))
    clouds = _lookup(_tiles(seed)[2], bearing * distance, along)
    blue = np.clip(rise * 1.6, 0, 1)[..., None]
    clear = np.array([240, 246, 248], np.float32) + blue * np.array([-56, -18, -4], np.float32)
    cover = rgb_of(np.clip(0.35 + 0.3 * clouds, 0, 0.9))
    sky = clear + cover * (np.array([246, 248, 249], np.float32) - clear)
    canvas.image[:rows] = np.clip(sky, 0, 255).astype(np.uint8)


def paint_skyline(canvas: Canvas, seed: int) -> None:
    """Paint distant trees where the street ends."""
    camera = canvas.camera
    grain, stains, _ = _tiles(seed)
    place, at = (_bearing(camera) + np.pi) * 400, np.arange(_TILE)
    height = 9 + 2.5 * np.interp(place, at, stains[0], period=_TILE)
    height = height + 0.8 * np.interp(place * 2, at, grain[7], period=_TILE)
    scale = camera.focal / _SKYLINE_M
    top, bottom = camera.horizon - scale * (height - camera.up), camera.horizon + scale * camera.up
    first = int(np.clip(top.min(), 0, camera.height - 1))
    end = int(np.clip(bottom + 1, first + 1, camera.height))
    rows = np.arange(first, end, dtype=np.float32)[:, None]
    # the texture is in metres, independent of the size of the picture
    up, aside = np.broadcast_arrays((rows - camera.horizon) / scale * 12, place[None] * 4)
    shade = 0.95 + 0.09 * _lookup(grain, aside, up)
    rgb = rgb_of(shade) * np.array([84, 90, 74], np.float32)
    train_ids = np.full(shade.shape, TRAIN_ID["vegetation"], np.uint8)
    canvas.paint(first, rgb, train_ids, 1 / _SKYLINE_M, mask=rows >= top)


def paint_ground(canvas: Canvas, seed: int, shadows: Floats) -> None:
    """Paint road, kerb, pavement and grass.

    `shadows` `(N, 3)` are near end, far end and shadow-casting height of houses on the sunny side.
    """
    camera = canvas.camera
    first = min(max(int(np.floor(camera.horizon)) + 1, 0), camera.height)
    if first == camera.height:
        return
    across, along, depth = camera.ground(first)
    distance = np.abs(across)
    zone = (distance > ROAD_HALF_M).astype(np.uint8) + (distance > KERB_M) + (distance > PAVEMENT_M)
    footprint = depth / camera.focal
    length = np.minimum(depth * footprint / camera.up, 50)
    color = _ZONE_COLORS[zone]
    _paint_markings(color, across, along, footprint, length)
    grain, stains, _ = _tiles(seed)
    x, y = across * (_TILE / _TILE_M), along * (_TILE / _TILE_M)
    # grain finer than a pixel would flicker: fade it to its mean
    fade = np.minimum(1.0, 0.05 / np.maximum(length, 1e-3))
    gain = 1 + _ZONE_GRAIN[zone] * fade * _lookup(grain, x, y)
    gain = gain + 0.035 * _lookup(stains, x * 0.3, y * 0.15)
    tracks = np.abs(distance - 1.75)
    gain -= 0.05 * (np.abs(tracks - 0.75) < 0.3)
    gain -= 0.14 * _slab_joints(across, along, length) * (zone == 2)
    gain *= 1 - 0.42 * _house_shadow(across, along, shadows)
    gain *= 1 - 0.5 * np.clip(1 - np.abs(distance - ROAD_HALF_M) / (0.08 + footprint), 0, 1)
    canvas.paint(first, color * rgb_of(gain), _ZONE_LABELS[zone], 1 / depth)


def _phase(value: Floats, period: float) -> Floats:
    """`value % period`, but several times faster."""
    whole = np.floor(value * np.float32(1 / period))
    return np.asarray(value - np.float32(period) * whole, np.float32)


def _band(value: Floats, half: float, footprint: Floats) -> Floats:
    """Share of a pixel that a stripe around 0 covers."""
    cover = np.clip((half - np.abs(value)) / footprint + 0.5, 0, 1)
    cover = cover * np.minimum(1, 2 * half / footprint)
    return np.asarray(cover, np.float32)


def _paint_markings(
    color: Floats, across: Floats, along: Floats, footprint: Floats, length: Floats
) -> None:
    dashes = _band(_phase(along, 6.0) - 2.0, 1.0, length)
    dashes = np.where(length > 3, 1 / 3, dashes)
    white = _band(across, 0.06, footprint) * dashes
    on_road = np.abs(across) < ROAD_HALF_M - 0.3
    zebra = _band(_phase(along, _ZEBRA_EVERY_M) - 60, _ZEBRA_M / 2, length)
    zebra = zebra * (_phase(across, 1.1) < 0.55) * on_road
    white = np.maximum(white, zebra)
    outer, inner = (_band(np.abs(across) - at, 0.045, footprint) for at in (4.95, 4.75))
    yellow = np.maximum(outer, inner)
    for cover, paint in ((yellow, _PAINT_YELLOW), (white, _PAINT_WHITE)):
        painted = cover > 0
        color[painted] += (0.85 * cover[painted])[:, None] * (paint - color[painted])


def _slab_joints(across: Floats, along: Floats, length: Floats) -> Floats:
    joints = (_phase(along, 0.6) < 0.05) | (_phase(across, 0.6) < 0.03)
    return np.where(joints, np.minimum(1, 0.05 / length), 0).astype(np.float32)


def _house_shadow(across: Floats, along: Floats, shadows: Floats) -> Floats:
    """1 in the shadow of the houses on the left, the side of the sun."""
    if len(shadows) == 0:
        return np.zeros_like(across)
    start, resolution = float(shadows[:, 0].min()), 0.25
    reach = np.zeros(int((shadows[:, 1].max() - start) / resolution) + 2, np.float32)
    for near, far, height in shadows:
        reach[int((near - start) / resolution) : int((far - start) / resolution) + 1] = (
            height * SUN[0] / -SUN[2]
        )
    index = np.clip(((along - start) / resolution).astype(np.int32), 0, len(reach) - 1)
    return np.asarray(np.clip((reach[index] - PAVEMENT_M - across) / 0.4, 0, 1), np.float32)
