"""The graphs of a model to export: inputs, outputs and dynamic axes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from camseg_core.config.backbone import FINE_FEATURES, TOKEN_STRIDE
from camseg_core.diffusion.sampling import Fused
from camseg_core.export.graph_modules import (
    DecoderGraph,
    FusedGraph,
    ImageEncoderGraph,
    MaskedTransformerGraph,
    PictureDecoderGraph,
    TransformerGraph,
)
from camseg_core.model.camseg import CamSeg

Arrays = tuple[npt.NDArray[np.generic], ...]


@dataclass(frozen=True)
class Part:
    """One graph.

    Attributes:
        make: returns inputs for (batch, rows, columns) of the coarsest cells.
        sizes: the dynamic axes, as `torch.onnx.export` takes them.
        fused: sampler and steps of a graph of the whole network.
    """

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    make: Callable[[int, int, int], Arrays]
    sizes: object
    fused: Fused | None = None


class _Sizes:
    """Dynamic axes, and random inputs of any size."""

    def __init__(self, model: CamSeg) -> None:
        config = self.config = model.config
        self.random = np.random.default_rng(0)
        self.multiple = config.size_multiple
        self.batch, self.samples, self.rows, self.columns, self.tokens = (
            torch.export.Dim(name, min=1, max=limit)
            for name, limit in (("b", 64), ("s", 64), ("h", 512), ("w", 512), ("n", 1 << 20))
        )
        self.cells = self.multiple // config.token_stride  # tokens along a coarsest cell
        # feature maps by name: channels, and cells per token along each side
        self.maps = {"features": (model.transformer.z_proj1.in_features, 1)}
        if model.refiner is not None:
            self.maps |= {
                f"features_{stride}": (channels, TOKEN_STRIDE // stride)
                for _, channels, stride in FINE_FEATURES
            }

    def image(self, b: int, h: int, w: int) -> npt.NDArray[np.uint8]:
        return self.random.integers(0, 256, (b, h * self.multiple, w * self.multiple, 3), np.uint8)

    def normal(self, *shape: int) -> npt.NDArray[np.float32]:
        return self.random.standard_normal(shape, np.float32)

    def denoised(self, h: int, w: int) -> int:
        """Return the number of cells that the head denoises in a frame."""
        stride = self.config.mask_codec.stride * self.config.denoised_patch
        return h * w * (self.multiple // stride) ** 2

    @property
    def image_axes(self) -> dict[int, object]:
        return {0: self.batch, 1: self.multiple * self.rows, 2: self.multiple * self.columns}


def parts_of(model: CamSeg) -> list[Part]:
    """Return image encoder, transformer, denoiser and decoder of a model."""
    sizes = _Sizes(model)
    return [
        _image_encoder(model, sizes),
        _transformer(model, sizes),
        _denoiser(model, sizes),
        _decoder(model, sizes),
    ]


def fused_part(model: CamSeg, fused: Fused) -> Part:
    """Return the whole network with a sampler: image, noise, logit_scale to mask, confidence."""
    sizes = _Sizes(model)

    def make(b: int, h: int, w: int) -> Arrays:
        return (
            sizes.image(b, h, w),
            sizes.normal(b, sizes.denoised(h, w), model.config.denoised_channels),
            np.array(1.0, np.float32),
        )

    # the exporter derives the number of tokens from the image's size
    axes = {
        "image": sizes.image_axes,
        "start": {0: sizes.batch, 1: torch.export.Dim.DYNAMIC},
        "logit_scale": None,
    }
    inputs, outputs = ("image", "start", "sharpness"), ("mask", "confidence")
    return Part(
        fused.name,
        FusedGraph(model, fused, decoder_module(model)),
        inputs,
        outputs,
        make,
        axes,
        fused,
    )


def decoder_module(model: CamSeg) -> nn.Module:
    """Return the decoder for the model's mask codec; its light decoder if it has one."""
    pictures = model.autoencoder is not None and model.light_decoder is None
    return PictureDecoderGraph(model) if pictures else DecoderGraph(model)


def _image_encoder(model: CamSeg, sizes: _Sizes) -> Part:
    def make(b: int, h: int, w: int) -> Arrays:
        return (sizes.image(b, h, w),)

    return Part(
        "image_encoder",
        ImageEncoderGraph(model),
        ("image",),
        tuple(sizes.maps),
        make,
        {"image": sizes.image_axes},
    )


def _transformer(model: CamSeg, sizes: _Sizes) -> Part:
    masked = model.config.transformer.fusion == "grid"
    axes = [
        {0: sizes.batch, 2: times * sizes.rows, 3: times * sizes.columns}
        for _, times in sizes.maps.values()
    ]

    def make(b: int, h: int, w: int) -> Arrays:
        rows, columns = h * sizes.cells, w * sizes.cells
        features = tuple(
            sizes.normal(b, channels, rows * times, columns * times)
            for channels, times in sizes.maps.values()
        )
        if not masked:
            return features
        hidden = sizes.random.random((b, rows * columns)) < 0.5
        return *features, sizes.normal(b, rows * columns, model.config.token_channels), hidden

    if not masked:
        return Part(
            "transformer",
            TransformerGraph(model),
            tuple(sizes.maps),
            ("condition",),
            make,
            {"features": tuple(axes)},
        )
    free = {0: sizes.batch, 1: torch.export.Dim.DYNAMIC}
    inputs = (*sizes.maps, "mask", "hidden")
    return Part(
        "transformer",
        MaskedTransformerGraph(model),
        inputs,
        ("condition",),
        make,
        {"inputs": (*axes, free, free)},
    )


def _denoiser(model: CamSeg, sizes: _Sizes) -> Part:
    def make(b: int, h: int, w: int) -> Arrays:
        count = b * sizes.denoised(h, w)
        return (
            sizes.normal(count, model.config.denoised_channels),
            np.array([999]),
            sizes.normal(count, model.config.condition_width),
        )

    axes = {"x": {0: sizes.tokens}, "steps": None, "condition": {0: sizes.tokens}}
    return Part(
        "denoiser", model.denoiser, ("tokens", "step", "condition"), ("output",), make, axes
    )


def _decoder(model: CamSeg, sizes: _Sizes) -> Part:
    codec = model.config.mask_codec
    cells = max(1, sizes.multiple // codec.stride)

    def make(b: int, h: int, w: int) -> Arrays:
        return sizes.normal(b, b + 1, codec.latent_channels, h * cells, w * cells), np.array(
            1.5, np.float32
        )

    axes = {
        "latents": {0: sizes.batch, 1: sizes.samples, 3: sizes.rows, 4: sizes.columns},
        "logit_scale": None,
    }
    return Part(
        "decoder",
        decoder_module(model),
        ("latents", "sharpness"),
        ("mask", "confidence"),
        make,
        axes,
    )
