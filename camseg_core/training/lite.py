"""Train, score and export `camseg-lite`, from nothing but CamVid and ImageNet backbone weights.

    python -m camseg_core.training.lite --data <CamVid root> --run runs/lite --out camseg_core/weights/camseg-lite

Started again with the same `--run`, it goes on where it was stopped.
"""

import argparse
import json
import logging
from dataclasses import replace
from pathlib import Path
from string import Template

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from camseg_core.data.camvid import CamVid
from camseg_core.evaluation.accuracy import scores, segment_all
from camseg_core.labels import CAMVID_11_TRAIN_IDS, cityscapes_labels
from camseg_core.model.camseg import CamSeg
from camseg_core.model.mask_autoencoder import MaskAutoencoder
from camseg_core.model.sizes import CAMSEG_LITE
from camseg_core.runtime import Segmenter
from camseg_core.runtime.export import export_onnx
from camseg_core.training.autoencoder import AutoencoderTraining, reconstruction_confusion, train_autoencoder
from camseg_core.training.frames import Frames
from camseg_core.training.transformer import TransformerTraining, evaluate_one_step, train_transformer

logger = logging.getLogger(__name__)

LABELS = cityscapes_labels(CAMVID_11_TRAIN_IDS)


def autoencoder(run: Path, train: Frames, val: Frames) -> MaskAutoencoder:
    """The mask autoencoder of the run: trained, or read back if it is there already."""
    path = run / "autoencoder.safetensors"
    assert CAMSEG_LITE.mask_autoencoder is not None
    if path.is_file():
        model = MaskAutoencoder(CAMSEG_LITE.mask_autoencoder)
        model.load_state_dict(load_file(path))
        return model.eval()
    model = train_autoencoder(AutoencoderTraining(CAMSEG_LITE.mask_autoencoder), train, run / "autoencoder")
    by_index = tuple(replace(label, id=index) for index, label in enumerate(LABELS))  # the autoencoder counts class indices
    _write_json(run / "autoencoder.json", scores(reconstruction_confusion(model, val), by_index))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return model


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description="Train, score and export camseg-lite.")
    parser.add_argument("--data", type=Path, required=True, help="CamVid root with train/ and val/, each with images/ and labels/")
    parser.add_argument("--run", type=Path, required=True, help="folder for the training state; an existing one is resumed")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    parser.add_argument("--steps", type=int, default=TransformerTraining().loop.steps, help="optimiser steps of the transformer")
    arguments = parser.parse_args()
    arguments.run.mkdir(parents=True, exist_ok=True)
    handlers: list[logging.Handler] = [logging.StreamHandler(), logging.FileHandler(arguments.run / "train.log")]
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", handlers=handlers)
    logging.getLogger("camseg_core").setLevel(logging.INFO)
    logger.setLevel(logging.INFO)  # its name is __main__

    train, val = Frames.load(CamVid(arguments.data, "train"), LABELS), Frames.load(CamVid(arguments.data, "val"), LABELS)
    codec = autoencoder(arguments.run, train, val)
    defaults = TransformerTraining()
    config = replace(defaults, loop=replace(defaults.loop, steps=arguments.steps))
    torch.manual_seed(config.loop.seed)
    model = CamSeg(CAMSEG_LITE, LABELS)
    assert model.image_encoder is not None
    assert model.mask_autoencoder is not None
    model.image_encoder.load_imagenet()
    model.mask_autoencoder.load_state_dict(codec.state_dict())

    def score_sometimes(step: int, averaged: nn.Module) -> None:
        if step % (3 * config.loop.save_every) == 0:
            assert isinstance(averaged, CamSeg)
            some = val.every(5)
            logger.info("step %d: mIoU %.3f on every fifth frame of val", step, evaluate_one_step(averaged.eval(), some).mean_iou())

    trained = train_transformer(config, model, train, arguments.run / "transformer", score_sometimes)
    trained.save_pretrained(arguments.out, torch.float16)
    stored = CamSeg.from_pretrained(arguments.out)  # what is exported and scored is what was stored
    export_onnx(stored, arguments.out)
    result = scores(segment_all(Segmenter.from_pretrained(arguments.out), CamVid(arguments.data, "val")), LABELS)
    _write_json(arguments.run / "val.json", result)
    logger.info("val: %s", json.dumps(result))
    write_model_card(stored, config, arguments.run, arguments.out)


def write_model_card(model: CamSeg, config: TransformerTraining, run: Path, out: Path) -> None:
    """Fill the template beside this file with the figures of the run."""
    val, reconstruction = (json.loads((run / name).read_text(encoding="utf-8")) for name in ("val.json", "autoencoder.json"))
    codec = model.mask_autoencoder
    assert codec is not None
    parameters, encoder = (sum(p.numel() for p in module.parameters()) / 1e6 for module in (model, codec.encoder))
    log = [line for line in (run / "train.log").read_text(encoding="utf-8").splitlines() if " loss " in line or "mIoU" in line]
    template = Template(Path(__file__).with_name("model_card.md").read_text(encoding="utf-8"))
    text = template.substitute(
        classes=", ".join(label.name for label in model.labels),
        vehicle_parameters=f"{parameters - encoder:.1f}",
        encoder_parameters=f"{encoder:.1f}",
        mean_iou=f"{val['mean_iou']:.3f}",
        pixel_accuracy=f"{val['pixel_accuracy']:.3f}",
        reconstruction_iou=f"{reconstruction['mean_iou']:.3f}",
        rows="\n".join(f"| {name} | {iou:.3f} | {reconstruction['iou'][name]:.3f} |" for name, iou in val["iou"].items()),
        autoencoder_steps=AutoencoderTraining().loop.steps,
        steps=config.loop.steps,
        log="\n".join(f"    {line}" for line in log[-4:]),
    )
    (out / "MODEL_CARD.md").write_text(text, encoding="utf-8")


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
