"""The node as a process: start, signals, end; its monitor thread and its log."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

import contextlib
import functools
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from camseg_core.errors import CamSegError, ConfigError
from camseg_ros import shared_memory

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOP_TIMEOUT_S = 0.3
"""Time for a running callback to end."""

LOG_PERIOD_S = 5.0
"""Shortest time between two warnings of the same kind; `/diagnostics` counts every occurrence."""


class ServedNode(Protocol):
    """What the process needs from its node, which is an `rclpy.lifecycle.LifecycleNode` as well."""

    fatal: CamSegError | None

    def autostart(self) -> None: ...
    def shut_down(self) -> bool: ...
    def finalize(self) -> None: ...


class Serving(threading.Thread):
    """Starts the node and runs its callbacks; the main thread is free to react to signals."""

    def __init__(self, node: ServedNode, on_error: Callable[[], None]) -> None:
        # a daemon: loading or inference that hangs must not keep the process alive
        super().__init__(name="serving", daemon=True)
        self._node, self._executor, self._on_error = node, SingleThreadedExecutor(), on_error
        self._stopping = threading.Event()
        self.error: BaseException | None = None
        """What ended the serving before it was asked to stop."""

    def run(self) -> None:
        try:
            assert isinstance(self._node, Node)
            self._executor.add_node(self._node)
            self._node.autostart()
            while not self._stopping.is_set():
                try:
                    self._executor.spin_once()
                except (ExternalShutdownException, rclpy.executors.ShutdownException):
                    raise
                except Exception as error:  # one callback must not stop the others
                    text = f"a callback failed: {type(error).__name__}: {error}"
                    warn_throttled(self._node, "callback", text)
                if self._node.fatal is not None:
                    raise self._node.fatal
        except BaseException as error:  # reported by the main thread
            self.error = error
            self._on_error()

    def stop(self) -> bool:
        """Stop serving; False if unfinished work has to be abandoned."""
        self._stopping.set()
        self._executor.create_task(lambda: None)  # makes `spin_once` return; `wake` alone does not
        self.join(STOP_TIMEOUT_S)
        ended = self._node.shut_down() and not self.is_alive()
        if ended:
            self._executor.shutdown()  # after rclpy's end, its destructor would print a traceback
        return ended


class StopSignal:
    """Wakes the main thread at the first of `STOP_SIGNALS` or request of another thread.

    A pipe, not an Event: a signal may interrupt any thread, and setting an Event in a handler can
    deadlock.
    """

    def __init__(self) -> None:
        """Install the handlers.

        A shell may start the node with SIGINT ignored, which does not count; SIGHUP ignored means
        nohup and stays so.
        """
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer)  # Python writes each signal's number into the pipe
        for number in STOP_SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda number, frame: None)

    def ask(self) -> None:
        """Ask to stop, from any thread."""
        os.write(self._writer, b"\0")

    def wait(self) -> None:
        """Wait for the first request; ignore later signals, as `ros2 launch` and terminals send."""
        os.read(self._reader, 1)
        for number in STOP_SIGNALS:
            # Python removes other handlers at exit, and a late signal would then kill the process
            signal.signal(number, signal.SIG_IGN)


def rcl_text(error: Exception) -> str:
    """Return what rclpy raised without the lines of rcl's source."""
    return re.sub(r", at \S+:\d+", "", str(error))


def start_middleware(arguments: list[str]) -> None:
    """Start rclpy with the command line's `--ros-args`.

    Raises:
        ConfigError: the command line or a parameter file is invalid, or the log folder is not
            writable.
    """
    try:
        unknown = remove_ros_args(arguments)[1:]
        if not unknown:
            rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # rclpy has several types for bad arguments, files and folders
        check = "check --ros-args, the parameter file, and that ROS_LOG_DIR is writable"
        raise ConfigError(f"cannot start ROS: {rcl_text(error)}; {check}") from error
    if unknown:
        example = "--ros-args -p model:=camseg-lite --params-file FILE -r image:=/camera/image"
        usage = f"this node takes only ROS arguments such as {example}"
        raise ConfigError(f"unknown argument {unknown[0]!r}; {usage}")


def run(
    make_node: Callable[[], ServedNode], check: Callable[[Sequence[str]], object] = lambda _: None
) -> int:
    """Run a node until one of `STOP_SIGNALS`, and take it down however it ends.

    Args:
        make_node: creates the node, and leaves none behind if it raises.
        check: refuses a command line before anything is started.

    Returns:
        The exit code: 0, or 1 after one line on stderr with the error.
    """
    stop = StopSignal()
    # the node reports the core's warnings through its own logger
    logging.getLogger("camseg_core").addHandler(logging.NullHandler())
    serving: Serving | None = None
    try:
        check(sys.argv)
        start_middleware(sys.argv)
        problems = shared_memory.warnings(os.environ)
        node = make_node()
        assert isinstance(node, Node)
        for text in problems:
            node.get_logger().warning(text)
        serving = Serving(node, stop.ask)
        serving.start()
        stop.wait()
    except BaseException as error:
        return _end(error)
    if not serving.stop():
        _abandon(None if serving.is_alive() else node, serving.error)
    node.finalize()
    node.destroy_node()
    return _end(serving.error)


def _end(error: BaseException | None) -> int:
    """Leave the middleware, report the error, and return the exit code."""
    rclpy.try_shutdown()
    shared_memory.remove(shared_memory.held())  # nothing, unless an error kept a handle alive
    return _report(error)


def _abandon(node: Node | None, error: BaseException | None) -> NoReturn:
    """End the process without waiting for its threads, which Python would; none publishes any more.

    The node leaves the middleware; None if a callback still uses it. Then only its shared memory is
    removed. Its ports stay: a publisher would go on writing to one that is gone, and the next node
    that takes the port's number would get nothing.
    """
    code = _report(error)
    if not code:
        _say("abandoning unfinished work")
    if node is not None:
        leaving = threading.Thread(target=_leave, args=(node,), daemon=True)
        leaving.start()
        leaving.join(STOP_TIMEOUT_S)
    shared_memory.remove(shared_memory.held())
    os._exit(code)


def _leave(node: Node) -> None:
    with contextlib.suppress(Exception):
        node.destroy_node()
        rclpy.try_shutdown()


def _report(error: BaseException | None) -> int:
    if error is None:
        return 0
    if not isinstance(error, CamSegError):
        raise error
    _say(" ".join(str(error).split()))
    return 1


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that is gone
        sys.stderr.write(f"segmentation_node: {text}\n")
        sys.stderr.flush()


class Monitor(threading.Thread):
    """Calls `beat` every `period()` seconds until `stop`; passes exceptions to `on_error`."""

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
            except Exception as error:  # the watchdog must survive errors in its callback
                self._on_error(error)

    def stop(self, timeout: float) -> None:
        """Stop after the current beat, waiting up to `timeout` seconds for it."""
        self._stopping.set()
        if self.ident is not None:
            self.join(timeout)


_child = functools.lru_cache(maxsize=64)(RcutilsLogger.get_child)
"""The logger of one kind; rclpy throttles by logger and line of code."""


def warn_throttled(node: Node, kind: str, text: str, period_s: float = LOG_PERIOD_S) -> None:
    """Log a warning unless one of the same `kind` was logged within `period_s`. Thread-safe.

    A kind has one period.
    """
    _child(node.get_logger(), kind).warning(text, throttle_duration_sec=period_s)
