"""What the node says on `/diagnostics`: one entry for each camera, and one for the model that they share."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from std_msgs.msg import Header

from camseg_ros.camera import Camera
from camseg_ros.diagnostics import Health, Limits, Overrun, camera_health, resident_megabytes, status, stream_values
from camseg_ros.parameters import Parameters
from camseg_ros.pipeline import Pipeline


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
            statuses = [self._camera(camera, pipeline, state) for camera in pipeline.cameras.values()]
        statuses.append(self._model(state, pipeline, failure))
        stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(DiagnosticArray(header=Header(stamp=stamp), status=statuses))

    def _camera(self, camera: Camera, pipeline: Pipeline, state: str) -> DiagnosticStatus:
        given, snapshot, publishers = self._settings(), camera.statistics.snapshot(), camera.publishers()
        overrun = self._overruns.setdefault(camera.name, Overrun())
        over = overrun.seconds(snapshot.latency_ms[1] if snapshot.latency_ms else None, given.latency_budget_ms)
        listeners = camera.listeners()
        for new in self._problems.setdefault(camera.name, Problems()).new({*publishers.problems, *listeners.problems}):
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
            "publishers on the input topic": str(len(publishers.suitable) + len(publishers.problems)),
            "publishers that match": ", ".join(publishers.suitable) or "none",
            "publishers that do not": "; ".join(publishers.problems) or "none",
            "listeners to the mask that do not match": "; ".join(listeners.problems) or "none",
            "calibration": camera.info_problem or f"from {camera.info_topic}, if it comes",
            **stream_values(snapshot),
        }
        return status(self._name(camera.name or "camera"), camera.topic, health, values)

    def _model(self, state: str, pipeline: Pipeline | None, failure: str) -> DiagnosticStatus:
        given = self._settings()
        values = {"state": state, "memory (MB)": f"{resident_megabytes():.0f}", "model": given.model}
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
                health = DiagnosticStatus.ERROR, f"the engine is being built again: {worker.trouble}"
            elif segmenter.fallback:
                health = DiagnosticStatus.WARN, f"runs on {segmenter.provider}: {segmenter.fallback}"
        if failure:
            health = DiagnosticStatus.ERROR, failure
        return status(self._name("model"), values.get("provider", ""), health, values)

    def _name(self, part: str) -> str:
        return f"{self._node.get_fully_qualified_name()}: {part}"
