"""Counts, rates and latencies of one camera's stream, written by two threads and read by a third."""

import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

WINDOW_S = 10.0
"""Rates and latencies are those of the last so many seconds."""

SAMPLES = 1000
"""Most samples kept for them, so that a flood cannot fill the memory."""


REPLACED, TOO_OLD, PAUSED, STOPPED = (
    "replaced by a fresher one",
    "too old",
    "paused",
    "stopped before its turn",
)
"""Why good frames are dropped."""


@dataclass(frozen=True)
class Snapshot:
    """The state of a stream at one moment; times in seconds, latencies in ms, None where nothing happened yet."""

    received: int
    published: int
    dropped: Mapping[str, int]
    """By reason."""
    rejected: Mapping[str, int]
    publish_failures: int
    rate_in: float
    rate_out: float
    latency_ms: tuple[float, float] | None
    """p50 and p95 from the callback to the published mask."""
    stages_ms: Mapping[str, float]
    """Median of each stage."""
    image_size: tuple[int, int] | None
    """Width and height of the last image answered."""
    last_error: str
    input_age: float | None
    output_age: float | None
    error_age: float | None
    running: float
    """Since images are taken."""


@dataclass(frozen=True)
class _Sample:
    time: float
    latency_ms: float
    stages_ms: Mapping[str, float]


class StreamStatistics:
    """Counts what happens to one camera's frames. Every method may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._start = clock()
        self._received = self._published = self._publish_failures = 0
        self._dropped: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._arrivals: deque[float] = deque(maxlen=SAMPLES)
        self._samples: deque[_Sample] = deque(maxlen=SAMPLES)
        self._image_size: tuple[int, int] | None = None
        self._last_error = ""
        self._last_error_time: float | None = None

    def begin(self) -> None:
        """Images are taken from now on, perhaps again; the counts go on."""
        with self._lock:
            self._start = self._clock()

    def frame_received(self) -> None:
        """A message came from the camera."""
        with self._lock:
            self._received += 1
            self._arrivals.append(self._clock())

    def frame_dropped(self, reason: str) -> None:
        """A good frame was not answered, for `reason` (a few words, counted), such as a fresher one that took its place."""
        with self._lock:
            self._dropped[reason] += 1

    def frame_rejected(self, reason: str, text: str) -> None:
        """A frame could not be answered, for `reason` (a few words, counted) as `text` says."""
        with self._lock:
            self._rejected[reason] += 1
            self._set_error(text)

    def publish_failed(self, text: str) -> None:
        """The middleware refused a message."""
        with self._lock:
            self._publish_failures += 1
            self._set_error(text)

    def frame_published(
        self, latency_ms: float, stages_ms: Mapping[str, float], image_size: tuple[int, int]
    ) -> None:
        """A mask went out."""
        with self._lock:
            self._published += 1
            self._image_size = image_size
            now = self._clock()
            # no more than is looked at: memory that grows for minutes would look like a leak
            while len(self._samples) > 1 and now - self._samples[0].time > WINDOW_S:
                self._samples.popleft()
            self._samples.append(_Sample(now, latency_ms, dict(stages_ms)))

    def snapshot(self) -> Snapshot:
        """The state now."""
        with self._lock:
            now = self._clock()
            recent = [sample for sample in self._samples if now - sample.time <= WINDOW_S]
            return Snapshot(
                received=self._received,
                published=self._published,
                dropped=dict(self._dropped),
                rejected=dict(self._rejected),
                publish_failures=self._publish_failures,
                rate_in=_rate([moment for moment in self._arrivals if now - moment <= WINDOW_S]),
                rate_out=_rate([sample.time for sample in recent]),
                latency_ms=_p50_p95([sample.latency_ms for sample in recent]) if recent else None,
                stages_ms=_stage_medians(recent),
                image_size=self._image_size,
                last_error=self._last_error,
                input_age=now - self._arrivals[-1] if self._arrivals else None,
                output_age=now - self._samples[-1].time if self._samples else None,
                error_age=None if self._last_error_time is None else now - self._last_error_time,
                running=now - self._start,
            )

    def _set_error(self, text: str) -> None:
        self._last_error, self._last_error_time = text, self._clock()


def _rate(moments: list[float]) -> float:
    """Events per second, from the time between the first and the last."""
    return (
        (len(moments) - 1) / (moments[-1] - moments[0])
        if len(moments) > 1 and moments[-1] > moments[0]
        else 0.0
    )


def _p50_p95(values: list[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return statistics.median(ordered), ordered[
        min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))
    ]


def _stage_medians(samples: list[_Sample]) -> dict[str, float]:
    names = dict.fromkeys(name for sample in samples for name in sample.stages_ms)
    return {
        name: statistics.median(s.stages_ms[name] for s in samples if name in s.stages_ms)
        for name in names
    }
