"""Peak memory of one run, in a process of its own."""

import ctypes
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from camseg_core.errors import ConfigError
from camseg_core.evaluation.timing import process_peak_bytes


def peak_bytes(made: Callable[[], Callable[[], object]]) -> int:
    """Return the peak resident memory of a new process while it runs what `made` returns.

    What that holds, such as weights, counts; making it does not.

    Raises:
        ConfigError, ModelError: the kernel does not report it.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_own_peak, made).result()


def _own_peak(made: Callable[[], Callable[[], object]]) -> int:
    run = made()
    ctypes.CDLL(None).malloc_trim(0)  # what making and converting the weights left behind
    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets the mark to what is resident now
        run()
        return process_peak_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot measure peak memory: {error}; "
            "needs Linux with a writable /proc/self/clear_refs"
        ) from error
