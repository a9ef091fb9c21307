"""One node, measured as often as wanted: each measurement with its latencies, the reasons of its drops, CPU and memory. Needs rclpy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from camseg_ros.bag.counters import Counters, counters_of, drops
from camseg_ros.bag.input import BagInput
from camseg_ros.bag.node_parameters import node_parameters
from camseg_ros.bag.player import Played, Player
from camseg_ros.bag.process_use import ProcessUse, Use
from camseg_ros.bag.read_ahead import ReadAhead
from camseg_ros.bag.schedule import schedule

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

    def __init__(self, bag: BagInput, player: Player, check: Callable[[], None], pid: int | None, timeout_s: float) -> None:
        self._bag, self._player, self._check, self._pid, self._timeout_s = bag, player, check, pid, timeout_s
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
        told = None if before is None or after is None else drops(played.sent, played.answered, before, after)
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
