"""`camseg bag mine` with the bundled model on the synthetic drive."""

import argparse
import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from camseg_core.cli.console import command_line
from camseg_core.data.frame_source import SourceFrame
from camseg_core.data.sets import open_set
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import ConfigError, DataError
from camseg_ros.bag import mine
from camseg_ros.bag.make import (
    STORE,
    BagTopics,
    LabelledFrame,
    image_message,
    new_bag,
    write_bag,
)
from camseg_ros.bag.topics import RAW

FRAMES = 6


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mine") / "drive"
    samples = enumerate(SyntheticDrive(frames=FRAMES, height=96, width=128))
    frames = [
        LabelledFrame(10**9 + 10**8 * i, each.image, str(i), each.label) for i, each in samples
    ]
    write_bag(frames, path, topics=BagTopics(focal=0.0))
    return path


def mined(*arguments: object) -> None:
    parser = argparse.ArgumentParser()
    mine.add(parser)
    mine.run(parser.parse_args([*map(str, arguments), "--threads", "1"]))


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".html")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.slow
def test_frames_masks_and_reasons_are_written_and_come_back_from_cvat(
    tmp_path: Path, drive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "to_label"
    mined(drive, "--frames", 3, "--out", out, "--json", "--compare", "camseg-lite")
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert result == json.loads((out / "selection.json").read_text())
    names = [each["name"] for each in result["chosen"]]
    assert (len(names), result["frames_read"], result["left_out"]) == (3, FRAMES, [])
    rows = list(csv.DictReader((out / "selection.csv").open()))
    assert [row["name"] for row in rows] == names
    assert all(row["reason"] for row in rows)
    assert {"uncertainty", "change", "rarity", "disagreement"} <= {*rows[0]}
    page = (out / "index.html").read_text()
    assert all(f'data-frame="{name}"' in page for name in names)
    export = tmp_path / "export"
    with zipfile.ZipFile(out / "cvat.zip") as archive:
        archive.extractall(export)
    (out / "images").rename(export / "JPEGImages")
    samples = {each.name: each for each in open_set("auto", export).samples}
    assert {*samples} == {*names}
    for name in names:
        mask = cv2.imread(str(out / "masks" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert (samples[name].label == mask).all()
        assert mask.shape == (96, 128)
    truth = list(SyntheticDrive(frames=FRAMES, height=96, width=128))
    chosen = result["chosen"][0]
    assert np.array_equal(samples[chosen["name"]].image, truth[chosen["index"]].image)


@pytest.mark.slow
def test_labels_that_a_bag_has_already_make_a_data_set_of_the_chosen_frames(
    tmp_path: Path, drive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    mined(drive, "--frames", 2, "--labels", "/camera/labels", "--out", out)
    assert f"their labels: {out / 'labels'}" in capsys.readouterr().out
    chosen = json.loads((out / "selection.json").read_text())["chosen"]
    truth = SyntheticDrive(frames=FRAMES, height=96, width=128)
    samples = {each.name: each for each in open_set("folder", out).samples}
    assert len(samples) == len(chosen) == 2
    for each in chosen:
        assert np.array_equal(samples[each["name"]].label, truth[each["index"]].label)


@pytest.mark.slow
def test_a_chosen_frame_without_a_label_is_named(
    tmp_path: Path, drive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels"
    labels.mkdir()
    label = SyntheticDrive(frames=1, height=96, width=128)[0].label
    cv2.imwrite(str(labels / f"{10**9}.png"), label)  # of the first frame only
    mined(drive, "--frames", 2, "--labels", labels, "--out", tmp_path / "out")
    names = {path.stem for path in (tmp_path / "out" / "images").iterdir()}
    labelled = {name for name in names if name.endswith(f"_{10**9}")}
    err = capsys.readouterr().err
    for name in names - labelled:
        assert f"camseg: {name} has no label yet" in err
    assert ({path.stem for path in (tmp_path / "out").glob("labels/*")}) == labelled


@pytest.mark.slow
def test_a_label_of_another_size_costs_only_itself(
    tmp_path: Path, drive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, out = tmp_path / "labels", tmp_path / "out"
    labels.mkdir()
    for number in range(FRAMES):
        size = (48, 64) if number % 2 else (96, 128)
        stamp = 10**9 + 10**8 * number
        cv2.imwrite(str(labels / f"{stamp}.png"), np.zeros(size, np.uint8))
    mined(drive, "--frames", FRAMES, "--labels", labels, "--out", out)
    chosen = {path.stem for path in (out / "images").iterdir()}
    right = {name for name in chosen if int(name.rpartition("_")[2]) // 10**8 % 2 == 0}
    assert right < chosen
    assert {path.stem for path in (out / "labels").iterdir()} == right
    left_out = json.loads((out / "selection.json").read_text())["left_out"]
    wrong = [line for line in left_out if "the label is 64x48, the image 128x96" in line]
    assert len(wrong) == len(chosen - right)
    assert all(line in capsys.readouterr().err for line in wrong[:1])


@pytest.mark.slow
def test_labels_beside_a_grey_camera_are_no_second_camera(tmp_path: Path) -> None:
    frames = SyntheticDrive(frames=2, height=96, width=128)
    with new_bag(tmp_path / "grey") as writer:
        topics = ("/camera", "/labels")
        connections = [writer.add_connection(each, RAW, typestore=STORE) for each in topics]
        for number, each in enumerate(frames):
            stamp = STORE.types["builtin_interfaces/msg/Time"](number + 1, 0)
            header = STORE.types["std_msgs/msg/Header"](stamp, "camera")
            for connection, pixels in zip(
                connections, (each.image[..., 0], each.label), strict=True
            ):
                message = image_message(pixels, "mono8", header)
                recorded_ns = (number + 1) * 10**9
                writer.write(connection, recorded_ns, STORE.serialize_cdr(message, RAW))
    out = tmp_path / "out"
    mined(tmp_path / "grey", "--frames", 1, "--labels", "/labels", "--out", out)
    assert len(list((out / "labels").iterdir())) == 1
    result = json.loads((out / "selection.json").read_text())
    assert result["topics"] == {str(tmp_path / "grey"): "/camera"}


@pytest.mark.slow
def test_a_folder_of_labels_brings_its_class_table(tmp_path: Path, drive: Path) -> None:
    labels, out = tmp_path / "labels", tmp_path / "out"
    labels.mkdir()
    for number in range(FRAMES):
        cv2.imwrite(str(labels / f"{10**9 + 10**8 * number}.png"), np.full((96, 128), 7, np.uint8))
    (labels / "labels.yaml").write_text("- {id: 7, name: gravel, color: [1, 2, 3], was: [road]}\n")
    mined(drive, "--frames", 2, "--labels", labels, "--out", out)
    found = open_set("auto", out)
    assert [(each.id, each.name) for each in found.labels] == [(7, "gravel")]
    assert all((each.label == 7).all() for each in found.samples)
    (labels / "labels.yaml").write_text("garbage: [")
    with pytest.raises(ConfigError, match="labels.yaml is not a configuration in YAML"):
        mined(drive, "--labels", labels, "--out", tmp_path / "other")
    (labels / "mapping.yaml").write_text("ids: {road: [7]}")
    with pytest.raises(ConfigError, match=r"mapping\.yaml is not read for them"):
        mined(drive, "--labels", labels, "--out", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_labels_that_no_bag_has_are_refused_before_the_work(tmp_path: Path, drive: Path) -> None:
    with pytest.raises(DataError, match="/nothing"):
        mined(drive, "--labels", "/nothing", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_same_command_chooses_the_same_frames(tmp_path: Path, drive: Path) -> None:
    for name in ("one", "two"):
        mined(drive, "--frames", 2, "--out", tmp_path / name)
    assert files(tmp_path / "one") == files(tmp_path / "two")


@pytest.mark.slow
def test_near_duplicates_are_named_when_frames_are_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = SyntheticDrive(frames=1, height=96, width=128)[0].image
    frames = [SourceFrame(10**9 + 10**8 * i, image, str(i)) for i in range(3)]
    write_bag(frames, tmp_path / "parked", topics=BagTopics(focal=0.0))
    mined(tmp_path / "parked", "--frames", 2, "--out", tmp_path / "out")
    assert len(list((tmp_path / "out/images").iterdir())) == 1
    assert "only 1 of 2 frames: the others are near-duplicates" in capsys.readouterr().err


@pytest.mark.parametrize("there", ["file", "folder", "loop"])
def test_a_folder_with_files_is_refused_before_the_work(
    tmp_path: Path, drive: Path, there: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    if there == "file":
        out.write_text("mine")
    elif there == "loop":
        out.symlink_to("out")
    else:
        (out / "x").mkdir(parents=True)
    with pytest.raises(SystemExit), command_line("camseg"):
        mined(drive, "--out", out)
    assert "must be new or empty: name another folder, or remove it" in capsys.readouterr().err
    assert not list(tmp_path.glob("out.partial*"))
