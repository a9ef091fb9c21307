"""The published size on the project's CPU engines: its graphs, run as the node runs them."""

from pathlib import Path

import numpy as np
from as_published import seeded_pixels

from camseg_core.config.model import CamSegConfig
from camseg_core.runtime import Sampling
from camseg_core.runtime.engine import EngineOptions
from camseg_core.runtime.geometry import Ids
from camseg_core.runtime.network import Network
from camseg_core.runtime.providers import load_engine

PROVIDERS = {"ONNX Runtime": "cpu", "OpenVINO": "openvino"}
"""The CPU engines by their name."""


class OnEngine:
    """Segments the random frame on an engine, with fp32 graphs in the engine's own arithmetic.

    The graphs are compiled when it is made.

    Args:
        engine: a name from `PROVIDERS`.
        folder: with the model's graphs.
        config: the model's.
        sampling: how masks are drawn.
        size: side of the frame in pixels.

    Raises:
        ConfigError: the engine is not installed.
    """

    def __init__(
        self, engine: str, folder: Path, config: CamSegConfig, sampling: Sampling, size: int
    ) -> None:
        loaded = load_engine(EngineOptions(folder), PROVIDERS[engine])
        self.name = f"{loaded.name}: {loaded.precision}"
        self._network = Network(config, loaded, sampling)
        self._image = np.ascontiguousarray(seeded_pixels(size).permute(0, 2, 3, 1).numpy())
        self()

    def __call__(self) -> Ids:
        """Return the mask's train ids `(1, H, W)`."""
        mask, _ = self._network.run(self._image, [(None, None)], [])
        return mask
