"""Counts, rates and latencies of one camera's stream. Needs no ROS."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WINDOW_S = 10.0
"""Rates and latencies cover the last so many seconds."""

MAX_SAMPLES = 1000
"""Upper limit of the samples kept for them, so that a flood cannot fill the memory."""

REPLACED, TOO_OLD, PAUSED, STOPPED = (
    "replaced by a fresher one",
    "too old",
    "paused",
    "stopped before its answer",
)
"""Why good frames are dropped."""

DELIBERATE = (PAUSED, STOPPED)
"""Reasons that are no loss."""

LOSS_FRAMES = 5
"""Fewest frames from which a loss is judged; of a slow camera the last so many, however old."""

INPUT_TOPIC = "input topic"
FRAMES_RECEIVED, FRAMES_PUBLISHED = "frames received", "frames published"
FRAMES_DROPPED, FRAMES_REJECTED = "frames dropped", "frames rejected"
NOISY_FRAMES = "frames with strong noise (%)"
DROPPED_PREFIX, REJECTED_PREFIX = "dropped: ", "rejected: "
"""Keys on `/diagnostics` that other programs read back; the prefixes are followed by a reason."""


def stage_key(stage: str) -> str:
    """Return the key on `/diagnostics` of a stage's median time."""
    return f"stage {stage} (ms)"


@dataclass(frozen=True)
class Loss:
    """The commonest reason for which the last `total` frames were not answered."""

    reason: str
    lost: int
    total: int
    cause: str
    """What was found at the last of them, and what to do; empty if `reason` says it all."""

    @property
    def share(self) -> float:
        """The share of the frames lost for this reason, 0 to 1."""
        return self.lost / self.total


@dataclass(frozen=True)
class Snapshot:
    """The state of a stream; times in seconds, latencies in ms, None if nothing happened yet."""

    received: int
    published: int
    dropped: Mapping[str, int]
    """Count by reason."""
    rejected: Mapping[str, int]
    """Count by reason."""
    publish_failures: int
    rate_in: float
    rate_out: float
    latency_ms: tuple[float, float] | None
    """p50 and p95 from the callback to the published mask."""
    stages_ms: Mapping[str, float]
    """Median of each stage."""
    noisy: float
    """Share of the frames from which noise was removed before the network, 0 to 1."""
    image_size: tuple[int, int] | None
    """Width and height of the last image answered."""
    last_error: str
    input_age: float | None
    output_age: float | None
    error_age: float | None
    running: float
    """Time since the subscription started."""
    loss: Loss | None
    """Of the last `WINDOW_S`; None if all frames were answered, or fewer than `LOSS_FRAMES`."""

    def values(self) -> dict[str, str]:
        """Return the numbers as `/diagnostics` shows them."""
        size, latency, age = self.image_size, self.latency_ms, self.input_age
        return {
            FRAMES_RECEIVED: str(self.received),
            FRAMES_PUBLISHED: str(self.published),
            FRAMES_DROPPED: str(sum(self.dropped.values())),
            **{f"{DROPPED_PREFIX}{why}": str(n) for why, n in sorted(self.dropped.items())},
            FRAMES_REJECTED: str(sum(self.rejected.values())),
            **{f"{REJECTED_PREFIX}{why}": str(n) for why, n in sorted(self.rejected.items())},
            "publish failures": str(self.publish_failures),
            "rate in (Hz)": f"{self.rate_in:.1f}",
            "rate out (Hz)": f"{self.rate_out:.1f}",
            "latency p50 (ms)": f"{latency[0]:.1f}" if latency else "none yet",
            "latency p95 (ms)": f"{latency[1]:.1f}" if latency else "none yet",
            **{stage_key(name): f"{value:.1f}" for name, value in self.stages_ms.items()},
            NOISY_FRAMES: f"{100 * self.noisy:.0f}",
            "image size": f"{size[0]}x{size[1]}" if size else "none yet",
            "age of last input (s)": "none yet" if age is None else f"{age:.1f}",
            "last error": self.last_error or "none",
        }


@dataclass(frozen=True)
class _Sample:
    time: float
    latency_ms: float
    stages_ms: Mapping[str, float]
    noisy: bool


class StreamStatistics:
    """Counts what happens to one camera's frames. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._start = clock()
        self._received = self._published = self._publish_failures = 0
        self._dropped: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._arrivals: deque[float] = deque(maxlen=MAX_SAMPLES)
        self._samples: deque[_Sample] = deque(maxlen=MAX_SAMPLES)
        # when each frame's work ended, and why without an answer; None if it was answered
        self._outcomes: deque[tuple[float, str | None]] = deque(maxlen=MAX_SAMPLES)
        self._causes: dict[str, str] = {}
        self._image_size: tuple[int, int] | None = None
        self._last_error = ""
        self._last_error_time: float | None = None

    def begin(self) -> None:
        """Start the time since which images are taken; the counts continue."""
        with self._lock:
            self._start = self._clock()
            self._outcomes.clear()

    def frame_received(self) -> None:
        """Count a message from the camera."""
        with self._lock:
            self._received += 1
            self._arrivals.append(self._clock())

    def frame_dropped(self, reason: str, cause: str = "") -> None:
        """Count a good frame that is not answered, by `reason` (a few words).

        `cause` is the likely one, and what to do.
        """
        with self._lock:
            self._dropped[reason] += 1
            if reason not in DELIBERATE:
                self._lose(reason, cause)

    def frame_rejected(self, reason: str, text: str) -> None:
        """Count a frame that cannot be answered, by `reason` (a few words); `text` is the error."""
        with self._lock:
            self._rejected[reason] += 1
            self._lose(f"rejected ({reason})", text)
            self._set_error(text)

    def publish_failed(self, text: str) -> None:
        """Count a message that the middleware refused."""
        with self._lock:
            self._publish_failures += 1
            self._set_error(text)

    def frame_published(
        self,
        latency_ms: float,
        stages_ms: Mapping[str, float],
        image_size: tuple[int, int],
        noisy: bool = False,
    ) -> None:
        """Count a published mask; `noisy`: noise was removed from the image."""
        with self._lock:
            self._published += 1
            self._image_size = image_size
            now = self._clock()
            self._outcomes.append((now, None))
            # outdated samples go at once: memory that grows for minutes would look like a leak
            while len(self._samples) > 1 and now - self._samples[0].time > WINDOW_S:
                self._samples.popleft()
            self._samples.append(_Sample(now, latency_ms, dict(stages_ms), noisy))

    def snapshot(self) -> Snapshot:
        """Return the current state."""
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
                noisy=sum(sample.noisy for sample in recent) / len(recent) if recent else 0.0,
                image_size=self._image_size,
                last_error=self._last_error,
                input_age=now - self._arrivals[-1] if self._arrivals else None,
                output_age=now - self._samples[-1].time if self._samples else None,
                error_age=None if self._last_error_time is None else now - self._last_error_time,
                running=now - self._start,
                loss=self._loss(),
            )

    def _lose(self, reason: str, cause: str) -> None:
        self._outcomes.append((self._clock(), reason))
        self._causes[reason] = cause

    def _loss(self) -> Loss | None:
        now, total = self._clock(), len(self._outcomes)
        while total > LOSS_FRAMES and now - self._outcomes[0][0] > WINDOW_S:
            self._outcomes.popleft()
            total -= 1
        lost = Counter(reason for _, reason in self._outcomes if reason is not None)
        if total < LOSS_FRAMES or not lost:
            return None
        ((reason, count),) = lost.most_common(1)
        return Loss(reason, count, total, self._causes[reason])

    def _set_error(self, text: str) -> None:
        self._last_error, self._last_error_time = text, self._clock()


def _rate(moments: Sequence[float]) -> float:
    """Events per second between the first and the last."""
    span = moments[-1] - moments[0] if moments else 0.0
    return (len(moments) - 1) / span if span > 0 else 0.0


def _p50_p95(values: Sequence[float]) -> tuple[float, float]:
    return float(np.median(values)), float(np.percentile(values, 95, method="nearest"))


def _stage_medians(samples: Sequence[_Sample]) -> dict[str, float]:
    names = dict.fromkeys(name for sample in samples for name in sample.stages_ms)
    return {
        name: float(np.median([s.stages_ms[name] for s in samples if name in s.stages_ms]))
        for name in names
    }
