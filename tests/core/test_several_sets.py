"""Training on several data sets at once: their settings, classes, frames and samples."""

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from camvid_folder import write_camvid
from lite import LABELS, tiny_lite
from test_own_classes import write_frames

from camseg_core.cli.main import main
from camseg_core.config.model import CamSegConfig, save_config
from camseg_core.config.yaml_file import load_yaml, to_yaml
from camseg_core.data.augmentation import random_crops
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import ConfigError, DataError
from camseg_core.labels import CITYSCAPES, UNLABELLED, cityscapes_labels
from camseg_core.model.camseg import CamSeg
from camseg_core.training.frames import Frames, Part
from camseg_core.training.joined import (
    JoinedFrames,
    JoinedSamples,
    SetConfig,
    labels_of,
    located,
    open_data,
)
from camseg_core.training.loading import FrameStream
from camseg_core.training.recipes import Recipe
from camseg_core.training.run import TrainingData
from camseg_core.training.transformer import TransformerTraining
from camseg_core.training.validation import class_indices, confusion_of, validation

RECIPES = Path(__file__).parents[2] / "config" / "train"
GROUPS = """
ids: {road: [0], sky: [6], unlabelled: [255]}
groups: [{classes: [person, rider], ids: [2]}, {classes: [sidewalk, terrain], ids: [1]}]
"""


def write_coarse(root: Path, size: tuple[int, int] = (40, 72), frames: int = 5) -> Path:
    """Write a set of your own with groups, and its mapping."""
    random = np.random.default_rng(1)
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (root / split / part).mkdir(parents=True)
        for i in range(frames):
            image = random.integers(0, 255, (*size, 3), np.uint8)
            label = random.choice([0, 1, 2, 6, 255], size).astype(np.uint8)
            cv2.imwrite(str(root / split / "images" / f"{i}.jpg"), image)
            cv2.imwrite(str(root / split / "labels" / f"{i}.png"), label)
    (root / "mapping.yaml").write_text(GROUPS, encoding="utf-8")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_camvid(tmp_path / "data" / "camvid", "train", "val", size=(64, 96))
    write_coarse(tmp_path / "data" / "coarse")
    return tmp_path / "data"


BOTH = (SetConfig("camvid", root="camvid", weight=1), SetConfig("coarse", "folder", "coarse", 3))


def read(text: str, folder: Path) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return load_yaml(path, Recipe)


def test_data_is_a_kind_or_a_list_of_sets(tmp_path: Path) -> None:
    assert read("data: cityscapes", tmp_path).data == "cityscapes"
    listed = read(
        "data: [{name: a, kind: camvid, root: x, weight: 2}, {name: b, mapping: m.yaml}]", tmp_path
    )
    assert listed.data == (
        SetConfig("a", "camvid", "x", 2.0),
        SetConfig("b", "auto", ".", 1.0, "m.yaml"),
    )
    (tmp_path / "kept.yaml").write_text(to_yaml(listed), encoding="utf-8")
    assert load_yaml(tmp_path / "kept.yaml", Recipe) == listed


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("[]", r"sum of the weights in data must be > 0, got 0"),
        ("[{name: a}, {name: a}]", r"names in data must be all different, got \['a', 'a'\]"),
        ("[{name: a, weight: 0}]", r"sum of the weights in data must be > 0"),
        ("[{name: a, weight: -1}]", r"data\[1\]: weight must be >= 0, got -1"),
        ("[{name: a, weight: 1}, {name: b, weight: 1e-4}]", r"weight of b must be 0, or at least"),
        ("[{name: a, kind: camvit}]", r"data set must be one of auto, camvid, .*, got 'camvit'"),
        (
            "[{name: a/b}]",
            r"data\[1\]: name must be letters, .*, to name files, got 'a/b'",
        ),
        ("[{name: a}, {name: b, size: 3}]", r"unknown entries data\[2\]\.size"),
        ("[{root: a}]", r"data\[1\] lacks one of its entries: data\[1\]\.name"),
        ("3", r"data must be of type str, got 3"),
    ],
)
def test_lists_of_sets_that_cannot_be_used_are_refused(
    tmp_path: Path, data: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        read(f"data: {data}", tmp_path)


def test_a_mapping_is_relative_to_the_recipe(tmp_path: Path) -> None:
    data = (SetConfig("a", mapping="../data/a.yaml"), SetConfig("b"), SetConfig("c", mapping="/c"))
    assert [each.mapping for each in located(data, tmp_path / "train")] == [
        str(tmp_path / "data" / "a.yaml"),
        None,
        "/c",
    ]
    assert located("camvid", tmp_path) == "camvid"


def test_several_sets_share_their_classes_and_groups(root: Path) -> None:
    found = TrainingData.load(BOTH, root)
    names = [label.name for label in found.labels]
    assert names == [label.name for label in CITYSCAPES if label.name in names]
    assert {"terrain", "rider", "pole"} <= {*names}
    assert {"person or rider", "sidewalk or terrain"} <= {each.name for each in found.train.groups}
    assert (len(found.train), len(found.val)) == (3 + 5, 3 + 5)
    assert [part.name for part in found.train.parts()] == ["camvid", "coarse"]
    for index, group in enumerate(found.train.groups, start=len(names)):
        if group.name == "person or rider":
            assert (found.train[3][1] == index).any()
    names = [sample.name for sample in JoinedSamples(found.train_sets, found.labels)]
    assert names[2:4] == ["0001TP_000002", "0"]
    val = JoinedSamples(found.val_sets, found.labels)
    assert [sample.name for sample in val.spread(3)] == [
        *("0001TP_000000", "0001TP_000001"),
        *("0", "2"),
    ]


def test_samples_of_several_sets_share_the_ids_of_groups(root: Path) -> None:
    found = TrainingData.load(BOTH, root)
    joined = JoinedSamples(found.train_sets, found.labels)
    scored = joined.scored()
    places = [label.name for label in scored.labels]
    assert places == [label.name for label in (*found.labels, *found.train.groups)]
    for sample, (_, indices) in zip(joined, found.train, strict=True):
        truth, expected = scored.truth_of(sample.label), indices.numpy()
        assert np.array_equal(truth, np.where(expected == UNLABELLED, len(places), expected))
    alone = JoinedSamples(found.train_sets[:1], found.labels)
    assert alone.scored().labels == LABELS
    assert np.array_equal(alone[0].label, found.train_sets[0].found.samples[0].label)


def test_a_set_with_groups_is_validated_over_the_labels_that_it_shows(root: Path) -> None:
    found = TrainingData.load(BOTH, root)
    coarse = found.val.parts()[1].frames
    model = CamSeg(replace_classes(len(found.labels)), found.labels).eval()
    confusion = confusion_of(model, coarse)
    names = ["road", "sky", "sidewalk or terrain", "person or rider"]
    counts = coarse.pixel_counts()
    everything = [label.name for label in (*found.labels, *coarse.groups)]
    assert sorted(everything[i] for i in np.flatnonzero(counts[:255])) == sorted(names)
    assert confusion.classes == 4
    assert sorted(confusion.labelled) == sorted(counts[:255][counts[:255] > 0])
    predicted = np.concatenate([each.ravel() for each in class_indices(model, coarse)])
    truth = np.concatenate([indices.numpy().ravel() for _, indices in coarse])
    possible = torch.cat([torch.eye(len(found.labels)).bool(), coarse.members()]).numpy()
    known = truth != UNLABELLED
    assert confusion.hits.sum() == possible[truth[known], predicted[known]].sum()


def replace_classes(classes: int) -> CamSegConfig:
    """The configuration of the tiny model, for another number of classes."""
    config = tiny_lite().config
    assert config.mask_autoencoder is not None
    codec = replace(config.mask_autoencoder, classes=classes)
    return replace(config, mask_autoencoder=codec)


def test_a_set_of_weight_0_is_only_validated_and_keeps_its_classes(root: Path) -> None:
    data = (BOTH[0], replace(BOTH[1], weight=0))
    found = TrainingData.load(data, root)
    assert (len(found.train), len(found.val)) == (3, 8)
    assert found.labels == TrainingData.load(BOTH, root).labels == labels_of(data, root)
    assert found.train.groups == found.val.groups


def test_a_kind_keeps_its_own_classes_in_their_order(root: Path) -> None:
    assert TrainingData.load("camvid", root / "camvid").labels == LABELS


def test_a_broken_set_is_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"^data set c: no split 'train' in .*nowhere"):
        TrainingData.load((*BOTH, SetConfig("c", "folder", "nowhere")), root)


def joined(*weights: float) -> JoinedFrames:
    drives = [
        SyntheticDrive(frames=3 + 2 * place, height=32, width=64 + 16 * place, seed=place)
        for place in range(len(weights))
    ]
    return JoinedFrames(
        [
            Part(f"set {place}", Frames.load(drive, LABELS), weight)
            for place, (drive, weight) in enumerate(zip(drives, weights, strict=True))
        ]
    )


def set_of(frames: Frames, index: int) -> int:
    ends = np.cumsum([len(part.frames) for part in frames.parts()])
    return int(np.searchsorted(ends, index, side="right"))


def test_sets_are_drawn_by_weight_and_each_is_passed_through_whole() -> None:
    frames = joined(1, 3, 0.5)
    stream = FrameStream(frames, None, seed=5)
    drawn = [stream.frame(number) for number in range(9000)]
    shares = Counter(set_of(frames, index) for index in drawn)
    assert [shares[place] / 9000 for place in range(3)] == pytest.approx(
        [1 / 4.5, 3 / 4.5, 0.5 / 4.5], abs=1e-3
    )
    of_second = [index for index in drawn if set_of(frames, index) == 1]
    passes = [of_second[start : start + 5] for start in range(0, 500, 5)]
    assert all(sorted(each) == [3, 4, 5, 6, 7] for each in passes)
    assert len({tuple(each) for each in passes}) > 20
    for start in (0, 8, 1000):  # no long run of one set
        assert len({set_of(frames, index) for index in drawn[start : start + 40]}) == 3


def test_a_sample_of_several_sets_depends_only_on_its_number() -> None:
    streams = [
        FrameStream(joined(1, 2), random_crops((32, 48), (0.3, 1.5), True, (1, 2), True), seed=5)
        for _ in range(2)
    ]
    for number in (0, 999, 1000, 2345):
        streams[0].batch(range(number // 3, number // 3 + 2))
        one, other = (stream.batch(range(number, number + 2)) for stream in streams)
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))
        assert one[0].shape == (2, 3, 32, 48)


def test_a_list_of_one_set_gives_the_samples_of_its_kind(root: Path) -> None:
    kind = TrainingData.load("camvid", root / "camvid").train
    listed = TrainingData.load((BOTH[0],), root, LABELS).train
    for number in range(7):
        assert FrameStream(kind, None, 1).frame(number) == FrameStream(listed, None, 1).frame(
            number
        )
    assert torch.equal(kind[1][1], listed[1][1])


def test_pixels_count_by_the_weight_of_their_set() -> None:
    frames = joined(1, 3)
    counts = [part.frames.pixel_counts()[:UNLABELLED] for part in frames.parts()]
    expected = counts[0] / counts[0].sum() / 4 * 32 * 64 + counts[1] / counts[1].sum() / 4 * 3 * (
        32 * 80
    )
    found = frames.pixel_counts()[:UNLABELLED] / len(frames)
    assert found == pytest.approx(expected, rel=0.05, abs=1)
    assert joined(1, 2).fingerprint() != joined(1).fingerprint()


def test_validation_scores_every_set_and_their_mean(root: Path) -> None:
    found = TrainingData.load(BOTH, root, LABELS)
    figures, picture = validation(TransformerTraining(), found.val)(tiny_lite())
    assert [*figures] == ["mIoU", "mIoU with 10 steps", "mIoU of camvid", "mIoU of coarse"]
    assert figures["mIoU"] == pytest.approx(
        (figures["mIoU of camvid"] + figures["mIoU of coarse"]) / 2
    )
    assert picture is not None
    assert picture.shape == (2 * 64, 3 * 96, 3)


def test_frames_that_are_held_out_and_trained_on_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_frames(tmp_path, np.zeros((4, 4), np.uint8), ".", count=5)
    TrainingData.load((SetConfig("own", "folder"),), tmp_path)
    assert "in train" not in caplog.text
    TrainingData.load((SetConfig("own", "folder", train="all"),), tmp_path)
    assert f"{tmp_path / 'images' / '4.png'} is in val and in train" in caplog.text


def test_the_recipe_of_the_bundled_model_opens_its_three_sets(tmp_path: Path) -> None:
    write_camvid(tmp_path / "camvid", "train", "val")
    for name, labels in (("cityscapes-small", [0, 18, 255]), ("idd-lite", [0, 5, 255])):
        for split in ("train", "val"):
            for part in ("images", "labels"):
                (tmp_path / name / split / part).mkdir(parents=True)
            label = np.random.default_rng(0).choice(labels, (32, 32)).astype(np.uint8)
            cv2.imwrite(str(tmp_path / name / split / "labels" / "a.png"), label)
            cv2.imwrite(str(tmp_path / name / split / "images" / "a.png"), label)
    path = RECIPES / "camseg-lite.yaml"
    recipe = load_yaml(path, Recipe)
    found = TrainingData.load(located(recipe.data, path.parent), tmp_path)
    assert found.labels == CITYSCAPES
    assert recipe.autoencoder.model.classes == len(CITYSCAPES)
    assert [part.frames.size() for part in found.val.parts()] == [(48, 64), (32, 64), (32, 32)]
    assert recipe.training.disturb.share > 0


@pytest.mark.slow
def test_one_command_trains_on_several_sets(root: Path, tmp_path: Path) -> None:
    classes = len(labels_of(BOTH, root))
    tiny = tiny_lite().config
    assert tiny.mask_autoencoder is not None
    codec = replace(tiny.mask_autoencoder, classes=classes)
    recipe = {
        "model": str(tmp_path / "tiny.json"),
        "data": [
            {"name": "camvid", "root": "camvid"},
            {"name": "coarse", "root": "coarse", "mapping": "own.yaml", "weight": 2},
        ],
        "autoencoder": {
            "model": asdict(codec),
            "loop": {"steps": 2},
            "batch": 2,
            "crop": [32, 32],
        },
        "training": {
            "loop": {"steps": 2, "validate_every": 1},
            "batch": 2,
            "crop": [64, 64],
            "crop_beyond": True,
            "crop_area": [0.3, 2],
            "disturb": {"share": 0.5},
        },
    }
    (root / "coarse" / "mapping.yaml").rename(tmp_path / "own.yaml")
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    save_config(replace(tiny, mask_autoencoder=codec), tmp_path / "tiny.json")
    folders = [f"--{name}={tmp_path / name}" for name in ("run", "out")]
    main(["train", f"--config={tmp_path / 'recipe.yaml'}", f"--data={root}", *folders])
    log = (tmp_path / "run" / "transformer" / "log.jsonl").read_text(encoding="utf-8")
    scored = [entry for line in log.splitlines() if "validation" in (entry := json.loads(line))]
    assert [*scored[-1]["validation"]][2:] == ["mIoU of camvid", "mIoU of coarse"]
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "| `camvid`: CamVid with 11 classes | 3 | 3 | 96×64 | 33 % | 11 classes and 5 gr" in card
    assert (
        "| `coarse`: a folder of images and labels | 5 | 5 | 72×40 | 67 % | 2 classes and" in card
    )
    assert "Only labels for one of several classes show building, wall, " in card
    assert "| step | mIoU | mIoU with 10 steps | mIoU of camvid | mIoU of coarse |" in card
    ious = []
    for name, frames, classes in (("camvid", 3, 11), ("coarse", 5, 4)):
        report = tmp_path / "run" / f"val-{name}" / "report.json"
        scores = json.loads(report.read_text(encoding="utf-8"))["scores"]
        ious.append(scores["mean_iou"])
        assert f"| {name} | {frames} | {classes} | {scores['mean_iou']:.3f} | " in card
        table = card.partition(f"### Classes of {name}\n")[2].split("\n## ")[0].split("\n### ")[0]
        assert table.count("\n| ") == 2 + classes, "the set's own labels"
        assert (tmp_path / "run" / f"val-{name}-4-steps" / "report.json").is_file()
    assert f"mean of the sets' mean IoU **{sum(ious) / 2:.3f}**" in " ".join(card.split())
    prose = [line for line in card.splitlines() if line[:1].isalpha()]
    assert max(map(len, prose)) <= 120


def test_of_a_set_without_splits_the_last_fifth_is_held_out(tmp_path: Path) -> None:
    coarse = write_coarse(tmp_path / "coarse", frames=11)
    root = tmp_path / "plain"
    root.mkdir()
    for part in ("images", "labels"):
        (coarse / "train" / part).rename(root / part)
    (root / "mapping.yaml").write_text(GROUPS, encoding="utf-8")
    names = sorted(path.stem for path in (root / "images").iterdir())
    train, val = (open_data("auto", root, split)[0].found.samples for split in ("train", "val"))
    assert {sample.name for sample in val} == {"9", "10"}
    assert [sample.name for sample in train] == [name for name in names if name not in ("9", "10")]
    for path in (root / "images").iterdir():
        if path.stem != names[0]:
            path.unlink()
            (root / "labels" / f"{path.stem}.png").unlink()
    with pytest.raises(DataError, match="must have at least two frames"):
        open_data("auto", root, "train")
    with pytest.raises(DataError, match="no split 'train' in"):
        open_data("folder", tmp_path / "gone", "train")


def test_labels_may_lie_in_another_root(tmp_path: Path) -> None:
    write_coarse(tmp_path / "coarse")
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (tmp_path / part).mkdir(exist_ok=True)
            (tmp_path / "coarse" / split / part).rename(tmp_path / part / split)
    mapping = str(tmp_path / "coarse" / "mapping.yaml")
    own = SetConfig("own", root="images", labels="labels", mapping=mapping)
    assert len(open_data((own,), tmp_path, "train")[0].found.samples) == 5


def test_sets_with_different_class_tables_are_refused(root: Path) -> None:
    for name in ("camvid", "coarse"):
        (root / name / "labels.yaml").write_text(f"[{{id: 0, name: {name}, color: [1, 2, 3]}}]")
        (root / name / "mapping.yaml").unlink(missing_ok=True)
    sets = (SetConfig("one", "folder", "camvid"), SetConfig("two", "folder", "coarse"))
    with pytest.raises(ConfigError, match="one and two must have the same class table"):
        labels_of(sets, root)


def test_a_set_with_a_table_gives_the_classes_and_others_are_renumbered_to_it(root: Path) -> None:
    table = """
    - {id: 3, name: street, color: [1, 2, 3], was: [road]}
    - {id: 0, name: sky, color: [4, 5, 6]}
    """
    (root / "coarse" / "mapping.yaml").write_text("ids: {street: [0, 1, 2], sky: [6, 255]}")
    (root / "coarse" / "labels.yaml").write_text(table)
    found = TrainingData.load(BOTH, root)
    assert [(label.id, label.name) for label in found.labels] == [(3, "street"), (0, "sky")]
    camvid = found.train_sets[0].found.samples[0].label
    assert {*np.unique(camvid).tolist()} == {0, 3, UNLABELLED}
    assert {*np.unique(found.train[0][1]).tolist()} == {0, 1, UNLABELLED}


def test_classes_that_a_model_lacks_are_not_scored(tmp_path: Path) -> None:
    """Of Cityscapes' as well: a model may have some of them."""
    for split in ("train", "val"):
        label = np.zeros((32, 32), np.uint8)
        label[:, 16:] = 13
        label[:8] = 10
        for part, picture in (("images", np.zeros((32, 32, 3), np.uint8)), ("labels", label)):
            (tmp_path / split / part).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / split / part / "a.png"), picture)
    labels = cityscapes_labels([0, 13])
    found = TrainingData.load("folder", tmp_path, labels)
    (opened,) = found.val_sets
    assert [label.id for label in opened.found.labels] == [0, 13]
    assert {*np.unique(opened.found.samples[0].label)} == {0, 13, UNLABELLED}
    assert found.labels == labels
