"""What was found of a bag so far, in files: parts of it, so that an evaluation can be stopped, go on, and run in several places."""

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from camseg_core.atomic_write import atomic_write
from camseg_core.labels import Label
from camseg_ros.bag.evaluation import FrameResult, Models
from camseg_ros.bag.tally import Tally


@dataclass(frozen=True)
class ModelFacts:
    """What the report says of the model that made a part."""

    name: str
    provider: str
    precision: str
    labels: tuple[Label, ...]
    compared: str | None

    @staticmethod
    def of(models: Models) -> "ModelFacts":
        """Of loaded models."""
        model, other = models.model, models.compare
        return ModelFacts(
            model.name,
            model.provider,
            model.precision,
            tuple(model.labels),
            None if other is None else other.name,
        )


@dataclass
class Part:
    """The images of a bag from number `start` to before `stop`, those that were evaluated.

    `lines` and `times` have an entry for each frame with its number in the bag as `index`; `masks` its PNG if masks are kept. `skipped`
    counts images that are no pictures, the first of which `problem` tells. `ended` says that the bag has no more, because of its `damage`
    if that is not empty.
    """

    start: int
    stop: int
    facts: ModelFacts
    tally: Tally
    lines: list[dict[str, Any]] = field(default_factory=list)
    times: list[dict[str, float]] = field(default_factory=list)
    masks: list[bytes] = field(default_factory=list)
    skipped: int = 0
    problem: str = ""
    ended: bool = False
    damage: str = ""

    def add(self, result: FrameResult) -> None:
        """Count the next image."""
        self.stop = result.index + 1
        if result.line is None:
            self.skipped += 1
            self.problem = self.problem or result.problem
            return
        self.tally.add(result.tally)
        self.lines.append({"index": result.index, **result.line})
        self.times.append({"index": result.index, **result.times})
        if result.mask is not None:
            self.masks.append(result.mask)


class PartFolder:
    """The parts of several bags, by the number of the bag, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, bag: int, part: Part) -> None:
        """Keep a part: afterwards it is there, whatever happens."""
        if part.masks:
            with (
                atomic_write(self._path(bag, part.start, "zip")) as path,
                zipfile.ZipFile(path, "w") as file,
            ):
                for line, mask in zip(part.lines, part.masks, strict=True):
                    file.writestr(str(line["index"]), mask)
        content = {
            name: value
            for name, value in vars(part).items()
            if name not in ("facts", "tally", "masks")
        }
        labels = [[label.id, label.name, list(label.color)] for label in part.facts.labels]
        content |= {"facts": {**vars(part.facts), "labels": labels}, "tally": part.tally.to_json()}
        with atomic_write(self._path(bag, part.start, "json")) as path:
            path.write_text(json.dumps(content), encoding="utf-8")

    def load(self, bag: int, start: int) -> Part | None:
        """The part that begins with image `start`, without its masks; None where there is none."""
        path = self._path(bag, start, "json")
        if not path.is_file():
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        facts = content["facts"]
        facts["labels"] = tuple(
            Label(number, name, tuple(color)) for number, name, color in facts["labels"]
        )
        content["facts"] = ModelFacts(**facts)
        content["tally"] = Tally.from_json(content["tally"], len(facts["labels"]))
        return Part(**content)

    def has(self, bag: int, start: int) -> bool:
        """Whether there is a part that begins with image `start`."""
        return self._path(bag, start, "json").is_file()

    def in_order(self, bag: int) -> Iterator[Part]:
        """The parts of a bag from its beginning on, as far as one follows the other; none after the one with which the bag ends."""
        at = 0
        while (part := self.load(bag, at)) is not None:
            yield part
            if part.ended or part.stop <= at:
                return
            at = part.stop

    def masks(self, bag: int) -> Iterator[tuple[int, bytes]]:
        """Number and mask of every frame of a bag, in order."""
        for part in self.in_order(bag):
            if part.lines:
                with zipfile.ZipFile(self._path(bag, part.start, "zip")) as file:
                    for name in file.namelist():
                        yield int(name), file.read(name)

    def _path(self, bag: int, start: int, suffix: str) -> Path:
        return self.folder / f"{bag:04}-{start:09}.{suffix}"
