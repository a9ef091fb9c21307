"""What the command lines share: streams that print any name, errors as one line, exit codes."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper

from camseg_core.errors import CamSegError, ModelDifferences, is_out_of_memory

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_CLOSED_PIPE = 1, 2, 130, 141


@contextmanager
def command_line(program: str, kept: Callable[[], str] = str) -> Iterator[None]:
    """Run a command inside: what files, names and terminals can cause ends it with one line.

    The line goes to stderr, without a traceback. Other errors are bugs and keep theirs.

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
        line = "; ".join(filter(None, ["stopped, as the reader of its output went away", kept()]))
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
        line = "error: the memory does not suffice; use smaller pictures, or free some memory"
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


class Pictures:
    """Reports the pictures that a command leaves out; with `strict`, it leaves none out."""

    def __init__(self, strict: bool, program: str = "camseg") -> None:
        self._program, self._count = program, 0
        self.leave_out = None if strict else self._leave_out

    def _leave_out(self, error: CamSegError) -> None:
        self._count += 1
        say(f"{self._program}: left out: {error}")

    def exit_if_left_out(self) -> None:
        """Say how many were left out and exit with 1, if any were."""
        if self._count:
            pictures = "1 picture was" if self._count == 1 else f"{self._count} pictures were"
            say(f"{self._program}: {pictures} left out; --strict stops at the first")
            sys.exit(EXIT_FAILED)


def print_any_text() -> None:
    """Print what the terminal has no characters for, such as bytes in file names, as escapes."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_stdout() -> None:
    """Send what is still to be written nowhere, so that the interpreter's exit cannot fail."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
