"""What of a robustness suite is done, in files: so that it can be stopped and go on, and grow by a contender or a disturbance."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from camseg_core.atomic_write import atomic_write
from camseg_core.errors import DataError
from camseg_core.evaluation.robustness_suite import Condition

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """What one contender made of one condition: its confusion matrix, and ms per frame, of segmenting and of making the picture."""

    confusion: list[list[int]]
    segment_ms: float
    picture_ms: float


class Parts:
    """The parts of a contender.

    Args:
        folder: where they are kept; None: nowhere.
        key: everything that decides what they are; those with another key are left alone and not found.
    """

    def __init__(self, folder: Path | None, key: Mapping[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        self._folder = None if folder is None else folder / digest

    def load(self, condition: Condition, classes: int) -> Part | None:
        """What is there of a condition; None where there is nothing, or a file that cannot be read, which is then made anew."""
        if self._folder is None or not self._path(condition).is_file():
            return None
        try:
            part = Part(**json.loads(self._path(condition).read_text(encoding="utf-8")))
            if [len(row) for row in part.confusion] != [classes + 1] * classes:
                raise ValueError("its matrix has another size")
        except (OSError, ValueError, TypeError) as error:
            logger.warning(
                "made anew, since it cannot be read: %s (%s)", self._path(condition), error
            )
            return None
        return part

    def save(self, condition: Condition, part: Part) -> None:
        """Keep a part: afterwards it is there, whatever happens.

        Raises:
            DataError: the folder cannot be written.
        """
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._path(condition)) as path:
                path.write_text(json.dumps(asdict(part)), encoding="utf-8")
        except OSError as error:
            raise DataError(
                f"cannot write into {self._folder}: {error.strerror}; choose a folder that can be written"
            ) from error

    def _path(self, condition: Condition) -> Path:
        assert self._folder is not None
        return self._folder / f"{condition.key}.json"
