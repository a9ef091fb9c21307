"""The peer without a latent space: its size, its training, and its use as a contender."""

import argparse
from dataclasses import replace
from pathlib import Path

import latents_against_pixels
import numpy as np
import plain_head
import pytest
import torch
from camvid_folder import write_camvid
from plain_head import PlainHead, PlainSegmenter

from camseg_core.evaluation.flops import vehicle_parameters
from camseg_core.labels import CAMVID_11_TRAIN_IDS, cityscapes_labels
from camseg_core.model.camseg import CamSeg
from camseg_core.training.frames import HeldFrames
from camseg_core.training.settings import LoopConfig
from camseg_core.training.transformer import TransformerTraining
from camseg_core.weights import CAMSEG_LITE_CAMVID


def test_it_has_as_many_weights_as_its_recipes_model_has_on_the_vehicle() -> None:
    own = sum(parameter.numel() for parameter in PlainHead().parameters())
    model = CamSeg(CAMSEG_LITE_CAMVID, cityscapes_labels(CAMVID_11_TRAIN_IDS))
    assert own == pytest.approx(vehicle_parameters(model), rel=0.02)


def test_it_segments_a_frame_of_any_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = PlainHead().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as a training leaves it
    network.save(tmp_path / "weights.safetensors")
    frame = np.random.default_rng(0).integers(0, 256, (45, 70, 3), np.uint8)
    result = PlainSegmenter(tmp_path / "weights.safetensors").segment(frame)
    assert result.mask.shape == result.confidence.shape == (45, 70)
    assert set(np.unique(result.mask)) <= set(CAMVID_11_TRAIN_IDS)
    assert 1 / len(CAMVID_11_TRAIN_IDS) <= result.confidence.min() <= result.confidence.max() <= 1


def test_it_is_compared_with_camseg_lite_in_tables_and_pictures(tmp_path: Path) -> None:
    torch.manual_seed(0)
    peer = tmp_path / "peer"
    peer.mkdir()
    PlainHead().save(peer / "plain-head.safetensors")
    (peer / "result.json").write_text(
        '{"mean_iou": 0.1, "parameters": 6000000, "commit": "none", "machine": "none"}'
    )
    data, only, plot = (
        write_camvid(tmp_path / "camvid", "val", frames=2),
        ["paper/contrast", "weather/fog"],
        tmp_path / "of.png",
    )
    options = {
        "data": data,
        "peer": peer,
        "frames": 2,
        "only": only,
        "out": tmp_path / "out",
        "plot": plot,
        "write": None,
    }
    outcome = latents_against_pixels.measure(argparse.Namespace(**options, ten_steps=False))
    names = ["camseg-lite", "no latent space"]
    assert outcome.figures["contenders"] == names
    assert [
        line.split(":")[1].split("|")[0].strip() for line in outcome.table.splitlines()[2:]
    ] == 2 * names
    families, series, tally, *pictures, _, last = outcome.below
    assert [
        line.split(":")[1].split("|")[0].strip() for line in families.splitlines()[2:]
    ] == 2 * names
    assert [line.split("|")[1].strip() for line in series.splitlines()[2:]] == only
    assert tally.startswith("Of 8 conditions")
    assert len(pictures) == 2
    assert all(
        (tmp_path / f"of-{family}.png").read_bytes().startswith(b"\x89PNG")
        for family in ("paper", "common")
    )
    assert "6.00 million weights" in last


def test_its_training_goes_on_where_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    indices = (
        torch.randint(3, (2, 2, 2))
        .repeat_interleave(32, 1)
        .repeat_interleave(32, 2)
        .to(torch.uint8)
    )
    images = (indices * 80).unsqueeze(1).repeat(1, 3, 1, 1)
    frames = HeldFrames(images, indices, ["a", "b"], cityscapes_labels(CAMVID_11_TRAIN_IDS))
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
            network = plain_head.trained(PlainHead(), config, frames, frames, tmp_path / name)
        return network

    at_once, in_parts = trained("at once", 3).state_dict(), trained("in parts", 1, 3).state_dict()
    assert all(torch.equal(tensor, in_parts[name]) for name, tensor in at_once.items())
    assert not torch.equal(
        at_once["head.layers.0.0.weight"],
        trained("hardly", 1).state_dict()["head.layers.0.0.weight"],
    )
