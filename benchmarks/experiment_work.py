"""What the jobs of `experiments.py` do: those of models here, other kinds in files of their own."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
from adaptation_work import adapt
from experiment_models import Outcome, Place, recipe_of, trained
from experiment_plan import DRIVE, Job, Model, Plan, reference_of
from job_files import kept_in
from reconstruction_work import reconstruct
from viewpoints import turned, zoomed

from camseg_core.data import Sample, Samples, SamplesOf, spread_numbers
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.evaluation.calibration import ErrorDetection
from camseg_core.evaluation.metrics import Confusion
from camseg_core.evaluation.robustness import SupportsSegment
from camseg_core.evaluation.robustness_suite import (
    DRIVE_FPS,
    Condition,
    Pictures,
    conditions_of,
    references_of,
    selected,
)
from camseg_core.groups import ScoredLabels, as_scored
from camseg_core.labels import Label
from camseg_core.runtime import Sampling
from camseg_core.training.joined import JoinedSamples, OpenedSet, labels_of, open_data
from camseg_core.training.recipes import Recipe

# models


def counts_of(contender: SupportsSegment, sample: Sample, scored: ScoredLabels) -> list[list[int]]:
    """Count a frame's pixels by class: those right, those with it as label, those as mask."""
    truth = scored.truth_of(sample.label)
    confusion = Confusion(len(scored.labels))
    confusion.add(truth, scored.predicted_of(contender.segment(sample.image).mask, truth))
    return [each.tolist() for each in (confusion.hits, confusion.labelled, confusion.predicted)]


def validated(recipe: Recipe, place: Place) -> tuple[list[OpenedSet], tuple[Label, ...]]:
    """Return the sets to validate on and the model's classes."""
    return open_data(recipe.data, place.data, "val"), labels_of(recipe.data, place.data)


def spread(samples: Samples, count: int) -> SamplesOf:
    """Return `count` of the samples, evenly spread."""
    return SamplesOf(samples, spread_numbers(len(samples), count))


def train(job: Job, plan: Plan, place: Place) -> Outcome:
    """Train a model, and count its masks of every set's `val`, frame by frame."""
    assert isinstance(job.subject, Model)
    contender = trained(job.subject, job.seed, plan, place)(Sampling())
    sets, _ = validated(recipe_of(job.subject, job.seed, plan, place), place)
    n, figures = {}, {}
    for name, opened, _ in sets:
        scored, samples = opened.scored(), spread(opened.samples, plan.models.frames)
        n[name] = len(samples)
        figures[name] = {
            "classes": [label.name for label in scored.labels],
            "frames": [counts_of(contender, each, scored) for each in samples],
        }
    return n, {"sets": figures}


# domain shift

Made = Callable[[int], Sample]


def conditions(plan: Plan, samples: Samples, seed: int = 0) -> Iterator[tuple[str, str, Made]]:
    """Yield family, level in words, and the maker of its frames by number.

    The families `clean` and `clear` are what the others are compared with.
    """
    suite, shift = selected(plan.shift.suite), plan.shift
    pictures, (height, width) = Pictures(samples, None, suite, seed), samples[0].label.shape
    drive = SyntheticDrive(len(samples), height, width, seed, DRIVE_FPS)
    yield "clean", "", lambda number: samples[number]
    yield DRIVE, "", lambda number: drive[number]
    for condition in conditions_of(suite):
        if condition not in references_of(suite):
            family, _, name = condition.series.partition("/")
            yield family, f"{name} {condition.level:g}", partial(pictures.at, condition)

    def changed(change: Callable[[Sample], Sample]) -> Made:
        return lambda number: change(samples[number])

    for pitch in shift.pitch:
        yield "pitch", f"{pitch:g}", changed(partial(turned, pitch=pitch))
    for roll in shift.roll:
        yield "roll", f"{roll:g}", changed(partial(turned, roll=roll))
    for share in shift.zoom:
        yield "zoom", f"{share:g}", changed(partial(zoomed, share=share))
    for metres in shift.height:
        moved = replace(drive, camera_height=metres)
        yield "height", f"{metres:g}", moved.__getitem__


def shift(job: Job, plan: Plan, place: Place) -> Outcome:
    """Count a model's masks under every condition; frame by frame, summed over each family.

    Each set is counted over its own labels, in columns of its own; so is the synthetic drive, over
    the model's classes.
    """
    assert isinstance(job.subject, Model)
    contender = trained(job.subject, job.seed, plan, place)(Sampling())
    sets, labels = validated(recipe_of(job.subject, job.seed, plan, place), place)
    scored = {name: opened.scored() for name, opened, _ in sets}
    scored[DRIVE] = as_scored(labels)
    frames = [
        (name, sample)
        for name, opened, _ in sets
        for sample in spread(opened.samples, plan.shift.frames)
    ]
    samples = [sample for _, sample in frames]
    families: dict[str, npt.NDArray[np.int64]] = {}
    levels: dict[str, dict[str, list[list[int]]]] = {}
    for family, level, made in conditions(plan, samples):
        on_drive = DRIVE in (family, reference_of(family))

        def count(made: Made = made, on_drive: bool = on_drive) -> list[list[list[int]]]:
            return [
                counts_in(contender, made(number), DRIVE if on_drive else name, scored)
                for number, (name, _) in enumerate(frames)
            ]

        file = f"{family} {level}.json".replace(" ", "-")
        counts = np.array(kept_in(place.run / job.name / file, count), np.int64)
        levels.setdefault(family, {})[level] = counts.sum(0).tolist()
        families[family] = families.get(family, 0) + counts
    return {"frames": len(samples), "conditions": sum(map(len, levels.values()))}, {
        "classes": [
            f"{label.name} of {name}" for name, of in scored.items() for label in of.labels
        ],
        "families": {name: counts.tolist() for name, counts in families.items()},
        "levels": levels,
    }


def counts_in(
    contender: SupportsSegment, sample: Sample, name: str, scored: Mapping[str, ScoredLabels]
) -> list[list[int]]:
    """Count a frame of the set `name`, see `counts_of`, in the columns of its labels."""
    counts = counts_of(contender, sample, scored[name])
    columns = {each: len(of.labels) for each, of in scored.items()}
    return [
        [count for each, size in columns.items() for count in (row if each == name else [0] * size)]
        for row in counts
    ]


# uncertainty


def uncertainty(job: Job, plan: Plan, place: Place) -> Outcome:
    """Score how well confidences find errors, by sampling, on every set and disturbed domain."""
    assert isinstance(job.subject, Model)
    of = trained(job.subject, job.seed, plan, place)
    sets, labels = validated(recipe_of(job.subject, job.seed, plan, place), place)
    settings = plan.uncertainty
    latents = job.subject.head == "latents"
    methods = dict(settings.sampling) if latents else {"softmax": Sampling()}
    domains: dict[str, tuple[ScoredLabels, Samples, Made | None]] = {
        name: (opened.scored(), spread(opened.samples, settings.frames), None)
        for name, opened, _ in sets
    }
    seen = [each for each in sets if each.name != job.subject.left_out]
    joined = JoinedSamples(seen, labels)
    mixed = joined.spread(settings.frames)
    for series in selected(settings.domains):
        pictures = Pictures(mixed, None, [series], 0)
        shown = partial(pictures.at, Condition(series.key, series.shown))
        domains[series.key] = joined.scored(), mixed, shown
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for method, sampling in methods.items():
        contender = of(sampling)
        for domain, (scored, samples, made) in domains.items():
            found = ErrorDetection()
            for number in range(len(samples)):
                sample = samples[number] if made is None else made(number)
                result = contender.segment(sample.image)
                truth = scored.truth_of(sample.label)
                known = truth < len(scored.labels)
                right = scored.predicted_of(result.mask, truth) == truth
                found.add(result.confidence[known], right[known])
            pixels = found.counts.sum(1)
            figures.setdefault(domain, {})[method] = {
                "error_rate": int(pixels[1]) / max(1, int(pixels.sum())),
                "auroc": found.auroc(),
                "aurc": found.area_under_risk_coverage(),
            }
    return {name: len(samples) for name, (_, samples, _) in domains.items()}, {"domains": figures}


WORK: dict[str, Callable[[Job, Plan, Place], Outcome]] = {
    "reconstruct": reconstruct,
    "train": train,
    "shift": shift,
    "uncertainty": uncertainty,
    "adapt": adapt,
}
"""By the kind of a job."""
