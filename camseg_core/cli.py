"""The `camseg` command: parses and calls."""

import argparse
import sys
from collections.abc import Sequence

from camseg_core.commands import (
    bench,
    build_engine,
    calibrate,
    distill,
    distill_decoder,
    evaluate,
    export,
    segment,
    train,
    train_autoencoder,
)
from camseg_core.errors import CamSegError

_COMMANDS = (
    ("segment", segment.add, "segment images, a video or a folder of images"),
    ("evaluate", evaluate.add, "score a model on labelled frames"),
    ("calibrate", calibrate.add, "make a model's confidence right as often as it says"),
    ("bench", bench.add, "time a model, alone or beside another one"),
    ("export", export.add, "write a model's ONNX graphs in fp32, fp16 or int8"),
    ("build-engine", build_engine.add, "build TensorRT engines ahead of a vehicle's first start"),
    ("train", train.add, "train a model on labelled frames"),
    ("distill", distill.add, "tune a trained model for few denoising steps"),
    ("train-autoencoder", train_autoencoder.add, "train only the autoencoder that a model starts from"),
    ("distill-decoder", distill_decoder.add, "train a light mask decoder for a model of the published layout"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; an error the project foresees is one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(prog="camseg", description="Semantic segmentation for driving.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, add, summary in _COMMANDS:
        add(commands.add_parser(name, help=summary))
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


if __name__ == "__main__":
    main()
