"""The ROS 2 node: camera images in, semantic masks out. Wiring only; the work is done by the modules it imports."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from rclpy.timer import Timer
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CompressedImage, Image

from camseg_core.errors import CamSegError, ConfigError
from camseg_core.runtime import Segmenter
from camseg_ros import parameters
from camseg_ros.camera import Camera
from camseg_ros.diagnostics import diagnostic_array, status
from camseg_ros.image_conversion import Converter, choose_converter
from camseg_ros.image_messages import BadImage
from camseg_ros.inference_worker import Frame, InferenceWorker

NODE_NAME = "segmentation"
CAMERA = "camera"
LOG_PERIOD_S = 5.0
"""The same kind of trouble is logged once in so many seconds; `/diagnostics` has every one in its counts."""
STOP_TIMEOUT_S = 5.0
WARM_UP_SIZE = 480, 640
"""Height and width of the frame that warms the model up: the camera's are not known yet, but its shape is often 4:3."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SegmentationNode(Node):
    """Subscribes to a camera, answers each image with a mask, and reports its own health.

    `load`, `start` and `stop` are the steps of its life; nothing is published before `start` or after `stop`.
    """

    def __init__(self) -> None:
        """Declare the parameters and make the publishers.

        Raises:
            ConfigError: a parameter given by the user has the wrong type or is out of range.
        """
        super().__init__(NODE_NAME, automatically_declare_parameters_from_overrides=True)
        self._settings, warnings = parameters.declare(self)
        for warning in warnings:
            self.get_logger().warning(warning)
        self._camera = Camera(self, self._settings)
        self._worker = InferenceWorker([CAMERA], self._answer, self._count_drop, self._reject)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer: Timer | None = None
        self._segmenter: Segmenter
        self._converter: Converter
        self._logged: dict[str, float] = {}
        self.add_on_set_parameters_callback(self._change_parameters)

    def load(self) -> None:
        """Load the model and choose how images are converted.

        Raises:
            ModelError: the checkpoint folder is missing or damaged, or has no graphs in the precision asked for.
            ConfigError: the provider is not there, the sampler does not suit, or nothing can convert images.
        """
        given = self._settings
        self._segmenter = Segmenter.from_pretrained(
            given.model,
            provider=given.provider,
            precision=given.precision,
            threads=given.threads,
            sampler=given.sampler,
            steps=given.steps,
            seed=given.seed,
            temperature=None if given.temperature < 0 else given.temperature,
            eta=given.eta,
            samples=given.samples,
            passes=given.passes,
            order=given.order,
            engine_cache=given.engine_cache or None,
        )
        if self._segmenter.fallback:
            self.get_logger().warning(f"the model runs on {self._segmenter.provider}: {self._segmenter.fallback}")
        self._segmenter.warm_up(*WARM_UP_SIZE)
        self._converter = choose_converter()

    def start(self) -> None:
        """Begin to take images and to report."""
        self._worker.start()
        self._camera.subscribe(self._store)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # reports go on when simulated time stands still
        self._timer = self.create_timer(self._settings.diagnostics_period, self._report, clock=steady)
        given, model = self._settings, self._segmenter
        self.get_logger().info(
            f"ready: model {model.name} on {model.provider} in {model.precision}, images from {self._camera.topic} "
            f"({given.image_transport}, {given.image_reliability}), converted by {self._converter.name}"
        )

    def stop(self, timeout: float) -> bool:
        """Take no more images and finish the one in work, for up to `timeout` seconds; False if it is still in work then."""
        self._camera.unsubscribe()
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None
        return self._worker.stop(timeout)

    def _store(self, message: Image | CompressedImage) -> None:
        """The subscription's callback: keeps the message and returns, so that the freshest one is always at hand."""
        self._camera.statistics.frame_received()
        self._worker.put(Frame(CAMERA, message))

    def _answer(self, frame: Frame[Image | CompressedImage]) -> None:
        """Turn one message into a mask and publish it (in the worker's thread)."""
        started = time.monotonic()
        rgb = self._camera.decode(frame.message, self._converter)
        decoded = time.monotonic()
        result = self._segmenter.segment(rgb)
        if self._worker.stopping:
            return
        segmented = time.monotonic()
        mask_out, failures = self._camera.publish(frame.message.header, rgb, result, self._settings.overlay_opacity)
        for failure in failures:
            self._camera.statistics.publish_failed(failure)
            self._log("publish", failure)
        if mask_out is None:
            return
        stages = {
            "wait": started - frame.received,
            "read": decoded - started,
            "publish": mask_out - segmented,
            "pictures": time.monotonic() - mask_out,
        }
        milliseconds = {name: seconds * 1e3 for name, seconds in stages.items()} | result.timings
        height, width = result.mask.shape
        self._camera.statistics.frame_published((mask_out - frame.received) * 1e3, milliseconds, (width, height))

    def _reject(self, frame: Frame[Image | CompressedImage], error: Exception) -> None:
        """Tell that a frame could not be answered; the next one is served as usual."""
        reason, text = "inference failed", f"{type(error).__name__}: {error}"
        if isinstance(error, CamSegError):
            reason, text = (error.reason if isinstance(error, BadImage) else "cannot convert"), str(error)
        text = f"{self._camera.topic}: {' '.join(text.split())}"
        self._camera.statistics.frame_rejected(reason, text)
        self._log(reason, f"image rejected ({reason}): {text}")

    def _count_drop(self, camera: str) -> None:
        self._camera.statistics.frame_dropped()

    def _log(self, kind: str, text: str) -> None:
        """Warn, but not more often than once in a while about each kind of trouble (only called in the worker's thread)."""
        now = time.monotonic()
        if now - self._logged.get(kind, -LOG_PERIOD_S) >= LOG_PERIOD_S:
            self._logged[kind] = now
            self.get_logger().warning(text)

    def _report(self) -> None:
        """Publish the node's health."""
        facts = {
            "model": self._segmenter.name,
            "provider": self._segmenter.provider,
            "provider fallback": self._segmenter.fallback or "none",
            "precision": self._segmenter.precision,
            "converter": self._converter.name,
            "input topic": self._camera.topic,
        }
        camera = self._camera
        health = status(self.get_fully_qualified_name(), camera.statistics.snapshot(), facts, camera.publisher_count())
        self._diagnostics.publish(diagnostic_array([health], self.get_clock().now().to_msg()))

    def _change_parameters(self, wanted: list[Parameter]) -> SetParametersResult:  # type: ignore[type-arg]
        self._settings, answer = parameters.change(self._settings, wanted)
        return answer


class Serving(threading.Thread):
    """Loads the model and serves the node in a thread of its own, so that the main thread is free to hear a signal at any time."""

    def __init__(self, node: SegmentationNode, on_error: Callable[[], None]) -> None:
        # A daemon: loading or inference that hangs cannot keep the process from ending.
        super().__init__(name="serving", daemon=True)
        self._node, self._executor, self._on_error = node, SingleThreadedExecutor(), on_error
        self._stopping = threading.Event()
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._node.load()
            if not self._stopping.is_set():
                self._node.start()
                self._executor.add_node(self._node)
            while not self._stopping.is_set():
                self._executor.spin_once()
        except BaseException as error:  # raised again in the main thread, by `stop`
            self._error = error
            self._on_error()

    def stop(self) -> bool:
        """Stop serving; False if something is still in work and has to be left behind.

        Raises:
            Exception: whatever ended the serving before it was told to stop.
        """
        self._stopping.set()
        self._executor.create_task(lambda: None)  # work, however small, makes `spin_once` return; `wake` alone does not
        self.join(STOP_TIMEOUT_S)
        if self._error is not None:
            raise self._error
        return not self.is_alive() and self._node.stop(STOP_TIMEOUT_S)


class StopRequest:
    """SIGINT or SIGTERM, or a thread that asks to stop: whatever comes first wakes the main thread.

    A pipe, and not an Event: the signal may come to any thread, and setting an Event from a handler can deadlock.
    """

    def __init__(self) -> None:
        """Take the signals over, also where a shell that started the node in the background had them ignored."""
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer)  # Python writes the number of each signal into the pipe
        for number in STOP_SIGNALS:
            signal.signal(number, lambda number, frame: None)

    def ask(self) -> None:
        """Ask to stop, from any thread."""
        os.write(self._writer, b"\0")

    def wait(self) -> None:
        """Wait until the first request."""
        os.read(self._reader, 1)


def start_middleware(arguments: list[str]) -> None:
    """Start rclpy with the command line's `--ros-args`.

    Raises:
        ConfigError: the command line or a parameter file cannot be read, or the log folder cannot be written.
    """
    try:
        unknown = remove_ros_args(arguments)[1:]
        if not unknown:
            rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # rclpy has several types for what is wrong with arguments, files and folders
        raise ConfigError(
            f"ROS cannot start: {error}; check --ros-args, the parameter file, and that ROS_LOG_DIR can be written"
        ) from error
    if unknown:
        usage = "this node takes only ROS arguments, such as --ros-args -p model:=camseg-lite --params-file FILE -r image:=/camera/image"
        raise ConfigError(f"unknown argument {unknown[0]!r}; {usage}")


def main() -> int:
    """Run the node until SIGINT or SIGTERM. Exit code 0, or 1 with one line on stderr that says what was wrong."""
    stop = StopRequest()
    logging.getLogger("camseg_core").addHandler(logging.NullHandler())  # what it warns of, the node says with its own logger
    try:
        start_middleware(sys.argv)
        node = SegmentationNode()
        serving = Serving(node, stop.ask)
        serving.start()
        stop.wait()
        finished = serving.stop()
    except CamSegError as error:
        sys.stderr.write(f"segmentation_node: {' '.join(str(error).split())}\n")
        return 1
    if not finished:
        # Python would wait for the middleware, which waits for the thread that hangs; nothing is half published.
        sys.stderr.write("segmentation_node: leaving unfinished work behind\n")
        sys.stderr.flush()
        os._exit(0)
    node.destroy_node()
    rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
