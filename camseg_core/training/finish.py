"""Trains the transformer; writes, exports, scores and documents the checkpoint folder."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from camseg_core.config.model import save_config
from camseg_core.data import Sample, Samples
from camseg_core.diffusion.sampling import Fused
from camseg_core.errors import ModelError, camseg_command
from camseg_core.evaluation.calibration import fit_logit_scale
from camseg_core.evaluation.comparison import Contender, Footage, compare
from camseg_core.evaluation.evaluate import Evaluation, evaluate
from camseg_core.evaluation.report.comparison import comparison_lines, write_comparison
from camseg_core.evaluation.report.evaluation import write_report
from camseg_core.export import Scores, export_onnx, trace_all
from camseg_core.export.torch_engine import TorchEngine
from camseg_core.groups import ScoredLabels
from camseg_core.long_runs import atomic_write
from camseg_core.model.camseg import CamSeg
from camseg_core.model.mask_autoencoder import MaskAutoencoder
from camseg_core.runtime import Sampling, Segmenter
from camseg_core.training.callbacks import default_callbacks
from camseg_core.training.card import Figures, History, model_card
from camseg_core.training.distributed import Processes
from camseg_core.training.joined import JoinedSamples
from camseg_core.training.mask_autoencoder import reconstruction_scores
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
) -> None:
    """Write the checkpoint folder `out` with its card; with `export`, its graphs and figures too.

    Only models with a mask autoencoder are exported and scored. int8 graphs are calibrated on
    frames of `train`, and left out if they lose too much. The report of one step goes to `run/val`,
    those of several steps to `run/val-N-steps`; of several sets, a report of each goes to
    `run/val-NAME`. If `out` is renamed later, `shown` is its final name, and the caller logs it.
    """
    trained = trained.cpu()
    trained.save_pretrained(out, torch.float16)
    figures = None
    if export and trained.mask_autoencoder is not None:
        figures = _export_and_score(trained, trained.mask_autoencoder, data, run, out)
    else:  # graphs there are an earlier model's
        shutil.rmtree(out / "onnx", ignore_errors=True)
        logger.info(
            "neither exported nor scored; to export: %s export --model %s",
            camseg_command(),
            shown or out,
        )
    with atomic_write(out / "MODEL_CARD.md") as card:
        stored = CamSeg.from_pretrained(out)
        text = model_card(stored, data, run, history, figures)
        card.write_text(text, encoding="utf-8")
    if shown is None:
        logger.info("wrote %s", out)


def _export_and_score(
    trained: CamSeg, codec: MaskAutoencoder, data: TrainingData, run: Path, out: Path
) -> Figures:
    """Export and calibrate the stored model, and score it as it ships."""
    reconstruction = reconstruction_scores(codec, data.val, trained.labels)
    stored, val = CamSeg.from_pretrained(out), JoinedSamples(data.val_sets, trained.labels)
    some = val.spread(_CALIBRATION_FRAMES * len(data.val_sets))
    calibration = JoinedSamples(data.train_sets, trained.labels).spread(_INT8_FRAMES)
    _export(stored, out, calibration, some)
    fit = fit_logit_scale(Segmenter.from_pretrained(out), some, stored.labels)
    save_config(replace(stored.config, logit_scale=fit.logit_scale), out / "config.json")
    logger.info(
        "logit_scale %.3f: calibration error %.4f, %.4f without, on %d frames",
        fit.logit_scale,
        fit.error,
        fit.error_at_one,
        len(some),
    )
    one_step = evaluate(
        Segmenter.from_pretrained(out),
        val,
        val.scored(),
        about={"data": "val", "sampler": "one_step"},
    )
    in_fp32 = evaluate(Segmenter.from_pretrained(out, precision="fp32"), val, val.scored()).mean_iou
    write_report(one_step, run / "val")
    several = {}
    for steps in _SEVERAL_STEPS:
        about: dict[str, str | int] = {"data": "val", "sampler": "ddim", "steps": steps}
        several[steps] = evaluate(
            Segmenter.from_pretrained(out, sampler="ddim", steps=steps),
            val,
            val.scored(),
            about=about,
        )
        write_report(several[steps], run / f"val-{steps}-steps")
    by_set = _by_set(out, data, run) if len(data.val_sets) > 1 else {}
    listed = ", ".join(f"{each.mean_iou:.4f} in {steps}" for steps, each in several.items())
    logger.info("val: mIoU %.4f in one step, %s", one_step.mean_iou, listed)
    return Figures(one_step, in_fp32, several, by_set, len(some), reconstruction)


def _by_set(out: Path, data: TrainingData, run: Path) -> dict[str, Evaluation]:
    """Score the checkpoint in one step on each set alone, in the set's own classes."""
    found = {}
    for name, opened, _ in data.val_sets:
        about: dict[str, str | int] = {"data": f"val of {name}", "sampler": "one_step"}
        segmenter = Segmenter.from_pretrained(out)
        found[name] = evaluate(segmenter, opened.samples, opened.scored(), about=about)
        write_report(found[name], run / f"val-{name}")
    return found


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
        # graphs of a model that was in this folder before
        shutil.rmtree(out / "onnx" / "int8", ignore_errors=True)
        parts = traced
    export_onnx(model, out, traced=parts)


def compare_with(
    start: Path, out: Path, changes: ClassChanges, data: TrainingData, run: Path
) -> tuple[float, float]:
    """Score the models of both folders on `val`, in the classes of the new one.

    Returns the mean IoU before and after. The page goes to `run/comparison`; of several sets, one
    of each to `run/comparison-NAME`.
    """
    new = JoinedSamples(data.val_sets, changes.new)
    old_segmenter, new_segmenter = _segmenters(start, out)
    notes = [f"classes {line}" for line in changes.lines()]
    if any(len(parts) > 1 for parts in changes.parts.values()):
        notes.append("before: a class that was split counts as right on each of its parts")

    def comparison(title: str, samples: Samples, scored: ScoredLabels) -> dict[str, Any]:
        found = compare(
            Contender("before", old_segmenter, changes.scored(scored)),
            Contender("after", new_segmenter, scored),
            Footage.of(title, samples, notes),
        )
        return write_comparison([found], run / f"comparison{title.removeprefix('val')}", {})

    content = comparison("val", new, new.scored())
    table = "\n".join(comparison_lines(content))
    logger.info("%s before and %s after:\n%s", old_segmenter.name, new_segmenter.name, table)
    if len(data.val_sets) > 1:
        for name, opened, _ in data.val_sets:
            comparison(f"val-{name}", opened.samples, opened.scored())
    logger.info("pictures and scores side by side: %s", run / "comparison" / "comparison.html")
    before, after = content["parts"][0]["mean_iou"]["iou"]
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
