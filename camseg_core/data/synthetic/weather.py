"""Weather and lens of the synthetic drive, which change the painted picture and never the label."""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.data.synthetic.canvas import Canvas
from camseg_core.data.synthetic.textures import Floats, rgb_of
from camseg_core.labels import TRAIN_ID

_HAZE_PER_M = 0.0022
_AIRLIGHT = np.array([236, 243, 245], np.float32)
_FLAKES_OR_DROPS = 900


def blend(picture: Floats, color: Floats, share: Floats) -> Floats:
    """Move `picture` `(H, W, 3)` towards an RGB `color` by `share` `(H, W)`."""
    kept = rgb_of(1 - share)
    added = cv2.merge([np.asarray(share * channel, np.float32) for channel in color.tolist()])
    return np.asarray(picture * kept + added, np.float32)


def _veil(picture: Floats, canvas: Canvas, per_m: float, airlight: Floats) -> Floats:
    """Blend towards `airlight` with transmission `exp(-per_m * depth)`; the sky is 300 m away."""
    depth = 1 / np.maximum(canvas.geometry[..., 0], np.float32(1 / 300))
    return blend(picture, airlight, 1 - np.exp(np.float32(-per_m) * depth))


def clear(picture: Floats, canvas: Canvas, severity: float, rng: np.random.Generator) -> Floats:
    """No weather; `photograph` adds a little haze to every picture."""
    return picture


def fog(picture: Floats, canvas: Canvas, severity: float, rng: np.random.Generator) -> Floats:
    """Fog: at full severity a third of the light is left after 16 m."""
    return _veil(picture, canvas, 0.065 * severity, np.array([196, 199, 200], np.float32))


def rain(picture: Floats, canvas: Canvas, severity: float, rng: np.random.Generator) -> Floats:
    """A grey, wet street: dim light, mist, reflections on the ground, streaks of drops."""
    wet = _reflect(picture, canvas, 0.45 * severity)
    grey = wet.mean(2, keepdims=True)
    dim = (wet + 0.4 * severity * (grey - wet)) * (1 - 0.35 * severity)
    misty = _veil(dim, canvas, 0.012 * severity, np.array([142, 146, 150], np.float32))
    streaks = _particles(canvas, rng, round(_FLAKES_OR_DROPS * severity), length=0.04)
    return blend(misty, np.full(3, 205.0), 0.3 * streaks)


def snow(picture: Floats, canvas: Canvas, severity: float, rng: np.random.Generator) -> Floats:
    """Snow on the ground, less on the road, and flakes in the air."""
    cover = np.zeros(256, np.float32)
    for name, share in (("road", 0.6), ("sidewalk", 0.9), ("terrain", 1.0), ("vegetation", 0.3)):
        cover[TRAIN_ID[name]] = share * min(1.0, 1.4 * severity)
    patches = 0.75 + 0.25 * np.clip(picture.mean(2) / 90 - 0.5, 0, 1)
    covered = blend(picture, np.array([222, 226, 232], np.float32), cover[canvas.label] * patches)
    misty = _veil(covered, canvas, 0.014 * severity, np.array([214, 217, 221], np.float32))
    flakes = _particles(canvas, rng, round(_FLAKES_OR_DROPS * severity), length=0.0)
    return blend(misty, np.full(3, 240.0), 0.85 * flakes)


def night(picture: Floats, canvas: Canvas, severity: float, rng: np.random.Generator) -> Floats:
    """Night: the headlights' cone, and the lamps, windows and lights that shine by themselves."""
    camera = canvas.camera
    near, glow = canvas.geometry[..., 0], canvas.geometry[..., 1:]
    y = (np.arange(camera.height, dtype=np.float32)[:, None] - camera.horizon) / camera.focal
    x = (np.arange(camera.width, dtype=np.float32)[None] - camera.centre[0]) / camera.focal
    beam = np.exp(-((x / 0.42) ** 2) - ((y - 0.09) / 0.17) ** 2) * np.minimum(1, near * 14)
    sky = canvas.geometry[..., :1] == 0
    ambient = np.where(sky, 0.06, 0.17)
    headlights = 0.95 * beam[..., None] * np.array([1.05, 1.0, 0.86], np.float32)
    light = ambient * np.array([0.92, 0.94, 1.1], np.float32) + headlights
    light = 1 - severity**0.3 * (1 - light) * (1 - glow)
    dark = picture * light
    halo_size = max(camera.width // 40, 1)
    shining = picture * glow
    halo = cv2.GaussianBlur(shining, (0, 0), halo_size)
    halo = halo + cv2.GaussianBlur(shining, (0, 0), halo_size / 4)
    return np.asarray(dark + 0.8 * severity * halo, np.float32)


WEATHER: dict[str, Callable[[Floats, Canvas, float, np.random.Generator], Floats]] = {
    "clear": clear,
    "fog": fog,
    "rain": rain,
    "snow": snow,
    "night": night,
}
"""By name: a picture `(H, W, 3)` in 0..255, its canvas, severity and generator to a new picture."""


def photograph(
    canvas: Canvas, weather: str, severity: float, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Photograph the canvas in this weather with a cheap camera: RGB `(H, W, 3)` uint8."""
    picture = _veil(canvas.image.astype(np.float32), canvas, _HAZE_PER_M, _AIRLIGHT)
    picture = WEATHER[weather](picture, canvas, severity, rng)
    return _expose(picture, 5.0 if weather == "night" else 2.2, rng)


def _expose(picture: Floats, grain: float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Add lens blur, vignette and sensor noise."""
    height, width = picture.shape[:2]
    blurred = np.asarray(cv2.GaussianBlur(picture, (3, 3), 0.55), np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    vignette = rgb_of(1 - 0.09 * (x * x + y * y))
    noise = rgb_of(np.float32(grain) * rng.standard_normal((height, width), np.float32))
    return np.clip(blurred * vignette + noise, 0, 255).astype(np.uint8)


def _reflect(picture: Floats, canvas: Canvas, strength: float) -> Floats:
    """Mirror the scene in the ground, blurred along the view."""
    horizon = int(np.clip(canvas.camera.horizon, 1, canvas.camera.height - 1))
    rows = np.clip(2 * horizon - np.arange(canvas.camera.height), 0, horizon)
    blur = max(canvas.camera.height // 24, 1)
    mirrored = cv2.blur(picture[rows], (max(blur // 4, 1), blur))
    ground = np.isin(canvas.label, (TRAIN_ID["road"], TRAIN_ID["sidewalk"]))
    wet = rgb_of(strength * ground)
    return np.asarray(picture * (1 - wet) + wet * mirrored, np.float32)


def _particles(canvas: Canvas, rng: np.random.Generator, count: int, length: float) -> Floats:
    """Coverage 0..1 `(H, W)` of drops or flakes: few near and large, many far and small."""
    height, width = canvas.camera.height, canvas.camera.width
    cover = np.zeros((height, width), np.uint8)
    size = 0.005 * height * rng.uniform(0.2, 1, count) ** 3
    across, down = rng.uniform(0, width, count), rng.uniform(0, height, count)
    for x, y, radius in zip(across, down, size, strict=True):
        tail = length * height * (0.4 + radius / (0.005 * height))
        start, end = (int(x), int(y)), (int(x + 0.12 * tail), int(y + tail))
        color, thickness = (160, 1) if length else (255, max(round(2 * radius), 1))
        cv2.line(cover, start, end, color, thickness, cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(cover, (3, 3), 0.7), np.float32) / 255
