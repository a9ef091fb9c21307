"""Measures a node repeatedly: latencies, drops by reason, CPU and memory. Needs rclpy."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from rcl_interfaces.srv import GetParameters, ListParameters
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python

from camseg_core.errors import CamSegError, DataError
from camseg_ros.bag.link import MAX_GAP_S
from camseg_ros.bag.node_process import Usage, UsageMonitor
from camseg_ros.bag.player import Playback, Player, ScheduledImage
from camseg_ros.bag.read import BagInput, ImageBag
from camseg_ros.statistics import (
    DROPPED_PREFIX,
    FRAMES_PUBLISHED,
    FRAMES_RECEIVED,
    INPUT_TOPIC,
    REJECTED_PREFIX,
)

T = TypeVar("T")

SERVICE_S, SERVICE_TRIES = 2.0, 3
"""How long to wait for an answer about the node's parameters, and how often to ask."""

READ_AHEAD_BYTES, MAX_READ_AHEAD, MIN_READ_AHEAD = 64_000_000, 64, 2
"""How much of the bag is read ahead: as many images as fit, between these numbers."""

DEFAULT_PERIOD_S = 1.0

LOST_BEFORE, LOST_AFTER, UNEXPLAINED = (
    "lost on the way to the node",
    "lost on the way back",
    "not explained by the node's counts",
)
"""Reasons that the node does not report."""

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
    listed = _ask(node, ListParameters, f"{name}/list_parameters", ListParameters.Request(), wait)
    if listed is None:
        return None
    names = sorted(listed.result.names)
    request = GetParameters.Request(names=names)
    values = _ask(node, GetParameters, f"{name}/get_parameters", request, wait)
    if values is None:
        return None
    found = map(parameter_value_to_python, values.values)
    return {name: _plain(value) for name, value in zip(names, found, strict=True)}


def _ask(node: Node, service: Any, name: str, request: Any, wait: Wait) -> Any:
    """Return the answer of a service; None if it does not answer.

    Without `rclpy.parameter_client`, which Humble does not have.
    """
    client: Any = node.create_client(service, name)
    try:
        if not wait(client.service_is_ready):
            return None
        for _ in range(SERVICE_TRIES):  # DDS can lose the first answer while discovery goes on
            answer = client.call_async(request)
            if wait(answer.done):
                return answer.result()
        return None
    finally:
        node.destroy_client(client)


def _plain(value: Any) -> Any:
    """Return arrays as lists, for JSON."""
    return value.tolist() if hasattr(value, "tolist") else value


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


def check_rate(bag: BagInput, rate_hz: float | None, seconds: float | None) -> None:
    """Raise DataError if the recorded rate is needed but unknown."""
    if rate_hz is None and bag.recorded_hz is None and (bag.frames > 1 or seconds is not None):
        raise DataError(
            f"the images of {bag.path} were all recorded at one time, so their rate is unknown; "
            "give a rate"
        )


def schedule(
    bag: BagInput, rate_hz: float | None, seconds: float | None
) -> Iterator[ScheduledImage]:
    """Yield the images of a bag and when they are due.

    Opens the bag in the thread that asks for the first image: SQLite ties a file to its thread.

    Args:
        bag: what to play.
        rate_hz: images per second; None for the recorded times, with pauses cut to `MAX_GAP_S`.
        seconds: stop after this time, repeating a shorter bag; None plays it once.

    Raises:
        DataError: the bag is damaged, or its recorded rate is needed but unknown.
    """
    check_rate(bag, rate_hz, seconds)
    rate_at_end = rate_hz or bag.recorded_hz
    with ImageBag(bag.path, bag.topic) as images:
        due, number = 0.0, 0
        while True:
            recorded_ns = None
            for image in images.images(bag.within):
                if rate_hz is not None:
                    due = number / rate_hz
                elif recorded_ns is not None:
                    due += min(max((image.recorded_ns - recorded_ns) / 1e9, 0.0), MAX_GAP_S)
                elif number and rate_at_end is not None:
                    due += min(1 / rate_at_end, MAX_GAP_S)
                if seconds is not None and due >= seconds:
                    return
                yield ScheduledImage(due, image)
                recorded_ns, number = image.recorded_ns, number + 1
            if seconds is None or not number:
                return


@contextmanager
def read_ahead(items: Iterator[T], size: int) -> Iterator[Iterator[T]]:
    """Give the items of an iterator, up to `size` of them read ahead in a thread of its own.

    Enters when `size` items are read. Iterating raises what the iterator raised, in its place.
    """
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
        ahead = deque(reader.submit(next, items, end) for _ in range(size))

        def read() -> Iterator[T]:
            while (item := ahead.popleft().result()) is not end:
                ahead.append(reader.submit(next, items, end))
                yield item  # type: ignore[misc]

        try:
            wait(ahead)
            yield read()
        finally:
            for future in ahead:
                future.cancel()
            reader.submit(getattr(items, "close", lambda: None)).result()


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
        self.unfinished: Measurement | None = None
        """What was measured when `measure` raised an error, if an image was sent."""

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
            try:
                playback = self._player.play(images, self._timeout_s, self._check, monitor)
            except CamSegError:
                if (sent := self._player.playback).sent:
                    self.unfinished = Measurement(rate_hz, sent, None, monitor.usage)
                raise
        after = lost = None
        try:
            after = self._counters()
        except KeyboardInterrupt:
            playback.interrupted = True
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
