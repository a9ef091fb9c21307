"""The graphs of a model as torch modules: what `torch.onnx.export` traces."""

import torch
from torch import Tensor, nn

from camseg_core.diffusion.samplers import SamplerOptions
from camseg_core.diffusion.sampling import Fused
from camseg_core.labels import PUBLISHED_PALETTE, UNLABELLED
from camseg_core.model.camseg import CamSeg

PICTURE_LOGIT_SCALE = 100.0
"""Logit per squared distance (RGB in 0..1) from a pixel to a palette colour."""


class ImageEncoderGraph(nn.Module):
    """RGB `(B, H, W, 3)` uint8 to the feature maps, normalised inside."""

    def __init__(self, model: CamSeg) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.model.image_features(image.permute(0, 3, 1, 2))


class TransformerGraph(nn.Module):
    """Feature maps to conditions `(B, N, D)`, all of the mask hidden: transformer and refiner."""

    def __init__(self, model: CamSeg) -> None:
        super().__init__()
        self.model = model

    def forward(self, *features: Tensor) -> Tensor:
        return self.model.conditions(features)


class MaskedTransformerGraph(TransformerGraph):
    """The same with a known mask: maps, `mask` `(B, L, token_channels)`, `hidden` `(B, L)`."""

    def forward(self, *inputs: Tensor) -> Tensor:
        *features, mask, hidden = inputs
        cells = features[0].shape[2] * features[0].shape[3]
        # one token per cell: the exporter cannot derive it
        return self.model.conditions(tuple(features), mask[:, :cells], hidden[:, :cells])


class DecoderGraph(nn.Module):
    """Mask latents `(B, S, C, h, w)` to train ids and the chosen class's probability, `(B, H, W)`.

    The S samples of a frame are averaged as probabilities, the softmax of `logit_scale` times the
    logits. Classes are compared before pixels are put into place: that moves two planes, not one
    for each class.
    """

    def __init__(self, model: CamSeg) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("train_ids", torch.tensor(model.decoded_ids, dtype=torch.uint8))

    def forward(self, latents: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model.logit_blocks(latents.flatten(0, 1))
        # by hand: ONNX Runtime would transpose for a Softmax over any axis but the last
        scores = (logit_scale * (logits - logits.amax(1, keepdim=True))).exp()
        probabilities = _mean_of_samples(scores / scores.sum(1, keepdim=True), latents.shape[1])
        confidence, index = probabilities.max(1)  # (B, 4, H/2, W/2)
        train_ids: Tensor = self.train_ids  # type: ignore[assignment]
        mask = train_ids.index_select(0, index.flatten()).view_as(index)
        return _into_place(mask), _into_place(confidence)


def _into_place(blocks: Tensor) -> Tensor:
    """Arrange 2×2 blocks `(B, 4, h, w)` as a plane `(B, 2h, 2w)`.

    Not pixel_shuffle: as an operator it takes bytes only in the newest ONNX Runtimes, not on GPUs.
    """
    batch, _, height, width = blocks.shape
    return blocks.unflatten(1, (2, 2)).permute(0, 3, 1, 4, 2).reshape(batch, 2 * height, 2 * width)


def _mean_of_samples(values: Tensor, samples: int) -> Tensor:
    """Average `(B·S, ...)` over S, `(B, ...)`.

    As a matrix product: ONNX Runtime's ReduceMean over a middle axis is ten times slower.
    """
    grouped = values.unflatten(0, (-1, samples))
    weights = torch.full((1, samples), 1.0, device=values.device) / samples
    return (weights @ grouped.flatten(2)).squeeze(1).unflatten(1, grouped.shape[2:])


class PictureDecoderGraph(nn.Module):
    """The same for a model that decodes masks as colour pictures: the nearest palette colour wins.

    Logits are -`PICTURE_LOGIT_SCALE` times the squared distance to each colour, so the confidence
    is a softmax over palette colours: how clearly a colour was hit, not a learned probability.
    """

    def __init__(self, model: CamSeg) -> None:
        super().__init__()
        assert model.autoencoder is not None
        self.codec = model.autoencoder
        self.register_buffer(
            "palette",
            torch.round(torch.tensor(PUBLISHED_PALETTE, dtype=torch.float32) / 255, decimals=4),
        )
        ids = [UNLABELLED, *range(len(PUBLISHED_PALETTE) - 1)]
        self.register_buffer("train_ids", torch.tensor(ids, dtype=torch.uint8))

    def forward(self, latents: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor]:
        palette: Tensor = self.palette  # type: ignore[assignment]
        train_ids: Tensor = self.train_ids  # type: ignore[assignment]
        rgb = (self.codec.decode(latents.flatten(0, 1)) * 0.5 + 0.5).unsqueeze(1)  # (N, 1, 3, H, W)
        distance = torch.stack(
            [(rgb - color.view(1, 1, 3, 1, 1)).square().sum(2) for color in palette], 1
        ).squeeze(2)
        scores = (
            logit_scale * PICTURE_LOGIT_SCALE * (distance.amin(1, keepdim=True) - distance)
        ).exp()
        probabilities = _mean_of_samples(scores / scores.sum(1, keepdim=True), latents.shape[1])
        confidence, index = probabilities.max(1)
        return train_ids.index_select(0, index.flatten()).view_as(index), confidence


class FusedGraph(nn.Module):
    """Image, start noise `(B, N, denoised_channels)` and logit_scale to mask and confidence.

    The sampler's steps are built in, the temperature is not: the caller scales the noise, see
    `start_scale`.
    """

    def __init__(self, model: CamSeg, fused: Fused, decoder: nn.Module) -> None:
        super().__init__()
        self.model, self.decoder, self.fused = model, decoder, fused

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
