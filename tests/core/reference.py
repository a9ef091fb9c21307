"""The published model's arithmetic as tensors, and the project's model with these weights."""

import functools
import json
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from camseg_core.config.model import (
    CamSegConfig,
    DenoiserConfig,
    KLAutoencoderConfig,
    TransformerConfig,
)
from camseg_core.model.camseg import CamSeg

FOLDER = Path(__file__).parent.parent / "data" / "reference"


@functools.cache
def tensors() -> dict[str, Tensor]:
    """Inputs and the outputs that they must give."""
    return load_file(FOLDER / "tensors.safetensors")


@functools.cache
def model() -> CamSeg:
    """The small reference configuration with its weights."""
    sizes = json.loads((FOLDER / "config.json").read_text())
    vae, mar = sizes["vae"], sizes["transformer"]
    cells = mar["img_size"] // mar["vae_stride"]
    config = CamSegConfig(
        name="reference",
        network_pixels=mar["img_size"] ** 2,
        transformer=TransformerConfig(
            mar["embed_dim"],
            mar["depth"],
            mar["depth"],
            mar["num_heads"],
            mar["mlp_ratio"],
            (cells, cells),
        ),
        denoiser=DenoiserConfig(mar["diffloss_w"], mar["diffloss_d"]),
        autoencoder=KLAutoencoderConfig(
            vae["ch"],
            tuple(vae["ch_mult"]),
            vae["num_res_blocks"],
            vae["embed_dim"],
            sizes["latent_scale"],
        ),
    )
    result = CamSeg(config).eval()
    result.load_state_dict(published_state())
    return result


def published_state() -> dict[str, Tensor]:
    """The reference weights under the names that `CamSeg` gives its parts."""
    state = {
        f"autoencoder.{name}": tensor
        for name, tensor in load_file(FOLDER / "autoencoder.safetensors").items()
    }
    for name, tensor in load_file(FOLDER / "transformer.safetensors").items():
        head = name.startswith("diffloss.net.")
        state[
            f"denoiser.{name.removeprefix('diffloss.net.')}" if head else f"transformer.{name}"
        ] = tensor
    return state


def published_shapes(part: str) -> dict[str, list[int]]:
    """Return the published weights' names and shapes; `part` as in `parameter_shapes_PART.json`."""
    return json.loads((FOLDER / f"parameter_shapes_{part}.json").read_text())
