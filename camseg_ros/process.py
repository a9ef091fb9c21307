"""The node as a process: how it starts, hears signals, and ends."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from camseg_core.errors import CamSegError, ConfigError

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOP_TIMEOUT_S = 0.3
"""What a callback that is in work may still take."""


class ServedNode(Protocol):
    """What the process asks of its node, which is an `rclpy.lifecycle.LifecycleNode` besides."""

    fatal: CamSegError | None

    def autostart(self) -> None: ...
    def shut_down(self) -> bool: ...
    def finalize(self) -> None: ...


class Serving(threading.Thread):
    """Starts the node and serves its callbacks in a thread of its own, so that the main thread is free to hear a signal at any time."""

    def __init__(self, node: ServedNode, on_error: Callable[[], None]) -> None:
        # A daemon: loading or inference that hangs cannot keep the process from ending.
        super().__init__(name="serving", daemon=True)
        self._node, self._executor, self._on_error = node, SingleThreadedExecutor(), on_error
        self._stopping = threading.Event()
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._executor.add_node(self._node)  # type: ignore[arg-type]  # it is a Node besides
            self._node.autostart()
            log = ThrottledLog(self._node.get_logger())  # type: ignore[attr-defined]
            while not self._stopping.is_set():
                try:
                    self._executor.spin_once()
                except (ExternalShutdownException, rclpy.executors.ShutdownException):
                    raise
                except Exception as error:  # one callback must not end the others
                    log.warn("callback", f"a callback failed: {type(error).__name__}: {error}")
                if self._node.fatal is not None:
                    raise self._node.fatal
        except BaseException as error:  # raised again in the main thread, by `stop`
            self._error = error
            self._on_error()

    def stop(self) -> bool:
        """Stop serving; False if something is still in work and has to be left behind.

        Raises:
            Exception: whatever ended the serving before it was told to stop.
        """
        self._stopping.set()
        self._executor.create_task(
            lambda: None
        )  # work, however small, makes `spin_once` return; `wake` alone does not
        self.join(STOP_TIMEOUT_S)
        ended = self._node.shut_down() and not self.is_alive()
        if self._error is not None:
            raise self._error
        return ended


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
        """Wait until the first request; signals after it change nothing, as a second one comes from a terminal and `ros2 launch`."""
        os.read(self._reader, 1)
        for number in STOP_SIGNALS:
            signal.signal(
                number, signal.SIG_IGN
            )  # any other handler Python takes away while it ends, and the signal would kill it


def start_middleware(arguments: list[str]) -> None:
    """Start rclpy with the command line's `--ros-args`.

    Raises:
        ConfigError: the command line or a parameter file cannot be read, or the log folder cannot be written.
    """
    try:
        unknown = remove_ros_args(arguments)[1:]
        if not unknown:
            rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    except (
        Exception
    ) as error:  # rclpy has several types for what is wrong with arguments, files and folders
        raise ConfigError(
            f"ROS cannot start: {error}; check --ros-args, the parameter file, and that ROS_LOG_DIR can be written"
        ) from error
    if unknown:
        usage = "this node takes only ROS arguments, such as --ros-args -p model:=camseg-lite --params-file FILE -r image:=/camera/image"
        raise ConfigError(f"unknown argument {unknown[0]!r}; {usage}")


def run(make_node: Callable[[], ServedNode]) -> int:
    """Run a node until SIGINT or SIGTERM.

    Returns:
        The exit code: 0, or 1 after one line on stderr that says what was wrong.
    """
    stop = StopRequest()
    logging.getLogger("camseg_core").addHandler(
        logging.NullHandler()
    )  # what it warns of, the node says with its own logger
    code = 0
    try:
        start_middleware(sys.argv)
        node = make_node()
        serving = Serving(node, stop.ask)
        serving.start()
        stop.wait()
        finished = serving.stop()
    except CamSegError as error:
        sys.stderr.write(f"segmentation_node: {' '.join(str(error).split())}\n")
        code, finished = 1, False
    else:
        if not finished:
            sys.stderr.write("segmentation_node: leaving unfinished work behind\n")
    if finished:
        node.finalize()
        node.destroy_node()  # type: ignore[attr-defined]
        rclpy.shutdown()
        return code
    # Python would wait for the middleware, which waits for the threads that are left; nothing is half published.
    sys.stderr.flush()
    os._exit(code)


class Monitor(threading.Thread):
    """Calls `beat` every `period()` seconds until `stop`.

    A beat that raises is handed to `on_error` and does not end the others.
    """

    def __init__(
        self,
        period: Callable[[], float],
        beat: Callable[[], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        super().__init__(name="monitor", daemon=True)
        self._period, self._beat, self._on_error = period, beat, on_error
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.wait(self._period()):
            try:
                self._beat()
            except Exception as error:  # a watchdog that dies of what it watches is none
                self._on_error(error)

    def stop(self, timeout: float) -> None:
        """End, after the beat that runs now, for which up to `timeout` seconds are waited."""
        self._stopping.set()
        if self.ident is not None:
            self.join(timeout)


PERIOD_S = 5.0
"""The same kind of trouble is logged once in so many seconds; `/diagnostics` has every one in its counts."""


class Logger(Protocol):
    """What is needed of a logger."""

    def warning(self, message: str) -> object: ...


class ThrottledLog:
    """Warns of each kind of trouble once in a while. May be called from any thread."""

    def __init__(self, logger: Logger) -> None:
        self._logger, self._lock = logger, threading.Lock()
        self._said: dict[str, float] = {}

    def warn(self, kind: str, text: str) -> None:
        """Log `text`, unless a text of the same `kind` was logged just before."""
        now = time.monotonic()
        with self._lock:
            # kinds may name what comes from outside: those said long ago are forgotten, or they would be more and more
            self._said = {said: when for said, when in self._said.items() if now - when < PERIOD_S}
            if kind in self._said:
                return
            self._said[kind] = now
        self._logger.warning(text)
