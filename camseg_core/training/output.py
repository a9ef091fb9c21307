"""The folder of a run's result: nothing else is replaced there, and nothing is half-written."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from camseg_core.data.folders import real_path
from camseg_core.errors import ConfigError
from camseg_core.long_runs import atomic_write, naming
from camseg_core.runtime.origin import LABELS, WEIGHTS, fingerprint

CARD = "MODEL_CARD.md"
_CONTENT = (WEIGHTS, "config.json", LABELS, "val.json", "onnx", CARD)
"""What a run writes, in the order in which it gets its place."""

_RECORD = "out.json"
_PARTIAL = ".partial"
_OF_A_RUN = ("autoencoder", "transformer", "val", "comparison")
"""Beginnings of the names of folders that a run writes in its own."""


def check_out(out: Path, run: Path) -> None:
    """Check that `out` holds no model, or one that was trained in the folder `run`.

    Raises:
        ConfigError: it holds files of another model, or is one of the run's own folders.
    """
    own, place = real_path(run), real_path(out)
    if place.is_relative_to(own) and str(place.relative_to(own)).startswith(_OF_A_RUN):
        raise ConfigError(f"--out {out} must not be a folder of the run itself: name another")
    there = [out / name for name in _CONTENT if (out / name).exists()]
    if there and not (out / WEIGHTS in there and fingerprint(out / WEIGHTS) in _written(run)):
        raise ConfigError(
            f"--out {out} must not hold a model that {run} has not written, got {there[0]}: name "
            "another folder, or remove what it holds"
        )


@contextmanager
def result_folder(out: Path, run: Path) -> Iterator[Path]:
    """Yield an empty folder for the result of `run`, whose files replace those in `out` at the end.

    If the block raises, `out` stays as it was. Of what was there before, graphs and card go first,
    and the new card comes last: it never describes another model. Other files stay.

    Raises:
        ConfigError: see `check_out`.
    """
    check_out(out, run)
    # inside, as `out` may be a mounted folder; of this run, as another may have the same `out`
    which = hashlib.blake2b(os.fsencode(real_path(run)), digest_size=6).hexdigest()
    partial = out / f"{_PARTIAL}-{which}"
    for left in (partial, out / _PARTIAL):  # the latter by an older version
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with naming(out):
            yield partial
        check_out(out, run)  # another run may have ended meanwhile
        written = dict.fromkeys([*_written(run), fingerprint(partial / WEIGHTS)])
        with atomic_write(run / _RECORD) as temporary:
            temporary.write_text(json.dumps({"weights": [*written]}) + "\n", encoding="utf-8")
        (out / CARD).unlink(missing_ok=True)
        shutil.rmtree(out / "onnx", ignore_errors=True)
        for name in _CONTENT:
            if (partial / name).exists():
                (partial / name).replace(out / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _written(run: Path) -> list[str]:
    """Return the fingerprints of all weights that the run has written as its result."""
    path = run / _RECORD
    return json.loads(path.read_text(encoding="utf-8"))["weights"] if path.is_file() else []
