"""Latents computed once equal newly computed ones."""

from pathlib import Path

import distributed_training
import pytest
import torch
import torch.nn.functional as F
from lite import tiny_lite

from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import ConfigError
from camseg_core.model.camseg import CamSeg
from camseg_core.training.distributed import Processes
from camseg_core.training.frames import Frames
from camseg_core.training.latents import FreshLatents, KeptLatents, encode_pictures
from camseg_core.training.loading import FrameStream
from camseg_core.training.settings import LoopConfig
from camseg_core.training.trainer import Run
from camseg_core.training.transformer import TransformerTraining, train_transformer


@pytest.fixture(scope="module")
def model() -> CamSeg:
    torch.manual_seed(0)
    return CamSeg(distributed_training.CONFIG, distributed_training.LABELS).eval()


@pytest.fixture(scope="module")
def frames() -> Frames:
    return Frames.load(
        SyntheticDrive(frames=3, height=64, width=64, seed=1), distributed_training.LABELS
    )


def test_kept_latents_are_the_fresh_ones(tmp_path: Path, model: CamSeg, frames: Frames) -> None:
    kept = KeptLatents(
        model, frames, (64, 64), False, 0, tmp_path / "latents.safetensors", Processes()
    )
    fresh = FreshLatents(model, FrameStream(frames, None, 0).batch, torch.device("cpu"))
    for one, other in zip(kept(range(2, 7)), fresh(range(2, 7)), strict=True):
        torch.testing.assert_close(
            one, other, atol=1e-3, rtol=1e-3
        )  # a batch sums in another order than single frames


def test_kept_latents_are_of_the_scaled_frame_and_its_mirror_image(
    tmp_path: Path, model: CamSeg, frames: Frames
) -> None:
    kept = KeptLatents(
        model, frames, (32, 48), True, 0, tmp_path / "latents.safetensors", Processes()
    )
    stream = FrameStream(frames, None, 0)
    for number in range(12):
        frame = stream.frame(number)
        image = F.interpolate(
            frames.images[frame : frame + 1].float(), (32, 48), mode="bilinear", antialias=True
        )
        indices = F.interpolate(
            frames.indices[frame : frame + 1, None].float(), (32, 48), mode="nearest-exact"
        )[:, 0].byte()
        views = [
            encode_pictures(model, image, indices, torch.device("cpu")),
            encode_pictures(model, image.flip(3), indices.flip(2), torch.device("cpu")),
        ]
        found = kept(range(number, number + 1))
        assert any(
            all(torch.allclose(a, b, atol=1e-3) for a, b in zip(found, view, strict=True))
            for view in views
        )


def test_a_second_start_reads_the_file_instead_of_encoding_again(
    tmp_path: Path, model: CamSeg, frames: Frames
) -> None:
    path = tmp_path / "latents.safetensors"
    first = KeptLatents(model, frames, (64, 64), True, 0, path, Processes())(range(4))
    written = path.stat().st_mtime_ns
    second = KeptLatents(model, frames, (64, 64), True, 0, path, Processes())(range(4))
    assert path.stat().st_mtime_ns == written
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_latents_of_another_autoencoder_are_refused(
    tmp_path: Path, model: CamSeg, frames: Frames
) -> None:
    path = tmp_path / "latents.safetensors"
    KeptLatents(model, frames, (64, 64), False, 0, path, Processes())
    torch.manual_seed(1)
    other = CamSeg(distributed_training.CONFIG, distributed_training.LABELS).eval()
    with pytest.raises(
        ConfigError,
        match=r"latents\.safetensors belongs to other frames or another autoencoder: remove it",
    ):
        KeptLatents(other, frames, (64, 64), False, 0, path, Processes())


def test_flips_show_both_sides_of_a_frame_over_time(
    tmp_path: Path, model: CamSeg, frames: Frames
) -> None:
    kept = KeptLatents(
        model, frames, (64, 64), True, 0, tmp_path / "latents.safetensors", Processes()
    )
    stream = FrameStream(frames, None, 0)
    seen = {
        tuple(kept(range(n, n + 1))[0].flatten()[:4].tolist())
        for n in range(30)
        if stream.frame(n) == 0
    }
    assert len(seen) == 2


def test_a_model_with_a_mask_autoencoder_trains_on_crops_only(
    tmp_path: Path, frames: Frames
) -> None:
    config = TransformerTraining(LoopConfig(steps=1, lr=1e-3), augment="flip", crop=(64, 64))
    with pytest.raises(
        ConfigError, match="augment must be crop or vary for a model with a mask autoencoder"
    ):
        train_transformer(config, tiny_lite(), frames, Run(tmp_path))
