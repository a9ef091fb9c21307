"""The folder of a run's result: nothing else is replaced there, and nothing is half-written."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from camseg_core.errors import ConfigError
from camseg_core.long_runs import atomic_write, naming
from camseg_core.runtime.origin import LABELS, WEIGHTS, fingerprint

CARD = "MODEL_CARD.md"
_CONTENT = (WEIGHTS, "config.json", LABELS, "val.json", "onnx", CARD)
"""What a run writes, in the order in which it gets its place."""

_RECORD = "out.json"
_PARTIAL = ".partial"


def check_out(out: Path, run: Path) -> None:
    """Check that `out` holds no model, or one that was trained in the folder `run`.

    Raises:
        ConfigError: it holds files of another model.
    """
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
    partial = out / _PARTIAL  # inside, as `out` may be a mounted folder
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with naming(out):
            yield partial
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
