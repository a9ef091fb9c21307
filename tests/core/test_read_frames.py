"""Frames read as needed, here or by workers ahead, give the same results as frames in memory."""

import copy
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import data_trees
import numpy as np
import pytest
import torch
from lite import LABELS, tiny_lite
from resuming import KillAfter, Killed

from camseg_core.data import Sample
from camseg_core.data.augmentation import Variation, random_crops, varied_views
from camseg_core.data.sets import open_set
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import DataError
from camseg_core.export.torch_engine import TorchEngine
from camseg_core.labels import CITYSCAPES, UNLABELLED, index_table
from camseg_core.runtime import Sampling, Segmenter
from camseg_core.training.distributed import Processes
from camseg_core.training.frames import Frames, HeldFrames, ReadFrames, as_first
from camseg_core.training.loading import FrameStream, prepared
from camseg_core.training.mask_autoencoder import (
    AutoencoderTraining,
    reconstruction_confusion,
    train_autoencoder,
)
from camseg_core.training.settings import LoopConfig
from camseg_core.training.trainer import Run
from camseg_core.training.validation import class_indices, confusion_of

DRIVE = [*SyntheticDrive(frames=5, height=96, width=128, seed=1)]


def held_and_read() -> tuple[Frames, Frames]:
    held, read = Frames.load(DRIVE, LABELS), Frames.load(DRIVE, LABELS, held_bytes=1000)
    assert (type(held), type(read)) == (HeldFrames, ReadFrames)
    return held, read


def test_frames_that_do_not_fit_are_read_and_give_the_same_samples_weights_and_scores() -> None:
    held, read = held_and_read()
    assert len(read) == 5
    assert read.size() == held.size() == (96, 128)
    assert torch.equal(read.class_weights(len(LABELS)), held.class_weights(len(LABELS)))
    streams = [
        FrameStream(frames, random_crops((64, 96), (0.25, 1.0), color=True), seed=3)
        for frames in (held, read)
    ]
    for one, other in zip(*(stream.batch(range(3, 9)) for stream in streams), strict=True):
        assert torch.equal(one, other)
    codec = tiny_lite().mask_autoencoder
    assert np.array_equal(
        *(reconstruction_confusion(codec, frames.every(2)).matrix for frames in (held, read))
    )
    assert np.array_equal(
        *(confusion_of(tiny_lite(), frames.every(2)).matrix for frames in (held, read))
    )


def test_only_requested_frames_are_read() -> None:
    class Counting(list[Sample]):
        asked: list[int] = []  # noqa: RUF012

        def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
            self.asked.append(index)
            return super().__getitem__(index)

    frames = Frames.load(Counting(DRIVE), LABELS, held_bytes=0)
    Counting.asked.clear()
    frames.every(2)[1]
    assert Counting.asked == [2]


def sample(height: int, width: int) -> Sample:
    random = np.random.default_rng(height)
    return Sample(
        random.integers(0, 255, (height, width, 3), np.uint8),
        random.choice([0, 2, 255], (height, width)).astype(np.uint8),
        "x",
    )


def test_frames_of_different_sizes_are_trained_on_and_scored_at_their_own_size() -> None:
    frames = Frames.load([sample(96, 128), sample(64, 160), sample(70, 90)], LABELS)
    assert isinstance(frames, ReadFrames)
    images, indices = FrameStream(frames, varied_views((32, 64), Variation()), 0).batch(range(6))
    assert (images.shape, indices.shape) == ((6, 3, 32, 64), (6, 32, 64))
    assert [found.shape for found in class_indices(tiny_lite(), frames)] == [
        (96, 128),
        (64, 160),
        (70, 90),
    ]
    assert confusion_of(tiny_lite(), frames).matrix.sum() == sum(
        (index != UNLABELLED).sum().item() for _, index in frames
    )
    assert as_first([image for image, _ in frames]).shape == (3, 3, 96, 128)


def test_scores_in_a_training_are_of_frames_scaled_as_on_a_vehicle() -> None:
    model = copy.deepcopy(tiny_lite())
    frames = Frames.load(DRIVE[:2], LABELS)
    for changes in ({}, {"max_upscale": 2.0}, {"network_pixels": 64 * 64}):
        model.config = replace(tiny_lite().config, **changes)
        engine = TorchEngine(model, "bf16")
        segmenter = Segmenter(model.config, model.labels, engine, Sampling("one_step"))
        for sample, found in zip(DRIVE[:2], class_indices(model, frames), strict=True):
            seen = segmenter.segment(sample.image).mask
            assert np.array_equal(found, index_table(model.labels)[seen])


def test_scores_of_scaled_frames_are_at_the_frames_own_size() -> None:
    frames = Frames.load(DRIVE[:2], LABELS)
    (found, _) = class_indices(tiny_lite(), frames, size=(64, 64))
    assert found.shape == (96, 128)
    halves = cv2.resize(found[:, ::2].copy(), (64, 64), interpolation=cv2.INTER_NEAREST)
    assert set(np.unique(found)) == set(np.unique(halves))


def test_two_sets_that_are_read_have_different_fingerprints() -> None:
    _, read = held_and_read()
    other = ReadFrames([*DRIVE[:4], replace(DRIVE[4], label=np.zeros_like(DRIVE[4].label))], LABELS)
    assert read.fingerprint() == ReadFrames(DRIVE, LABELS).fingerprint()
    assert len({frames.fingerprint() for frames in (read, other, read.every(2))}) == 3


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As workers have: with several, blurs round otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("parts", [1, 2])
def test_workers_give_the_same_batches_in_the_order_of_the_steps(parts: int) -> None:
    """As one of two processes; also after a jump, as the first step of a resumed run is."""
    stream = FrameStream(
        held_and_read()[1], random_crops((64, 96), (0.25, 1.0), color=True), seed=3
    )
    processes = Processes(rank=1, world_size=2, workers=2)
    with prepared(stream.batch, processes, 8, parts) as ahead:
        for step in (0, 1, 2, 7, 8):
            for part in range(parts):
                numbers = processes.samples(step, 8, part, parts)
                for one, other in zip(ahead(numbers), stream.batch(numbers), strict=True):
                    assert torch.equal(one, other)


def test_without_workers_the_batch_function_is_used_directly() -> None:
    stream = FrameStream(held_and_read()[0], None, 0)
    with prepared(stream.batch, Processes(), 8) as batch:
        assert batch == stream.batch


def test_a_file_that_a_worker_cannot_read_is_one_line_that_names_it(tmp_path: Path) -> None:
    tree = data_trees.cityscapes(tmp_path)
    samples = open_set("cityscapes", tree.root, "train").samples
    frames = Frames.load(samples, CITYSCAPES, held_bytes=0)
    broken = next((tmp_path / "leftImg8bit" / "train").rglob("*.png"))
    broken.write_bytes(broken.read_bytes()[:-20])
    stream = FrameStream(frames, varied_views((32, 32), Variation()), 0)
    with (
        prepared(stream.batch, Processes(workers=1), 2) as ahead,
        pytest.raises(DataError) as caught,
    ):
        ahead(range(2))
    assert broken.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_training_with_workers_killed_and_resumed_ends_as_one_without(tmp_path: Path) -> None:
    held, read = held_and_read()
    config = AutoencoderTraining(
        tiny_lite().config.mask_autoencoder,
        LoopConfig(steps=6, lr=2e-3, warmup=1, save_every=2, precision="fp32"),
        4,
        (64, 96),
    )
    plain = train_autoencoder(config, held, Run(tmp_path / "plain"))
    with pytest.raises(Killed):
        train_autoencoder(
            config, read, Run(tmp_path / "killed", (KillAfter(5),), Processes(workers=1))
        )
    resumed = train_autoencoder(
        config, read, Run(tmp_path / "killed", processes=Processes(workers=1))
    ).state_dict()
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, resumed[name]), name


def test_a_worker_outlives_a_signal_to_the_whole_group_and_ends_with_the_training() -> None:
    stream = FrameStream(held_and_read()[0], varied_views((32, 32), Variation()), 0)
    with prepared(stream.batch, Processes(workers=1), 4) as ahead:
        ahead(range(4))
        (worker,) = multiprocessing.active_children()
        assert worker.pid is not None
        subprocess.run(
            [sys.executable, "-c", f"import os, signal; os.kill({worker.pid}, signal.SIGTERM)"],
            check=True,
            timeout=60,
        )
        time.sleep(0.2)
        assert worker.is_alive()
        for one, other in zip(ahead(range(4, 8)), stream.batch(range(4, 8)), strict=True):
            assert torch.equal(one, other)
    worker.join(4)
    assert not worker.is_alive()
