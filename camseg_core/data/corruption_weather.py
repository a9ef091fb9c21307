"""The corruptions that draw something over the picture: fog, frost, snow and spatter.

The published frost overlays photographs of frosted glass. Ours is drawn: a lace of crystals, denser
towards the edges, blended with the published weights. Its scores cannot be compared with published
ones.
"""

import cv2
import numpy as np

from camseg_core.data.disturbances import Floats, blurred, grey_of, line_kernel

_WATER = np.array([175, 238, 238], np.float32) / 255
_MUD = np.array([63, 42, 20], np.float32) / 255
_NEEDLES = 500


def plasma(height: int, width: int, decay: float, rng: np.random.Generator) -> Floats:
    """Cloudy noise `(H, W)` in 0..1 by the diamond-square algorithm on a torus.

    The random part shrinks by the square of `decay` whenever the grid gets twice as fine: the
    published fog scales a random number by its range twice, and its constants match that.
    """
    size = 1 << (max(height, width, 2) - 1).bit_length()
    field, step, amplitude = np.zeros((size, size)), size, 1.0
    while step >= 2:
        half = step // 2
        count = size // step

        def random(count: int = count, amplitude: float = amplitude) -> np.ndarray:
            return amplitude * rng.uniform(-1, 1, (count, count))

        corners = field[::step, ::step]
        along = corners + np.roll(corners, -1, 1)
        centres = (along + np.roll(along, -1, 0)) / 4 + random()
        field[half::step, half::step] = centres
        field[::step, half::step] = (along + centres + np.roll(centres, 1, 0)) / 4 + random()
        field[half::step, ::step] = (
            corners + np.roll(corners, -1, 0) + centres + np.roll(centres, 1, 1)
        ) / 4 + random()
        step, amplitude = half, amplitude / decay**2
    field = (field - field.min()) / (field.max() - field.min())
    return field[:height, :width].astype(np.float32)


def fog(picture: Floats, constants: tuple[float, float], rng: np.random.Generator) -> Floats:
    """Cloudy noise on top, the sum darkened to keep the brightest value."""
    amount, decay = constants
    brightest = picture.max()
    height, width = picture.shape[:2]
    clouds = np.float32(amount) * plasma(height, width, decay, rng)
    return (picture + clouds[..., None]) * (brightest / (brightest + np.float32(amount)))


def frost(picture: Floats, constants: tuple[float, float], rng: np.random.Generator) -> Floats:
    """A drawn lace of ice, denser towards the edges, in place of photographs."""
    (kept, added), (height, width) = constants, picture.shape[:2]
    return np.asarray(
        np.float32(kept) * picture + np.float32(added) * _crystals(height, width, rng), np.float32
    )


def _crystals(height: int, width: int, rng: np.random.Generator) -> Floats:
    """Ice `(H, W, 3)` in 0..1: branching needles on a cloudy film with veins."""
    x, y = (
        np.linspace(-1, 1, width, dtype=np.float32)[None],
        np.linspace(-1, 1, height, dtype=np.float32)[:, None],
    )
    film = plasma(height, width, 1.5, rng)
    veins = 1 - np.abs(2 * plasma(height, width, 1.35, rng) - 1)
    density = np.clip(
        0.25 + 0.45 * np.maximum(np.abs(x), np.abs(y)) ** 2 + 0.9 * (film - 0.5), 0, 1
    )
    cover = np.zeros((height, width), np.uint8)
    unit = max(min(height, width) / 224, 0.1)
    for _ in range(_NEEDLES):
        at = rng.uniform((0, 0), (width, height))
        if rng.random() > density[int(at[1]), int(at[0])]:
            continue
        angle, length = rng.uniform(0, np.pi), unit * rng.uniform(8, 45)
        stem = np.array([np.cos(angle), np.sin(angle)]) * length
        _line(cover, at, stem, int(rng.integers(120, 256)))
        for part in np.arange(0.15, 1, 0.14):
            for side in (-np.pi / 3, np.pi / 3):  # a crystal branches at 60 degrees
                way = np.array([np.cos(angle + side), np.sin(angle + side)])
                twig = way * length * 0.45 * (1 - part)
                _line(cover, at + part * stem, twig, int(rng.integers(80, 220)))
    needles = blurred(np.asarray(cover, np.float32) / np.float32(255), 0.4 * unit + 0.1)
    ice = np.clip(density * (0.45 + 0.5 * veins**4) + 0.75 * needles, 0, 1)
    return ice[..., None] * np.array([0.88, 0.95, 1.0], np.float32)


def _line(cover: np.ndarray, start: np.ndarray, way: np.ndarray, value: int) -> None:
    (x0, y0), (x1, y1) = (
        np.rint(start).astype(int).tolist(),
        np.rint(start + way).astype(int).tolist(),
    )
    cv2.line(cover, (x0, y0), (x1, y1), int(value), 1, cv2.LINE_AA)


def snow(
    picture: Floats,
    constants: tuple[float, float, float, float, int, float, float],
    rng: np.random.Generator,
) -> Floats:
    """Paler, with streaks of flakes: thresholded noise, blurred by motion."""
    mean, deviation, zoom, threshold, radius, sigma, kept = constants
    height, width = picture.shape[:2]
    noise = np.float32(mean) + np.float32(deviation) * rng.standard_normal(
        (height, width), np.float32
    )
    # the middle of the noise, enlarged to the picture's size
    part = noise[
        (height - int(np.ceil(height / zoom))) // 2 :, (width - int(np.ceil(width / zoom))) // 2 :
    ]
    part = part[: int(np.ceil(height / zoom)), : int(np.ceil(width / zoom))]
    flakes = np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR))
    flakes = np.clip(np.where(flakes < threshold, np.float32(0), flakes), 0, 1)
    weights = np.exp(-0.5 * (np.arange(2 * radius + 1) / sigma) ** 2).astype(np.float32)
    flakes = cv2.filter2D(
        flakes, -1, line_kernel(weights, rng.uniform(-3 * np.pi / 4, -np.pi / 4), start=0.0)
    )[..., None]
    pale = np.maximum(picture, 1.5 * grey_of(picture)[..., None] + np.float32(0.5))
    return np.float32(kept) * picture + np.float32(1 - kept) * pale + flakes + flakes[::-1, ::-1]


def spatter(
    picture: Floats,
    constants: tuple[float, float, float, float, float, str],
    rng: np.random.Generator,
) -> Floats:
    """Drops of water on the lens, lit from one side, in severity 1 to 3; mud in 4 and 5."""
    mean, deviation, sigma, threshold, strength, kind = constants
    noise = np.float32(mean) + np.float32(deviation) * rng.standard_normal(
        picture.shape[:2], np.float32
    )
    liquid = blurred(noise, sigma)
    if kind == "mud":
        soft = blurred((liquid > threshold).astype(np.float32), strength)
        mud = np.where(soft < 0.8, np.float32(0), soft)[..., None]
        return picture * (1 - mud) + _MUD * mud
    drops = liquid >= threshold
    depth = np.minimum(
        np.asarray(cv2.distanceTransform(drops.astype(np.uint8), cv2.DIST_L2, 5), np.float32), 20
    )
    # a drop shines where its surface is tilted to the light, which comes from the upper left
    tilt = cv2.Sobel(depth, cv2.CV_32F, 1, 0) + cv2.Sobel(depth, cv2.CV_32F, 0, 1)
    light = np.where(drops, np.clip(0.45 + 0.1 * tilt, 0, 1), np.float32(0)).astype(np.float32)
    shine = np.float32(strength) * np.asarray(cv2.blur(light, (3, 3)), np.float32)
    return np.asarray(picture + shine[..., None] * _WATER, np.float32)
