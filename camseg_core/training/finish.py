"""A run of the transformer; then its checkpoint folder is written, exported, scored, described."""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from string import Template
from typing import Any

import torch

from camseg_core.config.model import save_config
from camseg_core.data import Sample
from camseg_core.errors import ModelError
from camseg_core.evaluation.calibration import fit_logit_scale
from camseg_core.evaluation.evaluate import Evaluation, evaluate
from camseg_core.evaluation.flops import mask_encoder_parameters, vehicle_parameters
from camseg_core.evaluation.report.evaluation import write_report
from camseg_core.evaluation.report.page import number
from camseg_core.export import Scores, export_onnx, trace_all
from camseg_core.long_runs import atomic_write
from camseg_core.model.camseg import CamSeg
from camseg_core.model.mask_autoencoder import MaskAutoencoder
from camseg_core.runtime import Segmenter
from camseg_core.training.callbacks import default_callbacks
from camseg_core.training.distributed import Processes
from camseg_core.training.joined import JoinedSamples, OpenedSet
from camseg_core.training.mask_autoencoder import reconstruction_scores
from camseg_core.training.run import TrainingData
from camseg_core.training.trainer import Run
from camseg_core.training.transformer import TransformerTraining, train_transformer, validation

logger = logging.getLogger(__name__)

_SEVERAL_STEPS = (2, 4, 10)
"""Of DDIM; the card lists their scores beside those of one step."""

_CALIBRATION_FRAMES = 26
"""Of `val`, as many of each set: to calibrate the confidence, to compare graphs with torch."""

_INT8_FRAMES = 64
"""Of `train`, as many of each set, to measure the ranges of int8."""


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
    config: TransformerTraining,
    data: TrainingData,
    run: Path,
    out: Path,
    processes: Processes,
    history: Mapping[str, str],
) -> None:
    """Write the checkpoint folder `out`; export, score and describe models with a mask autoencoder.

    int8 graphs are calibrated on frames of `train`, and left out if they lose too much. The report
    of one step goes to `run/val`, those of several steps to `run/val-N-steps`; of several sets, a
    report of each goes to `run/val-NAME`. `history` is for
    the card: the `command`, what `began` the training, and how the model `before` it was made.
    """
    trained = trained.cpu()
    trained.save_pretrained(out, torch.float16)
    if trained.mask_autoencoder is None:
        logger.info("wrote %s; models that decode masks as pictures are not exported", out)
        return
    facts = _facts(trained, trained.mask_autoencoder, config, data, processes)
    stored, val = CamSeg.from_pretrained(out), JoinedSamples(data.val_sets, trained.labels)
    some = val.spread(_CALIBRATION_FRAMES)
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
    by_set = _by_set(out, data, stored, run) if len(data.val_sets) > 1 else {}
    with atomic_write(out / "MODEL_CARD.md") as card:
        more: dict[str, Any] = {"fp32_iou": f"{in_fp32:.3f}", "calibration_frames": len(some)}
        more["by_set"] = _rows_by_set(by_set)
        text = _model_card(stored, one_step, several, run, {**history, **facts, **more})
        card.write_text(text, encoding="utf-8")
    logger.info(
        "val: mIoU %.4f in one step, %s; wrote %s", one_step.mean_iou, _listed(several), out
    )


def _by_set(out: Path, data: TrainingData, model: CamSeg, run: Path) -> dict[str, Evaluation]:
    """Score the checkpoint in one step on each set alone, in the set's own classes."""
    found = {}
    for name, opened, _ in data.val_sets:
        about: dict[str, str | int] = {"data": f"val of {name}", "sampler": "one_step"}
        segmenter = Segmenter.from_pretrained(out)
        found[name] = evaluate(segmenter, opened.samples, opened.scored(), about=about)
        write_report(found[name], run / f"val-{name}")
    return found


def _rows_by_set(found: Mapping[str, Evaluation]) -> str:
    """Return the card's table of scores by data set, or "" for a single set."""
    if not found:
        return ""
    rows = [
        f"| {name} | {len(each.frames)} | {len(each.classes)} | {each.mean_iou:.3f} | "
        f"{each.average_precision:.3f} | {each.calibration.error():.3f} |"
        for name, each in found.items()
    ]
    head = "| `val` of | frames | classes | mean IoU | mean precision | calibration error |"
    return "\n".join(["", head, "| --- | --- | --- | --- | --- | --- |", *rows, ""])


def _export(
    model: CamSeg, out: Path, calibration: Sequence[Sample], scored: Sequence[Sample]
) -> None:
    """Export graphs in fp32, and in int8 unless they lose too much."""
    traced, scores = trace_all(model), Scores(model, scored)
    export_onnx(model, out, traced=traced)
    try:
        export_onnx(model, out, "int8", traced=traced, calibration=calibration, scores=scores)
    except ModelError as error:
        logger.warning("no int8 graphs, fp32 will be used: %s", error)
        # of a model that was in this folder before
        shutil.rmtree(out / "onnx" / "int8", ignore_errors=True)


def _facts(
    trained: CamSeg,
    codec: MaskAutoencoder,
    config: TransformerTraining,
    data: TrainingData,
    processes: Processes,
) -> dict[str, Any]:
    """Return what the model card says about the training."""
    on_cpu, count = processes.device.type == "cpu", processes.world_size
    processor = "CPU" if on_cpu else torch.cuda.get_device_name(processes.device)
    counted = f"{count} process{'es' if count > 1 else ''}"
    return {
        "steps": config.loop.in_steps(len(data.train), config.batch).steps,
        "batch": config.batch,
        "device": f"{processor}, {config.loop.precision}, {counted}",
        "data": _listed_sets(data.train_sets),
        "val_data": _listed_sets(data.val_sets),
        "reconstruction": reconstruction_scores(codec, data.val, trained.labels),
    }


def _listed(several: Mapping[int, Evaluation]) -> str:
    return ", ".join(
        f"{evaluation.mean_iou:.3f} in {steps}" for steps, evaluation in several.items()
    )


def _listed_sets(sets: Sequence[OpenedSet]) -> str:
    """Return for example "367 frames of `camvid` (CamVid with 11 classes) and …"."""
    return " and ".join(
        f"{len(found.samples)} frames of `{name}` ({found.title})" for name, found, _ in sets
    )


def how_it_was_made(card: str) -> str:
    """Return how a model card says its model was made, for a model tuned from it, or ""."""
    _, _, rest = card.partition("## How it was made\n")
    made, figures, _ = rest.partition("The figures: ")
    return f"### The model that it was tuned from\n{made}" if figures else ""


def _model_card(
    model: CamSeg,
    one_step: Evaluation,
    several: Mapping[int, Evaluation],
    run: Path,
    facts: Mapping[str, Any],
) -> str:
    """Fill in the template beside this file."""
    config, codec = model.config, model.mask_autoencoder
    assert codec is not None
    reconstruction = facts["reconstruction"]
    groups = one_step.average_precision_by_group
    condition_stride = config.mask_codec.stride * config.denoised_patch
    rows = [
        "| "
        + " | ".join(
            [
                each.label.name,
                *(f"{score:.3f}" for score in (each.iou, each.precision, each.boundary_f1)),
            ]
        )
        # a group is completed before it passes through the autoencoder
        + f" | {number(reconstruction['iou'].get(each.label.name))} |"
        for each in one_step.classes
    ]
    template = Template(Path(__file__).with_name("model_card.md").read_text(encoding="utf-8"))
    return template.substitute(
        facts,
        name=config.name,
        blocks=config.transformer.encoder_depth + config.transformer.decoder_depth,
        width=config.transformer.width,
        head_depth=config.denoiser.depth,
        head_width=config.denoiser.width,
        codec=f"KL, {codec.config.latent_channels} channels"
        if codec.config.codebook_size is None
        else f"VQ, {codec.config.codebook_size} entries of {codec.config.latent_channels} numbers",
        stride=codec.config.stride,
        fusion="of a cell are added, so there are L tokens instead of 2L"
        if config.transformer.fusion == "grid"
        else "stand in one sequence",
        condition="per token"
        if config.refiner is None
        else "refined by the image's features of strides 8 and 4 to one condition per "
        f"{condition_stride}×{condition_stride} pixels",
        classes=", ".join(label.name for label in model.labels),
        vehicle_parameters=f"{vehicle_parameters(model) / 1e6:.1f}",
        encoder_parameters=f"{mask_encoder_parameters(model) / 1e6:.1f}",
        precision=one_step.precision,
        mean_iou=f"{one_step.mean_iou:.3f}",
        several_steps=f"mean IoU {_listed(several)} steps",
        pixel_accuracy=f"{one_step.pixel_accuracy:.3f}",
        average_precision=f"{one_step.average_precision:.3f}",
        groups=", ".join(f"{name} {value:.3f}" for name, value in groups.items()),
        boundary_f1=f"{one_step.boundary_f1:.3f}",
        calibration_error=f"{one_step.calibration.error():.3f}",
        reconstruction_iou=f"{reconstruction['mean_iou']:.3f}",
        rows="\n".join(rows),
        curve="\n".join(_curve(run / "transformer" / "log.jsonl")),
    )


def _curve(log: Path) -> list[str]:
    """Return the validation curve from a run's log as a table."""
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    scored = [(entry["step"], entry["validation"]) for entry in entries if "validation" in entry]
    head = ["step", *(scored[0][1] if scored else ())]
    return [
        f"| {' | '.join(head)} |",
        "| --- " * len(head) + "|",
        *(
            f"| {step} | "
            + " | ".join("-" if score is None else f"{score:.3f}" for score in scores.values())
            + " |"
            for step, scores in scored
        ),
    ]
