"""The published model's files from the Hugging Face hub, through its own library: resumed where they were cut off, kept in its cache."""

import logging
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError

from camseg_core.errors import ConfigError
from camseg_core.weights.catalogue import PublishedModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pulled:
    """Where the two files are, in the hub's cache."""

    autoencoder: Path
    transformer: Path


def pull(model: PublishedModel, revision: str | None = None) -> Pulled:
    """Download what is not in the cache yet; sizes are logged before, and shown on the way by the hub's library.

    `HF_HUB_OFFLINE`, `HF_HOME`, `HF_ENDPOINT` and the other variables of that library apply. `revision` is a branch, tag or commit.

    Raises:
        ConfigError: the hub cannot be reached and the cache lacks a file, or the repository has no such file or revision.
    """
    names = (model.autoencoder, model.transformer)
    for name, size in _sizes(model, names, revision).items():
        logger.info("%s: %s, %.2f GB", model.repository, name, size / 1e9)
    try:
        paths = [Path(hf_hub_download(model.repository, name, revision=revision)) for name in names]
    except LocalEntryNotFoundError as error:
        raise ConfigError(
            f"cannot download {model.repository}, and its files are not all in the cache: check the network (and HF_HUB_OFFLINE), or "
            f"take the files from elsewhere and use camseg weights import"
        ) from error
    except HfHubHTTPError as error:
        raise ConfigError(f"the hub refuses {model.repository}: {' '.join(str(error).split())[:300]}") from error
    except OSError as error:
        raise ConfigError(f"cannot download {model.repository}: {' '.join(str(error).split())[:300]}; started again, it goes on") from error
    return Pulled(*paths)


def _sizes(model: PublishedModel, names: tuple[str, ...], revision: str | None) -> dict[str, int]:
    """Bytes of the files by name, as the hub says; empty where it cannot be asked, which the download then finds out for itself."""
    try:
        found = HfApi().get_paths_info(model.repository, list(names), revision=revision)
    except RepositoryNotFoundError as error:
        raise ConfigError(f"the hub has no repository {model.repository}, or does not show it without a token (HF_TOKEN)") from error
    except (OfflineModeIsEnabled, HfHubHTTPError, OSError):
        return {}
    except Exception as error:  # the errors of the library's HTTP client are not ours to name
        logger.info("cannot ask the hub for sizes: %s", " ".join(str(error).split())[:200])
        return {}
    return {info.path: info.size for info in found if hasattr(info, "size")}
