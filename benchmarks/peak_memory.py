"""Peak memory of one run, in a process of its own."""

import ctypes
import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from camseg_core.errors import ConfigError


def peak_bytes(made: Callable[[], Callable[[], object]]) -> int:
    """Return the peak resident memory of a new process while it runs what `made` returns.

    What that holds, such as weights, counts; making it does not.

    Raises:
        ConfigError: the kernel does not report it.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_own_peak, made).result()


def _own_peak(made: Callable[[], Callable[[], object]]) -> int:
    run = made()
    ctypes.CDLL(None).malloc_trim(0)  # what making and converting the weights left behind
    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets the mark to what is resident now
        run()
        found = re.search(
            r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE
        )
    except OSError as error:
        raise ConfigError(
            f"cannot measure peak memory: {error}; "
            "needs Linux with a writable /proc/self/clear_refs"
        ) from error
    assert found is not None
    return int(found[1]) * 1024
