"""Writes safetensors files; a full disk becomes one line that names the file."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from camseg_core.errors import CamSegError, first_line
from camseg_core.long_runs import atomic_write


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write contiguous `tensors`, none of which share memory, to `path`, atomically.

    Raises:
        CamSegError: the file cannot be written; the one that was there stays as it was.
    """
    try:
        with atomic_write(path) as temporary:
            save_file(dict(tensors), temporary, dict(metadata or {}) or None)
            temporary.chmod(0o644)  # safetensors makes it readable for its owner alone
    except (OSError, SafetensorError) as error:
        reason = first_line(error).removeprefix("Error while serializing: ")
        raise CamSegError(
            f"cannot write {path}: {reason}; free some disk space, and run the same command again"
        ) from error
