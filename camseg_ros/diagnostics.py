"""The health of the node as `diagnostic_msgs`: a level, one sentence, and the numbers behind it, for each camera and the model."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from std_msgs.msg import Header

from camseg_ros.camera import Camera
from camseg_ros.endpoints import Endpoints
from camseg_ros.parameters import Parameters
from camseg_ros.pipeline import Pipeline
from camseg_ros.statistics import Snapshot

ERROR_SHOWN_S = 10.0
"""An error colours the level for so long; the counts and its text stay."""

Health = tuple[bytes, str]
"""A level of `DiagnosticStatus`, and one sentence."""


@dataclass(frozen=True)
class Limits:
    """What a camera's stream is held against; times in seconds but for the budget."""

    budget_ms: float
    """Of the p95 latency."""
    error_after: float
    """Above the budget."""
    silent_after: float
    """Without an image."""


class Overrun:
    """For how long a latency has been above its budget."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._since = clock, None

    _since: float | None

    def seconds(self, latency_ms: float | None, budget_ms: float) -> float | None:
        """Seconds since the latency went above the budget; None while it is not, or there is none."""
        if latency_ms is None or latency_ms <= budget_ms:
            self._since = None
            return None
        now = self._clock()
        self._since = now if self._since is None else self._since
        return now - self._since


def camera_health(
    snapshot: Snapshot, topic: str, endpoints: Endpoints, limits: Limits, overrun: float | None
) -> Health:
    """Level and sentence of one camera's stream that is being served.

    Args:
        snapshot: of the stream.
        topic: the camera's.
        endpoints: the publishers on it.
        limits: what the stream is held against.
        overrun: seconds above the latency budget, None if below.
    """
    if snapshot.error_age is not None and snapshot.error_age <= ERROR_SHOWN_S:
        # Newer than the last answered frame: nothing has worked since.
        serving = snapshot.output_age is not None and snapshot.output_age <= snapshot.error_age
        return (DiagnosticStatus.WARN if serving else DiagnosticStatus.ERROR), snapshot.last_error
    silence = (
        snapshot.running
        if snapshot.input_age is None
        else min(snapshot.input_age, snapshot.running)
    )
    if silence > limits.silent_after or (snapshot.input_age is None and endpoints.problems):
        return (
            DiagnosticStatus.WARN,
            f"no images on {topic} for {silence:.0f} s: {_why_silent(snapshot, endpoints)}",
        )
    if overrun is not None and snapshot.latency_ms is not None:
        level = DiagnosticStatus.ERROR if overrun >= limits.error_after else DiagnosticStatus.WARN
        text = f"p95 latency {snapshot.latency_ms[1]:.0f} ms is above the budget of {limits.budget_ms:g} ms for {overrun:.0f} s"
        return (
            level,
            f"{text}; take fewer steps, a smaller model or fewer cameras, or raise latency_budget_ms",
        )
    if endpoints.problems:
        return DiagnosticStatus.WARN, endpoints.problems[0]
    if snapshot.input_age is None:
        return DiagnosticStatus.OK, f"waiting for the first image on {topic}"
    return DiagnosticStatus.OK, "serving"


def _why_silent(snapshot: Snapshot, endpoints: Endpoints) -> str:
    if endpoints.problems:
        return "; ".join(endpoints.problems)
    if not endpoints.suitable:
        return "nothing publishes there; check the topic name and whether the camera runs"
    names = ", ".join(endpoints.suitable)
    # Frames that are too large may still get through now and then, so that what came before says little of the cause.
    sends = (
        "it sends nothing"
        if snapshot.input_age is None
        else "it has stopped sending, so check the camera"
    )
    return (
        f"matched with {names}, but silent: either {sends}, or its frames are larger than its Fast DDS shared memory takes, "
        "as best-effort images are by default; start it with FASTDDS_DEFAULT_PROFILES_FILE=config/fastdds.xml of this package "
        "or FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA"
    )


def status(
    name: str, hardware_id: str, health: Health, values: Mapping[str, str]
) -> DiagnosticStatus:
    """One entry of `/diagnostics`."""
    level, message = health
    return DiagnosticStatus(
        level=level,
        name=name,
        message=message,
        hardware_id=hardware_id,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )


def stream_values(snapshot: Snapshot) -> dict[str, str]:
    """The numbers of one camera's stream."""
    size, latency = snapshot.image_size, snapshot.latency_ms
    return {
        "frames received": str(snapshot.received),
        "frames published": str(snapshot.published),
        "frames dropped": str(sum(snapshot.dropped.values())),
        **{f"dropped: {reason}": str(count) for reason, count in sorted(snapshot.dropped.items())},
        "frames rejected": str(sum(snapshot.rejected.values())),
        **{
            f"rejected: {reason}": str(count) for reason, count in sorted(snapshot.rejected.items())
        },
        "publish failures": str(snapshot.publish_failures),
        "rate in (Hz)": f"{snapshot.rate_in:.1f}",
        "rate out (Hz)": f"{snapshot.rate_out:.1f}",
        "latency p50 (ms)": f"{latency[0]:.1f}" if latency else "none yet",
        "latency p95 (ms)": f"{latency[1]:.1f}" if latency else "none yet",
        **{f"stage {name} (ms)": f"{value:.1f}" for name, value in snapshot.stages_ms.items()},
        "image size": f"{size[0]}x{size[1]}" if size else "none yet",
        "age of last input (s)": "none yet"
        if snapshot.input_age is None
        else f"{snapshot.input_age:.1f}",
        "last error": snapshot.last_error or "none",
    }


def resident_megabytes() -> float:
    """This process's resident memory in MB (10^6 bytes)."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class Problems:
    """Tells problems that persist from those told already, so that each is logged once for as long as it lasts."""

    def __init__(self) -> None:
        self._before: set[str] = set()
        self._told: set[str] = set()

    def new(self, now: set[str]) -> list[str]:
        """Those that were there the last time as well: at first sight, the middleware may not know the other node's name yet."""
        new = (now & self._before) - self._told
        self._before, self._told = now, (self._told & now) | new
        return sorted(new)


class HealthReport:
    """Publishes the node's health.

    Args:
        node: whose health it is; the entries are named after it.
        settings: gives the parameters' values at the moment.
    """

    def __init__(self, node: Node, settings: Callable[[], Parameters]) -> None:
        self._node, self._settings = node, settings
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._overruns: dict[str, Overrun] = {}
        self._problems: dict[str, Problems] = {}

    def publish(self, state: str, pipeline: Pipeline | None, failure: str) -> None:
        """Tell how the node is.

        Args:
            state: of its life cycle, such as active.
            pipeline: what it works with; None while it is not configured.
            failure: why it has none, or is about to lose it; empty if nothing is wrong.
        """
        statuses = []
        if pipeline is not None:
            statuses = [
                self._camera(camera, pipeline, state) for camera in pipeline.cameras.values()
            ]
        statuses.append(self._model(state, pipeline, failure))
        stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(DiagnosticArray(header=Header(stamp=stamp), status=statuses))

    def _camera(self, camera: Camera, pipeline: Pipeline, state: str) -> DiagnosticStatus:
        given, snapshot, publishers = (
            self._settings(),
            camera.statistics.snapshot(),
            camera.publishers(),
        )
        overrun = self._overruns.setdefault(camera.name, Overrun())
        over = overrun.seconds(
            snapshot.latency_ms[1] if snapshot.latency_ms else None, given.latency_budget_ms
        )
        listeners = camera.listeners()
        for new in self._problems.setdefault(camera.name, Problems()).new(
            {*publishers.problems, *listeners.problems}
        ):
            self._node.get_logger().warning(new)
        health: Health
        if state != "active" or pipeline.paused:
            health = DiagnosticStatus.OK, "paused by ~/enable" if pipeline.paused else state
        else:
            limits = Limits(given.latency_budget_ms, given.budget_error_after, given.silent_after)
            health = camera_health(snapshot, camera.topic, publishers, limits, over)
        problem = next((each for each in (*listeners.problems, camera.info_problem) if each), "")
        if problem and health[0] == DiagnosticStatus.OK:
            health = DiagnosticStatus.WARN, problem
        values = {
            "input topic": camera.topic,
            "publishers on the input topic": str(
                len(publishers.suitable) + len(publishers.problems)
            ),
            "publishers that match": ", ".join(publishers.suitable) or "none",
            "publishers that do not": "; ".join(publishers.problems) or "none",
            "listeners to the mask that do not match": "; ".join(listeners.problems) or "none",
            "calibration": camera.info_problem or f"from {camera.info_topic}, if it comes",
            **stream_values(snapshot),
        }
        return status(self._name(camera.name or "camera"), camera.topic, health, values)

    def _model(self, state: str, pipeline: Pipeline | None, failure: str) -> DiagnosticStatus:
        given = self._settings()
        values = {
            "state": state,
            "memory (MB)": f"{resident_megabytes():.0f}",
            "model": given.model,
        }
        health: Health = DiagnosticStatus.OK, state
        if pipeline is not None:
            segmenter, worker = pipeline.segmenter, pipeline.worker
            values |= {
                "model": segmenter.name,
                "provider": segmenter.provider,
                "provider fallback": segmenter.fallback or "none",
                "precision": segmenter.precision,
                "sampler": f"{given.sampler}, {given.steps} step{'s' * (given.steps != 1)}",
                "converter": pipeline.converter.name,
                "engine rebuilds": str(worker.rebuilds if worker else 0),
            }
            if worker is not None and worker.trouble:
                health = (
                    DiagnosticStatus.ERROR,
                    f"the engine is being built again: {worker.trouble}",
                )
            elif segmenter.fallback:
                health = (
                    DiagnosticStatus.WARN,
                    f"runs on {segmenter.provider}: {segmenter.fallback}",
                )
        if failure:
            health = DiagnosticStatus.ERROR, failure
        return status(self._name("model"), values.get("provider", ""), health, values)

    def _name(self, part: str) -> str:
        return f"{self._node.get_fully_qualified_name()}: {part}"
