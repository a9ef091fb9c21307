"""How much of a model's performance is left when its pictures are disturbed: one suite for one or several contenders."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.data.sample import Sample, Samples
from camseg_core.errors import ConfigError, DataError
from camseg_core.evaluation.evaluate import scored_label
from camseg_core.evaluation.metrics import GROUPS, Confusion, frequency_groups, mean
from camseg_core.evaluation.robustness_parts import Part, Parts
from camseg_core.evaluation.robustness_suite import (
    CLEAN,
    SUITE,
    Condition,
    Pictures,
    Series,
    conditions_of,
    references_of,
)
from camseg_core.evaluation.scorer import Scorer
from camseg_core.labels import Label
from camseg_core.runtime.frame import Segmentation

Pixels = npt.NDArray[np.uint8]

REVISION = 1
"""To be raised when a disturbance makes other pictures than before: results that are kept in files are then made anew."""


class Contender(Protocol):
    """Anything that segments a picture, as `Segmenter` does."""

    def segment(self, rgb: Pixels, /) -> Segmentation:
        """RGB `(H, W, 3)` uint8 to a mask of train ids of the same height and width; confidences and timings are not used."""
        ...


@dataclass(frozen=True)
class Scores:
    """Of one contender under one condition, 0..1; NaN where the labels say nothing.

    AP and mean IoU are as `evaluate` defines them; `by_group` is the AP of the frequent, common and rare classes, `iou` that of each
    class. `kept_precision`, `kept_by_group` and `kept_iou` are AP, that of the groups, and mean IoU over those under the reference, NaN
    where that has none.
    """

    average_precision: float
    by_group: Mapping[str, float]
    mean_iou: float
    iou: tuple[float, ...]
    kept_precision: float
    kept_by_group: Mapping[str, float]
    kept_iou: float


@dataclass(frozen=True)
class Example:
    """A picture of a condition `(H, W, 3)`, the masks `(H, W)` by contender, and the label, 255 where a pixel is not scored."""

    condition: Condition
    image: Pixels
    label: Pixels
    masks: Mapping[str, Pixels]


@dataclass(frozen=True)
class Robustness:
    """What `run_suite` found. `groups` has, by reference, the group of each of the `labels`: frequent, common, rare, or None for a class
    that its labels do not contain. `timings` are ms per frame and differ from run to run; nothing else does."""

    contenders: tuple[str, ...]
    labels: tuple[Label, ...]
    suite: tuple[Series, ...]
    frames: int
    seed: int
    groups: Mapping[Condition, Sequence[str | None]]
    scores: Mapping[Condition, Mapping[str, Scores]]
    examples: tuple[Example, ...]
    timings: Mapping[str, float]
    about: Mapping[str, Any] = field(default_factory=dict)


Work = Iterable[tuple[Condition, int]]


def _as_it_comes(work: Work, total: int) -> Work:
    return work


def run_suite(
    contenders: Mapping[str, Contender],
    samples: Samples,
    labels: Sequence[Label],
    suite: Sequence[Series] = SUITE,
    *,
    frames: int | None = None,
    seed: int = 0,
    keep: Path | None = None,
    identities: Mapping[str, str] | None = None,
    progress: Callable[[Work, int], Work] = _as_it_comes,
    about: Mapping[str, Any] | None = None,
) -> Robustness:
    """Segment the pictures of every condition and score the masks against the labels.

    A picture is made once and shown to all contenders. One picture is in memory at a time.

    Args:
        contenders: by the name to show. The same ones, samples, suite and seed give the same scores.
        samples: the labelled frames. Weather has frames of the same size and number, from the synthetic drive.
        labels: the classes to score, as in `evaluate`.
        suite: the series, see `selected`; the references that they need come by themselves.
        frames: so many of the samples, evenly spread over them; all without.
        seed: of the disturbances.
        keep: a folder for what is done so far, condition by condition. A run that is stopped goes on there, and one with other series
            or another contender takes what fits.
        identities: for each contender a text that changes when it would give other masks. Only with it are its results kept.
        progress: called with what is to be done and how much that is, yields the same while it shows how far it is.
        about: facts to keep with the scores.

    Raises:
        ConfigError: there are no contenders or no series.
        DataError: there are no frames, none has a labelled pixel, a label's size is not its image's, a contender's mask has another size
            than its picture, or `keep` cannot be written.
    """
    if not contenders or not suite:
        raise ConfigError("a robustness suite needs at least one contender and one disturbance")
    pictures = Pictures(samples, frames, suite, seed)
    judge = _Judge(contenders, labels)
    identities = identities or {}
    key = _key(pictures, labels, seed) if keep is not None else {}
    parts = {
        name: Parts(
            keep if name in identities else None, {**key, "contender": identities.get(name, "")}
        )
        for name in contenders
    }
    done: dict[Condition, dict[str, Part]] = {}
    for condition in conditions_of(suite):
        found = {name: parts[name].load(condition, len(labels)) for name in contenders}
        done[condition] = {name: part for name, part in found.items() if part is not None}
    missing = [condition for condition, found in done.items() if len(found) < len(contenders)]

    for condition, number in progress(
        ((condition, i) for condition in missing for i in range(len(pictures))),
        len(missing) * len(pictures),
    ):
        if number == 0:
            judge.start([name for name in contenders if name not in done[condition]])
        start = time.perf_counter()
        sample = pictures.at(condition, number)
        judge.see(sample, 1000 * (time.perf_counter() - start))
        if number == len(pictures) - 1:
            for name, part in judge.parts().items():
                parts[name].save(condition, part)
                done[condition][name] = part

    return Robustness(
        contenders=tuple(contenders),
        labels=tuple(labels),
        suite=tuple(suite),
        frames=len(pictures),
        seed=seed,
        **_scores(done, suite, labels, contenders),
        examples=tuple(_examples(pictures, suite, judge)),
        timings=_timings(done, contenders),
        about=dict(about or {}),
    )


class _Judge:
    """Shows pictures to contenders and scores their masks, one condition after the other."""

    def __init__(self, contenders: Mapping[str, Contender], labels: Sequence[Label]) -> None:
        self._contenders, self._labels = contenders, labels
        self._scorers: dict[str, Scorer] = {}

    def start(self, names: Sequence[str]) -> None:
        """Begin a condition, for these contenders."""
        self._scorers = {name: Scorer(self._labels, boundary_tolerance=None) for name in names}
        self._segment_ms = dict.fromkeys(names, 0.0)
        self._picture_ms = 0.0

    def see(self, sample: Sample, picture_ms: float) -> None:
        """Score a picture, which took this long to make."""
        self._picture_ms += picture_ms
        for name, scorer in self._scorers.items():
            start = time.perf_counter()
            mask = self._mask(name, sample)
            self._segment_ms[name] += 1000 * (time.perf_counter() - start)
            scorer.add(sample.label, mask)

    def parts(self) -> dict[str, Part]:
        """What was counted since the start of the condition."""
        return {
            name: Part(
                scorer.confusion.matrix.tolist(),
                self._segment_ms[name] / int(scorer.frames[0]),
                self._picture_ms / int(scorer.frames[0]),
            )
            for name, scorer in self._scorers.items()
        }

    def example(self, condition: Condition, sample: Sample) -> Example:
        """A picture with what all contenders say."""
        return Example(
            condition,
            sample.image,
            scored_label(sample.label, self._labels),
            {name: self._mask(name, sample) for name in self._contenders},
        )

    def _mask(self, name: str, sample: Sample) -> Pixels:
        mask = self._contenders[name].segment(sample.image).mask
        if mask.shape != sample.label.shape:
            raise DataError(
                f"the mask that {name} gives of {sample.name} is {mask.shape}, but the picture {sample.label.shape}"
            )
        return mask


def _key(pictures: Pictures, labels: Sequence[Label], seed: int) -> dict[str, Any]:
    """What decides the pictures and how masks are counted: some of the frames stand for the data."""
    digest = hashlib.sha256()
    for number in sorted({0, len(pictures) // 2, len(pictures) - 1}):
        sample = pictures.at(CLEAN, number)
        digest.update(sample.name.encode() + sample.image.tobytes() + sample.label.tobytes())
    return {
        "revision": REVISION,
        "frames": len(pictures),
        "data": digest.hexdigest(),
        "labels": [label.id for label in labels],
        "seed": seed,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }


def _scores(
    done: Mapping[Condition, Mapping[str, Part]],
    suite: Sequence[Series],
    labels: Sequence[Label],
    contenders: Iterable[str],
) -> dict[str, Any]:
    """`groups` and `scores` of a `Robustness`."""
    confusions = {
        condition: {name: _confusion(part, len(labels)) for name, part in found.items()}
        for condition, found in done.items()
    }
    groups, scores = {}, {}
    reference_of = {
        condition: series.reference for series in suite for condition in series.conditions()
    }
    for reference in references_of(suite):
        of_any = next(iter(confusions[reference].values()))
        if not of_any.matrix.any():
            names = ", ".join(label.name for label in labels)
            raise DataError(
                f"no frame has a pixel labelled as one of the classes to score ({names})"
            )
        # from the labels alone, so that the groups are the same for all conditions and contenders
        said = Confusion(len(labels))
        np.fill_diagonal(said.matrix, of_any.labelled)
        groups[reference] = frequency_groups(said)
    for condition, found in confusions.items():
        reference = reference_of.get(condition, condition)
        scores[condition] = {
            name: _scored(found[name], confusions[reference][name], groups[reference])
            for name in contenders
        }
    return {"groups": groups, "scores": scores}


def _confusion(part: Part, classes: int) -> Confusion:
    confusion = Confusion(classes)
    confusion.matrix += np.array(part.confusion, np.int64)
    return confusion


def _scored(confusion: Confusion, reference: Confusion, groups: Sequence[str | None]) -> Scores:
    precision, iou, whole = confusion.precision(), confusion.iou(), reference.precision()
    members = {group: [each == group for each in groups] for group in GROUPS}
    return Scores(
        average_precision=mean(precision),
        by_group={group: mean(precision[of]) for group, of in members.items()},
        mean_iou=confusion.mean_iou(),
        iou=tuple(iou.tolist()),
        kept_precision=_share(mean(precision), mean(whole)),
        kept_by_group={
            group: _share(mean(precision[of]), mean(whole[of])) for group, of in members.items()
        },
        kept_iou=_share(confusion.mean_iou(), reference.mean_iou()),
    )


def _share(value: float, whole: float) -> float:
    return value / whole if whole > 0 else float("nan")


def _examples(pictures: Pictures, suite: Sequence[Series], judge: _Judge) -> Iterator[Example]:
    """The frame in the middle: as it is in each reference, and in each series at the level that it shows."""
    shown = [*references_of(suite), *(Condition(series.key, series.shown) for series in suite)]
    for condition in shown:
        yield judge.example(condition, pictures.at(condition, len(pictures) // 2))


def _timings(
    done: Mapping[Condition, Mapping[str, Part]], contenders: Iterable[str]
) -> dict[str, float]:
    """Mean ms per frame over all conditions, also of those that were kept from an earlier run."""
    times = {
        f"segment, {name}": float(np.mean([found[name].segment_ms for found in done.values()]))
        for name in contenders
    }
    pictures = [part.picture_ms for found in done.values() for part in found.values()]
    return {
        **times,
        "make a picture": float(np.mean(pictures)),
        "make a picture, slowest condition": max(pictures),
    }
