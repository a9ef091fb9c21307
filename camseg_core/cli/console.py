"""Console handling that all commands share: any name printable, one-line errors, exit codes."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper

from camseg_core.errors import CamSegError, ModelDifferences, is_out_of_memory

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_CLOSED_PIPE = 1, 2, 130, 141


@contextmanager
def command_line(program: str, kept: Callable[[], str] = str) -> Iterator[None]:
    """Run a command; errors that files, names and terminals can cause end it with one line.

    The line goes to stderr, without a traceback. Other errors are bugs and keep their traceback.

    Args:
        program: begins the line.
        kept: returns what an interrupted command leaves behind, or an empty text.

    Raises:
        SystemExit: with 2 after an error, 130 after Ctrl-C, 141 if the reader of stdout went away.
    """
    print_any_text()
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except ModelDifferences as error:
        for each in f"{program}: error: {error}".split("\n"):
            say(each)
        sys.exit(EXIT_BAD_INPUT)
    except CamSegError as error:
        code, line = EXIT_BAD_INPUT, f"error: {error}"
    except KeyboardInterrupt:
        code, line = EXIT_INTERRUPTED, "; ".join(filter(None, ["interrupted", kept()]))
    except BrokenPipeError:
        _discard_stdout()
        code = EXIT_CLOSED_PIPE
        line = "; ".join(filter(None, ["stopped: the reader of the output went away", kept()]))
    except OSError as error:
        _discard_stdout()  # it may be what cannot be written, as on a full disk
        where = f": {os.fsdecode(error.filename)}" if error.filename is not None else ""
        code, line = EXIT_BAD_INPUT, f"error: {error.strerror or error}{where}"
    except (UnicodeEncodeError, UnicodeDecodeError) as error:
        code, line = EXIT_BAD_INPUT, f"error: a name must be UTF-8, got {error.object!r}; rename it"
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        code = EXIT_BAD_INPUT
        line = "error: out of memory; use smaller images, or free some memory"
    else:
        return
    say(f"{program}: {line}")
    sys.exit(code)


def say(line: str) -> None:
    """Write a line to stderr, if it can be written at all."""
    with suppress(OSError, ValueError):  # closed, or a pipe without a reader
        sys.stderr.write(printable(line) + "\n")
        sys.stderr.flush()


def printable(text: str) -> str:
    """Return the text with escapes for line ends, control characters and bytes that are not UTF-8.

    They come from names of files and topics, and would break a line or change the terminal.
    """
    if text.isprintable():
        return text
    shown = (c if c.isprintable() else c.encode("unicode_escape", "surrogatepass") for c in text)
    return "".join(c if isinstance(c, str) else c.decode() for c in shown)


def print_lines(*lines: str) -> None:
    """Print lines to stdout at once, each `printable`."""
    sys.stdout.write("".join(f"{printable(line)}\n" for line in lines))
    sys.stdout.flush()


ROS_PACKAGES = ("rclpy", "ament_index_python", "rpyutils", "rosidl_runtime_py")
"""Python packages of a ROS installation, besides those of messages and services."""


DISTRIBUTIONS = {"yaml": "pyyaml", "rosbags": "rosbags rosbags-image", "PIL": "pillow"}
"""What pip installs for packages that have another name there, or need another one."""


def how_to_install(task: str, error: ImportError, extra: str) -> str:
    """Return an error message that says how to install what could not be imported.

    Where a ROS installation is sourced, it names single packages, and those of that installation,
    never wheels of ROS: those would be a second ROS of another version in the same process.

    Args:
        task: what needs the import.
        error: why it failed.
        extra: the project's extra that installs it.
    """
    name = error.name or ""
    package = name.partition(".")[0]
    in_ros = package in ROS_PACKAGES or package.endswith(("_msgs", "_interfaces", "_srvs"))
    distribution = os.environ.get("ROS_DISTRO", "")
    sourced = bool(distribution or os.environ.get("AMENT_PREFIX_PATH"))
    if not isinstance(error, ModuleNotFoundError) or (in_ros and name != package):
        problem = f"{task} cannot use {package or 'a package'}: {' '.join(str(error).split())}"
    else:
        problem = f"{task} needs {package}, which is not installed"
    if not in_ros and sourced:  # the project itself is installed, and so are ROS's numpy and OpenCV
        return f"{problem}: pip install {DISTRIBUTIONS.get(package, package)}"
    if not in_ros:
        return f"{problem}: pip install '.[{extra}]' in the project's folder"
    if sourced:
        apt = f"ros-{distribution or 'DISTRO'}-{package.replace('_', '-')}"
        return (
            f"{problem}: install {apt} with apt, and use the Python that this ROS was built for, "
            f"not {sys.executable} {'.'.join(map(str, sys.version_info[:2]))} if that differs"
        )
    return (
        f"{problem}: source a ROS 2 installation (source /opt/ros/DISTRO/setup.bash) or, without "
        f"one, pip install '.[{extra}]' in the project's folder"
    )


class Pictures:
    """Reports the pictures that a command leaves out; with `strict`, it leaves none out."""

    def __init__(self, strict: bool, program: str = "camseg") -> None:
        self._program, self._count = program, 0
        self.leave_out = None if strict else self._leave_out

    def _leave_out(self, error: CamSegError) -> None:
        self._count += 1
        say(f"{self._program}: left out: {error}")

    def exit_if_left_out(self) -> None:
        """If something was left out, say so and exit with 1."""
        if self._count:
            say(f"{self._program}: left out: {self._count}, see above; --strict stops at the first")
            sys.exit(EXIT_FAILED)


def print_any_text() -> None:
    """Make stdout and stderr print characters that they cannot encode as escapes."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_stdout() -> None:
    """Discard buffered output, so that the interpreter's exit cannot fail."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
