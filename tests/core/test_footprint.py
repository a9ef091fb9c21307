"""The memory of a model, measured in a process of its own."""

import os
import time
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import pytest

from camseg_core.errors import ConfigError, ModelError
from camseg_core.evaluation.timing import footprint
from camseg_core.runtime import Segmentation

IMAGE = np.zeros((8, 8, 3), np.uint8)
MEGABYTE = 2**20


class Memory:
    """Stands in for a model: while it segments, it holds so much."""

    def __init__(self, megabytes: int) -> None:
        self.megabytes = megabytes

    def segment(self, rgb: npt.NDArray[np.uint8]) -> Segmentation:
        held = np.ones(self.megabytes * MEGABYTE, np.uint8)
        return Segmentation(rgb[..., 0] + held[0], np.ones(rgb.shape[:2], np.float32), {})


def modest() -> Memory:
    return Memory(1)


def greedy() -> Memory:
    time.sleep(0.2)
    return Memory(200)


def refused() -> NoReturn:
    raise ConfigError("provider 'cuda' is not there")


def killed() -> NoReturn:
    os._exit(9)


@pytest.mark.slow
def test_a_models_peak_leaves_out_what_this_process_and_other_models_hold() -> None:
    held = np.ones(300 * MEGABYTE, np.uint8)
    first = footprint(greedy, IMAGE)
    second = footprint(modest, IMAGE)
    assert 150 * MEGABYTE < first.peak_bytes - second.peak_bytes < 250 * MEGABYTE
    assert first.load_s >= 0.2, "it sleeps so long"
    assert second.peak_bytes < held.nbytes


@pytest.mark.slow
def test_what_cannot_be_loaded_is_the_error_that_loading_raises() -> None:
    with pytest.raises(ConfigError, match="^provider 'cuda' is not there$"):
        footprint(refused, IMAGE)


@pytest.mark.slow
def test_a_process_that_is_killed_is_reported() -> None:
    with pytest.raises(ModelError, match="was killed, perhaps out of memory"):
        footprint(killed, IMAGE)
