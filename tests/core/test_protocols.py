"""Protocols: Cityscapes' against the official evaluation, the published one by hand."""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from data_trees import photo, write

from camseg_core.cli import scoring
from camseg_core.data import Sample
from camseg_core.data.sets import open_set
from camseg_core.errors import ConfigError, DataError
from camseg_core.evaluation.evaluate import Evaluation, evaluate
from camseg_core.evaluation.protocols import (
    CITYSCAPES_PROTOCOL,
    OWN_SIZE,
    PUBLISHED,
    PUBLISHED_SIZE,
    Protocol,
    as_published,
    nearest_class,
    write_mask,
)
from camseg_core.evaluation.report.evaluation import report_content, score_table, write_report
from camseg_core.labels import (
    CITYSCAPES,
    CITYSCAPES_LABEL_IDS,
    LABEL_ID_OF_TRAIN_ID,
    PUBLISHED_PALETTE,
    cityscapes_labels,
)
from camseg_core.model import kl_autoencoder
from camseg_core.runtime import Segmentation

VOID = 255
ROAD, SIDEWALK, SKY, CAR, TRUCK = 0, 1, 10, 13, 14
SIDE = PUBLISHED_SIZE
LABELS = cityscapes_labels((SKY, ROAD, CAR))

Ids = npt.NDArray[np.uint8]


class Painter:
    """Stands in for a model: its mask is the red channel of the image."""

    name, provider, engine, precision = "painter", "cpu", "a painter", "fp32"
    labels = CITYSCAPES

    def segment(self, rgb: Ids) -> Segmentation:
        return Segmentation(
            rgb[..., 0].copy(), np.full(rgb.shape[:2], 0.5, np.float32), {"paint": 1.0}
        )


@dataclass(frozen=True)
class Official:
    """The same masks scored by `evaluate` and, from files, by the official evaluation."""

    ours: Evaluation
    theirs: dict[str, object]


def blobs(random: np.random.Generator, values: list[int], shape: tuple[int, int]) -> Ids:
    """Areas of several pixels."""
    coarse = random.choice(values, (shape[0] // 4, shape[1] // 8))
    return np.kron(coarse, np.ones((4, 8), int)).astype(np.uint8)


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Official:
    their = pytest.importorskip(
        "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling",
        reason="needs cityscapesScripts, which make test installs",
    )
    root = tmp_path_factory.mktemp("cityscapes")
    random = np.random.default_rng(0)
    label_ids = [
        label.id for label in CITYSCAPES_LABEL_IDS if label.name not in ("train", "wall")
    ]  # no label, one of them in masks
    masks = [label.id for label in CITYSCAPES if label.name != "wall"] + [VOID]
    labels = []
    for number, shape in enumerate([(64, 96), (64, 96), (48, 128), (64, 96)]):
        name = f"frankfurt_{number:06}_000019"
        label = blobs(random, label_ids, shape)
        label[-8:] = 1  # the ego vehicle
        labels.append(write(root / f"gtFine/val/frankfurt/{name}_gtFine_labelIds.png", label))
        image = photo(shape[1], height=shape[0])
        image[..., 0] = blobs(random, masks, shape)
        right = random.random(shape) < 0.5
        train_ids = np.array([each.train_id for each in CITYSCAPES_LABEL_IDS], np.uint8)[label]
        image[..., 0][right] = train_ids[right]
        write(root / f"leftImg8bit/val/frankfurt/{name}_leftImg8bit.png", image)
    opened = open_set("auto", root)
    ours = evaluate(
        Painter(),  # type: ignore[arg-type]
        opened.samples,
        opened.labels,
        protocol=CITYSCAPES_PROTOCOL,
        seen=lambda sample, result: write_mask(root / "results", sample.name, result.mask) and None,
    )
    arguments = their.args
    arguments.evalInstLevelScore, arguments.JSONOutput, arguments.quiet = False, False, True
    arguments.predictionPath, arguments.predictionWalk = str(root / "results"), None
    files = [their.getPrediction(arguments, str(path)) for path in labels]
    return Official(ours, their.evaluateImgLists(files, [str(path) for path in labels], arguments))


def test_the_confusion_is_the_official_one_pixel_for_pixel(official: Official) -> None:
    theirs = np.array(official.theirs["confMatrix"], np.int64)
    scored = [LABEL_ID_OF_TRAIN_ID[label.id] for label in CITYSCAPES]
    assert (
        official.ours.confusion.matrix[:, :-1].tolist() == theirs[np.ix_(scored, scored)].tolist()
    )
    assert (
        official.ours.confusion.matrix[:, -1].tolist()
        == np.delete(theirs[scored], scored, axis=1).sum(1).tolist()
    )
    assert theirs.sum() == 3 * 64 * 96 + 48 * 128
    ignored = np.delete(theirs, scored, axis=0).sum()
    assert 0 < ignored == theirs.sum() - official.ours.confusion.matrix.sum()


def test_the_scores_are_the_official_ones_to_the_last_bit(official: Official) -> None:
    theirs = official.theirs["classScores"]
    assert isinstance(theirs, dict)
    assert {
        each.label.name: each.iou for each in official.ours.classes if not math.isnan(each.iou)
    } == {name: score for name, score in theirs.items() if not math.isnan(score)}
    assert math.isnan(theirs["wall"])
    assert theirs["train"] == 0
    categories = official.theirs["categoryScores"]
    assert isinstance(categories, dict)
    assert {each.name: each.iou for each in official.ours.categories} == {
        n: v for n, v in categories.items() if n != "void"
    }
    # means are sums in another order
    assert official.ours.mean_iou == pytest.approx(
        official.theirs["averageScoreClasses"], rel=1e-15
    )
    assert official.ours.mean_category_iou == pytest.approx(
        official.theirs["averageScoreCategories"], rel=1e-15
    )


def test_the_label_table_is_the_official_one() -> None:
    theirs = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    assert [
        (each.id, each.name, each.train_id, each.category) for each in CITYSCAPES_LABEL_IDS
    ] == [(each.id, each.name, each.trainId, each.category) for each in theirs if each.id >= 0]
    assert [each.color for each in CITYSCAPES] == [
        each.color for each in sorted(theirs, key=lambda e: e.trainId) if 0 <= each.trainId < 19
    ]


def test_a_class_taken_for_another_of_its_category_costs_the_category_nothing() -> None:
    image, label = photo(8), np.full((6, 8), CAR, np.uint8)
    image[..., 0] = TRUCK
    image[:, :2, 0] = VOID
    result = evaluate(Painter(), [Sample(image, label, "a")], (), protocol=CITYSCAPES_PROTOCOL)  # type: ignore[arg-type]
    assert result.mean_iou == 0
    assert {each.name: each.iou for each in result.categories if not math.isnan(each.iou)} == {
        "vehicle": 6 / 8
    }
    assert result.mean_category_iou == 6 / 8
    assert len(result.classes) == 19


def test_the_look_up_of_colours_is_the_models_own() -> None:
    random = np.random.default_rng(0)
    palette = np.array([PUBLISHED_PALETTE] * 20, np.uint8)
    picture = np.concatenate([random.integers(0, 256, (400, 20, 3), np.uint8), palette])
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255 * 2 - 1
    assert np.array_equal(nearest_class(picture), kl_autoencoder.nearest_class(pixels)[0].numpy())


def test_a_frame_is_resized_as_published_the_label_as_colours() -> None:
    label = np.full((8, 12), SKY, np.uint8)
    label[:, :4], label[:, 4:6], label[6:] = ROAD, VOID, CAR
    frame = as_published(Sample(photo(12, height=8), label, "frame"))
    assert (frame.image.shape, frame.label.shape, frame.name) == (
        (SIDE, SIDE, 3),
        (SIDE, SIDE),
        "frame",
    )
    assert (frame.image == photo(1)[0, 0]).all()
    step = SIDE // 12
    at = [frame.label[SIDE // 4, (2 * column + 1) * step // 2] for column in (0, 1, 4, 8, 11)]
    assert at == [ROAD, ROAD, VOID, SKY, SKY]
    drawn = kl_autoencoder.draw(torch.from_numpy(label)[None])
    picture = cv2.resize(
        np.round((drawn[0].permute(1, 2, 0).numpy() + 1) * 127.5).astype(np.uint8), (SIDE, SIDE)
    )
    assert np.array_equal(frame.label, nearest_class(np.asarray(picture, np.uint8)))
    nearest = cv2.resize(label, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    assert set(np.unique(frame.label)) > set(
        np.unique(nearest)
    )  # mixed colours are nearest to others: part of the protocol


def square(*columns_: int) -> Ids:
    """Ids at the published size, columns of equal width: nothing is resized, so no colours mix."""
    return np.repeat(
        np.repeat(np.array(columns_, np.uint8), SIDE // len(columns_))[None], SIDE, axis=0
    )


def test_the_published_score_by_hand() -> None:
    image = photo(SIDE, height=SIDE)
    image[..., 0] = square(ROAD, ROAD, ROAD, CAR, CAR, VOID, VOID, SKY)
    label = square(ROAD, ROAD, SKY, CAR, VOID, CAR, VOID, TRUCK)
    result = evaluate(Painter(), [Sample(image, label, "a")], LABELS, protocol=PUBLISHED)  # type: ignore[arg-type]
    precision = {each.label.id: each.precision for each in result.classes}
    assert (precision[ROAD], precision[CAR], precision[SKY], precision[TRUCK]) == (2 / 3, 1, 0, 0)
    assert result.average_precision == pytest.approx((2 / 3 + 1 + 0 + 0) / 4)
    assert math.isnan(precision[SIDEWALK])  # occurs nowhere
    assert result.confusion.matrix[:, -1].sum() == 0
    assert (
        result.confusion.matrix.sum() == 5 * SIDE * SIDE // 8
    )  # without label or without class: not counted
    own = evaluate(Painter(), [Sample(image, label, "a")], LABELS)  # type: ignore[arg-type]
    assert (
        own.confusion.matrix.sum() == 5 * SIDE * SIDE // 8
    )  # the truck is none of the set's own classes, but the lost car counts
    assert own.pixel_accuracy == 3 / 5


@pytest.mark.parametrize(
    "protocol", [OWN_SIZE, CITYSCAPES_PROTOCOL, PUBLISHED], ids=lambda protocol: protocol.name
)
def test_table_and_report_name_the_protocol(tmp_path: Path, protocol: Protocol) -> None:
    image = photo(16)
    image[..., 0] = ROAD
    result = evaluate(
        Painter(), [Sample(image, np.full((6, 16), ROAD, np.uint8), "a")], LABELS, protocol=protocol
    )  # type: ignore[arg-type]
    content = report_content(result)
    assert (content["protocol"], content["definitions"]["protocol"]) == (
        protocol.name,
        protocol.definition,
    )
    assert len(content["classes"]) == (3 if protocol is OWN_SIZE else 19)
    assert [each["name"] for each in content["categories"]] == [
        name for name, _ in protocol.categories
    ]
    assert ("mean_category_iou" in content["scores"]) == (protocol is CITYSCAPES_PROTOCOL)
    page = write_report(result, tmp_path).read_text(encoding="utf-8")
    assert f'<span id="protocol">{protocol.name}</span>' in page
    assert ('id="categories"' in page) == (protocol is CITYSCAPES_PROTOCOL)
    table = score_table(result)
    assert table[0] == f"protocol {protocol.name}"
    assert any(
        line.startswith("mean category IoU 1.000: flat 1.000, construction -") for line in table
    ) == bool(protocol.categories)


def run(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    scoring.add_evaluate(parser)
    options = parser.parse_args(arguments)
    options.run(options)


def test_the_command_takes_every_set_and_writes_masks_to_hand_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = np.full((48, 64), 7, np.uint8)
    label[:24] = 23
    for number in range(2):
        name = f"lindau_{number:06}_000019"
        write(
            tmp_path / f"data/leftImg8bit/val/lindau/{name}_leftImg8bit.png", photo(64, height=48)
        )
        write(tmp_path / f"data/gtFine/val/lindau/{name}_gtFine_labelIds.png", label)
    out, masks = tmp_path / "out", tmp_path / "masks"
    arguments = ["--data", str(tmp_path / "data"), "--out", str(out), "--threads", "1"]
    run(*arguments, "--protocol", "cityscapes", "--write-masks", str(masks))
    assert capsys.readouterr().out.startswith("data data/val\nprotocol cityscapes\n")
    content = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert (content["protocol"], content["about"]["data"]) == ("cityscapes", "data/val")
    assert sorted(path.name for path in masks.iterdir()) == [
        f"lindau_{i:06}_000019_labelIds.png" for i in range(2)
    ]
    mask = cv2.imread(str(masks / "lindau_000000_000019_labelIds.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (48, 64)
    assert set(np.unique(mask)) <= {0, *LABEL_ID_OF_TRAIN_ID.values()}
    known = {LABEL_ID_OF_TRAIN_ID[ROAD]: ROAD, LABEL_ID_OF_TRAIN_ID[SKY]: SKY}
    right = sum(int(((mask == label) & (label == label_id)).sum()) for label_id in known)
    assert content["scores"]["pixel_accuracy"] == pytest.approx(
        right / label.size, abs=1e-6
    )  # both frames are the same
    with pytest.raises(
        ConfigError,
        match="--write-masks needs masks at the frames' own size: not with --protocol camseg",
    ):
        run(*arguments, "--protocol", "camseg", "--write-masks", str(masks))


def test_masks_are_written_under_the_frames_names(tmp_path: Path) -> None:
    mask = np.array([[ROAD, SKY, VOID, 18]], np.uint8)
    path = write_mask(tmp_path / "new", "0002/000001", mask)
    assert path == tmp_path / "new/0002/000001_labelIds.png"
    assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).tolist() == [[7, 23, 0, 33]]


def test_a_mask_is_not_written_outside_its_folder(tmp_path: Path) -> None:
    for name in ("../a", "x/../../a", str(tmp_path / "a")):
        with pytest.raises(DataError, match="a mask must be written into"):
            write_mask(tmp_path / "masks", name, np.zeros((2, 2), np.uint8))
    assert not any(tmp_path.iterdir())


def test_frames_of_one_name_are_refused_before_masks_are_written(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for folder in ("images", "labels"):
            picture = np.zeros((64, 64, 3) if folder == "images" else (64, 64), np.uint8)
            (tmp_path / "set" / split / folder).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / "set" / split / folder / "0001.png"), picture)
    arguments = ["--data", str(tmp_path / "set"), "--dataset", "folder"]
    arguments += ["--write-masks", str(tmp_path / "masks"), "--out", str(tmp_path / "out")]
    with pytest.raises(DataError, match=r"train/images/0001.png and .*val/images/0001.png are"):
        run(*arguments, "--split", "train+val")
    run(*arguments, "--split", "train+val", "--frames", "1")
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["0001_labelIds.png"]
