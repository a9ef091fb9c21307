"""`camseg train --from`: a trained model fine-tuned on other data and other classes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lite import tiny_lite
from test_own_classes import write_frames
from test_recipe import CONFIG
from test_recipe import SMALL as FROM_SCRATCH

from camseg_core.cli.main import main
from camseg_core.config.model import save_config
from camseg_core.config.yaml_file import load_yaml
from camseg_core.data.label_table import LabelTable, OwnClass
from camseg_core.errors import ConfigError
from camseg_core.groups import ScoredLabels
from camseg_core.labels import Label
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime import Segmenter
from camseg_core.training.finetune import FinetuneRecipe
from camseg_core.training.frames import HeldFrames
from camseg_core.training.mask_autoencoder import AutoencoderTraining, train_autoencoder
from camseg_core.training.recipes import model_config
from camseg_core.training.run import TrainingData
from camseg_core.training.settings import LoopConfig
from camseg_core.training.start import ClassChanges, adapted, check_origins
from camseg_core.training.trainer import Run

SMALL = [
    "autoencoder.loop.steps=2",
    "autoencoder.batch=2",
    "autoencoder.crop=[32, 32]",
    "training.loop.steps=2",
    "training.loop.validate_every=2",
    "training.batch=2",
    "training.crop=[64, 64]",
]
TABLE = """
- {id: 9, name: road, color: [128, 64, 128]}
- {id: 0, name: green, color: [0, 142, 0], was: [vegetation]}
- {id: 1, name: hedge, color: [0, 92, 0], was: [vegetation]}
- {id: 2, name: vehicle, color: [0, 0, 142], was: [car, rider]}
- {id: 3, name: cone, color: [250, 120, 0]}
"""
IDS = [9, 0, 1, 2, 3, 255]


def table(*classes: OwnClass) -> LabelTable:
    return LabelTable(classes)


def own(id: int, name: str, was: tuple[str, ...] | None = None) -> OwnClass:
    return OwnClass(id, name, (id, id, id), was)


def decoded(model: CamSeg, mask: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.decode_mask(model.encode_mask(mask))


def test_classes_in_another_order_give_the_same_model() -> None:
    start = tiny_lite()
    order = tuple(reversed(start.labels))
    model = adapted(start, LabelTable.of(order))
    assert model.labels == order
    assert ClassChanges.of(start.labels, LabelTable.of(order)).kept == (*range(len(order)),)
    mask = torch.from_numpy(
        np.random.default_rng(0).choice([each.id for each in order], (2, 64, 96)).astype(np.uint8)
    )
    torch.testing.assert_close(model.encode_mask(mask), start.encode_mask(mask))
    assert decoded(model, mask).equal(decoded(start, mask))


def test_what_becomes_of_the_classes_is_named() -> None:
    old = [Label(i, name, (0, 0, 0)) for i, name in enumerate(["road", "car", "truck", "person"])]
    changes = ClassChanges.of(
        old,
        table(
            own(5, "road"),
            own(1, "vehicle", ("car", "truck")),
            own(2, "adult", ("person",)),
            own(3, "child", ("person",)),
            own(4, "cone"),
        ),
    )
    assert changes.lines() == [
        "kept (1): road",
        "new (1): cone",
        "merged (1): vehicle from car and truck",
        "split (1): person into adult and child",
    ]
    assert changes.kept == (0, 1)
    assert ClassChanges.of(old, table(own(0, "car"))).lines()[1] == (
        "dropped (3): road, truck, person"
    )


def test_masks_of_the_old_model_are_scored_in_the_new_classes() -> None:
    old = [Label(i, name, (0, 0, 0)) for i, name in enumerate(["road", "car", "truck", "person"])]
    new = table(
        own(7, "road"),
        own(1, "vehicle", ("car", "truck")),
        own(2, "adult", ("person",)),
        own(3, "child", ("person",)),
        own(4, "cone"),
    )
    scored = ClassChanges.of(old, new).scored(ScoredLabels.of(new.labels))
    truth = scored.truth_of(np.array([[7, 1, 1, 2, 3, 4, 255]], np.uint8))
    found = scored.predicted_of(np.array([[0, 1, 2, 3, 3, 3, 0]], np.uint8), truth)
    # a person is right for both parts, and neither for a cone
    assert found.tolist() == [[0, 1, 1, 2, 3, 2, 0]]


def test_a_new_class_leaves_the_latents_of_the_others_and_is_learned(tmp_path: Path) -> None:
    start = tiny_lite()
    new = LabelTable.of((*start.labels, Label(40, "cone", (250, 120, 0))))
    changes = ClassChanges.of(start.labels, new)
    assert len(changes.kept) == len(start.labels)
    torch.manual_seed(0)
    model = adapted(start, new)
    codec = model.mask_autoencoder
    assert codec is not None
    indices = torch.zeros((4, 32, 32), dtype=torch.uint8)
    indices[:, :, 16:] = len(start.labels)
    frames = HeldFrames(
        torch.zeros((4, 3, 32, 32), dtype=torch.uint8), indices, ("a",) * 4, new.labels
    )
    config = AutoencoderTraining(
        codec.config, LoopConfig(steps=100, lr=1e-2, warmup=1, ema_decay=0.5), 2, (32, 32)
    )
    tuned = train_autoencoder(config, frames, Run(tmp_path), codec, changes.kept)
    plain = torch.randint(0, len(start.labels), (2, 32, 32))
    with torch.no_grad():
        torch.testing.assert_close(tuned.encode(plain), codec.encode(plain))
        mask = indices[:1].long()
        before = (codec.decode(codec.encode(mask)).argmax(1) == mask).float().mean()
        after = (tuned.decode(tuned.encode(mask)).argmax(1) == mask).float().mean()
    assert after > max(0.8, before)


def test_a_model_without_a_common_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="say in labels.yaml what each class was"):
        adapted(tiny_lite(), table(own(0, "cone")))


def test_an_origin_that_nothing_has_is_refused() -> None:
    known = tiny_lite().labels
    check_origins(table(own(0, "x", ("road",)), own(1, "y")), known)
    with pytest.raises(ConfigError, match="got 'roat': did you mean 'road'"):
        check_origins(table(own(0, "x", ("car", "roat"))), known)


def test_sets_to_replay_get_their_share() -> None:
    text = {"replay": [{"name": "a", "weight": 3}, {"name": "b", "weight": 1}]}
    from camseg_core.config.reader import build

    recipe = build(FinetuneRecipe, text, "x", ConfigError)
    sets = recipe.sets()
    assert not isinstance(sets, str)
    assert {each.name: round(each.weight, 3) for each in sets} == {"own": 0.8, "a": 0.15, "b": 0.05}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a finished fine-tuning to five classes of its own, with a set to replay."""
    root = tmp_path_factory.mktemp("tuned")
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        label = random.choice(IDS, (64, 96)).astype(np.uint8)
        write_frames(root / "data", label, split, count=3)
        write_frames(
            root / "other", random.choice([0, 8, 13, 255], (64, 96)).astype(np.uint8), split
        )
    (root / "data" / "labels.yaml").write_text(TABLE)
    tiny_lite().save_pretrained(root / "start")
    (root / "start" / "MODEL_CARD.md").write_text("## How it was made\nby hand\n")
    (root / "tune.yaml").write_text("replay: [{name: other, kind: folder, root: ../other}]")
    main(command(root))
    return root


def command(root: Path, *extra: str) -> list[str]:
    folders = [f"--{name}={root / name}" for name in ("data", "run", "out")]
    settings = [f"--set={setting}" for setting in SMALL]
    config = ["--from", str(root / "start"), "--config", str(root / "tune.yaml")]
    return ["train", *config, *folders, *settings, *extra]


@pytest.mark.slow
def test_tuning_gives_a_checkpoint_of_the_new_classes_and_a_comparison(tuned: Path) -> None:
    model = CamSeg.from_pretrained(tuned / "out")
    assert [(each.id, each.name) for each in model.labels] == [
        *((9, "road"), (0, "green"), (1, "hedge"), (2, "vehicle"), (3, "cone"))
    ]
    mask = Segmenter.from_pretrained(tuned / "out").segment(np.zeros((64, 96, 3), np.uint8)).mask
    assert {*np.unique(mask).tolist()} <= {9, 0, 1, 2, 3}
    log = (tuned / "run" / "train.log").read_text()
    for line in (
        "classes kept (1): road",
        "classes new (1): cone",
        "classes merged (1): vehicle from car and rider",
        "classes split (1): vegetation into green and hedge",
        "weights kept: ",
        "the mask autoencoder learns",
        "2 steps of the mask autoencoder at ",
        "images and scores side by side: ",
    ):
        assert line in log
    compared = tuned / "run" / "comparison-own"
    found = json.loads((compared / "comparison.json").read_text())
    (part,) = found["parts"]
    assert [each["name"] for each in part["classes"]][:5] == [each.name for each in model.labels]
    assert part["classes"][4]["iou"][0] == 0  # the start knows no cone
    assert len(part["scores"]["mean_iou"]) == 2
    assert "classes new (1): cone" in part["notes"]
    page = (compared / "comparison.html").read_text()
    assert "data:image/png" in page
    assert (tuned / "run" / "comparison-other" / "comparison.html").is_file()
    card = (tuned / "out" / "MODEL_CARD.md").read_text()
    assert "by hand" in card
    assert "`tiny-lite`, fine-tuned in" in card
    assert "--from" in card


@pytest.mark.slow
def test_a_tuned_model_resumes_from_the_same_start_and_classes_only(
    tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = tuned / "start" / "model.safetensors"
    kept = start.read_bytes()
    other = CamSeg(tiny_lite().config, tiny_lite().labels)
    other.save_pretrained(tuned / "start")
    with pytest.raises(SystemExit):
        main(command(tuned))
    assert "the model to start from must be that of" in capsys.readouterr().err
    start.write_bytes(kept)
    classes = tuned / "data" / "labels.yaml"
    classes.write_text(TABLE.replace("was: [car, rider]", "was: [car]"))
    with pytest.raises(SystemExit):
        main(command(tuned))
    assert "their meaning differ: restore them" in capsys.readouterr().err
    classes.write_text(TABLE)


def test_a_dry_run_says_what_is_kept_and_how_long_it_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        write_frames(tmp_path / "data", np.full((64, 96), 13, np.uint8), split)
    (tmp_path / "data" / "mapping.yaml").write_text("ids: {car: [13], bus: [15]}")
    tiny_lite().save_pretrained(tmp_path / "start")
    main(
        [
            *("train", "--from", str(tmp_path / "start"), "--data", str(tmp_path / "data")),
            *(f"--set={setting}" for setting in SMALL),
            "--dry-run",
        ]
    )
    err = capsys.readouterr().err
    assert "classes kept (1): car" in err
    assert "classes new (1): bus" in err
    assert "no frame of train shows bus alone" in err
    assert "measured now" in err
    assert not (tmp_path / "data" / "run").exists()


def test_an_interrupted_dry_run_names_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    tiny_lite().save_pretrained(tmp_path / "start")
    monkeypatch.setattr("camseg_core.training.finetune.check_batch", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["train", f"--from={tmp_path / 'start'}", f"--data={tmp_path}", "--dry-run"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "camseg: interrupted; a dry run keeps nothing\n"


def test_classes_of_the_data_that_the_model_lacks_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for split in ("train", "val"):
        write_frames(tmp_path, np.array([[9, 0, 3, 255]] * 4, np.uint8), split)
    (tmp_path / "labels.yaml").write_text(TABLE)
    model = tiny_lite().labels
    TrainingData.load("auto", tmp_path, table=LabelTable.of(model))
    (warned,) = (each.message for each in caplog.records if "lacks" in each.message)
    assert warned.startswith(
        "data set folder has classes that the model lacks, and their pixels count as unlabelled: "
        "cone; to learn them, name a class table that has them (classes), or say in labels.yaml"
    )
    caplog.clear()
    TrainingData.load("auto", tmp_path)
    assert not caplog.records


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--autoencoder", "x", "--out", "OTHER"], "--from brings its own autoencoder"),
        (["--out", "START"], "--out must not be the folder of the model to start from"),
    ],
)
def test_options_that_do_not_go_with_a_start_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    start = tmp_path / "start"
    tiny_lite().save_pretrained(start)
    base = ["train", "--from", str(start), "--data", str(tmp_path), "--run", str(tmp_path / "run")]
    places = {"START": str(start), "OTHER": str(tmp_path / "out")}
    with pytest.raises(SystemExit):
        main([*base, *(places.get(each, each) for each in more)])
    assert message in capsys.readouterr().err


def test_a_training_from_scratch_has_the_classes_of_the_data(tmp_path: Path) -> None:
    label = np.random.default_rng(0).choice(IDS, (64, 96)).astype(np.uint8)
    write_frames(tmp_path / "data", label, "train", count=2)
    write_frames(tmp_path / "data", label, "val")
    (tmp_path / "data" / "labels.yaml").write_text(TABLE)
    save_config(tiny_lite().config, tmp_path / "tiny.json")  # of 11 classes
    folders = [f"--{name}={tmp_path / name}" for name in ("data", "run", "out")]
    changes = [f"--set={each}" for each in (f"model={tmp_path / 'tiny.json'}", *FROM_SCRATCH)]
    main(["train", "--config", str(CONFIG), *folders, "--dataset=auto", *changes, "--no-export"])
    model = CamSeg.from_pretrained(tmp_path / "out")
    assert [each.id for each in model.labels] == [9, 0, 1, 2, 3]
    assert json.loads((tmp_path / "out" / "labels.json").read_text())["label_set"] == "own"
    assert "the ids in `labels.json`" in (tmp_path / "out" / "MODEL_CARD.md").read_text()


def test_a_folder_as_the_model_of_a_configuration_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="use --from"):
        model_config(str(tmp_path))


def test_the_table_of_the_configuration_is_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "tune.yaml").write_text("classes: tables/mine.yaml")
    recipe = load_yaml(tmp_path / "tune.yaml", FinetuneRecipe).located(tmp_path)
    assert recipe.classes == str((tmp_path / "tables" / "mine.yaml").resolve())
