"""Commands that run a model on unlabelled frames: `camseg segment` and `camseg bench`."""

import argparse
import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from camseg_core.cli.console import Pictures, print_lines
from camseg_core.cli.options import (
    add_model_options,
    add_strict_option,
    at_least,
    model_options,
    model_parser,
    segmenter_of,
    share,
)
from camseg_core.data.frame_source import START_NS, FrameSource, SourceFrame, open_frames
from camseg_core.data.label_table import require_same_ids
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.diffusion.passes import PassOptions
from camseg_core.errors import ConfigError, DataError
from camseg_core.evaluation.benchmark import (
    Variant,
    benchmark,
    benchmark_content,
    benchmark_lines,
)
from camseg_core.evaluation.roofline import repeats_of
from camseg_core.long_runs import writable_file, writable_folder
from camseg_core.segment_files import check_apart, segment_files
from camseg_core.weights import model_labels

SYNTHETIC_FRAMES = 20
"""Different frames of the synthetic drive, which repeat: drawing is slower than segmenting."""

logger = logging.getLogger(__name__)

Images = Iterable[npt.NDArray[np.uint8]]


def add_segment(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `camseg segment`."""
    parser.description = (
        "Write the class ids of every frame of SOURCE (mask/NAME.png, ids of the model's "
        "classes, by default Cityscapes train ids), in colour (color/NAME.png) and over the "
        "image (overlay/NAME.png)."
    )
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="an image, a video or a folder of images"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/segment"),
        help="folder for the results",
    )
    parser.add_argument(
        "--frames", type=at_least(1), help="stop after this many frames (default: all)"
    )
    parser.add_argument(
        "--opacity",
        type=share,
        default=0.5,
        help="opacity of the colours in the overlay, 0 to 1",
    )
    add_strict_option(parser)
    add_model_options(parser)
    parser.set_defaults(run=_segment, kept="the frames so far are in {out}")


def _segment(options: argparse.Namespace) -> None:
    pictures = Pictures(options.strict)
    open_frames(options.source)  # fails before the model is loaded
    check_apart(options.source, options.out)
    writable_folder(options.out, "--out")
    how = options.opacity, options.frames, pictures.leave_out
    for line in segment_files(segmenter_of(options), options.source, options.out, *how):
        print_lines(line)
    pictures.exit_if_left_out()


def add_bench(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `camseg bench`."""
    parser.description = (
        "Times a model stage by stage on this machine, with its memory, parameters and "
        "multiply-accumulates. With --against, times a second setting, interleaved "
        "with the first, and compares both."
    )
    frames = parser.add_mutually_exclusive_group()
    frames.add_argument(
        "--size",
        type=frame_size,
        default="480x360",
        metavar="WIDTHxHEIGHT",
        help="size of the synthetic drive's frames",
    )
    frames.add_argument(
        "--source",
        type=Path,
        metavar="SOURCE",
        help="take the frames of an image, a video or a folder of images, at their own size",
    )
    parser.add_argument(
        "--frames",
        type=at_least(1),
        default=100,
        help="frames to time; a shorter source is repeated",
    )
    parser.add_argument(
        "--warm-up",
        type=at_least(0),
        default=10,
        help="warm-up frames, not timed",
    )
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="compare with the same model and this option changed, as in threads=1; repeatable",
    )
    parser.add_argument(
        "--roofline",
        action="store_true",
        help="also estimate the least time on AGX Orin, Orin NX, RTX 4090 and H100",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to this file")
    add_model_options(parser)
    parser.set_defaults(run=_bench, kept="nothing was written")


def frame_size(text: str) -> tuple[int, int]:
    """An argparse type: `WIDTHxHEIGHT` in pixels, as (width, height)."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"must be WIDTHxHEIGHT in pixels, such as 480x360, got {text!r}"
        )
    return int(found[1]), int(found[2])


def with_changes(options: argparse.Namespace, changes: Sequence[str]) -> argparse.Namespace:
    """Return the model options with changes.

    Args:
        options: parsed options.
        changes: each is `KEY=VALUE`, where KEY is an option of `add_model_options` without dashes.

    Raises:
        ConfigError: a change has another form, its key is unknown or named twice, or its value
            invalid.
    """
    parser, changed, seen = model_parser(), model_options(options), set[str]()
    keys = [action.option_strings[-1].removeprefix("--") for action in parser._actions]
    for change in changes:
        key, equals, value = change.partition("=")
        key = key.replace("_", "-")
        if not equals or key not in keys:
            raise ConfigError(
                f"--against {change}: must be KEY=VALUE, with KEY one of {', '.join(keys)}"
            )
        if key in seen:
            raise ConfigError(f"--against {change}: {key} must be changed once, not twice")
        seen.add(key)
        try:
            parser.parse_args([f"--{key}={value}"], changed)
        except ConfigError as error:
            raise ConfigError(f"--against {change}: {error}") from error
    return changed


def _bench(options: argparse.Namespace) -> None:
    variants = [_variant("A", model_options(options))]
    if options.against:
        changed = with_changes(options, options.against)
        variants.append(_variant("B", changed))
        require_same_ids({each: model_labels(each) for each in (options.model, changed.model)})
    if options.json is not None:
        # now, not after minutes of measuring
        writable_file(options.json, "--json", [options.source])
    source, count = _source(options), options.warm_up + options.frames
    example = _of_one_size(source, count)
    found = benchmark(variants, example, _shown(_repeated(source, count), count), options.warm_up)
    width, height = example.shape[1], example.shape[0]
    if options.json is not None:
        about = {
            "source": source.title,
            "frame_size": [width, height],
            "frames": options.frames,
            "warm_up": options.warm_up,
            "different_frames": min(source.count, count) or None,  # unknown of some videos
        }
        # values without a JSON type, such as paths, are written as text
        _write(
            options.json,
            json.dumps(benchmark_content(found, about, options.roofline), indent=1, default=str)
            + "\n",
        )
    counts = f"{options.frames} frames after {options.warm_up} to warm up"
    title = f"{source.title}, {width}x{height}: {counts}"
    print_lines(title, *benchmark_lines(found, options.roofline))


def _variant(name: str, options: argparse.Namespace) -> Variant:
    steps = 1 if options.sampler == "one_step" else options.steps
    repeats = repeats_of(steps, options.samples, PassOptions(options.passes, options.order))
    return Variant(name, vars(options), repeats, partial(segmenter_of, options))


def _source(options: argparse.Namespace) -> FrameSource:
    if options.source is not None:
        return open_frames(options.source, leave_out=_warn)
    width, height = options.size
    drive = SyntheticDrive(min(SYNTHETIC_FRAMES, options.warm_up + options.frames), height, width)
    frames = [
        SourceFrame(START_NS + drive.stamp_ns(i), sample.image, sample.name)
        for i, sample in enumerate(drive)
    ]
    return FrameSource("synthetic drive", len(frames), drive.fps, lambda: iter(frames))


def _of_one_size(source: FrameSource, count: int) -> npt.NDArray[np.uint8]:
    """Return the first frame; raise DataError if one of the first `count` has another size."""
    frames = islice(source, count)
    first = next(frames, None)
    if first is None:
        raise DataError(f"{source.title} has no image that can be read")
    for frame in frames:
        if frame.image.shape != first.image.shape:
            found = " and ".join(
                f"{each.name} of {each.image.shape[1]}x{each.image.shape[0]} pixels"
                for each in (first, frame)
            )
            raise DataError(
                f"frames to time must have one size, got {found}: measure each size by itself"
            )
    return first.image


def _warn(error: DataError) -> None:
    logger.warning("left out: %s", error)


def _repeated(source: FrameSource, count: int) -> Images:
    """Yield the first `count` images of the source, repeated if it is shorter."""

    def endless() -> Iterator[npt.NDArray[np.uint8]]:
        while True:
            for frame in source:
                yield frame.image

    return islice(endless(), count)


def _shown(images: Images, count: int) -> Images:
    """Show progress as images are consumed, if rich is installed."""
    try:
        from camseg_core.long_runs import shown_progress
    except ModuleNotFoundError:  # rich
        return images
    return shown_progress(images, count, "bench")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--json {path} cannot be written: {error.strerror}") from error
