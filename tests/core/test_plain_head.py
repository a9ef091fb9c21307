"""The peer without a latent space: it is as large as camseg-lite, trains with the same settings, and segments as a contender must."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import plain_head
import pytest
import torch
from plain_head import PlainHead, PlainSegmenter
from safetensors.torch import save_file

from camseg_core.labels import CAMVID_11_TRAIN_IDS
from camseg_core.model.arithmetic import vehicle_parameters
from camseg_core.model.camseg import CamSeg
from camseg_core.training.frames import HeldFrames
from camseg_core.training.loop import LoopConfig
from camseg_core.training.transformer import TransformerTraining
from camseg_core.weights import DEFAULT_MODEL, checkpoint_folder


def test_it_has_as_many_weights_as_camseg_lite_has_on_the_vehicle() -> None:
    own = sum(parameter.numel() for parameter in PlainHead().parameters())
    assert own == pytest.approx(vehicle_parameters(CamSeg.from_pretrained(checkpoint_folder(DEFAULT_MODEL))), rel=0.02)


def test_it_segments_a_frame_of_any_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(PlainHead().state_dict(), tmp_path / "weights.safetensors")
    frame = np.random.default_rng(0).integers(0, 256, (45, 70, 3), np.uint8)
    result = PlainSegmenter(tmp_path / "weights.safetensors").segment(frame)
    assert result.mask.shape == result.confidence.shape == (45, 70)
    assert set(np.unique(result.mask)) <= set(CAMVID_11_TRAIN_IDS)
    assert 1 / len(CAMVID_11_TRAIN_IDS) <= result.confidence.min() <= result.confidence.max() <= 1


def test_its_training_goes_on_where_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    indices = torch.randint(3, (2, 2, 2)).repeat_interleave(32, 1).repeat_interleave(32, 2).to(torch.uint8)
    frames = HeldFrames((indices * 80).unsqueeze(1).repeat(1, 3, 1, 1), indices, ["a", "b"])
    loop = LoopConfig(steps=3, lr=1e-3, warmup=2, schedule="constant", ema_decay=0.5, precision="fp32", save_every=1, validate_every=100)

    def trained(name: str, *ends: int) -> PlainHead:
        for steps in ends:
            torch.manual_seed(0)
            config = TransformerTraining(replace(loop, steps=steps), batch=2, crop=(64, 64))
            network = plain_head.trained(PlainHead(), config, frames, frames, tmp_path / name)
        return network

    at_once, in_parts = trained("at once", 3).state_dict(), trained("in parts", 1, 3).state_dict()
    assert all(torch.equal(tensor, in_parts[name]) for name, tensor in at_once.items())
    assert not torch.equal(at_once["head.layers.0.0.weight"], trained("hardly", 1).state_dict()["head.layers.0.0.weight"])
