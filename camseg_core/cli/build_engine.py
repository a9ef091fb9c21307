"""`camseg build-engine`: build TensorRT engines ahead of a vehicle's first start."""

import argparse
import sys
from pathlib import Path

from camseg_core.cli.options import add_model_option, add_sampling_options, at_least
from camseg_core.runtime.engine import AUTO, PRECISIONS
from camseg_core.runtime.segmenter import Segmenter


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Build the TensorRT engines of a model for the sizes of a vehicle's frames into a folder, "
        "the node's engine_cache and the other commands' --engine-cache. Run it on the vehicle's "
        "own GPU with its own TensorRT: an engine runs on no other. Sampler and steps select the "
        "graphs, as for the node."
    )
    add_model_option(parser)
    parser.add_argument(
        "--size",
        action="append",
        type=_size,
        required=True,
        metavar="WxH",
        help="of the camera's frames; repeatable",
    )
    parser.add_argument(
        "--precision", choices=[AUTO, *PRECISIONS], default=AUTO, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--engine-cache", type=Path, required=True, metavar="FOLDER", help="where the engines go"
    )
    parser.add_argument(
        "--provider", choices=["tensorrt"], default="tensorrt", help="(default: %(default)s)"
    )
    add_sampling_options(parser, ("sampler", "steps"))
    parser.set_defaults(run=_build)


def _size(text: str) -> tuple[int, int]:
    """Parse `WxH` to (height, width); an argparse type."""
    width, _, height = text.partition("x")
    try:
        return at_least(1)(height), at_least(1)(width)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"must be a size such as 480x360, got {text!r}") from None


def _build(options: argparse.Namespace) -> None:
    # not run on a GPU here; a test puts the CPU in TensorRT's place
    segmenter = Segmenter.from_pretrained(
        options.model,
        provider=options.provider,
        precision=options.precision,
        sampler=options.sampler,
        steps=options.steps,
        engine_cache=options.engine_cache,
    )
    for height, width in options.size:
        seconds = segmenter.warm_up(height, width)
        sys.stdout.write(f"{width}x{height}: built in {seconds:.0f} s\n")
        sys.stdout.flush()
    kept = [path for path in options.engine_cache.iterdir() if path.is_file()]
    megabytes = sum(path.stat().st_size for path in kept) / 1e6
    sys.stdout.write(
        f"{options.engine_cache}: {len(kept)} files, {megabytes:.0f} MB, "
        f"for {segmenter.name} in {segmenter.precision}\n"
    )
