"""One node, measured as often as wanted: each measurement with its latencies, the reasons of its drops, CPU and memory. Needs rclpy."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import psutil
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.parameter_client import AsyncParameterClient

from camseg_ros.bag.frames import BagInput
from camseg_ros.bag.player import Played, Player, schedule
from camseg_ros.bag.read_ahead import ReadAhead

Wait = Callable[[Callable[[], bool]], bool]
"""Handles messages until a condition holds, for a limited time; says whether it does."""


def node_parameters(node: Node, topic: str, wait: Wait) -> dict[str, Any] | None:
    """The parameters of the node that publishes `topic`, by name; None where it does not answer.

    Args:
        node: asks.
        topic: what the other one publishes.
        wait: as `Wait` says; it has the node's callbacks run.
    """
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return None
    name = f"{publishers[0].node_namespace.rstrip('/')}/{publishers[0].node_name}"
    client = AsyncParameterClient(node, name)
    if not wait(client.services_are_ready):
        return None
    listed = client.list_parameters()
    if not wait(listed.done):
        return None
    names = sorted(_result(listed).result.names)
    values = client.get_parameters(names)
    if not wait(values.done):
        return None
    return {
        name: _plain(parameter_value_to_python(value))
        for name, value in zip(names, _result(values).values, strict=True)
    }


def _result(future: Any) -> Any:
    return future.result()


def _plain(value: Any) -> Any:
    """Arrays as lists, for JSON."""
    return value.tolist() if hasattr(value, "tolist") else value


RECEIVED, PUBLISHED = "frames received", "frames published"
DROPPED, REJECTED = "dropped: ", "rejected: "
INPUT_TOPIC = "input topic"

LOST_BEFORE, LOST_AFTER, UNEXPLAINED = (
    "lost on the way to the node",
    "lost on the way back",
    "not explained by the node's counts",
)


@dataclass(frozen=True)
class Counters:
    """The counts of one camera's stream in the node, since it started; `reasons` with their prefix."""

    received: int
    published: int
    reasons: Mapping[str, int]


def counters_of(diagnostics: Mapping[str, Mapping[str, str]], topic: str) -> Counters | None:
    """The counts of the camera whose images come on `topic`, from the entries of /diagnostics; None where it has none there."""
    for values in diagnostics.values():
        if values.get(INPUT_TOPIC) == topic and RECEIVED in values and PUBLISHED in values:
            reasons = {
                name: int(value)
                for name, value in values.items()
                if name.startswith((DROPPED, REJECTED))
            }
            return Counters(int(values[RECEIVED]), int(values[PUBLISHED]), reasons)
    return None


def drops(sent: int, answered: int, before: Counters, after: Counters) -> dict[str, int]:
    """How many of the images sent were not answered, by reason; the numbers add up to `sent - answered`.

    Only where other images came to the node meanwhile, or it was restarted, can a number be below 0.
    """
    received, published = after.received - before.received, after.published - before.published
    counts = {
        reason: count - before.reasons.get(reason, 0) for reason, count in after.reasons.items()
    }
    counts |= {LOST_BEFORE: sent - received, LOST_AFTER: published - answered}
    counts[UNEXPLAINED] = sent - answered - sum(counts.values())
    return {reason: count for reason, count in counts.items() if count}


PERIOD_S = 0.1
"""How often the memory is looked at."""


@dataclass(frozen=True)
class Use:
    """CPU in percent of one core, and resident memory in MB (10^6 bytes)."""

    cpu_percent: float
    rss_peak_mb: float
    rss_mean_mb: float


class ProcessUse:
    """Measures a process inside the `with` block; `use` afterwards is None where the process could not be looked at."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._stop = threading.Event()
        self._rss: list[int] = []
        self._began = self._cpu = 0.0
        self.use: Use | None = None

    def __enter__(self) -> "ProcessUse":
        try:
            self._process = None if self._pid is None else psutil.Process(self._pid)
            self._began, self._cpu = time.monotonic(), self._cpu_seconds()
        except psutil.Error:
            self._process = None
        self._thread = threading.Thread(target=self._watch, name="process-use", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        try:
            seconds, cpu = time.monotonic() - self._began, self._cpu_seconds() - self._cpu
        except psutil.Error:
            return
        if self._rss and seconds > 0:
            self.use = Use(
                100 * cpu / seconds, max(self._rss) / 1e6, sum(self._rss) / len(self._rss) / 1e6
            )

    def _cpu_seconds(self) -> float:
        if self._process is None:
            return 0.0
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def _watch(self) -> None:
        try:
            while self._process is not None:
                self._rss.append(self._process.memory_info().rss)
                if self._stop.wait(PERIOD_S):
                    return
        except psutil.Error:  # it ended just now; whoever waits for its answers is told so
            return


AHEAD_BYTES, MOST_AHEAD, LEAST_AHEAD = 64_000_000, 64, 2
"""How much of the bag is read ahead: as many images as fit, within these numbers."""

SERVICE_S = 5.0
"""How long the node may take to answer about its parameters, in s."""

DEFAULT_PERIOD_S = 1.0


@dataclass(frozen=True)
class Measured:
    """One measurement. `rate_hz` is None where the bag was played as recorded; `drops` and `use` where they could not be told."""

    rate_hz: float | None
    played: Played
    drops: dict[str, int] | None
    use: Use | None


class Session:
    """Measures one node.

    Args:
        bag: what to play.
        player: in the node's domain, and greeted by it.
        check: raises where the node is gone.
        pid: of the node's process; None where it is not known.
        timeout_s: how long to wait for answers after the last image, at most.
    """

    def __init__(
        self,
        bag: BagInput,
        player: Player,
        check: Callable[[], None],
        pid: int | None,
        timeout_s: float,
    ) -> None:
        self._bag, self._player, self._check, self._pid, self._timeout_s = (
            bag,
            player,
            check,
            pid,
            timeout_s,
        )
        self.parameters: dict[str, Any] | None = node_parameters(
            player.node, player.topics.mask, lambda done: player.spin_until(done, SERVICE_S, check)
        )
        """As the node reports them; None where it does not."""
        period = float((self.parameters or {}).get("diagnostics_period", DEFAULT_PERIOD_S))
        self._diagnostics_s = 2 * period + 1

    def measure(self, rate_hz: float | None, seconds: float | None) -> Measured:
        """Play the bag at a rate, or as recorded; for so long, or once. Ctrl-C ends it early, and what was measured counts.

        Raises:
            DataError: the bag is damaged.
            NodeDied: the node ended.
        """
        before = self._counters()
        use = ProcessUse(self._pid)
        ahead = min(max(AHEAD_BYTES // self._bag.largest_bytes, LEAST_AHEAD), MOST_AHEAD)
        with ReadAhead(schedule(self._bag, rate_hz, seconds), ahead) as images:
            played = self._player.play(images, self._timeout_s, self._check, use)
        after = self._counters()
        told = (
            None
            if before is None or after is None
            else drops(played.sent, played.answered, before, after)
        )
        return Measured(rate_hz, played, told, use.use)

    def warm_up(self, rate_hz: float | None, seconds: float) -> None:
        """Play without measuring.

        Raises:
            KeyboardInterrupt: Ctrl-C; nothing has been measured yet.
        """
        images = schedule(self._bag, rate_hz, seconds)
        with ReadAhead(images, LEAST_AHEAD) as ready:
            if self._player.play(ready, self._timeout_s, self._check, ProcessUse(None)).interrupted:
                raise KeyboardInterrupt

    def _counters(self) -> Counters | None:
        """The node's counts as of its next diagnostics, when everything sent before is in them."""
        self._player.diagnostics.clear()

        def counts() -> Counters | None:
            return counters_of(self._player.diagnostics, self._player.image_topic)

        self._player.spin_until(lambda: counts() is not None, self._diagnostics_s, self._check)
        return counts()
