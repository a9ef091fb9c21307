"""Trains the transformer; writes, exports, scores and documents the checkpoint folder."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from camseg_core.config.model import save_config
from camseg_core.data import Sample
from camseg_core.diffusion.sampling import Fused
from camseg_core.errors import ModelError, camseg_command
from camseg_core.evaluation.calibration import fit_logit_scale
from camseg_core.evaluation.comparison import ComparedModel, Footage, compare
from camseg_core.evaluation.evaluate import Evaluation, evaluate
from camseg_core.evaluation.report.comparison import comparison_lines, write_comparison
from camseg_core.evaluation.report.evaluation import write_report
from camseg_core.export import Scores, export_onnx, trace_all
from camseg_core.export.torch_engine import TorchEngine
from camseg_core.long_runs import atomic_write
from camseg_core.model.camseg import CamSeg
from camseg_core.model.mask_autoencoder import MaskAutoencoder
from camseg_core.runtime import Sampling, Segmenter
from camseg_core.training.callbacks import default_callbacks
from camseg_core.training.card import UNCALIBRATED, UNMEASURED, History, model_card
from camseg_core.training.card_figures import Figures, labelled_mean_iou
from camseg_core.training.class_offsets import add_class_offsets
from camseg_core.training.distributed import Processes
from camseg_core.training.joined import JoinedSamples
from camseg_core.training.mask_autoencoder import reconstruction_scores
from camseg_core.training.output import CARD, result_folder
from camseg_core.training.run import TrainingData
from camseg_core.training.start import ClassChanges
from camseg_core.training.trainer import Run
from camseg_core.training.transformer import TransformerTraining, train_transformer
from camseg_core.training.validation import validation

logger = logging.getLogger(__name__)

_SEVERAL_STEPS = (2, 4, 10)
"""Numbers of DDIM steps whose scores the card lists beside those of one step."""

_DEFAULT_GRAPH = Fused("one_step", 1)
"""The fused graph of the default sampling; other settings run the parts."""

_CALIBRATION_FRAMES = 26
"""Frames of each set's `val` to calibrate confidence and to check graphs."""

_INT8_FRAMES = 64
"""Frames of `train`, equally many of each set, to measure the ranges of int8."""


def train_in(
    run: Path,
    config: TransformerTraining,
    model: CamSeg,
    data: TrainingData,
    processes: Processes,
) -> CamSeg:
    """Train the transformer of `model` in the folder `run/transformer`, validated on `data.val`.

    Raises:
        CamSegError: the loss became NaN, or the run was asked to stop.
    """
    folder = run / "transformer"
    place = Run(folder, default_callbacks(folder, "transformer"), processes)
    return train_transformer(config, model, data.train, place, validation(config, data.val))


def finish(
    trained: CamSeg,
    data: TrainingData,
    run: Path,
    out: Path,
    history: History,
    export: bool,
    shown: Path | None = None,
    with_offsets: bool = True,
) -> None:
    """Write the checkpoint folder `out` with its card; with `export`, its graphs and figures too.

    Its files appear when all are complete, see `result_folder`.
    Before, a model with a mask autoencoder gets class offsets, see `add_class_offsets`, unless
    `with_offsets` is false. So it is after learning from images without labels: offsets for the
    labelled frames would be none for the images, and hide what was learned from them.
    Only models with a mask autoencoder are exported and scored. int8 graphs are calibrated on
    frames of `train`, and left out if they lose too much; without fp32 graphs, as without `export`,
    the folder has weights alone, the confidence is not calibrated (`logit_scale` 1), and the card
    says why. The report of one step goes to `run/val`,
    those of several steps to `run/val-N-steps`; of several sets, those of each to `run/val-NAME`
    and `run/val-NAME-N-steps`. If `out` is renamed later, `shown` is its final name, and the caller
    logs it.

    Raises:
        ConfigError: `out` holds another model.
        CamSegError: a file cannot be written.
    """
    trained = trained.cpu()
    # that of the start model was fitted to other weights
    trained.config = replace(trained.config, logit_scale=1.0)
    offsets = None
    if with_offsets and trained.mask_autoencoder is not None:
        offsets = add_class_offsets(trained, data.train)
    with result_folder(out, run) as folder:
        trained.save_pretrained(folder, torch.float16)
        figures: Figures | str = UNMEASURED
        if export and trained.mask_autoencoder is not None:
            try:
                figures = _export_and_score(trained, trained.mask_autoencoder, data, run, folder)
            except ModelError as error:
                figures = f"Nothing was measured: {error}. {UNCALIBRATED}"
                logger.warning("%s", error)
        if isinstance(figures, str):  # graphs there are incomplete
            shutil.rmtree(folder / "onnx", ignore_errors=True)
            save_config(trained.config, folder / "config.json")
            logger.log(
                logging.INFO if figures == UNMEASURED else logging.WARNING,
                "neither exported, scored nor calibrated (logit_scale 1); to do so: "
                "%s export, evaluate and calibrate, with --model %s",
                camseg_command(),
                shown or out,
            )
        stored = CamSeg.from_pretrained(folder)
        text = model_card(stored, data, run, history, figures, offsets)
        with atomic_write(folder / CARD) as card:
            card.write_text(text, encoding="utf-8")
    if shown is None:
        logger.info("wrote %s", out)


def _export_and_score(
    trained: CamSeg, codec: MaskAutoencoder, data: TrainingData, run: Path, out: Path
) -> Figures:
    """Export and calibrate the stored model, and score it with the deployed runtime."""
    reconstruction = reconstruction_scores(codec, data.val, trained.labels)
    stored, val = CamSeg.from_pretrained(out), JoinedSamples(data.val_sets, trained.labels)
    some = val.spread(_CALIBRATION_FRAMES * len(data.val_sets))
    calibration = JoinedSamples(data.train_sets, trained.labels).spread(_INT8_FRAMES)
    _export(stored, out, calibration, some)
    fit = fit_logit_scale(Segmenter.from_pretrained(out), some, val.scored())
    save_config(replace(stored.config, logit_scale=fit.logit_scale), out / "config.json")
    logger.info(
        "logit_scale %.3f: calibration error %.4f, %.4f without, on %d frames",
        fit.logit_scale,
        fit.error,
        fit.error_at_one,
        len(some),
    )
    if fit.caution:
        logger.warning("%s", fit.caution)
    one_step = _scored(out, data)
    for name, evaluation in one_step.items():
        write_report(evaluation, run / _folder("val", data, name))
    several = {}
    for steps in _SEVERAL_STEPS:
        found = _scored(out, data, sampler="ddim", steps=steps)
        for name, evaluation in found.items():
            write_report(evaluation, run / f"{_folder('val', data, name)}-{steps}-steps")
        several[steps] = labelled_mean_iou(found)
    in_fp32 = labelled_mean_iou(_scored(out, data, precision="fp32"))
    listed = ", ".join(f"{score:.4f} in {steps}" for steps, score in several.items())
    logger.info("val: mIoU %.4f in one step, %s", labelled_mean_iou(one_step), listed)
    return Figures(one_step, in_fp32, several, len(some), reconstruction)


def _scored(out: Path, data: TrainingData, **settings: Any) -> dict[str, Evaluation]:
    """Score the checkpoint on `val` of each set, over the set's own labels.

    `settings` are arguments of `Segmenter.from_pretrained`.
    """
    segmenter, found = Segmenter.from_pretrained(out, **settings), {}
    for name, opened, _ in data.val_sets:
        title = f"val of {name}" if len(data.val_sets) > 1 else "val"
        about = {"data": title, "sampler": "one_step", **settings}
        found[name] = evaluate(segmenter, opened.samples, opened.scored(), about=about)
    return found


def _folder(kind: str, data: TrainingData, name: str) -> str:
    """Return the name of a set's folder: `kind`, of several sets `kind`-NAME."""
    return f"{kind}-{name}" if len(data.val_sets) > 1 else kind


def _export(
    model: CamSeg, out: Path, calibration: Sequence[Sample], scored: Sequence[Sample]
) -> None:
    """Export graphs in fp32 and, unless they lose too much, in int8; fuse the default sampling."""
    traced, scores = trace_all(model, [_DEFAULT_GRAPH]), Scores(model, scored)
    parts = traced[:-1]
    try:
        export_onnx(model, out, "int8", traced=traced, calibration=calibration, scores=scores)
    except ModelError as error:
        logger.warning("no int8 graphs, fp32 will be used: %s", error)
        parts = traced
    export_onnx(model, out, traced=parts)


def compare_with(
    start: Path, out: Path, changes: ClassChanges, data: TrainingData, run: Path
) -> tuple[float, float]:
    """Score the models of both folders on `val`, in the classes of the new one.

    Returns the mean IoU before and after; of several sets, the means of theirs. The page goes to
    `run/comparison`; of several sets, those of each to `run/comparison-NAME`.
    """
    old, new = _segmenters(start, out)
    notes = [f"classes {line}" for line in changes.lines()]
    if any(len(parts) > 1 for parts in changes.parts.values()):
        notes.append("before: a class that was split counts as right on each of its parts")
    scores = []
    for name, opened, _ in data.val_sets:
        scored = opened.scored()
        folder = run / _folder("comparison", data, name)
        found = compare(
            ComparedModel("before", old, changes.scored(scored)),
            ComparedModel("after", new, scored),
            Footage.of(_folder("val", data, name), opened.samples, notes),
        )
        content = write_comparison([found], folder, {})
        scores.append(content["parts"][0]["mean_iou"]["iou"])
        table = "\n".join(comparison_lines(content))
        logger.info("%s before and %s after:\n%s", old.name, new.name, table)
        logger.info("images and scores side by side: %s", folder / "comparison.html")
    before, after = np.mean(scores, axis=0).tolist()
    return before, after


def _segmenters(*folders: Path) -> list[Segmenter]:
    """Return the models as they ship or, if one has no graphs, all of them in torch."""
    try:
        return [Segmenter.from_pretrained(folder) for folder in folders]
    except ModelError:
        models = [CamSeg.from_pretrained(folder) for folder in folders]
        return [
            Segmenter(model.config, model.labels, TorchEngine(model), Sampling())
            for model in models
        ]
