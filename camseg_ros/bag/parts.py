"""Stores what an evaluation has found so far, so that it can be stopped, resumed and spread."""

import hashlib
import json
import platform
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from camseg_core.errors import ConfigError, DataError
from camseg_core.evaluation.scorer import Scorer
from camseg_core.evaluation.timing import PACKAGES
from camseg_core.groups import ScoredLabels
from camseg_core.labels import Label
from camseg_core.long_runs import atomic_write


@dataclass(frozen=True)
class ModelInfo:
    """What the report says about the model; `compared` is the name of the other one, if any.

    `labels` are the model's classes, `scored` what its masks are scored over, `versions` those of
    the packages that computed them.
    """

    name: str
    engine: str
    precision: str
    labels: tuple[Label, ...]
    scored: ScoredLabels
    compared: str | None
    versions: Mapping[str, str]

    @property
    def facts(self) -> dict[str, str | None]:
        """Everything except classes, by name."""
        named = {"model": self.name, "engine": self.engine, "precision": self.precision}
        return {**named, "compared": self.compared, **self.versions}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages here on which results depend."""
    found = {"python": platform.python_version()}
    for name in (*PACKAGES, "rosbags"):
        with suppress(PackageNotFoundError):  # one of the two ONNX Runtimes
            found[name] = version(name)
    return found


@dataclass(frozen=True)
class ScoredFrame:
    """One evaluated image of a bag.

    Attributes:
        index: its number on its topic.
        line: its entry of `frames.jsonl`; None if it could not be decoded.
        scorer: its counts; None if it could not be decoded.
        times: times in ms by name; see `evaluation.READ`.
        mask: the mask as PNG, if masks are kept.
        problem: why it could not be decoded.
    """

    index: int
    line: dict[str, Any] | None = None
    scorer: Scorer | None = None
    times: dict[str, float] = field(default_factory=dict)
    mask: bytes | None = None
    problem: str = ""


@dataclass
class BagPart:
    """The evaluated images of a bag from number `start` to before `stop`.

    Attributes:
        info: the model that made the masks.
        scorer: the counts.
        lines, times: an entry for each frame, with its number in the bag as `index`.
        masks: a PNG for each frame, if masks are kept.
        skipped: number of images that could not be decoded.
        problem: why the first of them could not.
        ended: whether the bag has no more images.
        damage: the damage that ended it, or empty.
    """

    start: int
    stop: int
    info: ModelInfo
    scorer: Scorer
    lines: list[dict[str, Any]] = field(default_factory=list)
    times: list[dict[str, float]] = field(default_factory=list)
    masks: list[bytes] = field(default_factory=list)
    skipped: int = 0
    problem: str = ""
    ended: bool = False
    damage: str = ""

    @staticmethod
    def empty(start: int, info: ModelInfo) -> "BagPart":
        """Return a part without images."""
        return BagPart(start, start, info, Scorer(info.scored))

    def add(self, frame: ScoredFrame) -> None:
        """Add the next image."""
        self.stop = frame.index + 1
        if frame.line is None or frame.scorer is None:
            self.skipped += 1
            self.problem = self.problem or frame.problem
            return
        self.scorer.merge(frame.scorer)
        self.lines.append({"index": frame.index, **frame.line})
        self.times.append({"index": frame.index, **frame.times})
        if frame.mask is not None:
            self.masks.append(frame.mask)


class PartFolder:
    """The parts of several bags in a folder, by the number of the bag; all of one `ModelInfo`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._info: ModelInfo | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def require(self, info: ModelInfo) -> None:
        """Raise ConfigError if the parts seen so far are of another model, engine or version."""
        self._info = self._info or info
        before, now = self._info.facts, info.facts
        differ = [
            f"{name} {before.get(name) or 'none'} and {now.get(name) or 'none'}"
            for name in sorted({*before, *now})
            if before.get(name) != now.get(name)
        ]
        if differ:
            raise ConfigError(
                "an evaluation must be computed by one model, engine and version of each package, "
                f"got {'; '.join(differ)} ({self.folder}): continue with the first, or remove that "
                "folder to start again"
            )

    def save(self, bag: int, part: BagPart) -> None:
        """Write a part atomically; raises as `require`."""
        self.require(part.info)
        if part.masks:
            with (
                atomic_write(self._path(bag, part.start, "zip")) as path,
                zipfile.ZipFile(path, "w") as file,
            ):
                for line, mask in zip(part.lines, part.masks, strict=True):
                    file.writestr(str(line["index"]), mask)
        labels = [[label.id, label.name, list(label.color)] for label in part.info.labels]
        info = {**vars(part.info), "labels": labels, "scored": part.info.scored.to_json()}
        content = {**vars(part), "info": info}
        content["scorer"] = part.scorer.to_json()
        del content["masks"]
        with atomic_write(self._path(bag, part.start, "json")) as path:
            path.write_text(json.dumps(content), encoding="utf-8")

    def load(self, bag: int, start: int) -> BagPart | None:
        """Read the part that begins with image `start`, without its masks; None if it is missing.

        Raises:
            DataError: another version of this program wrote it.
            ConfigError: see `require`.
        """
        path = self._path(bag, start, "json")
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            info = content["info"]
            labels = tuple(Label(id, name, tuple(color)) for id, name, color in info["labels"])
            scored = ScoredLabels.from_json(info["scored"])
            content["info"] = ModelInfo(**{**info, "labels": labels, "scored": scored})
            content["scorer"] = Scorer.from_json(content["scorer"], scored)
            part = BagPart(**content)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} was written by another version of camseg, so this evaluation cannot be "
                f"resumed; remove {self.folder} to start again"
            ) from error
        self.require(part.info)
        return part

    def has(self, bag: int, start: int) -> bool:
        """Return whether there is a part that begins with image `start`."""
        return self._path(bag, start, "json").is_file()

    def in_order(self, bag: int) -> Iterator[BagPart]:
        """Yield the parts of a bag from its beginning up to the first gap or its end."""
        at = 0
        while (part := self.load(bag, at)) is not None:
            yield part
            if part.ended or part.stop <= at:
                return
            at = part.stop

    def masks(self, bag: int) -> Iterator[tuple[int, bytes]]:
        """Yield number and mask of every frame of a bag, in order."""
        for part in self.in_order(bag):
            if part.lines:
                with zipfile.ZipFile(self._path(bag, part.start, "zip")) as file:
                    for name in file.namelist():
                        yield int(name), file.read(name)

    def _path(self, bag: int, start: int, suffix: str) -> Path:
        return self.folder / f"{bag:04}-{start:09}.{suffix}"


def parts_name(options: Mapping[str, str], used: Iterable[Path]) -> str:
    """Return the name of a folder for the parts of these options and files as they are now."""
    files = str([_file_states(path) for path in used])
    key = json.dumps({**options, "files": files}, sort_keys=True)
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def _file_states(path: Path) -> list[tuple[str, int, int]]:
    """Return the files at `path` with size and modification time."""
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    return [
        (str(each), each.stat().st_size, each.stat().st_mtime_ns) for each in files if each.exists()
    ]
