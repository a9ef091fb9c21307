"""Published models that can be had by name."""

from dataclasses import dataclass

from camseg_core.errors import ConfigError


@dataclass(frozen=True)
class PublishedModel:
    """Where a model's two files are: a repository of the Hugging Face hub, and paths in it."""

    name: str
    about: str
    repository: str
    autoencoder: str
    transformer: str


PUBLISHED = (
    PublishedModel(
        "cam-seg-base-768",
        "the model of arXiv 2503.15617, 287 million parameters, trained on Cityscapes; its terms are its authors' and the data set's",
        "mahmed10/CAM-Seg",
        "pretrained_models/vae/modelf16.ckpt",
        "pretrained_models/mar/city768.16.pth",
    ),
)


def published_model(name: str) -> PublishedModel:
    """The published model of that name.

    Raises:
        ConfigError: there is none; the message lists them.
    """
    for model in PUBLISHED:
        if model.name == name:
            return model
    raise ConfigError(f"no published model {name!r}; choose one of {', '.join(model.name for model in PUBLISHED)}")
