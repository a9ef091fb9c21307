"""The graphs of a model to export: inputs, outputs and dynamic axes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from camseg_core.config.backbone import finer_features
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.diffusion.sampling import Fused
from camseg_core.export.torch_engine import (
    OUTPUTS,
    FusedGraph,
    ImageEncoderGraph,
    MaskedTransformerGraph,
    TransformerGraph,
    decoder_module,
)
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime.geometry import scaled_picture

Arrays = tuple[npt.NDArray[np.generic], ...]

Draw = Callable[[int, int, int], npt.NDArray[Any]]
"""An input for (batch, rows, columns) of the coarsest cells, of random numbers."""


@dataclass(frozen=True)
class Part:
    """One graph.

    Attributes:
        inputs: by name, in the graph's order.
        sizes: the dynamic axes, as `torch.onnx.export` takes them.
        fused: sampler and steps of a graph of the whole network.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, Draw]
    outputs: tuple[str, ...]
    sizes: object
    fused: Fused | None = None

    def make(self, batch: int, rows: int, columns: int) -> Arrays:
        """Return inputs for so many of the coarsest cells."""
        return tuple(draw(batch, rows, columns) for draw in self.inputs.values())


class _Sizes:
    """Dynamic axes, and random inputs of any size."""

    def __init__(self, model: CamSeg) -> None:
        config = self.config = model.config
        self.random = np.random.default_rng(0)
        self.multiple = config.size_multiple
        self.batch, self.samples, self.rows, self.columns, self.cells = (
            torch.export.Dim(name, min=1, max=limit)
            for name, limit in (("b", 64), ("s", 64), ("h", 512), ("w", 512), ("n", 1 << 20))
        )
        self.tokens = self.multiple // config.token_stride  # along a coarsest cell
        # feature maps by name: channels, and cells per token along each side
        self.maps = {"features": (model.transformer.z_proj1.in_features, 1)}
        if model.refiner is not None:
            token = config.token_stride
            self.maps |= {
                f"features_{stride}": (channels, token // stride)
                for _, channels, stride in finer_features(token)
            }
        self.image_axes = {
            0: self.batch,
            1: self.multiple * self.rows,
            2: self.multiple * self.columns,
        }

    def image(self, b: int, h: int, w: int) -> npt.NDArray[np.uint8]:
        return self.random.integers(0, 256, (b, h * self.multiple, w * self.multiple, 3), np.uint8)

    def picture(self, b: int, h: int, w: int) -> npt.NDArray[np.uint8]:
        """Draw a street: on noise, which no camera sends, a whole network is less exact."""
        size = h * self.multiple, w * self.multiple
        return np.stack([scaled_picture(each.image, size) for each in SyntheticDrive(b)])

    def normal(self, *shape: int) -> npt.NDArray[np.float32]:
        return self.random.standard_normal(shape, np.float32)

    def feature_map(
        self, channels: int, times: int, b: int, h: int, w: int
    ) -> npt.NDArray[np.float32]:
        return self.normal(b, channels, h * self.tokens * times, w * self.tokens * times)

    def denoised(self, h: int, w: int) -> int:
        """Return the number of cells that the head denoises in a frame."""
        stride = self.config.mask_codec.stride * self.config.denoised_patch
        return h * w * (self.multiple // stride) ** 2


def parts_of(model: CamSeg) -> list[Part]:
    """Return image encoder, transformer, denoiser and decoder of a model."""
    sizes, config = _Sizes(model), model.config
    encoder = Part(
        "image_encoder",
        ImageEncoderGraph(model),
        {"image": sizes.image},
        tuple(sizes.maps),
        {"image": sizes.image_axes},
    )
    tokens: dict[str, Draw] = {
        "tokens": lambda b, h, w: sizes.normal(b * sizes.denoised(h, w), config.denoised_channels),
        "step": lambda *_: np.array([999]),
        "condition": lambda b, h, w: sizes.normal(b * sizes.denoised(h, w), config.condition_width),
    }
    axes = {"x": {0: sizes.cells}, "timesteps": None, "condition": {0: sizes.cells}}
    denoiser = Part("denoiser", model.denoiser, tokens, OUTPUTS["denoiser"], axes)
    channels = config.mask_codec.latent_channels
    side = max(1, sizes.multiple // config.mask_codec.stride)
    latents: dict[str, Draw] = {
        "latents": lambda b, h, w: sizes.normal(b, b + 1, channels, h * side, w * side),
        "sharpness": lambda *_: np.array(1.5, np.float32),
    }
    places = {0: sizes.batch, 1: sizes.samples, 3: sizes.rows, 4: sizes.columns}
    decoder = Part(
        "decoder",
        decoder_module(model),
        latents,
        OUTPUTS["decoder"],
        {"latents": places, "logit_scale": None},
    )
    return [encoder, _transformer(model, sizes), denoiser, decoder]


def _transformer(model: CamSeg, sizes: _Sizes) -> Part:
    maps: dict[str, Draw] = {
        name: partial(sizes.feature_map, channels, times)
        for name, (channels, times) in sizes.maps.items()
    }
    axes = tuple(
        {0: sizes.batch, 2: times * sizes.rows, 3: times * sizes.columns}
        for _, times in sizes.maps.values()
    )
    name, outputs = "transformer", OUTPUTS["transformer"]
    if model.config.transformer.fusion != "grid":
        return Part(name, TransformerGraph(model), maps, outputs, {"features": axes})

    def mask(b: int, h: int, w: int) -> npt.NDArray[np.float32]:
        return sizes.normal(b, h * w * sizes.tokens**2, model.config.token_channels)

    def hidden(b: int, h: int, w: int) -> npt.NDArray[np.bool_]:
        return sizes.random.random((b, h * w * sizes.tokens**2)) < 0.5

    free = {0: sizes.batch, 1: torch.export.Dim.DYNAMIC}
    inputs = {**maps, "mask": mask, "hidden": hidden}
    axes = (*axes, free, free)
    return Part(name, MaskedTransformerGraph(model), inputs, outputs, {"inputs": axes})


def fused_part(model: CamSeg, fused: Fused) -> Part:
    """Return the whole network with a sampler: image, noise, logit_scale to mask, confidence."""
    sizes, channels = _Sizes(model), model.config.denoised_channels
    inputs: dict[str, Draw] = {
        "image": sizes.picture,
        "start": lambda b, h, w: sizes.normal(b, sizes.denoised(h, w), channels),
        "sharpness": lambda *_: np.array(1.0, np.float32),
    }
    # the exporter derives the number of cells from the image's size
    start = {0: sizes.batch, 1: torch.export.Dim.DYNAMIC}
    axes = {"image": sizes.image_axes, "start": start, "logit_scale": None}
    return Part(fused.name, FusedGraph(model, fused), inputs, OUTPUTS["decoder"], axes, fused)
