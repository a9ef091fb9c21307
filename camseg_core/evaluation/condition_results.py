"""Results of a robustness suite by condition, kept in files."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from camseg_core.errors import DataError
from camseg_core.evaluation.robustness_suite import Condition
from camseg_core.long_runs import atomic_write

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConditionResult:
    """A contender's confusion matrix under a condition, and ms per frame to segment and to draw."""

    confusion: list[list[int]]
    segment_ms: float
    picture_ms: float


class ConditionResults:
    """The results of a contender, in files.

    Args:
        folder: where to keep them; None keeps nothing.
        key: everything that determines the results; results with another key are not found.
    """

    def __init__(self, folder: Path | None, key: Mapping[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        self._folder = None if folder is None else folder / digest

    def load(self, condition: Condition, classes: int) -> ConditionResult | None:
        """Return the stored result; None if its file is missing or damaged."""
        if self._folder is None or not (path := self._folder / f"{condition.key}.json").is_file():
            return None
        try:
            result = ConditionResult(**json.loads(path.read_text(encoding="utf-8")))
            if [len(row) for row in result.confusion] != [classes + 1] * classes:
                raise ValueError("its matrix has another size")
        except (OSError, ValueError, TypeError) as error:
            logger.warning("cannot read %s (%s); its condition is run again", path, error)
            return None
        return result

    def save(self, condition: Condition, result: ConditionResult) -> None:
        """Write the result.

        Raises:
            DataError: the folder cannot be written.
        """
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._folder / f"{condition.key}.json") as path:
                path.write_text(json.dumps(asdict(result)), encoding="utf-8")
        except OSError as error:
            raise DataError(
                f"cannot write into {self._folder}: {error.strerror}; choose a folder that can be "
                "written"
            ) from error
