"""Published models that can be imported. Imports neither torch nor the hub's client."""

from dataclasses import dataclass

from camseg_core.config.model import CamSegConfig
from camseg_core.config.named_models import CAM_SEG_BASE_768


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
BUNDLED_TERMS = {"camseg-lite": "trained on CamVid, for research use: see its MODEL_CARD.md"}
