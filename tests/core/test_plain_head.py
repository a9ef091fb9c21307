"""The peer without a latent space: its size, its training, and its masks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import plain_head
import pytest
import torch
from lite import LABELS, tiny_lite
from plain_head import PlainHead, PlainSegmenter

from camseg_core.config.model import CamSegConfig
from camseg_core.evaluation.flops import vehicle_parameters
from camseg_core.labels import CITYSCAPES
from camseg_core.model.camseg import CamSeg
from camseg_core.training.frames import HeldFrames
from camseg_core.training.settings import LoopConfig
from camseg_core.training.trainer import Run
from camseg_core.training.transformer import TransformerTraining
from camseg_core.weights import CAMSEG_LITE, CAMSEG_LITE_CAMVID


@pytest.mark.parametrize("config", [CAMSEG_LITE, CAMSEG_LITE_CAMVID], ids=lambda each: each.name)
def test_it_has_as_many_weights_as_its_model_has_on_the_vehicle(config: CamSegConfig) -> None:
    own = sum(parameter.numel() for parameter in PlainHead(config).parameters())
    labels = CITYSCAPES if config is CAMSEG_LITE else LABELS
    assert own == pytest.approx(vehicle_parameters(CamSeg(config, labels)), rel=0.02)


def test_it_segments_a_frame_of_any_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = tiny_lite().config
    network = PlainHead(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as a training leaves it
    network.save(tmp_path / "weights.safetensors")
    segmenter = PlainSegmenter(config, LABELS, tmp_path / "weights.safetensors")
    for size in ((45, 70), (600, 800)):  # the second is scaled down for the network
        frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        result = segmenter.segment(frame)
        assert result.mask.shape == result.confidence.shape == size
        assert set(np.unique(result.mask)) <= {label.id for label in LABELS}
        assert 1 / len(LABELS) <= result.confidence.min() <= result.confidence.max() <= 1


def test_its_training_goes_on_where_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    indices = (
        torch.randint(3, (2, 2, 2))
        .repeat_interleave(32, 1)
        .repeat_interleave(32, 2)
        .to(torch.uint8)
    )
    images = (indices * 80).unsqueeze(1).repeat(1, 3, 1, 1)
    frames = HeldFrames(images, indices, ["a", "b"], LABELS)
    loop = LoopConfig(
        steps=3,
        lr=1e-3,
        warmup=2,
        schedule="constant",
        ema_decay=0.5,
        precision="fp32",
        save_every=1,
        validate_every=100,
    )

    def trained(name: str, *ends: int) -> PlainHead:
        for steps in ends:
            torch.manual_seed(0)
            config = TransformerTraining(replace(loop, steps=steps), batch=2, crop=(64, 64))
            network = PlainHead(tiny_lite().config)
            network = plain_head.trained(network, config, frames, Run(tmp_path / name))
        return network

    at_once, in_parts = trained("at once", 3).state_dict(), trained("in parts", 1, 3).state_dict()
    assert all(torch.equal(tensor, in_parts[name]) for name, tensor in at_once.items())
    assert not torch.equal(
        at_once["head.layers.0.0.weight"],
        trained("hardly", 1).state_dict()["head.layers.0.0.weight"],
    )
