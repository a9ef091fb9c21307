"""torch to ONNX: each part of a model as a graph with dynamic sizes, kept only if it gives torch's numbers."""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from camseg_core.errors import ModelError
from camseg_core.model.camseg import CamSeg
from camseg_core.model.image_encoder import DETAIL_CHANNELS
from camseg_core.replacing import replacing

logger = logging.getLogger(__name__)

_Arrays = tuple[npt.NDArray[np.generic], ...]

_TOLERANCE = 5e-3
"""Largest difference from torch, as a share of the output's largest value, that a graph may have."""


class _ImageEncoderGraph(nn.Module):
    """RGB `(B, H, W, 3)` uint8 to the feature maps; normalisation is inside, so that bytes cross the bus."""

    def __init__(self, model: CamSeg) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.model.image_features(image.permute(0, 3, 1, 2))


class _TransformerGraph(nn.Module):
    """Feature maps to conditions `(B, N, D)`: transformer and refiner, if there is one."""

    def __init__(self, model: CamSeg) -> None:
        super().__init__()
        self.model = model

    def forward(self, *features: Tensor) -> Tensor:
        return self.model.conditions(features)


class _DecoderGraph(nn.Module):
    """Mask latents `(B, C, h, w)` to train ids `(B, H, W)` uint8 and the probability of the chosen class `(B, H, W)`.

    The classes are compared before the pixels are put into place: two planes are moved instead of one for each class.
    """

    def __init__(self, model: CamSeg) -> None:
        super().__init__()
        assert model.mask_autoencoder is not None
        self.codec = model.mask_autoencoder
        self.register_buffer("train_ids", torch.tensor([label.id for label in model.labels], dtype=torch.uint8))

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.codec.decoder.blocks(self.codec.denormalised(latents))
        top, index = logits.max(dim=1)  # (B, 4, H/2, W/2)
        confidence = 1 / (logits - top.unsqueeze(1)).exp().sum(1)  # softmax at its maximum
        train_ids: Tensor = self.train_ids  # type: ignore[assignment]
        mask = train_ids.index_select(0, index.flatten()).view_as(index)
        return F.pixel_shuffle(mask, 2).squeeze(1), F.pixel_shuffle(confidence, 2).squeeze(1)


def export_onnx(model: CamSeg, folder: Path) -> None:
    """Write `onnx/<part>.onnx` for image encoder, transformer, denoiser and decoder into a checkpoint folder.

    Each graph is run beside torch at two sizes it was not traced at, and moved into place only if they agree.

    Raises:
        ModelError: a graph's numbers differ from torch's, or the model decodes pictures rather than class logits.
    """
    if model.mask_autoencoder is None:
        raise ModelError(f"{model.config.name} decodes masks as pictures; only models with a mask autoencoder can be exported yet")
    model.eval()
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    for part in _parts(model):
        _export_part(part, folder / "onnx" / f"{part.name}.onnx")


@dataclass(frozen=True)
class _Part:
    """One graph: `make(batch, rows, columns)` gives inputs for a frame of that many coarsest cells, `sizes` their dynamic axes."""

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    make: Callable[[int, int, int], _Arrays]
    sizes: object


def _parts(model: CamSeg) -> list[_Part]:
    config, random = model.config, np.random.default_rng(0)
    multiple, cells = config.size_multiple, config.size_multiple // config.token_stride
    batch, rows, columns, count = (
        torch.export.Dim(name, min=1, max=limit) for name, limit in (("b", 64), ("h", 512), ("w", 512), ("n", 1 << 20))
    )
    # feature maps by name: channels, and cells per cell of the first along each side
    maps = {"features": (model.transformer.z_proj1.in_features, 1)}
    if model.refiner is not None:
        maps |= {f"features_{stride}": (channels, 16 // stride) for channels, stride in zip(DETAIL_CHANNELS, (4, 8), strict=True)}

    def normal(*shape: int) -> npt.NDArray[np.float32]:
        return random.standard_normal(shape, np.float32)

    def image(b: int, h: int, w: int) -> _Arrays:
        return (random.integers(0, 256, (b, h * multiple, w * multiple, 3), np.uint8),)

    def features(b: int, h: int, w: int) -> _Arrays:
        return tuple(normal(b, channels, h * cells * times, w * cells * times) for channels, times in maps.values())

    def noisy(b: int, h: int, w: int) -> _Arrays:
        return normal(b * h * w, config.denoised_channels), np.array([999]), normal(b * h * w, config.condition_width)

    def latents(b: int, h: int, w: int) -> _Arrays:
        return (normal(b, config.mask_codec.latent_channels, h * 4, w * 4),)

    feature_sizes = tuple({0: batch, 2: times * rows, 3: times * columns} for _, times in maps.values())
    return [
        _Part(
            "image_encoder",
            _ImageEncoderGraph(model),
            ("image",),
            tuple(maps),
            image,
            {"image": {0: batch, 1: multiple * rows, 2: multiple * columns}},
        ),
        _Part("transformer", _TransformerGraph(model), tuple(maps), ("condition",), features, {"features": feature_sizes}),
        _Part(
            "denoiser",
            model.denoiser,
            ("tokens", "step", "condition"),
            ("output",),
            noisy,
            {"x": {0: count}, "steps": None, "condition": {0: count}},
        ),
        _Part("decoder", _DecoderGraph(model), ("latents",), ("mask", "confidence"), latents, {"latents": {0: batch, 2: rows, 3: columns}}),
    ]


def _export_part(part: _Part, path: Path) -> None:
    part.module.eval()
    example = tuple(torch.from_numpy(array) for array in part.make(2, 3, 4))
    # the exporter's remarks on its own workings, and on torchvision, which is not needed
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            part.module,
            example,
            input_names=part.inputs,
            output_names=part.outputs,
            dynamic_shapes=part.sizes,  # type: ignore[arg-type]
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    _strip_source_lines(graph)
    _store_as_halves(graph)
    with replacing(path) as temporary:
        onnx.save(graph, temporary)
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        for size in ((1, 2, 3), (2, 5, 4)):
            _check(part, session, part.make(*size))
    logger.info("exported %s: %.1f MB", path.name, path.stat().st_size / 1e6)


def _check(part: _Part, session: onnxruntime.InferenceSession, inputs: _Arrays) -> None:
    """Compare the graph with torch on one set of inputs."""
    with torch.no_grad():
        expected = part.module(*(torch.from_numpy(array) for array in inputs))
    expected = expected if isinstance(expected, tuple) else (expected,)
    found = session.run(None, dict(zip(part.inputs, inputs, strict=True)))
    for theirs, ours in zip(expected, found, strict=True):
        theirs = theirs.numpy()
        if theirs.shape != ours.shape:
            raise ModelError(f"the exported {part.name} gives {ours.shape} where torch gives {theirs.shape}; the graph is not kept")
        if theirs.dtype == np.uint8:
            wrong = float((theirs != ours).mean())  # ids flip where two classes are as good as equal
            difference, limit = wrong, 1e-3
        else:
            difference, limit = float(np.abs(theirs - ours).max() / max(1.0, np.abs(theirs).max())), _TOLERANCE
        if not difference <= limit:
            raise ModelError(f"the exported {part.name} differs from torch by {difference:.2g} (limit {limit:g}); the graph is not kept")


def _strip_source_lines(graph: onnx.ModelProto) -> None:
    """Drop what the exporter noted of where each operator came from: it holds the paths of the machine that exported."""
    for described in (graph, graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.graph.input, *graph.graph.output):
        del described.metadata_props[:]


def _store_as_halves(graph: onnx.ModelProto) -> None:
    """Store each large weight as fp16 with a cast to fp32 behind it: half the file; the arithmetic stays fp32.

    ONNX Runtime folds the casts when it loads the graph. Weights of an fp16 checkpoint lose nothing, except where the exporter
    has folded a batch norm into a convolution; the comparison with torch covers that rounding.
    """
    casts = []
    for weight in graph.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT and np.prod(weight.dims) >= 256:
            name = weight.name
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
