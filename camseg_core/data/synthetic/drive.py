"""The synthetic drive: a seeded, procedural street with exact labels, in clear or bad weather.

The demo, the tests and a CI training run use it because it needs no download. It does not replace
real data, and scores on it are never quoted as accuracy.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress

import numpy as np

from camseg_core.data import Sample
from camseg_core.data.synthetic.camera import PinholeCamera, bend_angle
from camseg_core.data.synthetic.canvas import Canvas
from camseg_core.data.synthetic.ground import paint_ground, paint_sky, paint_skyline
from camseg_core.data.synthetic.scene import BLOCK_M, VIEW_M, block, moving_things
from camseg_core.data.synthetic.weather import WEATHER, photograph
from camseg_core.errors import ConfigError

WEATHERS: tuple[str, ...] = tuple(WEATHER)
"""The choices for `SyntheticDrive.weather`."""

MIN_SIZE = 16
_SPEED_M_S = 8.0
# far enough from the origin that everything that moves has a place to come from
_START_M = 200.0
_THING_HALF_M = 4.0


@dataclass(frozen=True)
class SyntheticDrive:
    """A drive of `frames` labelled frames along a street, `height` x `width` pixels.

    The same arguments and index give the same bytes, in any order of access. `fps` sets how far the
    camera moves between frames (it drives at 8 m/s); `severity`, 0 to 1, scales the weather, which
    never changes a label. `camera_height` is in metres above the road, 0.3 to 10.

    Raises:
        ConfigError: a value is out of range; the message names it.
    """

    frames: int = 60
    height: int = 360
    width: int = 480
    seed: int = 0
    fps: float = 10.0
    weather: str = "clear"
    severity: float = 0.5
    camera_height: float = 1.4

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ConfigError(f"frames must be >= 1, got {self.frames}")
        if min(self.height, self.width) < MIN_SIZE:
            raise ConfigError(
                f"height and width must be >= {MIN_SIZE}, got {self.height}x{self.width}"
            )
        if self.seed < 0:
            raise ConfigError(f"seed must be >= 0, got {self.seed}")
        if not 0 < self.fps < float("inf"):
            raise ConfigError(f"fps must be above 0, got {self.fps}")
        if self.weather not in WEATHERS:
            raise ConfigError(f"weather must be one of {', '.join(WEATHERS)}, got {self.weather!r}")
        if not 0 <= self.severity <= 1:
            raise ConfigError(f"severity must be from 0 to 1, got {self.severity}")
        if not 0.3 <= self.camera_height <= 10:
            raise ConfigError(f"camera_height must be from 0.3 to 10 m, got {self.camera_height}")

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
        """Time of frame `index` in nanoseconds from the start of the drive."""
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

    def _camera(self, time: float) -> PinholeCamera:
        """The camera: in the left lane, following the street with a slight sway."""
        along = _START_M + _SPEED_M_S * time
        return PinholeCamera(
            height=self.height,
            width=self.width,
            across=-1.75 + 0.15 * float(np.sin(0.4 * time)),
            along=along,
            up=self.camera_height + 0.01 * float(np.sin(5 * time)),
            yaw=bend_angle(along) + 0.015 * float(np.sin(0.5 * time + 1)),
            pitch=0.02 + 0.003 * float(np.sin(4 * time)),
        )
