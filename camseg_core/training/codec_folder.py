"""A trained autoencoder as a folder: `config.json` and `model.safetensors`, from which `camseg train` goes on."""

import json
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import load_file, save_file

from camseg_core.atomic_write import atomic_write
from camseg_core.config.dataclass_reader import build
from camseg_core.config.model import KLAutoencoderConfig, MaskAutoencoderConfig
from camseg_core.errors import ModelError
from camseg_core.model.kl_autoencoder import KLAutoencoder
from camseg_core.model.mask_autoencoder import MaskAutoencoder

Codec = KLAutoencoder | MaskAutoencoder


def save_codec(codec: Codec, folder: Path) -> None:
    """Write the folder; `config.json` names the kind as a model's configuration does."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = "mask_autoencoder" if isinstance(codec, MaskAutoencoder) else "autoencoder"
    (folder / "config.json").write_text(
        json.dumps({kind: asdict(codec.config)}, indent=1) + "\n", encoding="utf-8"
    )
    with atomic_write(
        folder / "model.safetensors"
    ) as temporary:  # its presence is taken for a finished training
        save_file(
            {name: tensor.cpu().contiguous() for name, tensor in codec.state_dict().items()},
            temporary,
        )
        temporary.chmod(0o644)  # safetensors leaves the file to its owner alone


def load_codec_into(codec: Codec, folder: Path) -> None:
    """Give `codec` the weights of a folder: of an autoencoder, or of a whole model that has one of its kind.

    Raises:
        ModelError: the folder is missing or damaged, or holds an autoencoder of another kind or size.
    """
    path = folder / "config.json"
    kind, config_class = (
        ("mask_autoencoder", MaskAutoencoderConfig)
        if isinstance(codec, MaskAutoencoder)
        else ("autoencoder", KLAutoencoderConfig)
    )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the autoencoder's configuration {path}: {error}") from error
    whole_model = isinstance(content, dict) and isinstance(
        content.get("transformer"), dict
    )  # a checkpoint folder: its own part is taken
    if not isinstance(content, dict) or (
        list(content) != [kind] and not (whole_model and content.get(kind))
    ):
        raise ModelError(f"{path} does not describe a {kind}, which the model to be trained has")
    found = build(config_class, content[kind], str(path), ModelError)
    if found != codec.config:
        raise ModelError(
            f"{path} is {found}, but the model to be trained has {codec.config}: train an autoencoder of that size"
        )
    weights = folder / "model.safetensors"
    try:
        tensors = load_file(weights)
        if whole_model:
            tensors = {
                name.removeprefix(f"{kind}."): t.float()
                for name, t in tensors.items()
                if name.startswith(f"{kind}.")
            }
        codec.load_state_dict(tensors)
    except Exception as error:  # safetensors raises its own type, which is not exported
        raise ModelError(
            f"cannot read the autoencoder's weights {weights}: {str(error).splitlines()[0]}"
        ) from error
