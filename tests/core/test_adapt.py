"""`camseg adapt`: a trained model learns from images without labels."""

import copy
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lite import tiny_lite
from safetensors.torch import load_file

from camseg_core.cli.main import main
from camseg_core.data.frame_source import Unlabelled
from camseg_core.data.image_files import write_image
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import CamSegError, ConfigError
from camseg_core.labels import UNLABELLED
from camseg_core.model.camseg import CamSeg
from camseg_core.training import class_offsets
from camseg_core.training.adaptation import AdaptationRecipe
from camseg_core.training.adaptation_result import Adapted, Images, NotAdapted
from camseg_core.training.frames import Frames
from camseg_core.training.mean_teacher import (
    MeanTeacher,
    TeacherMeasurement,
    Teaching,
    thresholds_of,
)
from camseg_core.training.objectives import TaskLoss
from camseg_core.training.settings import LoopConfig
from camseg_core.training.trainer import Run
from camseg_core.training.transformer import TransformerTraining, train_transformer

SMALL = (
    "training.loop.steps=8",
    "training.loop.validate_every=2",
    "training.loop.save_every=4",
    "training.loop.lr=2e-3",
    "training.loop.warmup=1",
    "training.loop.ema_decay=0.5",
    "training.batch=4",
    "training.crop=[64, 96]",
    "training.disturb.share=0.2",
    "teaching.held_out=2",
    "teaching.patience=9",
    "teaching.min_delta=0",
    "teaching.max_miou_drop=1",
)


def measured(step: int, agreement: float, source: float = 0.5) -> TeacherMeasurement:
    return TeacherMeasurement(step, agreement, source, 0.4, (0.9,) * 11, (0, 1))


def teacher(config: Teaching, folder: Path, first: int = 1) -> MeanTeacher:
    held_out = Frames.load(Unlabelled(SyntheticDrive(2, 64, 96)), tiny_lite().labels)
    return MeanTeacher(config, held_out, first, (), lambda _: ({"mIoU": 0.5}, None), folder)


def test_confident_pixels_get_labels_and_of_each_class_its_most_confident_share() -> None:
    counts = np.zeros((4, 10), np.int64)
    counts[0, 9], counts[0, 2] = 80, 20  # mostly sure
    counts[1, 8], counts[1, 7], counts[1, 6] = 10, 20, 70  # its surest 30 % are at least 0.7
    counts[2, 1] = 100  # never sure enough
    config = Teaching(confidence_threshold=0.85, class_share=0.3, min_confidence=0.5)
    assert thresholds_of(counts, config) == (0.85, 0.7, 0.5, 0.85)


def test_the_best_step_rises_and_keeps_the_score_on_labelled_frames(tmp_path: Path) -> None:
    found = teacher(Teaching(patience=2, min_delta=0.01, max_miou_drop=0.02), tmp_path)
    found.measured = [measured(0, 0.6), measured(5, 0.605), measured(10, 0.62)]
    assert found.best() == (10, 0)
    found.measured.append(measured(15, 0.9, source=0.47))  # lost more than 0.02
    assert (found.best(), found.has_enough()) == ((10, 1), False)
    found.measured.append(measured(20, 0.625))
    assert (found.best(), found.has_enough()) == ((10, 2), True)


def test_a_teacher_labels_sure_pixels_of_unlabelled_samples_alone(tmp_path: Path) -> None:
    model = tiny_lite()
    found = teacher(Teaching(), tmp_path)
    found.on_average(model)
    images = torch.rand(3, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    given = torch.full((3, 64, 96), UNLABELLED)
    given[0] = 5
    frames = {7: 0, 8: 1, 9: 2}  # frame 0 has labels

    def labelled(least: float) -> tuple[torch.Tensor, torch.Tensor]:
        found.measured = [TeacherMeasurement(0, 0.5, 0.5, 0.5, (least,) * 11, (0,))]
        batch = found.labelled(lambda _: (images, given), frames.__getitem__)
        return batch(range(7, 10))

    changed, all_sure = labelled(0.0)
    assert changed.shape == images.shape
    assert not torch.allclose(changed, images, atol=1e-2)
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    assert (all_sure[0] == 5).all()
    assert (all_sure[1:] < 11).all()
    assert (given[1:] == UNLABELLED).all()  # a copy was labelled
    _, none_sure = labelled(1.1)
    assert (none_sure[0] == 5).all()
    assert (none_sure[1:] == UNLABELLED).all()
    again, _ = labelled(0.0)
    assert torch.equal(again, changed)


def test_a_class_that_vanishes_counts_as_no_agreement(tmp_path: Path) -> None:
    model = tiny_lite()
    found = teacher(Teaching(), tmp_path)
    found.start(model)
    (first,) = found.measured
    assert first.shown
    assert 0 <= first.agreement <= 1
    absent = next(i for i in range(11) if i not in first.shown)
    found.measured[0] = TeacherMeasurement(
        0, 0.5, 0.5, 0.5, first.thresholds, (*first.shown, absent)
    )
    figures, _ = found.validate(model)
    expected = first.agreement * len(first.shown) / (len(first.shown) + 1)
    assert figures["agreement"] == pytest.approx(expected)


def test_measurements_after_the_saved_state_are_repeated(tmp_path: Path) -> None:
    path = tmp_path / "agreement.json"
    found = teacher(Teaching(), tmp_path)
    found.start(tiny_lite())
    assert [each["step"] for each in json.loads(path.read_text())] == [0]
    found.measured += [measured(5, 0.1), measured(10, 0.1)]
    found.on_train_begin(5, 20, 1)
    assert [each.step for each in found.measured] == [0, 5]


def test_a_run_that_was_measured_on_frames_without_labels_is_not_resumed(tmp_path: Path) -> None:
    found = teacher(Teaching(), tmp_path)
    found.start(tiny_lite())
    path = tmp_path / "agreement.json"
    path.write_text(path.read_text().replace('"source": 0.5', '"source": NaN'))
    with pytest.raises(CamSegError, match=r"agreement.json must hold scores, got NaN, .* --run"):
        teacher(Teaching(), tmp_path)


def test_the_weights_that_are_loaded_are_those_of_the_best_step(tmp_path: Path) -> None:
    """A killed run may have stored better weights of a later step, which it then repeats."""
    model, found = copy.deepcopy(tiny_lite()), teacher(Teaching(), tmp_path)
    found.start(model)
    found.on_average(model)
    norm = model.transformer.z_proj_ln.bias

    def validated(step: int, agreement: float) -> None:
        torch.nn.init.constant_(norm, step)
        found._found = measured(step, agreement)
        found.on_validation_end(step, {}, None)

    top = found.measured[0].agreement
    validated(5, top + 0.2)
    validated(10, top + 0.4)
    found.on_train_begin(5, 20, 1)  # resumed from the state of step 5
    validated(10, top + 0.2)
    assert found.best()[0] == 5
    found.on_train_end(10, "")
    found.load_best(model)
    assert (norm == 5).all()
    assert [path.name for path in tmp_path.glob("best*")] == ["best-5.safetensors"]


def test_no_checkpoint_without_a_rise_or_with_too_great_a_loss(tmp_path: Path) -> None:
    images = Images(SyntheticDrive(2), "a drive")
    found = teacher(Teaching(), tmp_path)
    found.measured = [measured(0, 0.6), measured(5, 0.5)]
    with pytest.raises(NotAdapted, match=r"must rise above that of start, 0\.6000.* got 0\.5000;"):
        Adapted.of(images, 8, 2, 0.5, found, "start")
    found.measured.append(measured(10, 0.7))
    adapted = Adapted.of(images, 8, 2, 0.5, found, "start")
    assert adapted.best.step == 10
    adapted.check(0.5, 0.475, 0.03, tmp_path)
    with pytest.raises(NotAdapted, match=r"may fall by at most 0\.02, got 0\.4750 after 0\.5000"):
        adapted.check(0.5, 0.475, 0.02, tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {
                "teaching": Teaching(confidence_threshold=0.4, min_confidence=0.4),
                "labelled_share": 1.0,
            },
            "labelled_share",
        ),
        ({"training": TransformerTraining(augment="vary")}, "training.augment must be crop"),
    ],
)
def test_settings_out_of_range_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AdaptationRecipe(**settings)
    with pytest.raises(ConfigError, match="min_confidence must be at most confidence_threshold"):
        Teaching(confidence_threshold=0.4)


SAMPLES = list(SyntheticDrive(frames=12, height=96, width=128))


def written(root: Path, model: CamSeg) -> Path:
    """Write a model, labelled frames, and a drive without labels with one broken image."""
    model.save_pretrained(root / "start")
    (root / "start" / "MODEL_CARD.md").write_text("## How it was made\nby hand\n")
    for split, some in (("train", SAMPLES[:4]), ("val", SAMPLES[4:6])):
        for i, sample in enumerate(some):
            write_image(root / "data" / split / "images" / f"{i}.png", sample.image)
            write_image(root / "data" / split / "labels" / f"{i}.png", sample.label)
    for i, sample in enumerate(SAMPLES):
        write_image(root / "drive" / f"{i}.png", sample.image)
    (root / "drive" / "5.png").write_bytes(b"not a picture")
    return root


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("untrained"), tiny_lite())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that has learned a little."""
    root = tmp_path_factory.mktemp("adapt")
    loop = LoopConfig(steps=150, lr=3e-3, warmup=5, ema_decay=0.9, precision="fp32")
    task = TaskLoss(own_share=0, late_own_share=0, decoder_joins=0, balanced_until=0)
    config = TransformerTraining(loop, 4, crop=(64, 96), crop_area=(0.5, 1), task=task)
    model = copy.deepcopy(tiny_lite())
    frames = Frames.load(SAMPLES, model.labels)
    return written(root, train_transformer(config, model, frames, Run(root / "first")))


def command(root: Path, name: str, *extra: str) -> list[str]:
    return [
        *("adapt", "--model", str(root / "start"), "--data", str(root / "data")),
        *("--dataset", "folder", "--run", str(root / f"run-{name}"), "--out", str(root / name)),
        *(f"--set={setting}" for setting in SMALL),
        *(extra or ("--images", str(root / "drive"), "--json", "--no-export")),
    ]


@pytest.mark.slow
def test_an_adapted_checkpoint_says_what_it_learned_from(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # offsets for the labelled frames would hide what was learned from the images
    monkeypatch.setattr(class_offsets, "LEAST_FRAMES", 1)
    main(command(place, "one"))
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["images"]["learnt"] == 9
    assert result["images"]["held_out"] == 2
    assert "5.png" in result["images"]["left_out"][0]
    assert [each["step"] for each in result["validations"]] == [0, 2, 4, 6, 8]
    assert result["val_mean_iou"].keys() == {"before", "after"}
    assert json.loads((place / "run-one" / "result.json").read_text()).items() <= result.items()
    for line in (
        "experimental: ",
        "learns from 9 images of the folder drive without labels; 2 more are held out and decide",
        "labelled frames: 4 of train, 50 % of the samples; 2 of val",
        "at most 0.",
        "left out: ",
    ):
        assert line in err
    card = (place / "one" / "MODEL_CARD.md").read_text()
    for text in (
        "| `images without labels`: to adapt to | 9 | – | 128×96 | 50 % | none |",
        "**Adapted without labels, which is experimental.** 9 images of the folder drive",
        "not accuracy",
        "Left out: ",
        f"adapted without labels (experimental) in {result['steps']} steps",
        "by hand",
    ):
        assert text in card
    assert "offsets were added" not in card
    assert not list(place.glob("one.partial*"))
    assert (place / "run-one" / "comparison" / "comparison.html").is_file()


@pytest.mark.slow
def test_a_killed_adaptation_ends_as_an_uninterrupted_one(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(command(place, "whole"))
    original: Callable[..., None] = MeanTeacher.on_validation_end

    def killed(self: MeanTeacher, done: int, *found: Any) -> None:
        original(self, done, *found)
        if done == 6:  # the state is of step 4
            raise KeyboardInterrupt

    monkeypatch.setattr(MeanTeacher, "on_validation_end", killed)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        main(command(place, "parts"))
    monkeypatch.undo()
    main(command(place, "parts"))
    whole, parts = (
        json.loads((place / f"run-{name}" / "result.json").read_text())
        for name in ("whole", "parts")
    )
    assert whole == parts
    whole, parts = (load_file(place / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())


@pytest.mark.slow
def test_the_guard_is_scored_on_val_frames_with_labels(
    untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(untrained, tmp_path, dirs_exist_ok=True)
    void = np.full((96, 128), UNLABELLED, np.uint8)
    write_image(tmp_path / "data" / "val" / "labels" / "0.png", void)  # the first of every fifth
    with suppress(SystemExit):  # the agreement need not rise
        main(command(tmp_path, "void"))
    measured = json.loads((tmp_path / "run-void" / "transformer" / "agreement.json").read_text())
    assert all(0 <= each["source"] <= 1 for each in measured)
    assert "NaN" not in capsys.readouterr().err


@pytest.mark.slow
def test_without_labelled_frames_only_the_images_are_learned_from(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = ("--set=labelled_share=0", "--set=training.loop.steps=2", "--no-export")
    try:
        main(command(place, "alone", "--images", str(place / "drive"), *extra))
    except SystemExit:  # the agreement need not rise
        assert "nothing was written: the agreement must rise" in capsys.readouterr().err
        assert not (place / "alone").exists()
    else:
        card = (place / "alone" / "MODEL_CARD.md").read_text()
        assert "No training frame has labels." in card
        assert "| `folder`: a folder of images and labels | – | 2 |" in card
        assert "| 100 % | none |" in card


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--images", "DRIVE", "--bag", "DRIVE"], "name the images with either --bag or --images"),
        (["--images", "DRIVE", "--topic", "/x"], "--topic and --white-level are for --bag"),
        (["--images", "MISSING"], "does not exist; name a bag or a folder of images"),
        (["--images", "DRIVE", "--frames", "4"], "at least 8 images to adapt to, got 4"),
        (["--images", "DRIVE", "--set=labelled_share=2"], "labelled_share must be at least 0"),
    ],
)
def test_what_cannot_be_used_is_refused(
    untrained: Path, capsys: pytest.CaptureFixture[str], extra: list[str], message: str
) -> None:
    places = {"DRIVE": str(untrained / "drive"), "MISSING": str(untrained / "missing")}
    with pytest.raises(SystemExit):
        main(command(untrained, "no", *(places.get(each, each) for each in extra)))
    assert message in capsys.readouterr().err
    assert not (untrained / "no").exists()


def test_a_folder_with_content_is_not_overwritten(
    untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (untrained / "full").mkdir()
    (untrained / "full" / "note.txt").write_text("mine")
    with pytest.raises(SystemExit):
        main(command(untrained, "full"))
    assert "must be new or empty" in capsys.readouterr().err
    assert [path.name for path in (untrained / "full").iterdir()] == ["note.txt"]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (["--topic", "/rear"], "--topic (/front)"),
        (["--topic", "/front", "--white-level", "1023"], "--white-level (0)"),
        (["--topic", "/front", "--frames", "9"], "--frames (400)"),
        (["--frames", "9", "--topic", "/rear"], "--frames (400) and --topic (/front)"),
    ],
)
def test_a_run_goes_on_with_the_images_of_its_bag(
    untrained: Path, capsys: pytest.CaptureFixture[str], changed: list[str], named: str
) -> None:
    images = untrained / "run-resumed" / "images"
    images.mkdir(parents=True, exist_ok=True)
    content = {
        "bags": {str(untrained / "drive"): 11},
        "asked": 400,
        "topic": "/front",
        "white_level": 0,
        "left_out": [],
    }
    (images / "images.json").write_text(json.dumps(content))
    asked = ["--bag", str(untrained / "drive"), *changed]
    with pytest.raises(SystemExit):
        main(command(untrained, "resumed", *asked))
    assert f"restore {named}, or choose another --run" in capsys.readouterr().err
