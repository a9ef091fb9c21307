"""The folder of a trained autoencoder: its weights, and a configuration that names its kind."""

import json
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import load_file

from camseg_core.config.model import KLAutoencoderConfig, MaskAutoencoderConfig
from camseg_core.config.reader import build
from camseg_core.errors import ModelError, first_line
from camseg_core.labels import Label, plain_name, read_labels, write_labels
from camseg_core.model.kl_autoencoder import KLAutoencoder
from camseg_core.model.mask_autoencoder import MaskAutoencoder
from camseg_core.model.weights_file import save_tensors
from camseg_core.runtime.origin import LABELS

Codec = KLAutoencoder | MaskAutoencoder


def save_codec(codec: Codec, folder: Path, labels: tuple[Label, ...]) -> None:
    """Write `codec` to `folder`; `config.json` names its kind as a model's configuration does.

    `labels` are the classes of a mask autoencoder, in their order.

    Raises:
        CamSegError: the weights cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kind = "mask_autoencoder" if isinstance(codec, MaskAutoencoder) else "autoencoder"
    (folder / "config.json").write_text(
        json.dumps({kind: asdict(codec.config)}, indent=1) + "\n", encoding="utf-8"
    )
    if isinstance(codec, MaskAutoencoder):
        write_labels(folder / LABELS, labels)
    # last and atomically: the file's existence means that the training is complete
    tensors = {name: tensor.cpu().contiguous() for name, tensor in codec.state_dict().items()}
    save_tensors(tensors, folder / "model.safetensors")


def load_codec_into(codec: Codec, folder: Path, labels: tuple[Label, ...]) -> None:
    """Load the weights of an autoencoder's folder, or of a checkpoint folder, into `codec`.

    `labels` are the classes to be trained. Folders of older versions do not say theirs.

    Raises:
        ModelError: the folder is missing or damaged, or has no autoencoder of this kind and size,
            or one of other classes or of these in another order.
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
    if isinstance(codec, MaskAutoencoder) and (folder / LABELS).is_file():
        _check_classes(read_labels(folder / LABELS), labels, folder)
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


def _check_classes(there: tuple[Label, ...], wanted: tuple[Label, ...], folder: Path) -> None:
    """Check that an autoencoder has the classes of a training at the same places.

    Raises:
        ModelError: it has not; the message names the first place.
    """
    for place, (one, other) in enumerate(zip(there, wanted, strict=True), start=1):
        if plain_name(one.name) != plain_name(other.name):
            raise ModelError(
                f"the autoencoder in {folder} must have the classes of the data in their order, "
                f"but class {place} is {one.name} there, and {other.name} here: train one on these "
                "data (leave out --autoencoder)"
            )
