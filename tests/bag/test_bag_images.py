"""`camseg bag images`: images of bags as files; `camseg adapt --bag` reads them."""

import argparse
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from camseg_core.cli import adapt
from camseg_core.data.frame_source import SourceFrame
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import ConfigError
from camseg_ros.bag import extract
from camseg_ros.bag.make import BagTopics, LabelledFrame, write_bag

DRIVE = SyntheticDrive(frames=6, height=96, width=128)


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two bags with four images and two."""
    root = tmp_path_factory.mktemp("images")
    frames = [LabelledFrame(10**9 + i, each.image, "", each.label) for i, each in enumerate(DRIVE)]
    write_bag(frames[:4], root / "first")
    write_bag(frames[4:], root / "second")
    return [root / "first", root / "second"]


def extracted(*arguments: object) -> None:
    parser = argparse.ArgumentParser()
    extract.add(parser)
    extract.run(parser.parse_args([*map(str, arguments)]))


def test_images_are_written_as_they_are_evenly_spread_over_the_bags(
    bags: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    extracted(*bags, "--frames", 3, "--out", out, "--json")
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads((out / "images.json").read_text())
    assert (result["asked"], result["topic"], result["white_level"]) == (3, None, 0)
    assert [(Path(each["bag"]).name, each["index"]) for each in result["images"]] == [
        *(("first", 1), ("first", 3), ("second", 1))
    ]
    for each, number in zip(result["images"], (1, 3, 5), strict=True):
        found = cv2.cvtColor(cv2.imread(str(out / each["name"])), cv2.COLOR_BGR2RGB)
        assert np.array_equal(found, DRIVE[number].image)
    with pytest.raises(ConfigError, match="--out .* must be new or empty"):
        extracted(*bags, "--out", out)
    extracted(*bags, "--out", tmp_path / "all")
    assert len(list((tmp_path / "all").glob("*.png"))) == 6


@pytest.mark.parametrize("asked", [(), ("--frames", 1)])
def test_damage_of_a_bag_is_reported(
    tmp_path: Path, asked: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    bag = tmp_path / "bag"
    frames = [*DRIVE] * 12  # of several chunks
    write_bag([SourceFrame(10**9 + i, each.image, "") for i, each in enumerate(frames)], bag)
    (bag / "metadata.yaml").unlink()
    content = (bag / "bag.mcap").read_bytes()
    (bag / "bag.mcap").write_bytes(content[: len(content) * 2 // 3])
    extracted(bag, *asked, "--out", tmp_path / "out")
    (line,) = json.loads((tmp_path / "out" / "images.json").read_text())["left_out"]
    assert line.startswith(f"the bag {bag} is damaged after image ")
    assert f"camseg: left out: {line}\n" in capsys.readouterr().err


def test_a_file_that_a_split_bag_lacks_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = tmp_path / "split"
    split.mkdir()
    for number in (0, 2):
        write_bag([SourceFrame(10**9, DRIVE[number].image, "")], tmp_path / "one")
        (tmp_path / "one" / "one.mcap").rename(split / f"split_{number}.mcap")
        shutil.rmtree(tmp_path / "one")
    extracted(split, "--out", tmp_path / "out", "--json")
    out, err = capsys.readouterr()
    (line,) = json.loads(out)["left_out"]
    assert "is incomplete: it lacks split_1.mcap" in line
    assert line in err
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


def test_the_topic_of_each_bag_is_stated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bags = [tmp_path / "front", tmp_path / "left"]
    for bag in bags:
        topics = BagTopics(images=f"/{bag.name}/image")
        write_bag([LabelledFrame(10**9, DRIVE[0].image, "", DRIVE[0].label)], bag, topics)
    extracted(*bags, "--out", tmp_path / "out", "--json")
    out, err = capsys.readouterr()
    assert json.loads(out)["topics"] == {str(bag): f"/{bag.name}/image" for bag in bags}
    for bag in bags:
        assert f"camseg: {bag}: reading /{bag.name}/image (rgb8), the only topic in colour" in err


@pytest.mark.parametrize(
    ("counts", "most", "found"),
    [
        ([3, 0, 2], None, [[0, 1, 2], [], [0, 1]]),
        ([10], 2, [[2, 7]]),
        ([1, 9], 2, [[], [1, 6]]),
        ([2], 9, [[0, 1]]),
    ],
)
def test_the_numbers_are_spread_over_all_bags(
    counts: list[int], most: int | None, found: list[list[int]]
) -> None:
    assert extract.spread(counts, most) == found


@pytest.mark.slow
def test_adapt_reads_the_images_of_bags_once(
    bags: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = argparse.Namespace(
        bag=bags, images=None, frames=5, topic=None, white_level=None, run_folder=tmp_path
    )
    found = adapt._images(options)
    assert (found.title, found.left_out) == ("the bag first and second", ())
    images = [each.image for each in found.samples]
    numbers = (0, 1, 3, 4, 5)
    for image, number in zip(images, numbers, strict=True):
        assert np.array_equal(image, DRIVE[number].image)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("read twice"))
    again = adapt._images(options)
    assert [each.name for each in again.samples] == [each.name for each in found.samples]
    options.frames = 4
    with pytest.raises(ConfigError, match=r"restore --frames \(5\), or"):
        adapt._images(options)
