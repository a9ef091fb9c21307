"""Real processes over gloo: the published recipe at reduced width, and their shared folder."""

import json
import math
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import data_trees
import distributed_training
import pytest
import shared_folder
import torch
from processes import run, running, torchrun
from safetensors.torch import load_file

from camseg_core.config.model import save_config
from camseg_core.labels import CITYSCAPES
from camseg_core.model.camseg import CamSeg
from camseg_core.model.kl_autoencoder import KLAutoencoder
from camseg_core.training.codec import save_codec

RECIPE = Path(__file__).parents[2] / "config" / "train" / "cam-seg-base-768.yaml"
CONFIG = replace(
    distributed_training.CONFIG,
    transformer=replace(distributed_training.CONFIG.transformer, dropout=0.1),
)
STEPS = 20


@pytest.mark.slow
def test_the_published_recipe_is_split_stopped_resumed_and_ends_in_two_processes(
    tmp_path: Path,
) -> None:
    """With FSDP, gradient checkpointing, bf16, two parts a step, and augmentation in a worker."""
    root = data_trees.cityscapes(tmp_path / "data").root
    save_config(CONFIG, tmp_path / "tiny.json")
    torch.manual_seed(0)
    save_codec(KLAutoencoder(CONFIG.autoencoder), tmp_path / "codec", CITYSCAPES)
    folder, out = tmp_path / "run", tmp_path / "out"
    settings = [
        f"model={tmp_path / 'tiny.json'}",
        "training.crop=[64, 64]",
        "training.augment=vary",
        "training.gradient_checkpointing=true",
    ]
    settings += [
        f"training.loop.epochs={STEPS * 8 / 2}",
        "training.loop.warmup_epochs=8",
        "training.loop.lr=1e-3",
    ]
    settings += [
        "training.loop.strategy=fsdp",
        "training.loop.grad_accum_steps=2",
        "training.loop.ema_decay=0.5",
    ]
    settings += ["training.loop.save_every=2", f"training.loop.validate_every={STEPS // 2}"]
    options = [f"--config={RECIPE}", f"--data={root}", f"--run={folder}", f"--out={out}"]
    options += [f"--autoencoder={tmp_path / 'codec'}", "--workers=1"]
    command = torchrun(
        2,
        "-m",
        "camseg_core.cli",
        "--",
        "train",
        *options,
        *(f"--set={setting}" for setting in settings),
    )

    with running(command, stderr=subprocess.PIPE) as first:
        until = time.monotonic() + 120
        while (
            not (folder / "transformer" / "state.safetensors").is_file()
            and first.poll() is None
            and time.monotonic() < until
        ):
            time.sleep(0.05)
        (folder / "transformer" / "stop").touch()
        _, said = first.communicate(timeout=120)
    assert "stopped after step" in said, said
    assert not out.joinpath("config.json").exists()
    assert "activations, blocks recomputed" in (folder / "train.log").read_text(encoding="utf-8")

    second = run(command, timeout=200)
    assert second.returncode == 0, second.stderr
    assert f"of {STEPS}" in second.stderr
    assert "resuming" in second.stderr
    lines = [
        json.loads(line)
        for line in (folder / "transformer" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    losses = [line["training"]["loss"] for line in lines if "training" in line]
    assert lines[-1]["step"] == STEPS
    assert losses
    assert all(loss is not None and math.isfinite(loss) for loss in losses)
    assert [line["step"] for line in lines if "validation" in line] == [STEPS // 2, STEPS]
    trained = CamSeg.from_pretrained(out)
    assert trained.labels == CITYSCAPES
    assert all(tensor.isfinite().all() for tensor in trained.state_dict().values())
    moments = load_file(folder / "transformer" / "state.safetensors")
    assert moments["optimizer.0.exp_avg"].shape in {
        parameter.shape for parameter in trained.parameters()
    }  # whole, not a process's share
    torch.manual_seed(0)
    assert not torch.allclose(
        trained.transformer.mask_token, CamSeg(CONFIG).transformer.mask_token, atol=1e-3
    )


def found_by(*folders: Path) -> str:
    done = run(torchrun(2, shared_folder.__file__, *folders), timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
def test_a_folder_that_is_not_the_same_for_all_processes_is_refused_by_each(tmp_path: Path) -> None:
    said = found_by(tmp_path / "here", tmp_path / "there")
    message = "is not one folder for all processes"
    assert (
        f"rank 0: {tmp_path / 'here'} {message} "
        "(another process does not see what process 0 writes there)" in said
    )
    assert f"rank 1: {tmp_path / 'there'} {message} (process 1 on " in said
    assert "put --run on a file system that all machines share" in said
    said = found_by(tmp_path / "one")
    assert "rank 0: one folder" in said
    assert "rank 1: one folder" in said
    assert not list((tmp_path / "one").iterdir())
