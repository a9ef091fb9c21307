"""Shared by the node's tests: an isolated domain, a driver, and the node as a process."""

from __future__ import annotations  # rclpy's classes are generic only from Kilted on

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from red_engine import RED
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from camseg_ros import shared_memory
from camseg_ros.outputs import image_message

TIMEOUT = 90.0
"""Seconds to wait for anything; long, since the machine may be busy."""

RESENT_AFTER = 3.0
"""Seconds after which an unanswered request is sent again, if it may be repeated."""

WARM_UP = "warm-up"
SUBSTITUTE = (sys.executable, str(Path(__file__).with_name("substitute_node.py")))
"""For `program`: the node with the engine of `substitute_node.py`, whose options may follow."""

QUICK = ("diagnostics_period:=0.1", "warm_up_sizes:=['64x48']")
"""Parameters that shorten waits; later ones win over them."""

RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


@contextmanager
def own_domain() -> Iterator[int]:
    """Reserve a ROS domain that no other test session and no running node uses."""
    for offset in range(101):
        domain = (os.getpid() + offset) % 101 + 1
        with (Path(tempfile.gettempdir()) / f"camseg-domain-{domain}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            if _nobody_listens(domain):
                yield domain
                return
    raise RuntimeError("no ROS domain from 1 to 101 is free")


def _nobody_listens(domain: int) -> bool:
    """Return whether the port of the domain's first participant (DDS's port rule) is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", 7400 + 250 * domain + 10))
        except OSError:
            return False
        return True


def picture(width: int, height: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return a smooth, structured picture, RGB `(height, width, 3)`."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [
        128
        + 100
        * np.sin(
            x / generator.uniform(9, 40) + y / generator.uniform(9, 40) + generator.uniform(0, 6)
        )
        for _ in range(3)
    ]
    return np.stack(waves, -1).astype(np.uint8)


def header(number: int, frame_id: str = "front_camera") -> Header:
    """Return a header whose stamp depends on `number`."""
    return Header(stamp=Time(sec=1000 + number, nanosec=123_000_000 + number), frame_id=frame_id)


def rgb_image(pixels: npt.NDArray[np.uint8], number: int = 0) -> Image:
    """Return `pixels` as an rgb8 message."""
    return image_message(pixels, "rgb8", header(number))


def good_frame(frame_id: str) -> Image:
    """Return a frame that a working node answers."""
    return image_message(picture(64, 48), "rgb8", header(0, frame_id))


def pixels_of(message: Image) -> npt.NDArray[np.uint8]:
    """Return the pixels of a mono8 or rgb8 message without padding."""
    shape = (
        (message.height, message.width)
        if message.encoding == "mono8"
        else (message.height, message.width, 3)
    )
    return np.frombuffer(message.data, np.uint8).reshape(shape)


class Driver:
    """The test's own node: publishes images and receives the outputs, in the test's thread."""

    def __init__(self) -> None:
        self.node = Node("test_driver")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._warm: dict[str, int] = {}

    def close(self) -> None:
        """Remove the node from the middleware."""
        self._executor.shutdown()
        self.node.destroy_node()

    def listen(self, message_type: Any, topic: str, qos: QoSProfile = RELIABLE) -> list[Any]:
        """Return a list that fills with messages of `topic`, except answers to warm-up frames."""
        messages: list[Any] = []
        images = message_type is Image
        if images:
            self._warm[topic] = 0

        def store(message: Any) -> None:
            if images and message.header.frame_id == WARM_UP:
                self._warm[topic] += 1
            else:
                messages.append(message)

        self.node.create_subscription(message_type, topic, store, qos)
        return messages

    def wait(
        self, condition: Callable[[], Any], what: str, details: Callable[[], str] = str
    ) -> None:
        """Run callbacks until `condition` holds; fail with `details` after a timeout."""
        assert self._serve_until(condition, TIMEOUT), (
            f"waited {TIMEOUT:.0f} s for {what}\n{details()}"
        )

    def wait_ready(self, send: Callable[[str], None], alive: Callable[[], None]) -> None:
        """Send warm-up frames until every subscribed image topic has answered one.

        Discovery ends at different times on the two sides; only an answer shows that both have.
        """
        deadline = time.monotonic() + TIMEOUT
        self._warm = dict.fromkeys(self._warm, 0)
        while not all(self._warm.values()):
            assert time.monotonic() < deadline, (
                f"no answer on {[topic for topic, count in self._warm.items() if not count]}"
            )
            alive()
            send(WARM_UP)
            self._serve_until(lambda: all(self._warm.values()), 0.2)

    def serve(self, seconds: float) -> None:
        """Run callbacks for a while."""
        self._serve_until(lambda: False, seconds)

    def _serve_until(self, condition: Callable[[], Any], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._executor.spin_once(timeout_sec=min(left, 0.2))
        return True


class NodeProcess:
    """The segmentation node as a process of its own, or `program` in its place."""

    def __init__(
        self, arguments: tuple[str, ...], folder: Path, program: tuple[str, ...] = ()
    ) -> None:
        folder.mkdir(parents=True)
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        script = shutil.which("segmentation_node", path=str(Path(sys.executable).parent))
        command = program or (
            (script,) if script else (sys.executable, "-m", "camseg_ros.segmentation_node")
        )
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*command, *arguments], stdout=stdout, stderr=stderr, stdin=subprocess.DEVNULL
            )

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    @property
    def output(self) -> str:
        """Everything the process printed, for messages of failing tests."""
        return self._stdout.read_text() + self.stderr

    def assert_alive(self) -> None:
        assert self.process.poll() is None, (
            f"the node ended with {self.process.returncode}:\n{self.output}"
        )

    @property
    def resident_bytes(self) -> int:
        """Resident memory of the process."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop the process by a signal, and check that it exits cleanly."""
        self.assert_alive()
        held = shared_memory.held(self.process.pid)
        self.process.send_signal(number)
        try:
            code = self.process.wait(TIMEOUT)
        finally:
            self.kill()
        assert code == 0, f"exit code {code} after {number.name}:\n{self.output}"
        assert "Traceback" not in self.output, self.output
        assert not [path for path in held if path.exists()], "shared memory is left behind"

    def kill(self) -> None:
        """Kill the process if it still runs, and remove its shared memory."""
        if self.process.poll() is None:
            held = shared_memory.held(self.process.pid)
            self.process.kill()
            self.process.wait()
            shared_memory.remove(held)


class Bench:
    """A node and a driver connected to it: images go in on `/image`, lists fill with outputs."""

    def __init__(
        self,
        driver: Driver,
        node: NodeProcess,
        topics: tuple[str, ...],
        image_type: Any,
        image_topic: str,
        qos: QoSProfile,
    ) -> None:
        self.driver, self.node = driver, node
        self.image_type, self.image_topic, self.qos = image_type, image_topic, qos
        self.publisher = driver.node.create_publisher(image_type, image_topic, qos)
        self.diagnostics: list[DiagnosticArray] = driver.listen(DiagnosticArray, "/diagnostics")
        self.answers: dict[str, list[Image]] = {
            topic: driver.listen(Image, f"/segmentation/{topic}") for topic in topics
        }

    def connect(self, make_frame: Callable[[str], Any]) -> None:
        """Wait until the node answers; `make_frame` returns a good frame with a given frame_id."""
        self.driver.wait_ready(
            lambda frame_id: self.publisher.publish(make_frame(frame_id)), self.node.assert_alive
        )

    def ask(self, *messages: Any) -> list[Image]:
        """Publish the messages one by one, wait for every topic's answer, and return the masks."""
        for message in messages:
            before = {topic: len(answers) for topic, answers in self.answers.items()}
            self.publisher.publish(message)
            self.driver.wait(
                partial(self._answered_since, before),
                f"an answer; the node printed {self.node.output}",
            )
        return self.answers["mask"][-len(messages) :]

    def _answered_since(self, counts: dict[str, int]) -> bool:
        return all(len(self.answers[topic]) > count for topic, count in counts.items())

    def status(
        self,
        condition: Callable[[dict[str, str]], bool],
        what: str,
        part: str = "camera",
        level: bytes | None = None,
        message: str | None = None,
    ) -> tuple[DiagnosticStatus, dict[str, str]]:
        """Return the next status of `part` that meets `condition`, and its values.

        With `level` or `message`, it must have these as well: an older report may still arrive.
        """
        self.diagnostics.clear()
        found: list[tuple[DiagnosticStatus, dict[str, str]]] = []

        def look() -> bool:
            while self.diagnostics and not found:
                for status in self.diagnostics.pop(0).status:
                    values = {value.key: value.value for value in status.values}
                    if (
                        status.name.endswith(f": {part}")
                        and level in (None, status.level)
                        and message in (None, status.message)
                        and condition(values)
                    ):
                        found.append((status, values))
            return bool(found)

        self.driver.wait(look, what)
        return found[0]

    def call(self, service_type: Any, name: str, request: Any) -> Any:
        """Call a service of the node.

        An answer is lost if the node has not discovered the client's reader yet, which a client
        cannot see, so the request is repeated. A change of state is not, as it would start from
        another state: it follows an answered request for a transition that does not exist.
        """
        client: Client[Any, Any] = self.driver.node.create_client(
            service_type, f"/segmentation/{name}"
        )
        self.driver.wait(client.service_is_ready, f"the service {name}")
        repeatable = service_type is not ChangeState
        if not repeatable:
            nothing = ChangeState.Request(transition=Transition(label="no transition"))
            assert not self._answer(client, nothing, repeatable=True).success
        answer = self._answer(client, request, repeatable)
        self.driver.node.destroy_client(client)
        return answer

    def _answer(self, client: Client[Any, Any], request: Any, repeatable: bool) -> Any:
        futures = {time.monotonic(): client.call_async(request)}

        def answered() -> bool:
            if repeatable and time.monotonic() - max(futures) > RESENT_AFTER:
                futures[time.monotonic()] = client.call_async(request)
            return any(future.done() for future in futures.values())

        self.driver.wait(answered, f"an answer of {client.srv_name}", lambda: self.node.output)
        return next(future for future in futures.values() if future.done()).result()

    def set_parameter(self, name: str, value: Any) -> tuple[bool, str]:
        """Set a parameter; return whether the node accepted it, and the reason if not."""
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        (result,) = self.call(SetParameters, "set_parameters", request).results
        return result.successful, result.reason


def assert_served(bench: Bench, number: int) -> None:
    """Check that a node with `RedEngine` answers the next good frame correctly."""
    rgb = picture(64, 48, seed=number)
    (mask,) = bench.ask(rgb_image(rgb, number))
    assert mask.header == header(number)
    assert np.array_equal(pixels_of(mask), np.where(rgb[..., 0] > 128, RED, 0))


StartNode = Callable[..., NodeProcess]
"""The fixture `start_node`: the command line's arguments -> the process."""

StartBench = Callable[..., Bench]
"""The fixture `start_bench`: parameters as `name:=value` -> a node that answers."""
