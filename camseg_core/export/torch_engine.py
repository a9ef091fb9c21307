"""The graphs of a model as torch modules, which `torch.onnx.export` traces, and their engine."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from camseg_core.diffusion.samplers import SamplerOptions
from camseg_core.diffusion.sampling import Fused
from camseg_core.errors import ConfigError
from camseg_core.labels import PUBLISHED_PALETTE, UNLABELLED
from camseg_core.model.camseg import CamSeg
from camseg_core.model.precision import computes_bf16
from camseg_core.runtime.engine import Array, EngineOptions

PICTURE_LOGIT_SCALE = 100.0
"""Logit per squared distance (RGB in 0..1) from a pixel to a palette colour."""


class _Graph(nn.Module):
    def __init__(self, model: CamSeg) -> None:
        super().__init__()
        self.model = model


class ImageEncoderGraph(_Graph):
    """RGB `(B, H, W, 3)` uint8 to the feature maps, normalised inside."""

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.model.image_features(image.permute(0, 3, 1, 2))


class TransformerGraph(_Graph):
    """Feature maps to conditions `(B, N, D)`, all of the mask hidden: transformer and refiner."""

    def forward(self, *features: Tensor) -> Tensor:
        return self.model.conditions(features)


class MaskedTransformerGraph(TransformerGraph):
    """The same with a known mask: maps, `mask` `(B, L, token_channels)`, `hidden` `(B, L)`."""

    def forward(self, *inputs: Tensor) -> Tensor:
        *features, mask, hidden = inputs
        cells = features[0].shape[2] * features[0].shape[3]
        # one token per cell: the exporter cannot derive it
        return self.model.conditions(tuple(features), mask[:, :cells], hidden[:, :cells])


class _Decoder(nn.Module):
    def __init__(self, train_ids: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("train_ids", torch.tensor(train_ids, dtype=torch.uint8))

    def choose(self, scores: Tensor, samples: int) -> tuple[Tensor, Tensor]:
        """Return the ids of the likeliest classes and their probability, from `exp(logits)`.

        A softmax by hand: ONNX Runtime would transpose for a Softmax over any axis but the last.
        """
        probabilities = _mean_of_samples(scores / scores.sum(1, keepdim=True), samples)
        confidence, index = probabilities.max(1)
        return self.train_ids_of(index), confidence

    def train_ids_of(self, index: Tensor) -> Tensor:
        train_ids: Tensor = self.train_ids  # type: ignore[assignment]
        return train_ids.index_select(0, index.flatten()).view_as(index)


class DecoderGraph(_Decoder):
    """Mask latents `(B, S, C, h, w)` to train ids and the chosen class's probability, `(B, H, W)`.

    The S samples of a frame are averaged as probabilities, the softmax of `logit_scale` times the
    logits. Classes are compared before pixels are put into place: that moves two planes, not one
    for each class.
    """

    def __init__(self, model: CamSeg) -> None:
        super().__init__(model.decoded_ids)
        self.model = model

    def forward(self, latents: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model.logit_blocks(latents.flatten(0, 1))
        samples = latents.shape[1]
        if isinstance(samples, int) and samples == 1:  # not in a graph that leaves it open
            index, confidence = _likeliest(logits, logit_scale)
            mask = self.train_ids_of(index)
        else:
            scores = (logit_scale * (logits - logits.amax(1, keepdim=True))).exp()
            mask, confidence = self.choose(scores, samples)  # (B, 4, H/2, W/2)
        return _into_place(mask), _into_place(confidence)


def _into_place(blocks: Tensor) -> Tensor:
    """Arrange 2×2 blocks `(B, 4, h, w)` as a plane `(B, 2h, 2w)`.

    Not pixel_shuffle: as an operator it takes bytes only in the newest ONNX Runtimes, not on GPUs.
    """
    batch, _, height, width = blocks.shape
    return blocks.unflatten(1, (2, 2)).permute(0, 3, 1, 4, 2).reshape(batch, 2 * height, 2 * width)


def _likeliest(logits: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return the likeliest class `(B, 4, h, w)` and its softmax, of logits `(B, classes, 4, h, w)`.

    As a running maximum over the classes' planes: half of the time of ArgMax and Softmax over an
    axis that is not the last. The matrix product with the identity changes no number; OpenVINO
    computes what follows the last product in fp32, which would be all of this.
    """
    planes = logits.unbind(1)
    largest, index = planes[0], torch.zeros_like(planes[0])
    for number, plane in enumerate(planes[1:], start=1):
        index = torch.where(plane > largest, float(number), index)
        largest = torch.maximum(largest, plane)
    total = torch.zeros_like(largest)
    for plane in planes:
        total = total + (logit_scale * (plane - largest)).exp()
    # in bf16 the sum may fall below 1, which is one of its terms
    confidence = torch.minimum(total.reciprocal(), torch.ones_like(total))
    both = torch.cat([index, confidence], 1)  # (B, 8, h, w)
    product = torch.eye(both.shape[1], device=both.device) @ both.flatten(2)
    index, confidence = product.unflatten(2, both.shape[2:]).chunk(2, dim=1)
    return index.to(torch.int64), confidence


def _mean_of_samples(values: Tensor, samples: int) -> Tensor:
    """Average `(B·S, ...)` over S, `(B, ...)`.

    As a matrix product: ONNX Runtime's ReduceMean over a middle axis is ten times slower.
    """
    grouped = values.unflatten(0, (-1, samples))
    weights = torch.full((1, samples), 1.0, device=values.device) / samples
    return (weights @ grouped.flatten(2)).squeeze(1).unflatten(1, grouped.shape[2:])


class PictureDecoderGraph(_Decoder):
    """The same for a model that decodes masks as colour pictures: the nearest palette colour wins.

    Logits are -`PICTURE_LOGIT_SCALE` times the squared distance to each colour, so the confidence
    is a softmax over palette colours: how clearly a colour was hit, not a learned probability.
    """

    def __init__(self, model: CamSeg) -> None:
        super().__init__([UNLABELLED, *range(len(PUBLISHED_PALETTE) - 1)])
        assert model.autoencoder is not None
        self.codec = model.autoencoder
        palette = torch.tensor(PUBLISHED_PALETTE, dtype=torch.float32) / 255
        self.register_buffer("palette", torch.round(palette, decimals=4))

    def forward(self, latents: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor]:
        palette: Tensor = self.palette  # type: ignore[assignment]
        rgb = (self.codec.decode(latents.flatten(0, 1)) * 0.5 + 0.5).unsqueeze(1)  # (N, 1, 3, H, W)
        distance = torch.stack(
            [(rgb - color.view(1, 1, 3, 1, 1)).square().sum(2) for color in palette], 1
        ).squeeze(2)
        nearer = distance.amin(1, keepdim=True) - distance
        return self.choose((logit_scale * PICTURE_LOGIT_SCALE * nearer).exp(), latents.shape[1])


def decoder_module(model: CamSeg) -> nn.Module:
    """Return the decoder for the model's mask codec; its light decoder if it has one."""
    pictures = model.autoencoder is not None and model.light_decoder is None
    return PictureDecoderGraph(model) if pictures else DecoderGraph(model)


class FusedGraph(_Graph):
    """Image, start noise `(B, N, denoised_channels)` and logit_scale to mask and confidence.

    The sampler's steps are built in, the temperature is not: the caller scales the noise, see
    `start_scale`.
    """

    def __init__(self, model: CamSeg, fused: Fused) -> None:
        super().__init__(model)
        self.decoder, self.fused = decoder_module(model), fused

    def forward(self, image: Tensor, start: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor]:
        model = self.model
        features = model.image_features(image.permute(0, 3, 1, 2))
        condition = model.conditions(features)

        def no_noise(_: int) -> Tensor:
            raise AssertionError("a sampler that draws noise cannot be fused")

        options = SamplerOptions(self.fused.steps)
        clean = model.sample(condition, self.fused.sampler, options, start.flatten(0, 1), no_noise)
        latents = model.to_latents(clean, model.denoised_grid(features))
        mask, confidence = self.decoder(latents.unsqueeze(1), logit_scale)
        return mask, confidence


Precision = Literal["fp32", "bf16"]

OUTPUTS = {
    "image_encoder": ("features", "features_4", "features_8", "features_16"),
    "transformer": ("condition",),
    "denoiser": ("output",),
    "decoder": ("mask", "confidence"),
}
"""Output names of each graph; the image encoder has as many as a refiner reads, or the first."""


class TorchEngine:
    """A model's graphs as torch modules, on the model's device.

    In bf16 all parts run under autocast except the diffusion head: near pure noise a clean estimate
    is the predicted noise times up to 20,000, and bf16 resolves 1 part in 256. A processor without
    bf16 arithmetic computes in fp32, which `precision` says.

    Raises:
        ConfigError: the precision is neither fp32 nor bf16.
    """

    name = f"PyTorch {torch.__version__}"
    options = EngineOptions(Path())
    fused: Fused | None = None
    takes_mask = batches = True

    def __init__(self, model: CamSeg, precision: Precision = "fp32") -> None:
        if precision not in get_args(Precision):
            raise ConfigError(f"precision must be fp32 or bf16, got {precision!r}")
        model.eval()
        self._device = model.pixel_mean.device
        native = precision == "fp32" or computes_bf16(self._device.type)
        self.precision: str = precision if native else "fp32"
        self._graphs = {
            "image_encoder": ImageEncoderGraph(model),
            "transformer": TransformerGraph(model),
            "denoiser": model.denoiser,
            "decoder": decoder_module(model).to(self._device),
        }
        self._masked_transformer = MaskedTransformerGraph(model)

    def check_graphs(self, fused: Fused | None) -> None:
        """Nothing can be missing."""

    def with_fused(self, fused: Fused | None) -> "TorchEngine":
        """Return this engine: torch runs the parts in place of any fused graph."""
        return self

    @torch.no_grad()
    def run(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Engine.run`."""
        module = self._masked_transformer if "mask" in inputs else self._graphs[graph]
        tensors = [torch.from_numpy(np.asarray(a)).to(self._device) for a in inputs.values()]
        lower = self.precision == "bf16" and graph != "denoiser"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=lower):
            found = module(*tensors)
        arrays = [
            (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
            for tensor in (found if isinstance(found, tuple) else (found,))
        ]
        return dict(zip(OUTPUTS[graph], arrays, strict=False))


class LatentsEngine(TorchEngine):
    """Keeps the latents that it decoded last, `(B, S, C, h, w)`."""

    latents: Array

    def run(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Engine.run`."""
        if graph == "decoder":
            self.latents = inputs["latents"]
        return super().run(graph, inputs)
