"""Commands that write graphs and engines: `camseg export` and `camseg build-engine`."""

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from camseg_core.cli.console import print_lines
from camseg_core.cli.inference import frame_size
from camseg_core.cli.options import (
    add_dataset_options,
    add_model_option,
    add_sampling_options,
    at_least,
    check_frames,
    data_of,
    number,
    packages_for,
)
from camseg_core.cli.scoring import shared_of
from camseg_core.data import Sample, Samples, SamplesOf, evenly_spread, spread_numbers
from camseg_core.diffusion.sampling import Fused
from camseg_core.errors import ConfigError, ModelError
from camseg_core.long_runs import writable_folder
from camseg_core.runtime.engine import AUTO, PRECISIONS
from camseg_core.runtime.geometry import MODES, WHOLE, Fit
from camseg_core.runtime.origin import weights_of
from camseg_core.runtime.segmenter import Segmenter
from camseg_core.weights import checkpoint_folder, is_bundled

if TYPE_CHECKING:
    from camseg_core.export import Exported


def add_export(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `camseg export`."""
    parser.description = (
        "Write a checkpoint's ONNX graphs, onnx/PRECISION/*.onnx: the four parts, and whole "
        "networks fused into one graph. Every graph is compared with the model in torch, and "
        "with --data the masks are scored as well; graphs that lose too much are not kept. The "
        "graphs of a precision are replaced together: those not written again are removed."
    )
    add_model_option(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="the checkpoint folder to write to (default: the model's own; required for a bundled "
        "model)",
    )
    parser.add_argument(
        "--precision",
        action="append",
        choices=list(PRECISIONS),
        help="precision of the graphs; repeatable; int8 needs --data (default: fp32)",
    )
    parser.add_argument(
        "--fused",
        action="append",
        type=_fused,
        default=[],
        metavar="SAMPLER:STEPS",
        help="also the whole network as one graph, as in one_step:1 or ddim:4; repeatable",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="ROOT",
        help="root of a labelled data set: train frames for int8, val frames to score masks",
    )
    add_dataset_options(parser)
    parser.add_argument(
        "--calibration-frames",
        type=at_least(1),
        default=64,
        metavar="N",
        help="frames of train from which the int8 ranges are measured",
    )
    parser.add_argument(
        "--frames",
        type=at_least(1),
        metavar="N",
        help="score this many, evenly spread (default: all)",
    )
    parser.set_defaults(run=_export, kept="no precision is left half-written")


def _fused(text: str) -> Fused:
    try:
        return Fused.parse(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _export(options: argparse.Namespace) -> None:
    precisions = list(dict.fromkeys(options.precision or ["fp32"]))
    if "int8" in precisions and options.data is None:
        raise ConfigError(
            "int8 graphs need frames like the camera's: name a data set with --data ROOT"
        )
    calibration = (
        evenly_spread(data_of(options, "train").samples, options.calibration_frames)
        if "int8" in precisions
        else []
    )
    val = None if options.data is None else data_of(options, "val")
    shared = None if val is None else shared_of(val, [options.model])
    samples: Samples | Sequence[Sample] = []
    if val is not None and shared is not None:
        check_frames(options, val, shared.scored[0])
        samples = SamplesOf(val.samples, spread_numbers(len(val.samples), options.frames))
    with packages_for("export", "train"):
        from camseg_core.export import Scores, export_onnx, trace_all
        from camseg_core.model.camseg import CamSeg
    folder = checkpoint_folder(options.model)
    if options.out is None and is_bundled(folder):
        raise ConfigError(
            f"--out must name a folder for the graphs of the bundled {folder.name}, as the "
            "installed model stays as it is"
        )
    weights = weights_of(folder)
    model = CamSeg.from_pretrained(folder)
    out = folder if options.out is None else options.out
    writable_folder(out, "the model's folder" if options.out is None else "--out")
    _begin(folder, out)
    scores = None if shared is None else Scores(model, samples, shared.scored[0])
    if shared is not None:
        print_lines(*shared.lines)
    else:
        print_lines(
            "without --data, graphs are compared with torch on random inputs; no mask is scored"
        )
    traced = trace_all(model, options.fused)
    for precision in precisions:
        exported = export_onnx(
            model,
            out,
            precision,
            traced=traced,
            calibration=calibration,
            scores=scores,
            weights=weights,
        )
        print_lines(*lines(exported, len(samples)))


def _begin(folder: Path, out: Path) -> None:
    """Make `out` a checkpoint folder of the same model; the graphs alone cannot be run."""
    if os.path.realpath(out) == os.path.realpath(folder):
        return
    names = ("config.json", "labels.json", "model.safetensors", "MODEL_CARD.md")
    for name in names[:3]:
        there = out / name
        if there.exists() and there.read_bytes() != (folder / name).read_bytes():
            raise ModelError(
                f"{out} holds another model than {folder} (other {name}): name an empty folder "
                "with --out"
            )
    for name in names:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)


def lines(exported: "Exported", frames: int) -> list[str]:
    """Describe an export as lines of text."""
    widest = max(map(len, exported.sizes))
    return [
        f"{exported.folder}: differences from torch",
        *(
            f"  {graph:<{widest}}  {size / 1e6:6.1f} MB  {exported.differences[graph]}"
            for graph, size in exported.sizes.items()
        ),
        *(
            f"  {what:<{widest}}  mIoU {found:.4f} on {frames} frames, {expected:.4f} in torch"
            for what, (found, expected) in exported.mean_iou.items()
        ),
        *(
            f"  removed {graph}, which was not requested: --fused keeps it"
            for graph in exported.removed
        ),
    ]


BUILT_FOR = ("sampler", "steps", "eta", "samples", "passes")
"""The sampling options that decide which graphs run."""


def add_build_engine(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `camseg build-engine`."""
    parser.description = (
        "Build a model's TensorRT engines for the sizes of a vehicle's frames, into a folder that "
        "the node takes as engine_cache and other commands as --engine-cache. Run it on the "
        "vehicle's own GPU with its own TensorRT: an engine runs on no other. The sampling options "
        "and --streams select the graphs: give those of the node."
    )
    add_model_option(parser)
    parser.add_argument(
        "--size",
        action="append",
        type=frame_size,
        required=True,
        metavar="WIDTHxHEIGHT",
        help="size of the camera's frames; repeatable",
    )
    parser.add_argument(
        "--precision", choices=[AUTO, *PRECISIONS], default=AUTO, help="precision of the engines"
    )
    parser.add_argument(
        "--engine-cache", type=Path, required=True, metavar="FOLDER", help="where the engines go"
    )
    parser.add_argument(
        "--provider", choices=["tensorrt"], default="tensorrt", help="provider to build for"
    )
    parser.add_argument(
        "--batch",
        type=at_least(1),
        default=1,
        metavar="N",
        help="also for up to N frames at once, as a node with N cameras runs them, up to its "
        "max_batch (default: %(default)s)",
    )
    parser.add_argument(
        "--resize-mode",
        choices=MODES,
        default=MODES[0],
        help="the node's parameter resize_mode (default: %(default)s)",
    )
    parser.add_argument(
        "--roi",
        nargs=4,
        type=number(0, 1),
        default=WHOLE,
        metavar=("LEFT", "TOP", "RIGHT", "BOTTOM"),
        help="the node's parameter roi, for --resize-mode crop",
    )
    parser.add_argument(
        "--streams", action="store_true", help="for a node with temporal_carry above 0"
    )
    add_sampling_options(parser, BUILT_FOR)
    parser.set_defaults(run=_build, kept="the engines so far are in {engine_cache}")


def _build(options: argparse.Namespace) -> None:
    fit = Fit(options.resize_mode, tuple(options.roi))
    writable_folder(options.engine_cache, "--engine-cache")
    # not run on a GPU here; a test puts the CPU in TensorRT's place
    segmenter = Segmenter.from_pretrained(
        options.model,
        provider=options.provider,
        precision=options.precision,
        engine_cache=options.engine_cache,
        streams=options.streams,
        **{name: getattr(options, name) for name in BUILT_FOR},
    )
    for width, height in options.size:
        for batch in range(1, options.batch + 1):
            seconds = segmenter.warm_up(height, width, fit, batch)
            of = f" for {batch} frames at once" if batch > 1 else ""
            print_lines(f"{width}x{height}{of}: built in {seconds:.0f} s")
    kept = [path for path in options.engine_cache.rglob("*") if path.is_file()]
    megabytes = sum(path.stat().st_size for path in kept) / 1e6
    files = f"{options.engine_cache}: {len(kept)} files, {megabytes:.0f} MB"
    print_lines(f"{files}, for {segmenter.name} in {segmenter.precision}")
