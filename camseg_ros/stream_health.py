"""Level and sentence for the state of one camera's stream."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.utilities import get_rmw_implementation_identifier

from camseg_core.runtime.engine import AUTO
from camseg_ros.endpoints import NO_IMAGE_TOPICS, Endpoints
from camseg_ros.middleware import large_images_hint
from camseg_ros.parameters import Parameters
from camseg_ros.statistics import REPLACED, Snapshot

ERROR_SHOWN_S = 10.0
"""How long an error affects the level; its text and the counts stay."""

LOSS_WARN, LOSS_ERROR = 0.5, 0.9
"""Share of lost images above which it is a warning, and from which it is an error."""

NOISY_WARN = 0.5
"""Share of images with strong noise from which it is a warning."""

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


def silence(snapshot: Snapshot, endpoints: Endpoints, limits: Limits) -> float | None:
    """Return the seconds without an image; None if they are not worth a warning."""
    never, seconds = snapshot.input_age is None, snapshot.running
    if snapshot.input_age is not None:
        seconds = min(snapshot.input_age, seconds)
    cannot_come = never and bool(endpoints.problems)
    return seconds if seconds > limits.silent_after or cannot_come else None


def camera_health(
    snapshot: Snapshot,
    topic: str,
    endpoints: Endpoints,
    limits: Limits,
    overrun: float | None,
    remedy: str = NO_IMAGE_TOPICS,
) -> Health:
    """Return level and sentence of one camera's active stream.

    Args:
        snapshot: of the stream.
        topic: the camera's image topic.
        endpoints: publishers on it.
        limits: for the stream.
        overrun: seconds above the latency budget, None if below.
        remedy: what to do if the topic has no publisher.
    """
    never, silent_s = snapshot.input_age is None, silence(snapshot, endpoints, limits)
    found: list[Health] = []
    if snapshot.error_age is not None and snapshot.error_age <= ERROR_SHOWN_S:
        answered_since = (
            snapshot.output_age is not None and snapshot.output_age <= snapshot.error_age
        )
        level = DiagnosticStatus.WARN if answered_since else DiagnosticStatus.ERROR
        found.append((level, snapshot.last_error))
    if silent_s is not None:
        text = silence_text(topic, silent_s, never, endpoints, remedy)
        found.append((DiagnosticStatus.WARN, text))
    elif (lossy := loss_health(snapshot, limits.advice)) is not None:
        found.append(lossy)
    if overrun is not None and snapshot.latency_ms is not None:
        level = DiagnosticStatus.ERROR if overrun >= limits.error_after else DiagnosticStatus.WARN
        above = f"above the budget of {limits.budget_ms:g} ms for {overrun:.0f} s"
        remedy = f"{limits.advice}, or raise latency_budget_ms"
        text = f"p95 latency {snapshot.latency_ms[1]:.0f} ms is {above}; {remedy}"
        found.append((level, text))
    found += [(DiagnosticStatus.WARN, problem) for problem in endpoints.problems]
    if snapshot.noisy >= NOISY_WARN:
        text = f"strong noise in {100 * snapshot.noisy:.0f} % of the last images"
        remedy = "check the camera, its gain and its cable"
        found.append((DiagnosticStatus.WARN, f"{text}, removed before the network; {remedy}"))
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
        if snapshot.latency_ms is None:
            why = "none is answered: see the entry of the model, which is busy or being rebuilt"
    return level, f"{loss.lost} of the last {loss.total} images lost: {loss.reason}; {why}"


def silence_text(topic: str, seconds: float, never: bool, endpoints: Endpoints, remedy: str) -> str:
    """Return what is known about a topic without images.

    Args:
        topic: the camera's image topic.
        seconds: since the last image, or since the subscription.
        never: whether no image has ever come.
        endpoints: publishers on it.
        remedy: what to do without a publisher.
    """
    if endpoints.problems:
        why = "; ".join(endpoints.problems)
    elif not endpoints.suitable:
        why = f"no publisher; {remedy}"
    else:
        # too large frames may still arrive now and then, so earlier frames do not exclude that
        why = "it sends nothing" if never else "it has stopped sending, so check the camera"
        if hint := large_images_hint(get_rmw_implementation_identifier(), os.environ):
            why = (
                f"either {why}, or its frames exceed its Fast DDS shared memory, as best-effort "
                f"images do by default; {hint}"
            )
        why = f"matched with {', '.join(endpoints.suitable)}, but silent: {why}"
    return f"no images on {topic} for {seconds:.0f} s: {why}"


def faster(parameters: Parameters) -> str:
    """Return what would make inference faster, given the settings in use."""
    used, cores = parameters.sampling, core_count()
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
    if parameters.provider != AUTO:
        found.append(f"set provider: {AUTO} (now {parameters.provider})")
    return ", ".join([*found, "use a smaller model"])


def core_count() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))
