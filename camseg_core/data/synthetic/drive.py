"""A synthetic drive: a seeded, procedural street in perspective with exact labels, in clear or bad weather.

The demo, the tests and a CI training run use it so that they need no download. It is not a substitute for real data
and is never quoted as accuracy.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress

import numpy as np

from camseg_core.data.sample import Sample
from camseg_core.data.synthetic.canvas import Camera, Canvas, bend_angle
from camseg_core.data.synthetic.ground import paint_ground, paint_sky, paint_skyline
from camseg_core.data.synthetic.scene import BLOCK_M, VIEW_M, block, moving_things
from camseg_core.data.synthetic.weather import WEATHER, photograph
from camseg_core.errors import ConfigError

WEATHERS: tuple[str, ...] = tuple(WEATHER)
"""The choices for `SyntheticDrive.weather`."""

MIN_SIZE = 16
_SPEED_M_S = 8.0
# Far enough in for everything that moves to have a position from which it came.
_START_M = 200.0
_THING_HALF_M = 4.0


@dataclass(frozen=True)
class SyntheticDrive:
    """A drive of `frames` labelled frames along a street, `height` x `width` pixels.

    The same arguments and index give the same bytes, in whatever order frames are asked for. `fps` sets how far the
    camera moves between frames (it drives at 8 m/s); `severity`, 0 to 1, scales the weather, which never changes a label.

    Raises:
        ConfigError: a value does not fit; the message names it.
    """

    frames: int = 60
    height: int = 360
    width: int = 480
    seed: int = 0
    fps: float = 10.0
    weather: str = "clear"
    severity: float = 0.5

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ConfigError(f"frames is {self.frames}; a drive needs at least 1")
        if min(self.height, self.width) < MIN_SIZE:
            raise ConfigError(
                f"the size is {self.height}x{self.width} (height x width); each must be at least {MIN_SIZE}"
            )
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be at least 0")
        if not 0 < self.fps < float("inf"):
            raise ConfigError(f"fps is {self.fps}; it must be above 0")
        if self.weather not in WEATHERS:
            raise ConfigError(f"weather is {self.weather!r}; choose one of {', '.join(WEATHERS)}")
        if not 0 <= self.severity <= 1:
            raise ConfigError(f"severity is {self.severity}; it must lie in 0..1")

    def __len__(self) -> int:
        return self.frames

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(self.frames))

    def __getitem__(self, index: int) -> Sample:
        """Frame `index`, negative counting from the end.

        Raises:
            IndexError: the drive has no such frame.
        """
        if not -self.frames <= index < self.frames:
            raise IndexError(f"frame {index} of a drive of {self.frames}")
        index %= self.frames
        canvas = self._paint(index / self.fps)
        image = photograph(
            canvas, self.weather, self.severity, np.random.default_rng([self.seed, 4, index])
        )
        return Sample(image, canvas.label, f"synthetic-seed{self.seed}-{self.weather}-{index:06d}")

    def stamp_ns(self, index: int) -> int:
        """When frame `index` is taken, in nanoseconds from the start of the drive."""
        return round(index * 1e9 / self.fps)

    def _paint(self, time: float) -> Canvas:
        """Paint the street `time` seconds into the drive, far to near."""
        camera = self._camera(time)
        canvas = Canvas(camera, lights_on=self.weather == "night")
        first = int(camera.along / BLOCK_M)
        blocks = [
            block(self.seed, index)
            for index in range(first, int((camera.along + VIEW_M) / BLOCK_M) + 1)
        ]
        paint_sky(canvas, self.seed)
        paint_ground(canvas, self.seed, np.vstack([part.shadows for part in blocks]))
        paint_skyline(canvas, self.seed)
        things = [thing for part in blocks for thing in part.things]
        things += moving_things(self.seed, time, _SPEED_M_S, camera.along - 4)
        visible = camera.may_see(
            np.array([(thing.across, thing.far, camera.up) for thing in things]), _THING_HALF_M
        )
        for thing in sorted(compress(things, visible), key=lambda thing: -thing.far):
            thing.draw(canvas)
        return canvas

    def _camera(self, time: float) -> Camera:
        """In the left lane, following the street with a slight sway."""
        along = _START_M + _SPEED_M_S * time
        return Camera(
            height=self.height,
            width=self.width,
            across=-1.75 + 0.15 * float(np.sin(0.4 * time)),
            along=along,
            up=1.4 + 0.01 * float(np.sin(5 * time)),
            yaw=bend_angle(along) + 0.015 * float(np.sin(0.5 * time + 1)),
            pitch=0.02 + 0.003 * float(np.sin(4 * time)),
        )
