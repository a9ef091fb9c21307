"""The node's health as `diagnostic_msgs`: level, sentence and numbers, per camera and model."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from std_msgs.msg import Header

from camseg_core.runtime.engine import AUTO
from camseg_ros.camera import Camera
from camseg_ros.endpoints import Endpoints
from camseg_ros.parameters import Parameters
from camseg_ros.pipeline import Pipeline
from camseg_ros.process import warn_throttled
from camseg_ros.statistics import INPUT_TOPIC, REPLACED, Snapshot

ERROR_SHOWN_S = 10.0
"""How long an error affects the level; its text and the counts stay."""

LOSS_WARN, LOSS_ERROR = 0.5, 0.9
"""Share of lost images above which it is a warning, and from which it is an error."""

LOSS_LOG_PERIOD_S = 30.0
"""Shortest time between two log lines about the same stream's loss."""

Health = tuple[bytes, str]
"""A level of `DiagnosticStatus`, and one sentence."""


@dataclass(frozen=True)
class Limits:
    """Limits for a camera's stream."""

    budget_ms: float
    """Largest p95 latency in ms."""
    error_after: float
    """Seconds above the budget until the warning becomes an error."""
    silent_after: float
    """Seconds without an image until a warning."""
    advice: str
    """What would make inference faster."""


class Overrun:
    """Measures how long a latency has been above its budget."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None

    def seconds(self, latency_ms: float | None, budget_ms: float) -> float | None:
        """Return the seconds since the latency exceeded the budget; None if it does not."""
        if latency_ms is None or latency_ms <= budget_ms:
            self._since = None
            return None
        now = self._clock()
        self._since = now if self._since is None else self._since
        return now - self._since


class NewProblems:
    """Filters persistent problems so that each is logged once while it lasts."""

    def __init__(self) -> None:
        self._before: set[str] = set()
        self._reported: set[str] = set()

    def of(self, now: set[str]) -> list[str]:
        """Return problems seen twice: at first, the middleware may not know the node's name."""
        new = (now & self._before) - self._reported
        self._before, self._reported = now, (self._reported & now) | new
        return sorted(new)


@dataclass
class CameraHistory:
    """What is remembered of a camera between two reports."""

    overrun: Overrun = field(default_factory=Overrun)
    problems: NewProblems = field(default_factory=NewProblems)


def camera_health(
    snapshot: Snapshot, topic: str, endpoints: Endpoints, limits: Limits, overrun: float | None
) -> Health:
    """Return level and sentence of one camera's active stream.

    Args:
        snapshot: of the stream.
        topic: the camera's image topic.
        endpoints: publishers on it.
        limits: for the stream.
        overrun: seconds above the latency budget, None if below.
    """
    never, silence = snapshot.input_age is None, snapshot.running
    if snapshot.input_age is not None:
        silence = min(snapshot.input_age, silence)
    silent = silence > limits.silent_after or (never and bool(endpoints.problems))
    found: list[Health] = []
    if snapshot.error_age is not None and snapshot.error_age <= ERROR_SHOWN_S:
        answered_since = (
            snapshot.output_age is not None and snapshot.output_age <= snapshot.error_age
        )
        level = DiagnosticStatus.WARN if answered_since else DiagnosticStatus.ERROR
        found.append((level, snapshot.last_error))
    if silent:
        why = _why_silent(never, endpoints)
        found.append((DiagnosticStatus.WARN, f"no images on {topic} for {silence:.0f} s: {why}"))
    elif (lossy := loss_health(snapshot, limits.advice)) is not None:
        found.append(lossy)
    if overrun is not None and snapshot.latency_ms is not None:
        level = DiagnosticStatus.ERROR if overrun >= limits.error_after else DiagnosticStatus.WARN
        above = f"above the budget of {limits.budget_ms:g} ms for {overrun:.0f} s"
        remedy = f"{limits.advice}, or raise latency_budget_ms"
        text = f"p95 latency {snapshot.latency_ms[1]:.0f} ms is {above}; {remedy}"
        found.append((level, text))
    found += [(DiagnosticStatus.WARN, problem) for problem in endpoints.problems]
    if found:
        return max(found, key=lambda health: health[0])  # the first of the worst
    if never:
        return DiagnosticStatus.OK, f"waiting for the first image on {topic}"
    return DiagnosticStatus.OK, "serving"


def loss_health(snapshot: Snapshot, advice: str) -> Health | None:
    """Return level and sentence if most of the last frames were lost for one reason.

    Args:
        snapshot: of the stream.
        advice: what would make inference faster.
    """
    loss = snapshot.loss
    if loss is None or loss.share <= LOSS_WARN:
        return None
    level = DiagnosticStatus.ERROR if loss.share >= LOSS_ERROR else DiagnosticStatus.WARN
    why = loss.cause
    if loss.reason == REPLACED:
        rates = f"{snapshot.rate_in:.1f} images/s arrive, {snapshot.rate_out:.1f} are answered"
        why = f"{rates}; lower the camera's rate, or {advice}"
    return level, f"{loss.lost} of the last {loss.total} images lost: {loss.reason}; {why}"


def _why_silent(never: bool, endpoints: Endpoints) -> str:
    if endpoints.problems:
        return "; ".join(endpoints.problems)
    if not endpoints.suitable:
        return "no publisher; check the topic name and whether the camera runs"
    names = ", ".join(endpoints.suitable)
    # too large frames may still arrive now and then, so earlier frames do not exclude that cause
    sends = "it sends nothing" if never else "it has stopped sending, so check the camera"
    return (
        f"matched with {names}, but silent: either {sends}, or its frames exceed its Fast DDS "
        "shared memory, as best-effort images do by default; start it with "
        "FASTDDS_DEFAULT_PROFILES_FILE=config/fastdds.xml of this package or "
        "FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA"
    )


def faster(parameters: Parameters) -> str:
    """Return what would make inference faster, given the settings in use."""
    used, cores = parameters.sampling, os.cpu_count() or 1
    found = [
        f"lower {name} (now {getattr(used, name)})"
        for name in ("steps", "samples", "passes")
        if getattr(used, name) > 1 and name not in used.without_effect
    ]
    if 0 < parameters.threads < cores:
        found.append(f"raise threads (now {parameters.threads}, of {cores} cores)")
    if parameters.precision not in (AUTO, "int8"):
        found.append(f"set precision: {AUTO} (now {parameters.precision})")
    if len(parameters.camera_names) > 1:
        found.append(f"use fewer cameras (now {len(parameters.camera_names)})")
    return ", ".join([*found, "use a smaller model or a faster provider"])


def status(
    name: str, hardware_id: str, health: Health, values: Mapping[str, str]
) -> DiagnosticStatus:
    """Return one entry of `/diagnostics`."""
    level, message = health
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticStatus(
        level=level, name=name, message=message, hardware_id=hardware_id, values=pairs
    )


def resident_megabytes() -> float:
    """Return this process's resident memory in MB (10^6 bytes)."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class HealthReport:
    """Publishes the health of `node`; the entries are named after it."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._cameras: dict[str, CameraHistory] = {}

    def publish(
        self, state: str, parameters: Parameters, pipeline: Pipeline | None, failure: str
    ) -> None:
        """Publish one report.

        Args:
            state: of the life cycle, such as active.
            parameters: current values.
            pipeline: None while the node is not configured.
            failure: why the node has, or will soon have, no pipeline; empty if nothing is wrong.
        """
        statuses = []
        for camera in pipeline.cameras.values() if pipeline is not None else ():
            idle = "paused by ~/enable" if pipeline and pipeline.paused else state
            active = idle == "active"
            statuses.append(self._camera(camera, parameters, None if active else idle))
        statuses.append(self._model(state, parameters, pipeline, failure))
        stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(DiagnosticArray(header=Header(stamp=stamp), status=statuses))

    def _camera(self, camera: Camera, parameters: Parameters, idle: str | None) -> DiagnosticStatus:
        """Return a camera's entry; `idle` is the reason if no images are processed."""
        snapshot, history = (
            camera.statistics.snapshot(),
            self._cameras.setdefault(camera.name, CameraHistory()),
        )
        publishers, listeners = camera.publishers(), camera.listeners()
        p95_ms = snapshot.latency_ms[1] if snapshot.latency_ms else None
        overrun = history.overrun.seconds(p95_ms, parameters.latency_budget_ms)
        for problem in history.problems.of({*publishers.problems, *listeners.problems}):
            self._node.get_logger().warning(problem)
        health: Health = DiagnosticStatus.OK, idle or ""
        if idle is None:
            limits = Limits(
                parameters.latency_budget_ms,
                parameters.budget_error_after,
                parameters.silent_after,
                faster(parameters),
            )
            health = camera_health(snapshot, camera.topic, publishers, limits, overrun)
            if (lossy := loss_health(snapshot, limits.advice)) is not None:
                kind, text = f"loss.{camera.name}", f"{camera.topic}: {lossy[1]}"
                warn_throttled(self._node, kind, text, LOSS_LOG_PERIOD_S)
        problem = next((each for each in (*listeners.problems, camera.info_problem) if each), "")
        if problem and health[0] == DiagnosticStatus.OK:
            health = DiagnosticStatus.WARN, problem
        count = len(publishers.suitable) + len(publishers.problems)
        values = {
            INPUT_TOPIC: camera.topic,
            "publishers on the input topic": str(count),
            "publishers that match": ", ".join(publishers.suitable) or "none",
            "publishers that do not": "; ".join(publishers.problems) or "none",
            "listeners to the mask that do not match": "; ".join(listeners.problems) or "none",
            "calibration": camera.info_problem or f"from {camera.info_topic}, if available",
            **snapshot.values(),
        }
        return status(self._name(camera.name or "camera"), camera.topic, health, values)

    def _model(
        self, state: str, parameters: Parameters, pipeline: Pipeline | None, failure: str
    ) -> DiagnosticStatus:
        memory = f"{resident_megabytes():.0f}"
        values = {"state": state, "memory (MB)": memory, "model": parameters.model}
        health: Health = DiagnosticStatus.OK, state
        if pipeline is not None:
            segmenter, worker, steps = pipeline.segmenter, pipeline.worker, parameters.steps
            values |= {
                "model": segmenter.name,
                "provider": segmenter.provider,
                "provider fallback": segmenter.fallback or "none",
                "precision": segmenter.precision,
                "sampler": f"{parameters.sampler}, {steps} step{'s' * (steps != 1)}",
                "converter": pipeline.converter.name,
                "engine rebuilds": str(worker.rebuilds if worker else 0),
            }
            if worker is not None and worker.trouble:
                health = DiagnosticStatus.ERROR, f"rebuilding the engine: {worker.trouble}"
            elif segmenter.fallback:
                text = f"runs on {segmenter.provider}: {segmenter.fallback}"
                health = DiagnosticStatus.WARN, text
        if failure:
            health = DiagnosticStatus.ERROR, failure
        return status(self._name("model"), values.get("provider", ""), health, values)

    def _name(self, part: str) -> str:
        return f"{self._node.get_fully_qualified_name()}: {part}"
