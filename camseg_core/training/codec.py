"""The folder of a trained autoencoder: its weights, and a configuration that names its kind."""

import json
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import load_file

from camseg_core.config.model import KLAutoencoderConfig, MaskAutoencoderConfig
from camseg_core.config.reader import build
from camseg_core.errors import ModelError, first_line
from camseg_core.model.kl_autoencoder import KLAutoencoder
from camseg_core.model.mask_autoencoder import MaskAutoencoder
from camseg_core.model.weights_file import save_tensors

Codec = KLAutoencoder | MaskAutoencoder


def save_codec(codec: Codec, folder: Path) -> None:
    """Write `codec` to `folder`; `config.json` names its kind as a model's configuration does.

    Raises:
        CamSegError: the weights cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kind = "mask_autoencoder" if isinstance(codec, MaskAutoencoder) else "autoencoder"
    (folder / "config.json").write_text(
        json.dumps({kind: asdict(codec.config)}, indent=1) + "\n", encoding="utf-8"
    )
    # last and atomically: the file's existence means that the training is complete
    tensors = {name: tensor.cpu().contiguous() for name, tensor in codec.state_dict().items()}
    save_tensors(tensors, folder / "model.safetensors")


def load_codec_into(codec: Codec, folder: Path) -> None:
    """Load the weights of an autoencoder's folder, or of a checkpoint folder, into `codec`.

    Raises:
        ModelError: the folder is missing or damaged, or has no autoencoder of this kind and size.
    """
    path = folder / "config.json"
    kind, config_class = (
        ("mask_autoencoder", MaskAutoencoderConfig)
        if isinstance(codec, MaskAutoencoder)
        else ("autoencoder", KLAutoencoderConfig)
    )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read the autoencoder's configuration {path}: {error}") from error
    whole_model = isinstance(content, dict) and isinstance(content.get("transformer"), dict)
    if not isinstance(content, dict) or (
        list(content) != [kind] and not (whole_model and content.get(kind))
    ):
        raise ModelError(f"{path} must describe a {kind}, as in the model to be trained")
    found = build(config_class, content[kind], str(path), ModelError)
    if found != codec.config:
        raise ModelError(
            f"{path} must be {codec.config}, as in the model to be trained, got {found}: "
            "train an autoencoder of that size"
        )
    weights = folder / "model.safetensors"
    try:
        tensors = load_file(weights)
        if whole_model:
            tensors = {
                name.removeprefix(f"{kind}."): tensor.float()
                for name, tensor in tensors.items()
                if name.startswith(f"{kind}.")
            }
        codec.load_state_dict(tensors)
    except Exception as error:  # safetensors raises its own type, which is not exported
        raise ModelError(
            f"cannot read the autoencoder's weights {weights}: {first_line(error)}"
        ) from error
