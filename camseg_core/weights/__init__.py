"""The checkpoints that the package carries, by name."""

from pathlib import Path

from camseg_core.errors import ModelError

DEFAULT_MODEL = "camseg-lite"
_BUNDLED = Path(__file__).parent


def bundled_models() -> list[str]:
    """Return the names of the bundled models."""
    return sorted(path.parent.name for path in _BUNDLED.glob("*/config.json"))


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
