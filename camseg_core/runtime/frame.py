"""One frame on its way through the segmenter, and what comes out for it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camseg_core.runtime.framing import Framing, View

Ids = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Segmentation:
    """A segmented frame.

    `mask` is `(H, W)` uint8 Cityscapes train ids (255 = unlabelled) and `confidence` `(H, W)` float32 in 0..1, both at the
    frame's own size, unless its `Fit` wants the network's; `view` says where their pixels lie in the frame. `timings` are milliseconds
    per stage, in order. For frames that went through the network together, the network's stages are how long all of them took: so long
    did each have to wait.
    """

    mask: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.float32]
    timings: dict[str, float]
    view: View = View()  # noqa: RUF009  # immutable


class FrameNoise:
    """Standard normal noise for a batch, `(B·N, C)`: every frame gets what it would get alone."""

    def __init__(self, seed: int, batch: int, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._batch, self._random = batch, np.random.default_rng(seed)

    def __call__(self, _: int) -> Floats:
        return np.tile(self._random.standard_normal(self.shape, np.float32), (self._batch, 1))


class Stages:
    """Times the stages of one frame; a stage that comes again adds to its time."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.milliseconds[stage] = (
            self.milliseconds.get(stage, 0.0) + (time.perf_counter() - start) * 1000
        )


@dataclass(frozen=True)
class Frame:
    """A camera's frame on its way: `image` is what the network sees, `(h, w, 3)`."""

    framing: Framing
    image: Ids
    stages: Stages

    def finish(self, mask: Ids, confidence: Floats, network: Stages) -> Segmentation:
        """The network's answer `(h, w)` as the frame's `Fit` wants it."""
        self.stages.milliseconds |= network.milliseconds
        with self.stages("postprocess"):
            result = self.framing.mask_out(mask), self.framing.confidence_out(confidence)
        return Segmentation(*result, self.stages.milliseconds, self.framing.view)


def cells_to_latents(cells: Floats, batch: int, grid: tuple[int, int], patch: int) -> Floats:
    """Cells `(B·N, c·p²)`, in a grid of (rows, columns) per frame, to latents `(B, c, H, W)`."""
    h, w = grid
    split = cells.reshape(batch, h, w, -1, patch, patch).transpose(
        0, 3, 1, 4, 2, 5
    )  # (B, c, h, p, w, p)
    return np.ascontiguousarray(split.reshape(batch, -1, h * patch, w * patch))


def latents_to_tokens(latents: Floats, patch: int) -> Floats:
    """Latents `(B, c, H, W)` to tokens `(B, L, c·p²)`, row-major."""
    batch, channels, height, width = latents.shape
    split = latents.reshape(
        batch, channels, height // patch, patch, width // patch, patch
    ).transpose(0, 2, 4, 1, 3, 5)
    return np.ascontiguousarray(split.reshape(batch, (height // patch) * (width // patch), -1))


def mean_of_squares(plane: Floats, side: int) -> Floats:
    """A plane `(H, W)` to its mean over squares of `side`×`side` pixels, row-major `(L,)`."""
    height, width = plane.shape
    mean: Floats = plane.reshape(height // side, side, width // side, side).mean((1, 3)).ravel()
    return mean
