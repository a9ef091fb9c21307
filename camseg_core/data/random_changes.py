"""Random changes of training pictures: colour changes, and disturbances of a share of them.

The paper's disturbances are in `disturbances`; lost resolution, gamma, haze and low light are here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from camseg_core.data import disturbances
from camseg_core.data.disturbances import Apply, Pixels, to_pixels
from camseg_core.errors import ConfigError
from camseg_core.noise_filter import without_grain, without_impulses

Range = tuple[float, float]

Change = Callable[[Pixels, np.random.Generator], Pixels]
"""Changes an RGB picture `(H, W, 3)` at random, or returns it unchanged."""


def maybe(chance: float, change: Change) -> Change:
    """Return `change`, made with this probability."""
    return lambda rgb, rng: change(rgb, rng) if rng.random() < chance else rgb


def at_random(apply: Apply, levels: Range) -> Change:
    """Return a disturbance, see `disturbances`, at a level drawn uniformly from a range."""
    return lambda rgb, rng: apply(rgb, float(rng.uniform(*levels)), rng)


def _jiggle(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Shift, scale and saturate values and turn the hue, in random order; the amounts are ours."""
    shift, hue = rng.uniform(-0.4, 0.4) * 255, rng.uniform(-0.08, 0.08)
    gain, saturation = rng.uniform(0.6, 1.4, 2).astype(np.float32)

    def saturate(picture: Pixels) -> Pixels:
        hsv = cv2.cvtColor(picture.astype(np.float32), cv2.COLOR_RGB2HSV)
        hsv[..., 1] = np.minimum(hsv[..., 1] * saturation, 1)
        return to_pixels(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))

    steps: tuple[Callable[[Pixels], Pixels], ...] = (
        lambda picture: to_pixels(picture + np.float32(shift)),
        lambda picture: to_pixels(picture * gain),
        saturate,
        lambda picture: disturbances.hue(picture, hue, rng),
    )
    for step in rng.permutation(len(steps)):
        rgb = steps[step](rgb)
    return rgb


def _soften(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Blur by up to 1.5 pixels, with a kernel of three."""
    return np.asarray(cv2.GaussianBlur(rgb, (3, 3), rng.uniform(0.1, 1.5)), np.uint8)


COLOR_CHANGES: tuple[Change, ...] = (
    maybe(0.8, _jiggle),
    maybe(0.05, lambda rgb, rng: disturbances.saturation(rgb, 0, rng)),
    maybe(0.15, _soften),
    maybe(0.15, lambda rgb, rng: disturbances.gaussian_noise(rgb, 0.03 * 255, rng)),
)
"""Colour changes that every training crop goes through."""


@dataclass(frozen=True)
class Disturb:
    """How training samples are disturbed: a share of them, each by a kind drawn at random.

    Attributes:
        share: share of the samples that are disturbed.
        twice: share of these that are disturbed by a second, different kind.
        weights: by kind, how often it is drawn relative to the others; 1 if not listed.

    The other attributes are kinds, with the range from which their level is drawn uniformly; None
    switches a kind off. Levels of the paper's eight are those of `disturbances`.

    - `resolution`: factor to which both sides shrink before they grow again.
    - `jpeg`: quality.
    - `gamma`: exponent of the values in 0..1.
    - `haze`: opacity of pale haze in the far part of the image.
    - `low_light`: factor of the light, with the noise of a sensor that amplifies what is left.

    Raises:
        ConfigError: a value is out of range.
    """

    share: float = 0.0
    twice: float = 0.25
    gaussian_noise: Range | None = (5, 100)
    gaussian_blur: Range | None = (0.5, 4)
    motion_blur: Range | None = (3, 25)
    salt_and_pepper: Range | None = (1, 50)
    brightness: Range | None = (0.4, 1.6)
    contrast: Range | None = (0.4, 1.6)
    saturation: Range | None = (0, 2)
    hue: Range | None = (-0.2, 0.2)
    resolution: Range | None = (0.2, 0.8)
    jpeg: Range | None = (8, 60)
    gamma: Range | None = (0.4, 2.2)
    haze: Range | None = (0.1, 0.8)
    low_light: Range | None = (0.1, 0.6)
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("share", "twice"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be from 0 to 1, got {getattr(self, name):g}")
        for name, (_, least, most) in KINDS.items():
            levels = getattr(self, name)
            if levels is not None and not least <= levels[0] <= levels[1] <= most:
                raise ConfigError(
                    f"{name} must be two rising numbers from {least:g} to {most:g}, "
                    f"got {list(levels)}"
                )
        unknown = [name for name in self.weights if name not in KINDS]
        if unknown:
            raise ConfigError(
                f"weights must name kinds ({', '.join(KINDS)}), got {', '.join(unknown)}"
            )
        if any(weight < 0 for weight in self.weights.values()):
            raise ConfigError(f"weights must be >= 0, got {dict(self.weights)}")
        if self.share and not self._kinds():
            raise ConfigError("a share of the samples needs a kind with a range and a weight > 0")

    def _kinds(self) -> dict[str, float]:
        """The weight of every kind that is drawn."""
        weights = {name: self.weights.get(name, 1.0) for name in KINDS if getattr(self, name)}
        return {name: weight for name, weight in weights.items() if weight > 0}

    def changes(self, noise_filter: bool = False) -> tuple[Change, ...]:
        """Return the changes of an `Augmentation`: one, or none if nothing is disturbed.

        With `noise_filter`, strong noise is removed from what was disturbed, as it is from the
        frames that a model with this filter gets.
        """
        if not self.share:
            return ()
        kinds = self._kinds()
        made = [at_random(KINDS[name][0], getattr(self, name)) for name in kinds]
        chances = np.array([*kinds.values()]) / sum(kinds.values())

        def disturb(rgb: Pixels, rng: np.random.Generator) -> Pixels:
            if rng.random() >= self.share:
                return rgb
            count = min(len(made), 1 + int(rng.random() < self.twice))
            for place in rng.choice(len(made), count, replace=False, p=chances):
                rgb = made[place](rgb, rng)
            return without_grain(without_impulses(rgb)) if noise_filter else rgb

        return (disturb,)


def resolution(rgb: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Both sides shrink to the level's share, averaging, and grow again, smoothly."""
    height, width = rgb.shape[:2]
    small = max(1, round(level * width)), max(1, round(level * height))
    method = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[int(rng.integers(2))]
    shrunk = cv2.resize(rgb, small, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(shrunk, (width, height), interpolation=method), np.uint8)


def gamma(rgb: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """All values, as shares of 255, to the power of the level."""
    table = to_pixels(255 * (np.arange(256) / 255) ** level)
    return np.asarray(cv2.LUT(rgb, table), np.uint8)


def haze(rgb: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Cover the image with pale haze: opacity `level` to a random horizon, fading below it."""
    height = rgb.shape[0]
    light = rng.uniform(150, 245) + rng.uniform(-10, 10, 3)
    horizon = rng.uniform(0.2, 0.6)
    rows = (np.arange(height, dtype=np.float32) + 0.5) / height
    near = np.clip((rows - horizon) / (1 - horizon), 0, 1)  # 0 at the horizon, 1 at the bottom
    cover = (np.float32(level) * (1 - near * np.float32(rng.uniform(0.3, 1))))[:, None, None]
    return to_pixels(rgb + cover * (light.astype(np.float32) - rgb))


def low_light(rgb: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """The level's share of the light, and noise that grows as the level falls."""
    dark = rgb * np.float32(level)
    amount = np.float32(rng.uniform(0, 1) * (1 - level))
    # variance of read noise, and of shot noise in proportion to the light
    deviation = amount * np.sqrt(np.float32(16) + np.float32(2) * dark)
    return to_pixels(dark + deviation * rng.standard_normal(rgb.shape, np.float32))


KINDS: Mapping[str, tuple[Apply, float, float]] = {
    "gaussian_noise": (disturbances.gaussian_noise, 0, 255),
    "gaussian_blur": (disturbances.gaussian_blur, 0.1, 50),
    "motion_blur": (disturbances.motion_blur, 1, 255),
    "salt_and_pepper": (disturbances.salt_and_pepper, 0, 100),
    "brightness": (disturbances.brightness, 0, 10),
    "contrast": (disturbances.contrast, 0, 10),
    "saturation": (disturbances.saturation, 0, 10),
    "hue": (disturbances.hue, -1, 1),
    "resolution": (resolution, 0.01, 1),
    "jpeg": (disturbances.jpeg, 1, 100),
    "gamma": (gamma, 0.05, 20),
    "haze": (haze, 0, 1),
    "low_light": (low_light, 0, 1),
}
"""By name: the function, and the lowest and highest level."""
