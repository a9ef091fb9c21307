"""Accuracy of a model on a split of CamVid, through the runtime that ships.

python benchmarks/camvid_val.py --data <CamVid root> --json
"""

import argparse
import json
from pathlib import Path

from camseg_core.data.camvid import CamVid
from camseg_core.evaluation.accuracy import scores, segment_all
from camseg_core.labels import CAMVID_11_TRAIN_IDS, cityscapes_labels
from camseg_core.model.samplers import SAMPLERS
from camseg_core.runtime import Segmenter
from camseg_core.weights import DEFAULT_MODEL


def main() -> None:
    """Print IoU per class and the mean; with `--json` the same as the last line."""
    parser = argparse.ArgumentParser(description="Accuracy on a split of CamVid (480x360, 11 classes).")
    parser.add_argument("--data", type=Path, required=True, help="CamVid root with <split>/images and <split>/labels")
    parser.add_argument("--split", default="val")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--sampler", choices=list(SAMPLERS), default="one_step")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on the last line")
    arguments = parser.parse_args()
    segmenter = Segmenter.from_pretrained(arguments.model, sampler=arguments.sampler, steps=arguments.steps)
    confusion = segment_all(segmenter, CamVid(arguments.data, arguments.split))
    result = scores(confusion, cityscapes_labels(CAMVID_11_TRAIN_IDS))
    for label in cityscapes_labels(CAMVID_11_TRAIN_IDS):
        print(f"{label.name:<14} {confusion.iou()[label.id]:.3f}")
    print(f"{'mean':<14} {confusion.mean_iou():.3f}   pixel accuracy {confusion.accuracy():.3f}")
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
