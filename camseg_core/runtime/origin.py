"""What the graphs of a checkpoint folder were exported from: `origin.json` beside them.

A folder whose weights or classes were replaced after the export would run the old model under the
new names; a damaged graph may run, and give other masks.
"""

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from camseg_core.errors import ModelError, camseg_command
from camseg_core.labels import read_labels
from camseg_core.long_runs import atomic_write

_PART_BYTES = 1 << 20

CONFIG, LABELS, WEIGHTS = "config.json", "labels.json", "model.safetensors"
ORIGIN = "origin.json"


@dataclass(frozen=True)
class Contents:
    """Fingerprints of a checkpoint folder's files, by name, when its model was loaded."""

    files: Mapping[str, str]

    @staticmethod
    def of(checkpoint: Path) -> "Contents":
        """Return the fingerprints of configuration, classes and weights, if there are any."""
        there = (checkpoint / name for name in (CONFIG, LABELS, WEIGHTS))
        return Contents({path.name: fingerprint(path) for path in there if path.is_file()})

    def check(self, checkpoint: Path) -> None:
        """Check that the folder still has the same files.

        Graphs of another model under the loaded classes would give masks of other meaning.

        Raises:
            ModelError: it does not.
        """
        now = Contents.of(checkpoint).files
        names = [name for name in {**self.files, **now} if self.files.get(name) != now.get(name)]
        if names:
            raise ModelError(
                f"{checkpoint} must hold the model that is in use, but {' and '.join(names)} "
                "changed since it was loaded: restore the folder, or load the model anew (for the "
                "node: clean up and configure)"
            )


def weights_of(checkpoint: Path) -> str | None:
    """Return the fingerprint of a checkpoint's weights; None without weights."""
    weights = checkpoint / WEIGHTS
    return fingerprint(weights) if weights.is_file() else None


def write_origin(graphs: Path, weights: str | None, ids: Sequence[int]) -> None:
    """Record in the folder `graphs` the fingerprints of weights and graphs, and the ids."""
    files = {path.name: fingerprint(path) for path in sorted(graphs.glob("*.onnx"))}
    found = {"weights": weights, "ids": [*ids], "graphs": files}
    with atomic_write(graphs / ORIGIN) as temporary:
        temporary.write_text(json.dumps(found) + "\n", encoding="utf-8")


def check_origin(checkpoint: Path, precision: str, files: Iterable[Path]) -> None:
    """Check that graphs are whole, and of the weights and classes of their checkpoint folder.

    What is not recorded passes, as by older versions, and so does a folder without weights.

    Args:
        checkpoint: the checkpoint folder.
        precision: of the graphs.
        files: those that are to run.

    Raises:
        ModelError: they are of others, or damaged, or the record cannot be read.
    """
    graphs = checkpoint / "onnx" / precision
    path, weights, labels = graphs / ORIGIN, checkpoint / WEIGHTS, checkpoint / LABELS
    if not path.is_file():
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        exported, ids = found["weights"], [int(i) for i in found["ids"]]
        recorded = {**found.get("graphs", {})}
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ModelError(
            f"cannot read {path}: {error!r}; copy the checkpoint folder again"
        ) from error
    again = f"{camseg_command()} export --model {checkpoint} --precision {precision}"
    if None not in (exported, there := weights_of(checkpoint)) and there != exported:
        raise ModelError(
            f"the graphs in {graphs} must be exported from the weights beside them, {weights}, but "
            f"were exported from other weights: export them again ({again}), or restore the weights"
        )
    if labels.is_file() and (listed := [label.id for label in read_labels(labels)]) != ids:
        raise ModelError(
            f"{labels} must list the ids that the graphs in {graphs} give, in their order: "
            f"{ids}, got {listed}; restore it, or export again ({again})"
        )
    for file in (each for each in files if each.name in recorded):
        if fingerprint(file) != recorded[file.name]:
            raise ModelError(
                f"cannot load {file}: it must be as it was exported, but {ORIGIN} records "
                f"other content; copy the checkpoint folder again, or export again ({again})"
            )


def fingerprint(path: Path) -> str:
    """Return the fingerprint of a file, kept until it changes."""
    about = path.stat()
    # archives and images give all files one time of change, and links may name another file
    version = about.st_dev, about.st_ino, about.st_ctime_ns, about.st_mtime_ns, about.st_size
    return _fingerprint(path, version)


@functools.lru_cache(maxsize=64)
def _fingerprint(path: Path, version: tuple[int, ...]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:  # in parts: weights may be larger than a vehicle's free memory
        while part := file.read(_PART_BYTES):
            digest.update(part)
    return digest.hexdigest()
