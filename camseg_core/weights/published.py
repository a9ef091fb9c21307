"""The published model's two files as a checkpoint folder of ours; the files and names are those of arXiv 2503.15617's release."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from camseg_core.errors import ConfigError, ModelError
from camseg_core.model.camseg import CamSeg
from camseg_core.model.config import CamSegConfig
from camseg_core.model.sizes import CAM_SEG_BASE_768
from camseg_core.weights.pickle_reader import Archive, StoredTensor

logger = logging.getLogger(__name__)

_HEAD, _WRAPPED = "diffloss.net.", "module."
_NOT_WEIGHTS = ("loss.",)
"""Beginnings of what the autoencoder's file has beside it: its training loss, a network of its own."""


@dataclass(frozen=True)
class Part:
    """One of the two files: what it is called in messages, the option that names it, and its tensors by their published names."""

    title: str
    option: str
    expected: Mapping[str, str]
    """Published name to the name in `CamSeg`."""


def published_parts(config: CamSegConfig = CAM_SEG_BASE_768) -> tuple[Part, Part]:
    """Autoencoder and transformer (with diffusion head) of a model of the published layout: the names that their files must have."""
    with torch.device("meta"):
        names = list(CamSeg(config).state_dict())
    autoencoder = {name.removeprefix("autoencoder."): name for name in names if name.startswith("autoencoder.")}
    transformer = {
        _HEAD + name.removeprefix("denoiser.") if name.startswith("denoiser.") else name.removeprefix("transformer."): name
        for name in names
        if name.startswith(("transformer.", "denoiser."))
    }
    return Part("autoencoder", "--autoencoder", autoencoder), Part("transformer", "--transformer", transformer)


def import_published(
    autoencoder: Path,
    transformer: Path,
    out: Path,
    ema: bool = False,
    config: CamSegConfig = CAM_SEG_BASE_768,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write the checkpoint folder `out` from the two published files; nothing in them is run, see `Archive`.

    Args:
        autoencoder: a Lightning checkpoint, weights under `state_dict`.
        transformer: a dict with `model` and `model_ema`.
        out: the folder to write.
        ema: take the running average of the transformer's weights, `model_ema`, instead of the last ones.
        config: the sizes, which both files must have exactly.
        dtype: how matrices and kernels are stored in `out`.

    Raises:
        ConfigError: `config` is not of the published layout.
        ModelError: a file cannot be read, or its names or shapes are not those of `config`: the message has a line for each difference.
    """
    if config.autoencoder is None or config.light_decoder is not None:
        raise ConfigError(f"{config.name} is not of the published layout, which has a picture autoencoder and no light decoder")
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in CamSeg(config).state_dict().items()}
    parts = published_parts(config)
    state: dict[str, Tensor] = {}
    with Archive(autoencoder) as first, Archive(transformer) as second:
        found = (_autoencoder_tensors(first), _transformer_tensors(second, ema))
        differences = [
            line
            for archive, part, tensors in zip((first, second), parts, found, strict=True)
            for line in _differences(archive.path, part, tensors, shapes)
        ]
        if differences:
            raise ModelError("\n".join([f"the files do not hold {config.name}:", *differences]))
        for archive, part, tensors in zip((first, second), parts, found, strict=True):
            state |= {name: archive.tensor(tensors[published]).float() for published, name in part.expected.items()}
    _check_finite(state)
    model = CamSeg(config)
    model.load_state_dict(state)
    model.eval().save_pretrained(out, dtype)
    logger.info("wrote %s", out)


def _check_finite(state: Mapping[str, Tensor]) -> None:
    bad = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise ModelError(f"{len(bad)} tensors hold numbers that are NaN or infinite, the first is {bad[0]}: the file is damaged")


def _autoencoder_tensors(archive: Archive) -> dict[str, StoredTensor]:
    content = archive.content
    if isinstance(content, dict) and "model" in content and "state_dict" not in content:
        raise ModelError(f"{archive.path} is a transformer's file, given as --autoencoder: were the two swapped?")
    weights = content.get("state_dict", content) if isinstance(content, dict) else content
    return {name: tensor for name, tensor in _tensors(archive, weights).items() if not name.startswith(_NOT_WEIGHTS)}


def _transformer_tensors(archive: Archive, ema: bool) -> dict[str, StoredTensor]:
    content = archive.content
    if isinstance(content, dict) and "state_dict" in content and "model" not in content:
        raise ModelError(f"{archive.path} is an autoencoder's file, given as --transformer: were the two swapped?")
    if not isinstance(content, dict) or "model" not in content:
        raise ModelError(f"{archive.path} has no entry 'model' with the transformer's weights{_has(content)}")
    last = _tensors(archive, content["model"])
    if not ema:
        return last
    average = content.get("model_ema")
    if average is None:
        raise ModelError(f"{archive.path} has no 'model_ema'{_has(content)}: leave out --ema")
    if isinstance(average, list | tuple):  # in the order of the parameters
        if len(average) != len(last):
            raise ModelError(f"'model_ema' of {archive.path} lists {len(average)} tensors, 'model' has {len(last)}")
        average = dict(zip(last, average, strict=True))
    return _tensors(archive, average)


def _has(content: object) -> str:
    return f" (it has {', '.join(map(str, list(content)[:9]))})" if isinstance(content, dict) and content else ""


def _tensors(archive: Archive, weights: object) -> dict[str, StoredTensor]:
    """The tensors of a dict by name, without the prefix that a wrapper for several processes puts before all of them."""
    if not isinstance(weights, dict):
        raise ModelError(f"{archive.path} has no dict of weights where one is expected")
    tensors = {str(name): tensor for name, tensor in weights.items() if isinstance(tensor, StoredTensor)}
    if tensors and all(name.startswith(_WRAPPED) for name in tensors):
        tensors = {name.removeprefix(_WRAPPED): tensor for name, tensor in tensors.items()}
    return tensors


def _differences(path: Path, part: Part, found: Mapping[str, StoredTensor], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """A line for each name that is missing, is not expected, or has another shape."""
    lines = [f"{path}: missing {name} {list(shapes[own])}" for name, own in part.expected.items() if name not in found]
    lines += [f"{path}: unexpected {name} {list(tensor.shape)}" for name, tensor in found.items() if name not in part.expected]
    lines += [
        f"{path}: {name} is {list(found[name].shape)}, expected {list(shapes[own])}"
        for name, own in part.expected.items()
        if name in found and found[name].shape != shapes[own]
    ]
    return lines
