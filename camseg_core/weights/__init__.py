"""Named models: the published one, the project's own, and the checkpoints that the package carries.

Imports neither torch nor the hub's client.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from camseg_core.config.backbone import ImageEncoderConfig
from camseg_core.config.model import (
    CamSegConfig,
    ConditionRefinerConfig,
    DenoiserConfig,
    KLAutoencoderConfig,
    MaskAutoencoderConfig,
    TransformerConfig,
)
from camseg_core.errors import ModelError
from camseg_core.labels import CAMVID_11_TRAIN_IDS, CITYSCAPES, Label, read_labels

DEFAULT_MODEL = "camseg-lite"
_BUNDLED = Path(__file__).parent

CAM_SEG_BASE_768 = CamSegConfig(
    name="cam-seg-base-768",
    network_pixels=768 * 768,
    transformer=TransformerConfig(),
    denoiser=DenoiserConfig(),
    autoencoder=KLAutoencoderConfig(),
)
"""The published model, with 69.6 M parameters in the autoencoder and 217.1 M in the rest."""

CAMSEG_LITE = CamSegConfig(
    name="camseg-lite",
    network_pixels=480 * 360,
    transformer=TransformerConfig(
        width=192,
        encoder_depth=2,
        decoder_depth=2,
        heads=6,
        grid=(12, 15),
        fusion="grid",
        dropout=0.0,
    ),
    denoiser=DenoiserConfig(width=192, depth=2, prediction_type="sample", learned_variance=False),
    image_encoder=ImageEncoderConfig(width=192, stride=32, finest=16),
    mask_autoencoder=MaskAutoencoderConfig(classes=len(CITYSCAPES), separable=True),
    refiner=ConditionRefinerConfig(width=160, detail=64, edge=24, separable=True),
    patch_size=8,
    pixel_mean=(123.675, 116.28, 103.53),
    pixel_std=(58.395, 57.12, 57.375),
    temperature=0.5,
    noise_filter=True,
    max_upscale=2.0,
)
"""The project's small model; its image encoder expects ImageNet's normalisation."""

CAMSEG_LITE_CAMVID = replace(
    CAMSEG_LITE,
    name="camseg-lite-camvid",
    transformer=replace(CAMSEG_LITE.transformer, grid=(24, 30)),
    denoiser=replace(CAMSEG_LITE.denoiser, width=128, depth=3),
    image_encoder=ImageEncoderConfig(width=192),
    mask_autoencoder=MaskAutoencoderConfig(classes=len(CAMVID_11_TRAIN_IDS)),
    refiner=ConditionRefinerConfig(),
    patch_size=4,
    noise_filter=False,
    max_upscale=1.0,
)
"""The first small model: four times as many tokens, for the eleven classes of CamVid."""


@dataclass(frozen=True)
class PublishedModel:
    """A model that others publish: two files in a repository of the Hugging Face hub."""

    config: CamSegConfig
    repository: str
    autoencoder: str
    """The file with the picture autoencoder, a Lightning checkpoint."""
    transformer: str
    """The file with masked transformer and diffusion head."""
    parameters: float
    """In millions, of both files together."""
    terms: str


PUBLISHED = {
    CAM_SEG_BASE_768.name: PublishedModel(
        CAM_SEG_BASE_768,
        repository="mahmed10/CAM-Seg",
        autoencoder="pretrained_models/vae/modelf16.ckpt",
        transformer="pretrained_models/mar/city768.16.pth",
        parameters=69.6 + 217.1,
        terms="not known here: see the repository's page on the hub; not part of this package",
    )
}
BUNDLED_TERMS = {
    "camseg-lite": "trained on CamVid, Cityscapes and IDD-Lite, for research use: see its "
    "MODEL_CARD.md"
}


def bundled_models() -> list[str]:
    """Return the names of the bundled models."""
    return sorted(path.parent.name for path in _BUNDLED.glob("*/config.json"))


def is_bundled(folder: Path) -> bool:
    """Whether this is the folder of a bundled model, which belongs to the installation."""
    return os.path.dirname(os.path.realpath(folder)) == os.path.realpath(_BUNDLED)


def checkpoint_folder(model: str | Path) -> Path:
    """Return the folder of a bundled model's name or of a path to a checkpoint folder.

    Raises:
        ModelError: it is neither; the message lists the bundled names.
    """
    if str(model) in bundled_models():
        return _BUNDLED / str(model)
    folder = Path(model)
    if not folder.is_dir():
        raise ModelError(
            f"no model {str(model)!r}: it is neither a folder nor one of the bundled models "
            f"({', '.join(bundled_models())})"
        )
    return folder


def model_labels(model: str | Path) -> tuple[Label, ...]:
    """Return the classes of a model without loading it.

    Raises:
        ModelError: there is no such model, or its `labels.json` is missing or damaged.
    """
    return tuple(read_labels(checkpoint_folder(model) / "labels.json"))
