"""Measures the performance that one or several contenders keep on disturbed pictures."""

import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from camseg_core.data import Sample, Samples
from camseg_core.data.label_table import LabelTable
from camseg_core.errors import ConfigError, DataError
from camseg_core.evaluation.condition_results import ConditionResult, ConditionResults
from camseg_core.evaluation.metrics import GROUPS, Confusion, frequency_groups, mean
from camseg_core.evaluation.robustness_suite import (
    CLEAN,
    CLEAR,
    SUITE,
    Condition,
    Pictures,
    Series,
    conditions_of,
    references_of,
)
from camseg_core.evaluation.scorer import Scorer
from camseg_core.evaluation.timing import WarmUp
from camseg_core.groups import ScoredLabels, as_scored
from camseg_core.labels import CITYSCAPES, Label
from camseg_core.runtime.segmenter import Segmentation, Segmenter
from camseg_core.weights import checkpoint_folder

Pixels = npt.NDArray[np.uint8]


class SupportsSegment(Protocol):
    """Anything that segments a picture, as `Segmenter` does."""

    def segment(self, rgb: Pixels, /) -> Segmentation:
        """Return the segmentation of RGB `(H, W, 3)` uint8; only its mask is used."""
        ...


@dataclass(frozen=True)
class Scores:
    """Scores of a contender under a condition, 0..1; NaN where the labels do not define one.

    AP and mean IoU are those of `evaluate`, over the labelled classes alone, so that they can be
    compared; `by_group` is the AP of the frequent, common and rare classes, `iou` the IoU of each
    class. The `kept_` scores are divided by those under the
    reference, NaN if that is 0 or undefined.
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
    """A picture `(H, W, 3)`, its masks `(H, W)` by contender, and its label, 255 if not scored."""

    condition: Condition
    image: Pixels
    label: Pixels
    masks: Mapping[str, Pixels]


@dataclass(frozen=True)
class Robustness:
    """The result of `run_suite`.

    `frames_scored` of the data's `frames` have a pixel to score; where no series needs the data,
    all count. `groups` has, by reference, the group of each of the `labels`: frequent, common,
    rare, or None for a class without labelled pixels. `merged` are the classes of the contenders
    that count as one, by label. `recall_only` are the labelled pixels of labels that are in no
    mean, see `CountedAs`. `model_classes` are all classes that the masks may hold.
    `timings` are ms per frame, and all that differs from run to run.
    """

    contenders: tuple[str, ...]
    labels: tuple[Label, ...]
    suite: tuple[Series, ...]
    frames: int
    frames_scored: int
    seed: int
    groups: Mapping[Condition, Sequence[str | None]]
    scores: Mapping[Condition, Mapping[str, Scores]]
    examples: tuple[Example, ...]
    timings: Mapping[str, float]
    merged: Mapping[str, Sequence[str]] = field(default_factory=dict)
    recall_only: Mapping[str, int] = field(default_factory=dict)
    model_classes: tuple[Label, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)


Work = Iterable[tuple[Condition, int]]


def run_suite(
    contenders: Mapping[str, SupportsSegment],
    samples: Samples,
    labels: Sequence[Label] | ScoredLabels,
    suite: Sequence[Series] = SUITE,
    *,
    frames: int | None = None,
    seed: int = 0,
    keep: Path | None = None,
    identities: Mapping[str, str] | None = None,
    progress: Callable[[Work, int], Work] = lambda work, _: work,
    about: Mapping[str, Any] | None = None,
    table: LabelTable | None = None,
) -> Robustness:
    """Segment the pictures of every condition and score the masks against the labels.

    Every picture is made once and shown to all contenders; one is in memory at a time.

    Args:
        contenders: by display name. The same ones, samples, suite and seed give the same scores.
        samples: the labelled frames. Weather has as many frames of the same size, from the
            synthetic drive.
        labels: the classes to score, as in `evaluate`.
        suite: the series, see `selected`; the references that they need are added.
        frames: how many samples to use, evenly spread; None uses all.
        seed: seed of the disturbances.
        keep: a folder for the results of each condition. A run that was stopped resumes from it,
            and a run with other series or another contender reuses what it can.
        identities: per contender, a text that changes whenever its masks might. Results are kept
            only for contenders that have one.
        progress: called with the work and its length; yields the work and shows progress.
        about: facts to keep with the scores.
        table: the class table of the samples' ids, None for Cityscapes'.

    Raises:
        ConfigError: there are no contenders or no series.
        DataError: there are no frames, no pixel has one of the labels, a label differs in size from
            its image or a mask from its picture, or `keep` cannot be written.
    """
    if not contenders or not suite:
        raise ConfigError("a robustness suite needs at least one model and one disturbance")
    scored, pictures = as_scored(labels), Pictures(samples, frames, suite, seed, table)
    if any(series.reference == CLEAR for series in suite):
        pictures.require_drive(scored)
    key, with_labels = pictures.survey(scored)
    folders = {
        name: ConditionResults(
            keep if name in (identities or {}) else None, {**key, "contender": text}
        )
        for name in contenders
        for text in [(identities or {}).get(name, "")]
    }
    done: dict[Condition, dict[str, ConditionResult]] = {}
    for condition in conditions_of(suite):
        found = {name: folders[name].load(condition, len(scored.labels)) for name in contenders}
        done[condition] = {name: result for name, result in found.items() if result is not None}
    missing = [condition for condition, found in done.items() if len(found) < len(contenders)]

    scorers: dict[str, Scorer] = {}
    segment_ms: dict[str, float] = {}
    picture_ms, warm_up = 0.0, {name: WarmUp() for name in contenders}
    work = ((condition, i) for condition in missing for i in range(len(pictures)))
    for condition, number in progress(work, len(missing) * len(pictures)):
        if number == 0:
            names = [name for name in contenders if name not in done[condition]]
            scorers = {name: Scorer(scored, boundary_tolerance=None) for name in names}
            segment_ms, picture_ms = dict.fromkeys(names, 0.0), 0.0
        start = time.perf_counter()
        sample = pictures.at(condition, number)
        picture_ms += 1000 * (time.perf_counter() - start) / len(pictures)
        for name, scorer in scorers.items():
            warm_up[name]([contenders[name].segment], sample.image)
            start = time.perf_counter()
            mask = _mask(contenders, name, sample)
            segment_ms[name] += 1000 * (time.perf_counter() - start) / len(pictures)
            scorer.add(sample.label, mask)
        if number == len(pictures) - 1:
            for name, scorer in scorers.items():
                confusion = scorer.confusion.matrix.tolist()
                done[condition][name] = ConditionResult(confusion, segment_ms[name], picture_ms)
                folders[name].save(condition, done[condition][name])

    groups, scores = _scores(done, suite, scored)
    classes = _classes(contenders.values())
    shown = [*references_of(suite), *(Condition(series.key, series.shown) for series in suite)]
    examples = []
    for condition in shown:
        sample = pictures.at(condition, len(pictures) // 2)
        raw = {name: _mask(contenders, name, sample) for name in contenders}
        masks = {name: scored.shown(sample.label, mask)[1] for name, mask in raw.items()}
        label = scored.shown(sample.label, sample.label)[0]
        examples.append(Example(condition, sample.image, label, masks))
    return Robustness(
        contenders=tuple(contenders),
        labels=scored.labels,
        suite=tuple(suite),
        frames=len(pictures),
        frames_scored=with_labels if CLEAN in references_of(suite) else len(pictures),
        seed=seed,
        groups=groups,
        scores=scores,
        examples=tuple(examples),
        timings=_timings(done, contenders),
        merged=scored.merged(classes),
        recall_only=_recall_only(done, suite, scored),
        model_classes=classes,
        about=dict(about or {}),
    )


def _recall_only(
    done: Mapping[Condition, Mapping[str, ConditionResult]],
    suite: Sequence[Series],
    scored: ScoredLabels,
) -> dict[str, int]:
    """Return the pixels of labels of which only the recall is defined, in the references."""
    found = [next(iter(done[reference].values())) for reference in references_of(suite)]
    return scored.recall_only_pixels(
        np.sum([np.sum(each.confusion, 1, np.int64) for each in found], 0)
    )


def _classes(contenders: Iterable[SupportsSegment]) -> tuple[Label, ...]:
    """Return the classes of all contenders; one without a list may have any Cityscapes class."""
    listed = [getattr(each, "labels", CITYSCAPES) for each in contenders]
    return tuple({label.id: label for labels in listed for label in labels}.values())


def identity(model: str, segmenter: Segmenter, settings: Mapping[str, Any]) -> str:
    """Return a text that changes whenever the masks might, for `run_suite`'s `identities`.

    It covers the settings and the files of the checkpoint folder that the segmenter uses.
    """
    folder, digest = checkpoint_folder(model), hashlib.sha256()
    for path in sorted([folder / "config.json", folder / "labels.json", *segmenter.graph_files]):
        digest.update(os.fsencode(path.name))
        digest.update(path.read_bytes())
    used = {"engine": segmenter.engine, "precision": segmenter.precision}
    skipped = ("model", "provider", "precision", "engine_cache")
    chosen = {key: value for key, value in settings.items() if key not in skipped}
    content = chosen | used | {"files": digest.hexdigest()}
    return json.dumps(content, sort_keys=True, default=str)


def _mask(contenders: Mapping[str, SupportsSegment], name: str, sample: Sample) -> Pixels:
    mask = contenders[name].segment(sample.image).mask
    if mask.shape != sample.label.shape:
        raise DataError(
            f"a mask must have its image's size: that of {name} for {sample.name} is {mask.shape}"
            f", but the image {sample.label.shape}"
        )
    return mask


def _scores(
    done: Mapping[Condition, Mapping[str, ConditionResult]],
    suite: Sequence[Series],
    scored: ScoredLabels,
) -> tuple[dict[Condition, list[str | None]], dict[Condition, dict[str, Scores]]]:
    """Return `groups` and `scores` of a `Robustness`."""
    empty, confusions = functools.partial(Confusion, len(scored.labels), scored.recall_only), {}
    for condition, found in done.items():
        confusions[condition] = {name: empty() for name in found}
        for name, result in found.items():
            confusions[condition][name].matrix += np.array(result.confusion, np.int64)
    groups = {}
    for reference in references_of(suite):
        any_confusion = next(iter(confusions[reference].values()))
        if not any_confusion.matrix.any():
            names = ", ".join(label.name for label in scored.labels)
            raise DataError(
                f"no frame has a pixel labelled as one of the classes to score ({names})"
            )
        # from the labels alone: the groups are the same for all conditions and contenders
        perfect = empty()
        np.fill_diagonal(perfect.matrix, any_confusion.labelled)
        groups[reference] = frequency_groups(perfect)
    reference_of = {
        condition: series.reference for series in suite for condition in series.conditions()
    }
    scores = {}
    for condition, of_contenders in confusions.items():
        reference = reference_of.get(condition, condition)
        scores[condition] = {
            name: _scored(confusion, confusions[reference][name], groups[reference])
            for name, confusion in of_contenders.items()
        }
    return groups, scores


def _scored(confusion: Confusion, reference: Confusion, groups: Sequence[str | None]) -> Scores:
    """Return the scores over the labelled classes, which are the same for all contenders."""
    precision, clean = confusion.precision(), reference.precision()
    # the groups are of the labels of the reference: a class without any has none
    members = {group: [each == group for each in groups] for group in GROUPS}
    return Scores(
        average_precision=confusion.labelled_precision(),
        by_group={group: mean(precision[of]) for group, of in members.items()},
        mean_iou=confusion.labelled_mean_iou(),
        iou=tuple(confusion.iou().tolist()),
        kept_precision=_share(confusion.labelled_precision(), reference.labelled_precision()),
        kept_by_group={
            group: _share(mean(precision[of]), mean(clean[of])) for group, of in members.items()
        },
        kept_iou=_share(confusion.labelled_mean_iou(), reference.labelled_mean_iou()),
    )


def _share(value: float, whole: float) -> float:
    return value / whole if whole > 0 else float("nan")


def _timings(
    done: Mapping[Condition, Mapping[str, ConditionResult]], contenders: Iterable[str]
) -> dict[str, float]:
    """Return mean ms per frame over all conditions, including those kept from an earlier run."""
    times = {
        f"segment, {name}": float(np.mean([found[name].segment_ms for found in done.values()]))
        for name in contenders
    }
    pictures = [result.picture_ms for found in done.values() for result in found.values()]
    times["make a picture"] = float(np.mean(pictures))
    return times | {"make a picture, slowest condition": max(pictures)}
