"""The `camseg` command: parses and calls."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from camseg_core.errors import CamSegError
from camseg_core.model.samplers import SAMPLERS
from camseg_core.runtime.engine_onnx import PROVIDERS
from camseg_core.runtime.segment_files import segment_files
from camseg_core.runtime.segmenter import Segmenter
from camseg_core.weights import DEFAULT_MODEL, bundled_models


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; an error the project foresees is one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(prog="camseg", description="Semantic segmentation for driving.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_segment(commands.add_parser("segment", help="segment images, a video or a folder of images"))
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except CamSegError as error:
        sys.exit(_fail(str(error)))
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str) -> int:
    sys.stderr.write(f"camseg: error: {message}\n")
    return 2


def _add_segment(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write for every frame of SOURCE its class ids (mask/NAME.png, Cityscapes train ids, 255 = unlabelled), "
        "the same in colour (color/NAME.png) and over the picture (overlay/NAME.png)."
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="an image, a video or a folder of images")
    parser.add_argument("--out", type=Path, default=Path("out/segment"), help="folder for the results (default: %(default)s)")
    parser.add_argument("--frames", type=_at_least(1), help="stop after this many frames")
    parser.add_argument("--opacity", type=_share, default=0.5, help="of the colours in the overlay, 0 to 1 (default: %(default)s)")
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model", default=DEFAULT_MODEL, help=f"a checkpoint folder or one of {', '.join(bundled_models())} (default: %(default)s)"
    )
    model.add_argument("--provider", choices=list(PROVIDERS), default="cpu", help="what computes (default: %(default)s)")
    model.add_argument("--threads", type=_at_least(0), default=0, help="CPU threads; 0 = all cores (default: %(default)s)")
    model.add_argument("--sampler", choices=list(SAMPLERS), default="one_step", help="(default: %(default)s)")
    model.add_argument(
        "--steps", type=_at_least(1), default=1, help="denoising steps, for samplers other than one_step (default: %(default)s)"
    )
    model.add_argument("--seed", type=_at_least(0), default=0, help="of the noise; same seed, same mask (default: %(default)s)")
    parser.set_defaults(run=_segment)


def _segment(options: argparse.Namespace) -> None:
    segmenter = Segmenter.from_pretrained(
        options.model, provider=options.provider, threads=options.threads, sampler=options.sampler, steps=options.steps, seed=options.seed
    )
    for line in segment_files(segmenter, options.source, options.out, options.opacity, options.frames):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _at_least(least: int) -> Callable[[str], int]:
    """An argparse type: a whole number from `least` up."""

    def whole(text: str) -> int:
        if not text.lstrip("-").isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} up")
        return int(text)

    return whole


def _share(text: str) -> float:
    """An argparse type: a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


if __name__ == "__main__":
    main()
