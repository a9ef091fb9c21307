"""The cameras of a benchmark, and the subscriber to the node's masks, matched by their stamps.

Latency is measured by a client: from before `publish` of an rgb8 image to the mask in the
subscriber's callback.
"""

import time
from collections.abc import Callable, Sequence
from types import TracebackType

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from frame_ledger import FrameLedger
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from camseg_core.errors import CamSegError
from camseg_ros.outputs import image_message

TIMEOUT_S = 60.0
"""Default time to wait for an answer, in seconds."""

GREET_AGAIN_S = 1.0
RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)

Size = tuple[int, int]
"""Width and height in pixels."""

ONE = ("",)
"""The only camera of a node, with unprefixed topics."""

SEVERAL = ("left", "right", "front", "rear")


def camera_names(count: int) -> tuple[str, ...]:
    """Names for up to four cameras."""
    return ONE if count == 1 else SEVERAL[:count]


def camera_parameters(cameras: tuple[str, ...]) -> tuple[str, ...]:
    """The node's parameters for these cameras."""
    return () if cameras == ONE else (f"cameras:=[{', '.join(cameras)}]",)


def topic(camera: str, name: str) -> str:
    """A topic of one of the node's cameras."""
    return f"{camera}/{name}" if camera else name


class Driver:
    """The cameras and the listener, in one thread. A context manager.

    Attributes:
        ledgers: what was sent and answered, by camera.
        diagnostics: the newest keys and values of every component on /diagnostics, by its name.
    """

    def __init__(self, cameras: Sequence[str], reliable: bool) -> None:
        rclpy.init(args=[])
        # stamps increase even if the clock is set back
        self._epoch = time.time_ns() - time.monotonic_ns()
        self._node = Node("benchmark")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self.ledgers = {camera: FrameLedger(camera or "camera") for camera in cameras}
        self.diagnostics: dict[str, dict[str, str]] = {}
        qos = RELIABLE if reliable else qos_profile_sensor_data
        self._publishers = {
            camera: self._node.create_publisher(Image, topic(camera, "image"), qos)
            for camera in cameras
        }
        for camera in cameras:
            self._listen(camera)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._note, 10)

    def __enter__(self) -> "Driver":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown()

    def _listen(self, camera: str) -> None:
        ledger = self.ledgers[camera]

        def match(mask: Image) -> None:
            stamp = mask.header.stamp
            ledger.answer(
                stamp.sec * 1_000_000_000 + stamp.nanosec, mask.header.frame_id, time.monotonic()
            )

        self._node.create_subscription(Image, topic(camera, "segmentation/mask"), match, RELIABLE)

    def _note(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.diagnostics[status.name] = {each.key: each.value for each in status.values}

    def frame(self, camera: str, size: Size) -> Image:
        """A message that can be sent repeatedly."""
        width, height = size
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
        return image_message(pixels, "rgb8", Header(frame_id=self.ledgers[camera].frame_id))

    def send(self, camera: str, frame: Image) -> int:
        """Publish a frame with a new stamp, and return the stamp in ns."""
        stamp = self._epoch + time.monotonic_ns()
        frame.header.stamp.sec, frame.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
        self.ledgers[camera].send(stamp, time.monotonic())
        self._publishers[camera].publish(frame)
        return stamp

    def ask(self, camera: str, frame: Image, timeout: float = TIMEOUT_S) -> float | None:
        """Milliseconds from a frame to its mask; None if there was no answer in time."""
        ledger, stamp = self.ledgers[camera], self.send(camera, frame)
        self.serve(timeout, until=lambda: ledger.latency_ms(stamp) is not None)
        return ledger.latency_ms(stamp)

    def serve(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Handle messages until `until` holds or the time is up; return whether it holds."""
        end = time.monotonic() + seconds
        while not until():
            left = end - time.monotonic()
            self._executor.spin_once(timeout_sec=max(left, 0.0))
            if left <= 0:
                return until()
        return True

    def wait_for_node(self, check: Callable[[], None]) -> None:
        """Send small frames until every camera has answered one, since discovery takes time.

        Small frames arrive over any transport. None of them is counted.

        Raises:
            CamSegError: there is no answer in time, or `check` reports that none will come.
        """
        end = time.monotonic() + TIMEOUT_S
        greetings = {camera: self.frame(camera, (64, 48)) for camera in self.ledgers}
        while silent := [camera for camera, ledger in self.ledgers.items() if not ledger.answered]:
            if time.monotonic() > end:
                topics = ", ".join(topic(camera, "segmentation/mask") for camera in silent)
                raise CamSegError(f"no answer within {TIMEOUT_S:.0f} s on {topics}")
            check()
            for camera in silent:
                self.ask(camera, greetings[camera], GREET_AGAIN_S)
        for ledger in self.ledgers.values():
            ledger.restart()

    def hear_diagnostics(self) -> None:
        """Wait for the next report of the node.

        Raises:
            CamSegError: none comes in time.
        """
        self.diagnostics.clear()
        if not self.serve(TIMEOUT_S, until=lambda: bool(self.diagnostics)):
            raise CamSegError(f"nothing on /diagnostics within {TIMEOUT_S:.0f} s")
