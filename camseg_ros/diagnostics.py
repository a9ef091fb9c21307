"""The node's health as `diagnostic_msgs`: level, sentence and numbers, per camera and model."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from std_msgs.msg import Header

from camseg_ros.camera import Camera
from camseg_ros.endpoints import NO_IMAGE_TOPICS, several_sources
from camseg_ros.parameters import Parameters
from camseg_ros.pipeline import Pipeline
from camseg_ros.process import warn_throttled
from camseg_ros.statistics import INPUT_TOPIC
from camseg_ros.stream_health import (
    Health,
    Limits,
    Overrun,
    camera_health,
    core_count,
    faster,
    loss_health,
    silence,
    silence_text,
)

DISCOVERY_S = 5.0
"""How long to wait for image topics before the log says that there are none."""

LOG_PERIOD_S = 30.0
"""Shortest time between two log lines about the same stream's loss, or about the clock."""

NO_CLOCK = (
    "use_sim_time is true, but nothing publishes /clock; play the bag with --clock, start the "
    "simulation, or set use_sim_time: false"
)


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
    silence_logged: bool = False
    """Whether the silence that lasts was logged."""


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
        rivals, sources = camera.rivals(), several_sources(camera.topic, publishers)
        conflicts = [problem for problem in (rivals, sources, *listeners.problems) if problem]
        for problem in history.problems.of({*publishers.problems, *conflicts}):
            self._node.get_logger().warning(problem)
        health: Health = DiagnosticStatus.OK, idle or ""
        if idle is None:
            camera.seek_latched_calibration()
            limits = Limits(
                parameters.latency_budget_ms,
                parameters.budget_error_after,
                parameters.silent_after,
                faster(parameters),
            )
            silent_s = silence(snapshot, publishers, limits)
            remedy = "" if silent_s is None or publishers.suitable else camera.topic_remedy()
            health = camera_health(snapshot, camera.topic, publishers, limits, overrun, remedy)
            discovered = remedy != NO_IMAGE_TOPICS or snapshot.running > DISCOVERY_S
            if silent_s is None or silent_s <= limits.silent_after:
                history.silence_logged = False
            elif discovered and not history.silence_logged:
                history.silence_logged = True
                never = snapshot.input_age is None
                text = silence_text(camera.topic, silent_s, never, publishers, remedy)
                self._node.get_logger().warning(text)
            if (lossy := loss_health(snapshot, limits.advice)) is not None:
                kind, text = f"loss.{camera.name}", f"{camera.topic}: {lossy[1]}"
                warn_throttled(self._node, kind, text, LOG_PERIOD_S)
        max_age_ms = parameters.by_camera[camera.name].max_age_ms
        others = (
            *conflicts,
            camera.info_problem,
            camera.range_problem,
            camera.clock_problem(max_age_ms),
        )
        problem = next((each for each in others if each), "")
        if problem and health[0] == DiagnosticStatus.OK:
            health = DiagnosticStatus.WARN, problem
        count = len(publishers.suitable) + len(publishers.problems)
        values = {
            INPUT_TOPIC: camera.topic,
            "publishers on the input topic": str(count),
            "publishers that match": ", ".join(publishers.suitable) or "none",
            "publishers that do not": "; ".join(publishers.problems) or "none",
            "other publishers of the mask": rivals or "none",
            "listeners to the mask that do not match": "; ".join(listeners.problems) or "none",
            "calibration": camera.calibration(),
            **snapshot.values(),
        }
        return status(self._name(camera.name or "camera"), camera.topic, health, values)

    def _model(
        self, state: str, parameters: Parameters, pipeline: Pipeline | None, failure: str
    ) -> DiagnosticStatus:
        memory = f"{resident_megabytes():.0f}"
        values = {"state": state, "memory (MB)": memory, "model": parameters.model}
        health: Health = DiagnosticStatus.OK, state
        simulated = self._node.get_parameter("use_sim_time").value
        # a clock may stand at 0, or its first message wait until the model is loaded
        if simulated and not self._now() and not self._node.count_publishers("/clock"):
            health = DiagnosticStatus.WARN, NO_CLOCK
            warn_throttled(self._node, "clock", NO_CLOCK, LOG_PERIOD_S)
        if pipeline is not None:
            segmenter, worker, sampling = pipeline.segmenter, pipeline.worker, parameters.sampling
            steps = 1 if "steps" in sampling.without_effect else sampling.steps
            compilations = segmenter.compilations
            values |= {
                "model": segmenter.name,
                "checkpoint folder": str(segmenter.folder),
                "provider": segmenter.provider,
                "provider choice": segmenter.choice or "given",
                "provider fallback": segmenter.fallback or "none",
                "engine": segmenter.engine,
                "precision": segmenter.precision,
                "threads": f"{segmenter.threads or 'all'} of {core_count()} cores",
                "compilations": str(compilations.count),
                "last compilation": compilations.last or "none",
                "sampler": f"{parameters.sampler}, {steps} step{'s' * (steps != 1)}",
                "converter": pipeline.converter.name,
                "engine rebuilds": str(worker.rebuilds if worker else 0),
            }
            if worker is not None and worker.trouble:
                health = DiagnosticStatus.ERROR, f"rebuilding the engine: {worker.trouble}"
            elif compilations.running:
                health = DiagnosticStatus.WARN, f"compiling {compilations.running}"
            elif segmenter.fallback:
                text = f"runs on {segmenter.provider}: {segmenter.fallback}"
                health = DiagnosticStatus.WARN, text
        if failure:
            health = DiagnosticStatus.ERROR, failure
        return status(self._name("model"), values.get("provider", ""), health, values)

    def _now(self) -> int:
        """Return the node's time in ns; 0 with `use_sim_time` until /clock comes."""
        return int(self._node.get_clock().now().nanoseconds)

    def _name(self, part: str) -> str:
        return f"{self._node.get_fully_qualified_name()}: {part}"
