"""Jobs that train an autoencoder and score the masks that it reconstructs."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from experiment_models import Outcome, Place
from experiment_plan import Autoencoder, Job, Plan
from job_files import kept_in

from camseg_core.evaluation.boundary_f1 import BoundaryF1
from camseg_core.evaluation.metrics import Confusion, mean
from camseg_core.labels import Label
from camseg_core.model.mask_autoencoder import MaskAutoencoder
from camseg_core.training.callbacks import Display
from camseg_core.training.completion import fill_unlabelled
from camseg_core.training.frames import Frames
from camseg_core.training.mask_autoencoder import (
    AutoencoderTraining,
    latent_rate,
    reconstructions,
    train_autoencoder,
)
from camseg_core.training.run import TrainingData
from camseg_core.training.trainer import Run


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

        found[str(steps)] = kept_in(folder / f"after-{steps}.json", scored)
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
        "mean_iou": confusion.labelled_mean_iou(),
        "pixel_accuracy": confusion.accuracy(),
        "boundary_f1": mean(boundary.per_class()[confusion.labelled > 0]),
        "thin_iou": thin_mean_iou(confusion, frames.labels),
        "disturbed": {
            f"{level:g}": found.labelled_mean_iou()
            for level, found in zip(disturbances, by_level[1:], strict=True)
        },
        "bits": rate.bits,
        "used_share": rate.used_share,
        "perplexity": rate.perplexity,
    }


THIN_CLASSES = ("pole", "traffic light", "traffic sign")
"""Classes whose objects are a few pixels wide at usual sizes."""


def thin_mean_iou(confusion: Confusion, labels: Sequence[Label]) -> float:
    """Return the mean IoU over the labelled ones of `THIN_CLASSES`, NaN if there are none.

    `labels` are those of the confusion's indices, in their order.
    """
    thin = np.array([label.name in THIN_CLASSES for label in labels])
    return mean(confusion.iou()[thin & (confusion.labelled > 0)])
