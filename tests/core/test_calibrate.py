"""Calibration finds the right logit_scale and changes nothing else in a checkpoint folder."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from camvid_folder import write_camvid

from camseg_core.cli.main import main
from camseg_core.config.model import load_config
from camseg_core.data import Sample
from camseg_core.errors import DataError
from camseg_core.evaluation.calibration import PASSES, fit_logit_scale
from camseg_core.labels import CAMVID_11_TRAIN_IDS, UNLABELLED, cityscapes_labels
from camseg_core.runtime import Segmentation
from camseg_core.weights import checkpoint_folder

LABELS = cityscapes_labels(CAMVID_11_TRAIN_IDS)
ROAD = next(label.id for label in LABELS if label.name == "road")
SKY = next(label.id for label in LABELS if label.name == "sky")


@dataclass
class Overconfident:
    """Predicts road everywhere, with logits that are `factor` times too large.

    At logit_scale 1 / factor it is right as often as its confidence says.
    """

    factor: float
    logit_scale: float = 1.0
    calls = 0

    def with_logit_scale(self, logit_scale: float) -> "Overconfident":
        return Overconfident(self.factor, logit_scale)

    def segment(self, image: np.ndarray) -> Segmentation:
        logit = image[..., 0].astype(np.float32) / 50  # of road against the rest
        confidence = 1 / (1 + np.exp(-logit * self.factor * self.logit_scale))
        return Segmentation(np.full(image.shape[:2], ROAD, np.uint8), confidence, {})


def frames(count: int) -> list[Sample]:
    """Frames whose red is the chance of road, with labels drawn accordingly; a border is void."""
    random = np.random.default_rng(0)
    samples = []
    for number in range(count):
        image = np.repeat(random.integers(0, 256, (80, 120, 1), np.uint8), 3, axis=2)
        road = random.random((80, 120)) < 1 / (1 + np.exp(-image[..., 0].astype(np.float32) / 50))
        label = np.where(road, ROAD, SKY).astype(np.uint8)
        label[:4] = UNLABELLED
        samples.append(Sample(image, label, str(number)))
    return samples


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.7])
def test_logits_that_are_too_large_or_small_are_found_out(factor: float) -> None:
    shown = []

    def progress(samples):
        for sample in samples:
            shown.append(sample.name)
            yield sample

    fit = fit_logit_scale(Overconfident(factor), frames(4), LABELS, progress)
    assert fit.logit_scale == pytest.approx(1 / factor, rel=0.08)
    assert fit.error < 0.02
    assert fit.error <= fit.error_at_one + 1e-9
    assert len(shown) == 4 * PASSES


@pytest.mark.parametrize("factor", [0.08, 12.0])
def test_logits_that_are_far_too_large_or_small_are_found_out(factor: float) -> None:
    fit = fit_logit_scale(Overconfident(factor), frames(4), LABELS)
    assert fit.logit_scale == pytest.approx(1 / factor, rel=0.08)
    assert fit.error < 0.02 < fit.error_at_one
    assert fit.caution == ""


@pytest.mark.parametrize(("right", "found"), [(True, 32), (False, 0.03125)])
def test_a_model_that_is_always_right_or_wrong_ends_the_search_with_a_caution(
    right: bool, found: float
) -> None:
    samples = [
        Sample(np.maximum(each.image, 5), np.full_like(each.label, ROAD if right else SKY), "")
        for each in frames(1)
    ]
    fit = fit_logit_scale(Overconfident(0.003), samples, LABELS)
    assert fit.logit_scale == pytest.approx(found, abs=1e-4)
    assert fit.caution == (
        f"the best logit_scale should be within 0.03125 and 32, got {fit.logit_scale:g}: check "
        "that the labels fit the model, or calibrate on more frames"
    )


def test_without_a_labelled_pixel_there_is_nothing_to_calibrate_on() -> None:
    blank = [
        Sample(each.image, np.full_like(each.label, UNLABELLED), each.name) for each in frames(2)
    ]
    with pytest.raises(DataError, match="none of the 2 frames has a labelled pixel"):
        fit_logit_scale(Overconfident(1.0), blank, LABELS)


@pytest.mark.parametrize("option", [[], ["--model", str(checkpoint_folder("camseg-lite"))]])
def test_the_bundled_model_is_not_changed(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", "--data", "nowhere", *option])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "got the bundled camseg-lite: copy " in said
    assert "or add --dry-run" in said


@pytest.mark.slow
def test_the_command_writes_the_logit_scale_into_the_checkpoint_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_camvid(tmp_path / "data", "val", size=(96, 128))
    model = shutil.copytree(checkpoint_folder("camseg-lite"), tmp_path / "model")
    before = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    command = ["calibrate", f"--model={model}", f"--data={tmp_path / 'data'}", "--frames=2"]
    main([*command, "--dry-run"])
    assert {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()} == before
    said = capsys.readouterr().out
    main(command)
    assert capsys.readouterr().out.startswith(said)
    logit_scale = float(said.split()[1].rstrip(":"))
    assert load_config(model / "config.json") == replace(
        load_config(checkpoint_folder("camseg-lite") / "config.json"), logit_scale=logit_scale
    )
    assert all(
        path.read_bytes() == before[path.name]
        for path in model.iterdir()
        if path.is_file() and path.name != "config.json"
    )
