"""Measures a node repeatedly: latencies, drops by reason, CPU and memory. Needs rclpy."""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.parameter_client import AsyncParameterClient

from camseg_ros.bag.player import Playback, Player
from camseg_ros.bag.schedule import BagInput, read_ahead, schedule
from camseg_ros.statistics import (
    DROPPED_PREFIX,
    FRAMES_PUBLISHED,
    FRAMES_RECEIVED,
    INPUT_TOPIC,
    REJECTED_PREFIX,
)

SERVICE_S, SERVICE_TRIES = 2.0, 3
"""How long to wait for an answer about the node's parameters, and how often to ask."""

Wait = Callable[[Callable[[], bool]], bool]
"""Handles messages until a condition holds or a time limit passes; returns whether it holds."""


def node_parameters(node: Node, topic: str, wait: Wait) -> dict[str, Any] | None:
    """Return the parameters of the node that publishes `topic`; None if it does not answer.

    Args:
        node: the node that asks.
        topic: the topic that the other node publishes.
        wait: handles messages meanwhile.
    """
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return None
    name = f"{publishers[0].node_namespace.rstrip('/')}/{publishers[0].node_name}"
    client: Any = AsyncParameterClient(node, name)
    if not wait(client.services_are_ready):
        return None

    def ask(request: Callable[[], Any]) -> Any:
        for _ in range(SERVICE_TRIES):  # DDS can lose the first answer while discovery goes on
            answer = request()
            if wait(answer.done):
                return answer.result()
        return None

    listed = ask(client.list_parameters)
    if listed is None:
        return None
    names = sorted(listed.result.names)
    values = ask(lambda: client.get_parameters(names))
    if values is None:
        return None
    found = map(parameter_value_to_python, values.values)
    return {name: _plain(value) for name, value in zip(names, found, strict=True)}


def _plain(value: Any) -> Any:
    """Return arrays as lists, for JSON."""
    return value.tolist() if hasattr(value, "tolist") else value


LOST_BEFORE, LOST_AFTER, UNEXPLAINED = (
    "lost on the way to the node",
    "lost on the way back",
    "not explained by the node's counts",
)


@dataclass(frozen=True)
class NodeCounters:
    """A node's counts for one camera since it started; `reasons` with their prefix."""

    received: int
    published: int
    reasons: Mapping[str, int]


def counters_of(diagnostics: Mapping[str, Mapping[str, str]], topic: str) -> NodeCounters | None:
    """Return the counts of the camera on `topic` from the entries of /diagnostics.

    Returns None if it has no entry.
    """
    for values in diagnostics.values():
        received, published = values.get(FRAMES_RECEIVED), values.get(FRAMES_PUBLISHED)
        if values.get(INPUT_TOPIC) == topic and received is not None and published is not None:
            reasons = {
                name: int(value)
                for name, value in values.items()
                if name.startswith((DROPPED_PREFIX, REJECTED_PREFIX))
            }
            return NodeCounters(int(received), int(published), reasons)
    return None


def drops(sent: int, answered: int, before: NodeCounters, after: NodeCounters) -> dict[str, int]:
    """Return the number of unanswered images by reason; they add up to `sent - answered`.

    A number is negative only if other images reached the node meanwhile or it was restarted.
    """
    received, published = after.received - before.received, after.published - before.published
    counts = {
        reason: count - before.reasons.get(reason, 0) for reason, count in after.reasons.items()
    }
    counts |= {LOST_BEFORE: sent - received, LOST_AFTER: published - answered}
    counts[UNEXPLAINED] = sent - answered - sum(counts.values())
    return {reason: count for reason, count in counts.items() if count}


SAMPLE_S = 0.1
"""How often the memory is read."""


@dataclass(frozen=True)
class Usage:
    """CPU in percent of one core, and resident memory in MB (10^6 bytes)."""

    cpu_percent: float
    rss_peak_mb: float
    rss_mean_mb: float


class UsageMonitor:
    """Measures a process inside the `with` block.

    Afterwards `usage` holds the result, or None if the process is unknown or has ended.
    """

    def __init__(self, pid: int | None) -> None:
        self.usage: Usage | None = None
        self._process: psutil.Process | None = None
        with suppress(psutil.Error):
            self._process = psutil.Process(pid) if pid is not None else None
        self._stop = threading.Event()
        self._rss: list[int] = []

    def __enter__(self) -> "UsageMonitor":
        self._began, self._cpu_began = time.monotonic(), self._cpu_seconds()
        self._sampler = threading.Thread(target=self._sample, name="usage-monitor", daemon=True)
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        seconds, cpu = time.monotonic() - self._began, self._cpu_seconds()
        self._stop.set()
        self._sampler.join()
        if self._rss and cpu is not None and self._cpu_began is not None:
            percent, mean = 100 * (cpu - self._cpu_began) / seconds, sum(self._rss) / len(self._rss)
            self.usage = Usage(percent, max(self._rss) / 1e6, mean / 1e6)

    def _cpu_seconds(self) -> float | None:
        with suppress(psutil.Error):  # it ended, which the player's check reports
            return sum(self._process.cpu_times()[:2]) if self._process is not None else None
        return None

    def _sample(self) -> None:
        with suppress(psutil.Error):
            while self._process is not None:
                self._rss.append(self._process.memory_info().rss)
                if self._stop.wait(SAMPLE_S):
                    return


READ_AHEAD_BYTES, MAX_READ_AHEAD, MIN_READ_AHEAD = 64_000_000, 64, 2
"""How much of the bag is read ahead: as many images as fit, between these numbers."""

DEFAULT_PERIOD_S = 1.0


@dataclass(frozen=True)
class Measurement:
    """One measurement.

    `rate_hz` is None for the recorded times; `drops` and `usage` are None if unknown.
    """

    rate_hz: float | None
    playback: Playback
    drops: dict[str, int] | None
    usage: Usage | None


class Session:
    """Measures one node.

    Args:
        bag: what to play.
        player: a player that the node has answered.
        check: raises if the node has ended.
        pid: the node's process, if known.
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
        self._bag, self._player, self._check = bag, player, check
        self._pid, self._timeout_s = pid, timeout_s
        self.parameters: dict[str, Any] | None = node_parameters(
            player.node, player.topics.mask, lambda done: player.spin_until(done, SERVICE_S, check)
        )
        """The node's parameters; None if it does not report them."""
        period = float((self.parameters or {}).get("diagnostics_period", DEFAULT_PERIOD_S))
        self._diagnostics_s = 2 * period + 1

    def measure(self, rate_hz: float | None, seconds: float | None) -> Measurement:
        """Play the bag at a rate or as recorded, for some seconds or once.

        Ctrl-C ends it early, and what was measured counts.

        Raises:
            DataError: the bag is damaged.
            NodeDied: the node ended.
        """
        before = self._counters()
        fitting = READ_AHEAD_BYTES // self._bag.largest_bytes
        ahead = min(max(fitting, MIN_READ_AHEAD), MAX_READ_AHEAD)
        monitor = UsageMonitor(self._pid)
        with read_ahead(schedule(self._bag, rate_hz, seconds), ahead) as images:
            playback = self._player.play(images, self._timeout_s, self._check, monitor)
        after = self._counters()
        lost = None
        if before is not None and after is not None:
            lost = drops(playback.sent, playback.answered, before, after)
        return Measurement(rate_hz, playback, lost, monitor.usage)

    def warm_up(self, rate_hz: float | None, seconds: float) -> None:
        """Play without measuring.

        Raises:
            KeyboardInterrupt: Ctrl-C; nothing has been measured yet.
        """
        with read_ahead(schedule(self._bag, rate_hz, seconds), MIN_READ_AHEAD) as images:
            unmeasured = UsageMonitor(None)
            if self._player.play(images, self._timeout_s, self._check, unmeasured).interrupted:
                raise KeyboardInterrupt

    def _counters(self) -> NodeCounters | None:
        """Return the node's counts as of its next diagnostics, which include all images sent."""
        self._player.diagnostics.clear()

        def counts() -> NodeCounters | None:
            return counters_of(self._player.diagnostics, self._player.image_topic)

        self._player.spin_until(lambda: counts() is not None, self._diagnostics_s, self._check)
        return counts()
