"""What a model costs a process that does nothing else: its memory, and how long it takes to get ready."""

import multiprocessing
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from camseg_core.errors import ModelError
from camseg_core.evaluation.interleaved import Segments

FRAMES = 3
"""So many frames are segmented: ONNX Runtime plans its memory on the first."""


@dataclass(frozen=True)
class Footprint:
    """Peak resident memory of the process in bytes (a GPU's own memory is not in it), and seconds from options to a loaded model."""

    peak_bytes: int
    load_s: float


def footprint(load: Callable[[], Segments], image: npt.NDArray[np.uint8]) -> Footprint:
    """Load a model in a fresh process, let it segment `image` `(H, W, 3)` a few times, and say what that took.

    Args:
        load: loads the model; a function of a module, or a `functools.partial` of one, as it is sent to the process.
        image: RGB `(H, W, 3)`.

    Raises:
        CamSegError: what `load` raises.
        ModelError: the process was killed, as happens where memory runs out.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        try:
            return process.submit(_measure, load, image).result()
        except BrokenProcessPool as error:
            raise ModelError("the process that measures the model's memory was killed: is there too little memory for it?") from error


def _measure(load: Callable[[], Segments], image: npt.NDArray[np.uint8]) -> Footprint:
    began = time.perf_counter()
    model = load()
    loaded = time.perf_counter()
    for _ in range(FRAMES):
        model.segment(image)
    return Footprint(_peak_bytes(), loaded - began)


def _peak_bytes() -> int:
    """The kernel's own mark; `getrusage` would pass on that of the process which started this one."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise ModelError("/proc/self/status does not tell the peak memory (VmHWM); this needs a Linux kernel")
    return int(found[1]) * 1024
