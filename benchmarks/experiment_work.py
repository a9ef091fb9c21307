"""What the jobs of `experiments.py` do: train and score autoencoders and models."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from experiment_models import Place, recipe_of, trained
from experiment_plan import DRIVE, Autoencoder, Job, Model, Plan, reference_of
from viewpoints import turned, zoomed

from camseg_core.data import Sample, Samples, SamplesOf, spread_numbers
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.evaluation.calibration import ErrorDetection
from camseg_core.evaluation.metrics import BoundaryF1, Confusion, mean
from camseg_core.evaluation.robustness import Contender
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
from camseg_core.long_runs import atomic_write
from camseg_core.model.mask_autoencoder import MaskAutoencoder
from camseg_core.runtime import Sampling
from camseg_core.training.callbacks import Display
from camseg_core.training.completion import fill_unlabelled
from camseg_core.training.frames import Frames
from camseg_core.training.joined import JoinedSamples, OpenedSet, labels_of, open_data
from camseg_core.training.mask_autoencoder import (
    AutoencoderTraining,
    latent_rate,
    reconstructions,
    train_autoencoder,
)
from camseg_core.training.recipes import Recipe
from camseg_core.training.run import TrainingData
from camseg_core.training.trainer import Run

Outcome = tuple[dict[str, int], dict[str, Any]]
"""How many of what were scored, and the figures."""


# reconstruction


def reconstruct(job: Job, plan: Plan, place: Place) -> Outcome:
    """Train an autoencoder on the masks of all sets, and score it after each budget of steps.

    The learning rate is constant, so that one training passes through all budgets: after each, the
    averaged weights are scored with some masks of `val`.
    """
    assert isinstance(job.subject, Autoencoder)
    recipe, codebook = place.load(), job.subject.codebook
    data = TrainingData.load(recipe.data, place.data)
    val = data.val.every(plan.reconstruction.every)
    base, folder = recipe.autoencoder, place.run / job.name
    channels = len(codebook) if isinstance(codebook, tuple) else base.model.latent_channels
    model = replace(
        base.model,
        classes=len(data.labels),
        codebook_size=codebook,
        latent_channels=channels,
    )
    found = {}
    for steps in sorted(plan.reconstruction.steps):
        loop = replace(base.loop, steps=steps, schedule="constant", seed=job.seed)
        config = replace(base, model=model, batch=plan.reconstruction.batch, loop=loop)

        def scored(config: AutoencoderTraining = config) -> dict[str, Any]:
            run = Run(folder, (Display(job.name, every=50),))
            trained = train_autoencoder(config, data.train, run)
            return reconstruction_figures(trained, val, plan.reconstruction.disturbances)

        found[str(steps)] = _kept(folder / f"after-{steps}.json", scored)
    return {"frames": len(val)}, {"after": found}


def reconstruction_figures(
    model: MaskAutoencoder, frames: Frames, disturbances: Sequence[float]
) -> dict[str, Any]:
    """Return the scores of masks that pass an autoencoder, and what its latents carry."""
    classes, levels = len(frames.labels), (0.0, *disturbances)
    by_level, boundary = [Confusion(classes) for _ in levels], BoundaryF1(classes)
    for indices, reconstructed in reconstructions(model, frames, levels):
        for confusion, each in zip(by_level, reconstructed, strict=True):
            confusion.add(indices, each)
        filled = fill_unlabelled(torch.from_numpy(indices).unsqueeze(0))  # what was encoded
        boundary.add(filled[0].numpy(), reconstructed[0])
    confusion, rate = by_level[0], latent_rate(model, frames)
    return {
        "mean_iou": confusion.mean_iou(),
        "pixel_accuracy": confusion.accuracy(),
        "boundary_f1": boundary.mean(),
        "thin_iou": thin_mean_iou(confusion, frames.labels),
        "disturbed": {
            f"{level:g}": found.mean_iou()
            for level, found in zip(disturbances, by_level[1:], strict=True)
        },
        "bits": rate.bits,
        "used_share": rate.used_share,
        "perplexity": rate.perplexity,
    }


THIN_CLASSES = ("pole", "traffic light", "traffic sign")
"""Classes whose objects are a few pixels wide at usual sizes."""


def thin_mean_iou(confusion: Confusion, labels: Sequence[Label]) -> float:
    """Return the mean IoU over `THIN_CLASSES`, NaN if none occurs.

    `labels` are those of the confusion's indices, in their order.
    """
    thin = [label.name in THIN_CLASSES for label in labels]
    return mean(confusion.iou()[thin])


# models


def counts_of(contender: Contender, sample: Sample, scored: ScoredLabels) -> list[list[int]]:
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
        counts = np.array(_kept(place.run / job.name / file, count), np.int64)
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
    contender: Contender, sample: Sample, name: str, scored: Mapping[str, ScoredLabels]
) -> list[list[int]]:
    """Count a frame of the set `name`, see `counts_of`, in the columns of its labels."""
    counts = counts_of(contender, sample, scored[name])
    columns = {each: len(of.labels) for each, of in scored.items()}
    return [
        [count for each, size in columns.items() for count in (row if each == name else [0] * size)]
        for row in counts
    ]


def _kept(path: Path, make: Callable[[], Any]) -> Any:
    """Return what the file at `path` holds, or what `make` returns, which is then written to it."""
    if not path.is_file():
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(make()), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


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
}
"""By the kind of a job."""
