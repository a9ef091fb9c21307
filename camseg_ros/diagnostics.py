"""The health of the node as `diagnostic_msgs`: a level, one sentence, and the numbers behind it."""

from collections.abc import Mapping

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from camseg_ros.statistics import Snapshot

SILENT_AFTER_S = 3.0
"""A camera that sent nothing for so long is worth a warning."""

ERROR_SHOWN_S = 10.0
"""An error colours the level for so long; the counts and its text stay."""


def health(snapshot: Snapshot, topic: str, publishers: int) -> tuple[bytes, str]:
    """Level and sentence of the state in `snapshot`.

    Args:
        snapshot: of the camera's stream.
        topic: the camera's, for the sentence.
        publishers: how many publishers the middleware has found on it.
    """
    if snapshot.error_age is not None and snapshot.error_age <= ERROR_SHOWN_S:
        # Newer than the last answered frame: nothing has worked since.
        serving = snapshot.output_age is not None and snapshot.output_age <= snapshot.error_age
        return (DiagnosticStatus.WARN if serving else DiagnosticStatus.ERROR), snapshot.last_error
    if snapshot.input_age is None:
        if publishers == 0:
            return (
                DiagnosticStatus.WARN,
                f"no images on {topic} for {snapshot.running:.0f} s: nothing publishes there; check the topic name",
            )
        remedy = "check that QoS and message type match and that the publisher has the Fast DDS profile (config/fastdds.xml)"
        return DiagnosticStatus.WARN, f"no images on {topic} for {snapshot.running:.0f} s although {publishers} publish there; {remedy}"
    if snapshot.input_age > SILENT_AFTER_S:
        return DiagnosticStatus.WARN, f"no images on {topic} for {snapshot.input_age:.0f} s ({publishers} publish there)"
    return DiagnosticStatus.OK, "serving"


def status(name: str, snapshot: Snapshot, facts: Mapping[str, str], publishers: int) -> DiagnosticStatus:
    """The status of one camera.

    Args:
        name: of the status, such as the node's name.
        snapshot: of the camera's stream.
        facts: what does not change from frame to frame; must have `input topic`.
        publishers: how many publishers the middleware has found on it.
    """
    level, message = health(snapshot, facts["input topic"], publishers)
    values = {**facts, **_numbers(snapshot), "publishers on the input topic": str(publishers)}
    return DiagnosticStatus(
        level=level, name=name, message=message, values=[KeyValue(key=key, value=value) for key, value in values.items()]
    )


def diagnostic_array(statuses: list[DiagnosticStatus], stamp: Time) -> DiagnosticArray:
    """The message for `/diagnostics`."""
    return DiagnosticArray(header=Header(stamp=stamp), status=statuses)


def _numbers(snapshot: Snapshot) -> dict[str, str]:
    size, latency = snapshot.image_size, snapshot.latency_ms
    numbers = {
        "frames received": str(snapshot.received),
        "frames published": str(snapshot.published),
        "frames dropped": str(snapshot.dropped),
        "frames rejected": str(sum(snapshot.rejected.values())),
        **{f"rejected: {reason}": str(count) for reason, count in sorted(snapshot.rejected.items())},
        "publish failures": str(snapshot.publish_failures),
        "rate in (Hz)": f"{snapshot.rate_in:.1f}",
        "rate out (Hz)": f"{snapshot.rate_out:.1f}",
        "latency p50 (ms)": f"{latency[0]:.1f}" if latency else "none yet",
        "latency p95 (ms)": f"{latency[1]:.1f}" if latency else "none yet",
        **{f"stage {name} (ms)": f"{value:.1f}" for name, value in snapshot.stages_ms.items()},
        "image size": f"{size[0]}x{size[1]}" if size else "none yet",
        "age of last input (s)": "none yet" if snapshot.input_age is None else f"{snapshot.input_age:.1f}",
        "last error": snapshot.last_error or "none",
    }
    return numbers
