"""`camseg data`: all problems of a data set at once, its content, and a contact sheet."""

import io
import json
import logging
import os
import re
import shutil
import unicodedata
import zlib
from pathlib import Path
from typing import Any

import cv2
import data_trees
import numpy as np
import pytest
from camvid_folder import write_camvid
from data_trees import TREES, columns, photo, write
from few_bits import few_bits_png
from PIL import Image

from camseg_core.cli.main import main
from camseg_core.data import image_files, image_header
from camseg_core.data.frame_source import open_frames
from camseg_core.data.image_files import read_label, read_rgb, read_rgb_and_brightest
from camseg_core.data.image_header import damage, decoder_messages, orientation, several_pictures
from camseg_core.data.label_decoders import IdLabels
from camseg_core.data.sets import SETS, open_set
from camseg_core.errors import DataError
from camseg_core.labels import CITYSCAPES


def check(capsys: pytest.CaptureFixture[str], sheet: Path, *arguments: object) -> tuple[int, str]:
    """The exit code of `camseg data check` and what it printed."""
    code = 0
    try:
        main(["data", "check", *map(str, arguments), "--sheet", str(sheet)])
    except SystemExit as ended:
        code = int(ended.code or 0)
    return code, capsys.readouterr().out


def checked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: object
) -> tuple[int, dict[str, Any]]:
    code, text = check(capsys, tmp_path / "sheet.png", *arguments, "--json")
    return code, json.loads(text)


@pytest.mark.parametrize("title", TREES)
def test_nothing_is_wrong_with_a_whole_set(
    tmp_path: Path, title: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, make = TREES[title]
    tree = make(tmp_path / "data")
    code, found = checked(capsys, tmp_path, tree.root)
    assert (code, found["ok"], found["kind"]) == (0, True, kind)
    assert tree.split in [split["split"] for split in found["splits"]]
    for split in found["splits"]:
        assert (split["findings"], split["read"]) == ([], split["frames"])
        assert sum(split["sizes"].values()) == split["frames"] > 0
        assert sum(each["share"] for each in split["classes"]) == pytest.approx(1, abs=1e-4)
    assert cv2.imread(found["contact_sheet"]) is not None


def test_sizes_and_shares_are_those_of_the_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, ids in (("a", [0, 0, 255, 13]), ("b", [0, 0, 0, 0, 0, 255])):
        write(tmp_path / f"images/{name}.png", photo(len(ids)))
        write(tmp_path / f"labels/{name}.png", columns(ids))
    code, found = checked(capsys, tmp_path, tmp_path, "--dataset", "folder")
    (split,) = found["splits"]
    assert (code, split["sizes"], split["labelled"]) == (0, {"4x6": 1, "6x6": 1}, 0.8)
    assert {
        each["name"]: (each["share"], each["frames"]) for each in split["classes"] if each["frames"]
    } == {
        "road": (0.875, 2),
        "car": (0.125, 1),
    }
    _, text = check(capsys, tmp_path / "sheet.png", tmp_path, "--dataset", "folder")
    assert "all: 2 frames, 4x6 (1), 6x6 (1), 80.0 % of the pixels labelled\n" in text
    assert "  road            87.50 %  in 2 frames\n" in text
    assert text.endswith(f"contact sheet: {tmp_path / 'sheet.png'}\nnothing is wrong\n")


def test_groups_are_counted_beside_the_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "images/a.png", photo(4))
    write(tmp_path / "labels/a.png", columns([0, 5, 5, 255]))
    (tmp_path / "mapping.yaml").write_text(
        "ids: {road: [0], unlabelled: [255]}\ngroups: [{classes: [car, bus], ids: [5]}]\n"
    )
    code, found = checked(capsys, tmp_path, tmp_path)
    (split,) = found["splits"]
    assert (code, split["labelled"]) == (0, 0.75)
    assert [(each["name"], each["share"]) for each in split["classes"]] == [
        ("road", 0.333333),
        ("car or bus", 0.666667),
    ]


def test_sizes_are_those_of_stretched_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "images/a.png", photo(4))
    write(tmp_path / "labels/a.png", columns([0, 0, 255, 13]))
    (tmp_path / "mapping.yaml").write_text("stretch: 2\n")
    code, found = checked(capsys, tmp_path, tmp_path)
    assert (code, found["splits"][0]["sizes"]) == (0, {"8x6": 1})


def test_all_problems_are_reported_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_camvid(tmp_path / "data", "val", frames=9)
    images, labels = root / "val/images", root / "val/labels"
    label = [labels / f"0001TP_{i:06}.png" for i in range(9)]
    image = [images / f"0001TP_{i:06}.jpg" for i in range(9)]
    label[0].unlink()
    image[1].unlink()
    image[2].write_bytes(b"no image")
    label[2].write_bytes(b"")
    write(label[3], np.full((40, 64), 40, np.uint8))  # too small, and an unknown id
    write(label[4], photo(64, height=48))
    write(image[5], photo(60, height=40))
    write(label[5], np.zeros((40, 60), np.uint8))
    write(label[6], np.full((48, 64), 12, np.uint8))
    code, found = checked(capsys, tmp_path, root)
    (split,) = found["splits"]
    found_problems = [(each["problem"], Path(each["path"]).name[-8:]) for each in split["findings"]]
    assert (code, found["ok"], split["frames"], split["read"]) == (1, False, 8, 2)
    assert sorted(found_problems) == sorted(
        [
            ("image without label", "0000.jpg"),
            ("label without image", "0001.png"),
            ("unreadable file", "0002.jpg"),
            ("unreadable file", "0002.png"),
            ("content of a label", "0003.png"),
            ("size", "0003.jpg"),
            ("content of a label", "0004.png"),
            ("size", "0005.jpg"),
            ("content of a label", "0006.png"),
        ]
    )
    assert all("\n" not in each["text"] for each in split["findings"])
    code, text = check(capsys, tmp_path / "sheet.png", root)
    assert code == 1
    assert text.splitlines()[-1] == "9 findings"
    assert all(f"  {each['problem']}: {each['text']}\n" in text for each in split["findings"])


def test_many_findings_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_camvid(tmp_path / "data", "val", frames=30, size=(8, 8))
    for path in (root / "val/labels").iterdir():
        path.unlink()
    code, text = check(capsys, tmp_path / "sheet.png", root)
    assert code == 1
    assert text.count("missing label") == 3
    assert text.endswith(
        "  image without label: and 27 more, see --json\n"
        "no contact sheet: no frame could be read\n"
        "30 findings\n"
    )


def test_placeholders_for_withheld_labels_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = data_trees.cityscapes(tmp_path)
    for path in (tree.label(i) for i in range(4)):
        write(path, columns([3] * len(tree.expected)))
    code, found = checked(capsys, tmp_path, tmp_path, "--split", "val")
    assert code == 1
    (finding,) = found["splits"][0]["findings"]
    assert (finding["problem"], finding["text"][:42]) == (
        "nothing labelled",
        "no pixel of the 4 frames has a class: sets",
    )


def test_splits_that_are_named_are_checked_and_a_missing_one_does_not_hide_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_trees.cityscapes(tmp_path)
    code, found = checked(
        capsys, tmp_path, tmp_path, "--split", "none", "--split", "val", "--split", "train+val"
    )
    assert code == 1
    assert [
        (split["split"], split["frames"], len(split["findings"])) for split in found["splits"]
    ] == [
        ("none", 0, 1),
        ("val", 4, 0),
        ("train+val", 6, 0),
    ]
    assert found["splits"][0]["findings"][0]["problem"] == "split"


def test_the_contact_sheet_shows_images_labels_and_colours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(5):
        write(tmp_path / f"data/images/{i}.png", photo(400, height=200))
        write(
            tmp_path / f"data/labels/{i}.png", np.full((200, 400), [0, 13, 10, 255, 8][i], np.uint8)
        )
    code, _ = check(
        capsys,
        tmp_path / "new/sheet.png",
        tmp_path / "data",
        "--dataset",
        "folder",
        "--sheet-frames",
        3,
    )
    assert code == 1  # no pixel of the fourth has a class
    sheet = cv2.cvtColor(cv2.imread(str(tmp_path / "new/sheet.png")), cv2.COLOR_BGR2RGB)
    assert sheet.shape[1] == 2 * (2 * 320 + 16) + 16
    image, road = sheet[20, 100], sheet[20, 8 + 8 + 320 + 100]
    assert image.tolist() == [200, 100, 20]
    assert np.abs(road.astype(int) - (0.6 * np.array([128, 64, 128]) + 0.4 * image)).max() <= 1
    assert sheet[20, 656 + 436].tolist() != road.tolist()  # the frame beside has another class
    legend = {tuple(color) for color in sheet[-150:].reshape(-1, 3).tolist()}
    assert {each.color for each in CITYSCAPES} <= legend


def test_a_sheet_that_cannot_be_written_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = data_trees.camvid(tmp_path / "data")
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as caught:
        main(["data", "check", str(tree.root), "--sheet", str(tmp_path / "file/sheet.png")])
    assert caught.value.code == 2
    assert "must be a folder that can be written to" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["sheet.html", "sheet", "sheet.tiff"])
def test_a_sheet_in_another_format_is_refused_before_the_work(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["data", "check", str(tmp_path), "--sheet", str(tmp_path / name)])
    assert caught.value.code == 2
    said = f"camseg: error: --sheet must end in .png or .jpg, got {tmp_path / name}\n"
    assert capsys.readouterr().err == said
    assert not list(tmp_path.iterdir())


def test_all_kinds_are_listed_with_their_layout(capsys: pytest.CaptureFixture[str]) -> None:
    main(["data", "list"])
    text = capsys.readouterr().out
    for name, kind in SETS.items():
        assert f"\n{name}: {kind.title}" in f"\n{text}"
        assert all(line in text for line in kind.layout)


def damaged_jpeg(path: Path) -> Path:
    """Write a JPEG whose data are damaged in the middle; OpenCV reads it all the same."""
    picture = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    content = bytearray(cv2.imencode(".jpg", picture)[1].tobytes())
    middle = len(content) * 2 // 3
    content[middle : middle + 100] = bytes(range(100, 200))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape == (48, 64, 3)
    return path


def test_an_image_damaged_in_the_middle_is_refused_wherever_files_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = damaged_jpeg(tmp_path / "images/a.jpg")
    write(tmp_path / "labels/a.png", np.tile(np.arange(16, dtype=np.uint8), (48, 4)))
    write(tmp_path / "images/b.jpg", photo(64, height=48))
    write(tmp_path / "labels/b.png", np.tile(np.arange(16, dtype=np.uint8), (48, 4)))
    code, found = checked(capsys, tmp_path, tmp_path, "--dataset", "folder")
    ((finding,), read) = found["splits"][0]["findings"], found["splits"][0]["read"]
    assert (code, read, finding["problem"]) == (1, 1, "unreadable file")
    expected = rf"{re.escape(str(image))} is damaged \(Corrupt JPEG data: .*\); copy it again"
    assert re.match(expected, finding["text"])
    with pytest.raises(DataError, match=expected):
        list(SETS["folder"].open(tmp_path, "all"))
    with pytest.raises(DataError, match=expected):
        list(open_frames(tmp_path / "images"))


def test_endings_of_images_and_labels_may_be_capitals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "images/a.png", photo(64, height=48))
    write(tmp_path / "labels/a.png", np.tile(np.arange(16, dtype=np.uint8), (48, 4)))
    for folder, ending in (("images", "PNG"), ("labels", "Png")):
        (tmp_path / folder / "a.png").rename(tmp_path / folder / f"a.{ending}")
    code, found = checked(capsys, tmp_path, tmp_path, "--dataset", "folder")
    assert (code, found["splits"][0]["read"]) == (0, 1)
    assert len(list(SETS["folder"].open(tmp_path, "all"))) == 1


def noted_png(*changes: tuple[bytes, bytes]) -> bytes:
    """Return a PNG with a broken colour profile, and some of its bytes replaced."""
    content = cv2.imencode(".png", photo(64, height=48))[1].tobytes()
    profile = b"iCCPx\0\0none"
    length = (len(profile) - 4).to_bytes(4, "big")
    chunk = length + profile + zlib.crc32(profile).to_bytes(4, "big")
    content = content[:33] + chunk + content[33:]
    for old, new in changes:
        assert old in content
        content = content.replace(old, new, 1)
    return content


def test_a_png_is_read_without_its_notes_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(noted_png())
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), photo(64, height=48)[..., ::-1])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("chunk", ["IHDR", "IDAT", "IEND"])
def test_a_wrong_checksum_in_a_png_is_damage(chunk: str) -> None:
    content = noted_png()
    at = content.index(chunk.encode())
    end = at + 4 + int.from_bytes(content[at - 4 : at], "big")
    wrong = bytes([content[end] ^ 1])
    found = damage(content[:end] + wrong + content[end + 1 :])
    assert found == f"is damaged (the checksum of its {chunk} data is wrong)"
    assert (damage(content), damage(content[:-1])) == ("", "is cut off: its end is missing")


def test_what_libraries_print_about_a_file_is_damage(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    packed = bytearray(cv2.imencode(".tiff", picture)[1].tobytes())
    packed[100:120] = b"\xff" * 20
    (tmp_path / "a.tiff").write_bytes(packed)
    header = b"\x00\x00\x00@\x00\x00\x000"  # 64 x 48
    taller = b"IHDR\x00\x00\x00@\x00\x00\x01\x00\x08\x02\x00\x00\x00"
    content = noted_png((header, taller[4:12]))
    crc = zlib.crc32(taller).to_bytes(4, "big")
    (tmp_path / "b.png").write_bytes(content[:29] + crc + content[33:])
    for name in ("a.tiff", "b.png"):
        with pytest.raises(DataError, match=rf"{name} is damaged \(\w+.*\); copy it again"):
            read_rgb(tmp_path / name)
    assert capfd.readouterr().err == ""


def test_what_others_print_while_a_file_is_read_is_printed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with decoder_messages() as messages:
        os.write(2, b"libpng warning: odd\nanother line\n[ERROR:0@0.1] global a.cpp:1 f said\n")
    assert messages == ["libpng warning: odd", "said"]
    assert capfd.readouterr().err == "another line\n"


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_ids_of_few_bits_are_read_as_they_are_stored(tmp_path: Path, bits: int) -> None:
    ids = np.arange(16, dtype=np.uint8).reshape(2, 8) % 2**bits
    path = tmp_path / "a.png"
    path.write_bytes(few_bits_png(ids, bits))
    assert read_label(path).tolist() == ids.tolist()
    known = {i: i + 3 for i in range(2**bits)}
    assert IdLabels(known, "the set", "")(read_label(path), path).tolist() == (ids + 3).tolist()


@pytest.mark.parametrize("white", [15, 100, 255])
def test_ids_in_a_pgm_that_is_text_are_read_as_they_are_stored(tmp_path: Path, white: int) -> None:
    ids = np.array([[0, 1, 7], [8, 14, 15]], np.uint8)
    path = tmp_path / "a.pgm"
    numbers = " ".join(str(i) for i in ids.ravel())
    path.write_text(f"P2 # ids\n3 2\n{white}\n{numbers}\n", encoding="ascii")
    assert read_label(path).tolist() == ids.tolist()


@pytest.mark.parametrize("magic", [2, 3, 5, 6])
@pytest.mark.parametrize("white", [15, 100, 255, 1000, 4095, 65535])
def test_a_pgm_or_ppm_has_the_white_that_it_states(tmp_path: Path, magic: int, white: int) -> None:
    values = np.repeat([0, white // 2, white], 1 if magic in (2, 5) else 3)
    kind = np.dtype(">u2" if white > 255 else "u1")
    text = " ".join(map(str, values)).encode() + b"\n"
    path = tmp_path / "a.ppm"
    path.write_bytes(
        b"P%d\n# white below\n3 1\n%d\n" % (magic, white)
        + (text if magic in (2, 3) else values.astype(kind).tobytes())
    )
    rgb, brightest = read_rgb_and_brightest(path)
    assert np.abs(rgb[0, :, 0].astype(int) - [0, 255 * (white // 2) / white, 255]).max() <= 1
    assert brightest == 0  # nothing to guess


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_that_do_not_fill_the_range_are_noticed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), np.linspace(0, 4095, 48).astype(np.uint16).reshape(4, 4, 3))
    assert read_rgb_and_brightest(path)[1] == 4095


def findings_of(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: object
) -> list[tuple[str, str]]:
    _, content = checked(capsys, tmp_path, *arguments)
    return [(f["problem"], f["text"]) for split in content["splits"] for f in split["findings"]]


@pytest.mark.parametrize(("white", "doubted"), [(1023, True), (4095, True), (65535, False)])
def test_images_that_do_not_fill_16_bits_are_named(
    tmp_path: Path,
    white: int,
    doubted: bool,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image_files, "_warned", set())
    root = tmp_path / "set"
    for name, brightest in (("a", white // 3), ("b", white)):
        image = np.linspace(0, brightest, 48, dtype=np.uint16).reshape(4, 4, 3)
        write(root / f"labels/{name}.png", np.zeros((4, 4), np.uint8))
        (root / "images").mkdir(exist_ok=True)
        assert cv2.imwrite(str(root / f"images/{name}.png"), image)
    found = [text for problem, text in findings_of(capsys, tmp_path, root, "--dataset", "folder")]
    named = [text for text in found if "of its 16 bits is above" in text]
    assert len(named) == doubted
    if doubted:
        assert f"images/b.png, the brightest: no value of its 16 bits is above {white}" in named[0]
        assert f"multiply the values by {65536 // (white + 1)}" in named[0]
    rgb = read_rgb(root / "images/b.png")
    assert rgb.max() == white >> 8
    assert bool(caplog.records) == doubted


def test_a_frame_in_two_splits_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, random = tmp_path / "set", np.random.default_rng(0)
    for split, seed in (("train", 1), ("train", 2), ("val", 2), ("val", 3)):
        image = np.random.default_rng(seed).integers(0, 255, (6, 4, 3), np.uint8)
        name = f"{split}{random.integers(1000)}"
        write(root / split / f"images/{name}.png", image)
        write(root / split / f"labels/{name}.png", columns([0, 1, 2, 3]))
    found = findings_of(capsys, tmp_path, root, "--dataset", "folder")
    assert len(found) == 1
    assert found[0][0] == "frame in two splits"
    assert re.search(r"val/images/val\d+.png is in train, too, as .*/train/images/", found[0][1])
    joined = ["--split", "train", "--split", "train+val"]
    assert findings_of(capsys, tmp_path, root, "--dataset", "folder", *joined) == []


def test_lists_made_of_others_share_their_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "set"
    for number, name in enumerate("ab"):
        image = np.random.default_rng(number).integers(0, 255, (6, 4, 3), np.uint8)
        write(root / f"JPEGImages/{name}.png", image)
        write(root / f"SegmentationClass/{name}.png", np.full((6, 4, 3), (128, 64, 128), np.uint8))
    (root / "labelmap.txt").write_text("background:0,0,0::\nroad:128,64,128::\n")
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for split, names in {"train": "a", "val": "b", "trainval": "ab"}.items():
        (lists / f"{split}.txt").write_text("\n".join(names))
    assert findings_of(capsys, tmp_path, root) == []
    (lists / "val.txt").write_text("a\nb\n")
    assert [problem for problem, _ in findings_of(capsys, tmp_path, root)] == [
        "frame in two splits"
    ]


@pytest.mark.parametrize("title", ["coco", "labelme"])
def test_a_split_without_any_annotation_is_reported(
    tmp_path: Path, title: str, capsys: pytest.CaptureFixture[str]
) -> None:
    TREES[title][1](tmp_path / "set")
    root = tmp_path / "set"
    for path in root.rglob("*.json"):
        content = json.loads(path.read_text())
        content |= {"annotations": []} if title == "coco" else {"shapes": []}
        path.write_text(json.dumps(content))
    found = findings_of(capsys, tmp_path, root)
    assert found
    assert all("\n" not in text for _, text in found)


def test_a_split_in_which_no_image_has_a_label_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "set"
    for name in "ab":
        write(root / f"JPEGImages/{name}.png", photo(4))
    write(root / "SegmentationClass/b.png", np.zeros((6, 4, 3), np.uint8))
    (root / "labelmap.txt").write_text("background:0,0,0::\nroad:128,64,128::\n")
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/val.txt").write_text("a\n")
    found = findings_of(capsys, tmp_path, root)
    assert [problem for problem, _ in found] == ["left out", "image without label"]
    assert "JPEGImages/b.png, which no list names" in found[0][1]


@pytest.mark.parametrize(
    ("images", "folders"),
    [
        (
            ("images/val/a", "images/night/b", "images/night/c"),
            {"images/night": "b.jpg (and 1 more)"},
        ),
        (("images/val/a", "images/b"), {"images": "b.jpg"}),
        (("images/a", "night/images/b"), {"night/images": "b.jpg"}),
        (("val/images/a", "night/images/b"), {}),
    ],
)
def test_images_that_no_split_contains_are_reported(
    tmp_path: Path,
    images: tuple[str, ...],
    folders: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "set"
    for image in images:
        write(root / f"{image}.jpg", photo(4))
        write(root / f"{image.replace('images', 'labels')}.png", columns([0, 1, 2, 3]))
    (root / "mapping.yaml").write_text("ids: {road: [0], car: [1, 2, 3]}\n")
    code, found = checked(capsys, tmp_path, root)
    texts = {each["path"]: each["text"] for each in found["findings"]}
    assert (code, found["ok"]) == (int(bool(folders)), not folders)
    assert [*texts] == [str(root / folder) for folder in folders]
    for folder, files in folders.items():
        assert (
            f"{root / folder} holds {files}, which no split contains" in texts[str(root / folder)]
        )
    _, text = check(capsys, tmp_path / "sheet.png", root)
    assert all(f"\nleft out: {each}\n" in text for each in texts.values())
    assert checked(capsys, tmp_path, root, "--split", found["splits"][0]["split"])[0] == 0


def test_images_without_the_suffix_of_the_others_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for image, label in (("1_image", "1_label"), ("2", "2")):
        write(tmp_path / f"set/{image}.jpg", photo(4))
        write(tmp_path / f"labels/{label}.png", columns([0, 1, 2, 3]))
    (tmp_path / "set/mapping.yaml").write_text("image_suffix: _image\nlabel_suffix: _label\n")
    options = (tmp_path / "set", "--labels", tmp_path / "labels")
    _, found = checked(capsys, tmp_path, *options)
    assert ["2.jpg, which no split" in each["text"] for each in found["findings"]] == [True]


@pytest.mark.parametrize("lacking", ["images", "labels"])
def test_a_split_that_one_of_two_roots_lacks_is_reported(
    tmp_path: Path, lacking: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        write(tmp_path / f"images/{split}/a.png", photo(4))
        write(tmp_path / f"labels/{split}/a.png", columns([0, 1, 2, 3]))
    shutil.rmtree(tmp_path / lacking / "train")
    options = (tmp_path / "images", "--labels", tmp_path / "labels")
    found = findings_of(capsys, tmp_path, *options)
    assert [problem for problem, _ in found] == ["split"]
    assert f"{lacking}/train is missing" in found[0][1]


def test_annotations_of_labelme_that_no_split_contains_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for split in ("train", "val", "night"):
        write(tmp_path / f"set/{split}/a.png", photo(4, shade=len(split)))
        content = data_trees.labelme_content("a.png")
        (tmp_path / f"set/{split}/a.json").write_text(json.dumps(content))
    (tmp_path / "set/mapping.yaml").write_text(data_trees.TOOL_MAPPING)
    _, found = checked(capsys, tmp_path, tmp_path / "set")
    assert [split["split"] for split in found["splits"]] == ["train", "val"]
    ((path, text),) = ((each["path"], each["text"]) for each in found["findings"])
    assert path == str(tmp_path / "set/night")
    with caplog.at_level(logging.INFO):
        open_set("auto", tmp_path / "set", "train")
    assert text in caplog.messages


def test_images_in_formats_that_are_not_read_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.png", "b.webp", "c.bmp", "d.BMP", "a.tif"):
        write(tmp_path / f"images/{name.lower()}", photo(4)).rename(tmp_path / "images" / name)
    for name in "ab":
        write(tmp_path / f"labels/{name}.png", columns([0, 1, 2, 3]))
    found = findings_of(capsys, tmp_path, tmp_path, "--dataset", "folder")
    note = "which is not read: store images as JPEG or PNG"
    assert found == [
        ("left out", f"left out: {tmp_path}/images/c.bmp (and 1 more), {note}"),
        (
            "label without image",
            f"label without an image: {tmp_path}/labels/b.png (there is b.webp, {note})",
        ),
    ]
    open_set("folder", tmp_path)
    assert f"{tmp_path}/labels/b.png (there is b.webp, {note})" in caplog.text
    (tmp_path / "images/a.png").unlink()
    with pytest.raises(DataError, match=rf"no images \(.*\) in .* \(there is \w.\w+, {note}\)"):
        open_set("folder", tmp_path)


@pytest.mark.parametrize("kind", ["folder", "cityscapes", "voc"])
def test_two_labels_of_one_image_are_refused(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = TREES[kind][1](tmp_path / "set")
    other = tree.label().with_name(tree.label().name.removesuffix(".png") + ".PNG")
    shutil.copy(tree.label(), other)
    (text,) = (text for problem, text in findings_of(capsys, tmp_path, tmp_path / "set"))
    assert str(tree.label()) in text
    assert f"{other.name} " in text or f"{other} " in text
    assert "same name except for the ending, and only one image: remove one of them" in text
    with pytest.raises(DataError, match="and only one image: remove one of them"):
        open_set(kind, tree.root)


def test_two_images_whose_names_differ_in_the_form_of_accents_are_refused(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        write(tmp_path / "images" / unicodedata.normalize("NFC", "f.png"), photo(4))
        write(tmp_path / "images" / unicodedata.normalize(form, "é.png"), photo(4))
    write(tmp_path / "labels/é.png", columns([0, 1, 2, 3]))
    write(tmp_path / "labels/f.png", columns([0, 1, 2, 3]))
    with pytest.raises(DataError, match="and only one label: remove one of them"):
        open_set("folder", tmp_path)


def test_names_that_only_differ_are_no_endings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "set/images/a.png", photo(4))
    write(tmp_path / "set/labels/b.png", columns([0, 1, 2, 3]))
    found = findings_of(capsys, tmp_path, tmp_path / "set", "--dataset", "folder")
    assert [problem for problem, _ in found] == ["image without label", "label without image"]


@pytest.mark.parametrize("title", ["coco", "labelme"])
@pytest.mark.parametrize("order", ["train+val", "val+train"])
def test_joined_splits_have_the_classes_of_all(
    tmp_path: Path, title: str, order: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "set"
    (root / "annotations").mkdir(parents=True)
    for number, (split, name) in enumerate((("train", "road"), ("val", "car"))):
        image = np.random.default_rng(number).integers(0, 255, (6, 4, 3), np.uint8)
        square = [[0, 0], [4, 0], [4, 6], [0, 6]]
        outline = [each for point in square for each in point]
        if title == "coco":
            write(root / f"images/{split}/{number}.png", image)
            content = {
                "images": [{"id": 1, "file_name": f"{number}.png", "width": 4, "height": 6}],
                "categories": [{"id": 1, "name": name}],
                "annotations": [
                    {
                        "id": 1,
                        "image_id": 1,
                        "category_id": 1,
                        "segmentation": [outline],
                    }
                ],
            }
            path = root / f"annotations/instances_{split}.json"
        else:
            write(root / f"{split}/{number}.png", image)
            (root / "labels.txt").write_text(f"{name}\n")
            content = {
                "imagePath": f"{number}.png",
                "imageHeight": 6,
                "imageWidth": 4,
                "shapes": [{"label": name, "points": square, "shape_type": "polygon"}],
            }
            path = root / f"{split}/{number}.json"
        path.write_text(json.dumps(content))
    if title == "labelme":
        (root / "labels.txt").unlink()
        (root / "mapping.yaml").write_text("names: {road: [road]}\n")
    opened = open_set(title, root, order)
    assert {label.name for label in opened.labels} >= {"road", "car"}
    places = [label.id for label in opened.labels]
    assert places == sorted(places)
    _, found = checked(capsys, tmp_path, root, "--split", order)
    shares = {each["name"]: each["share"] for each in found["splits"][0]["classes"]}
    assert shares["road"] == shares["car"] == 0.5


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_whole_images_have_no_damage(mode: str, progressive: bool) -> None:
    picture = Image.fromarray(photo(64, height=48)).convert(mode)
    file = io.BytesIO()
    picture.save(file, "JPEG", progressive=progressive, restart_marker_rows=1)
    assert damage(file.getvalue()) == damage(file.getvalue() + b"more") == ""


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("checked_by", ["simplejpeg", "markers"])
def test_a_film_may_follow_a_jpeg_but_its_end_must_be_there(
    progressive: bool, checked_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if checked_by == "markers":
        monkeypatch.setattr(image_header, "_simplejpeg", lambda: None)
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    file, thumbnail = io.BytesIO(), io.BytesIO()
    Image.fromarray(picture[:16, :16]).save(thumbnail, "JPEG")
    Image.fromarray(picture).save(
        file, "JPEG", progressive=progressive, restart_marker_rows=1, comment=thumbnail.getvalue()
    )
    content = file.getvalue()
    assert damage(content + b"ftypmp42 \xff\xda\x00\x0c film") == ""
    for cut in (1, 2, 3, 40, len(content) // 4, len(content) // 2):
        assert damage(content[:-cut]) == "is cut off: its end is missing"


def turned_image(path: Path, tag: int) -> Path:
    """Write an image of 12x8 pixels, as stored, with an orientation tag."""
    exif = Image.Exif()
    exif[0x0112] = tag
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(12, height=8)).save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_the_orientation_is_the_one_that_opencv_follows(
    tmp_path: Path, suffix: str, tag: int
) -> None:
    path = turned_image(tmp_path / f"a{suffix}", tag)
    assert orientation(path.read_bytes()) == tag
    assert read_rgb(path).shape == ((8, 12, 3) if tag < 5 else (12, 8, 3))
    assert orientation(path.read_bytes()[:30]) == 1  # cut off


@pytest.mark.parametrize("marker", [0xFE, 0xE2, 0xE1], ids=["comment", "profile", "XMP"])
@pytest.mark.parametrize("note", [b"\xff\xda", b"Exif\0\0", b"\xff\xd9 II*\0"])
def test_notes_before_the_tags_do_not_hide_them(tmp_path: Path, marker: int, note: bytes) -> None:
    path = turned_image(tmp_path / "a.jpg", 6)
    content = path.read_bytes()
    note = b"a note " + note
    segment = bytes([0xFF, marker]) + (len(note) + 2).to_bytes(2, "big") + note
    path.write_bytes(content[:2] + segment + content[2:])
    assert orientation(path.read_bytes()) == 6
    assert read_rgb(path).shape == (12, 8, 3)
    assert image_files.size_of_rgb(path) == (12, 8)


def test_tags_that_libpng_does_not_know_are_no_damage(tmp_path: Path) -> None:
    write(tmp_path / "a.png", photo(12, height=8))
    content = (tmp_path / "a.png").read_bytes()
    chunk = b"eXIfExif\0\0II*\0"
    framed = (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(content[:33] + framed + content[33:])
    assert image_files.size_of_rgb(tmp_path / "a.png") == (8, 12)
    assert read_rgb(tmp_path / "a.png").shape == (8, 12, 3)


@pytest.mark.parametrize(
    ("name", "options", "kept"),
    [
        ("a.jp2", {}, False),
        ("a.webp", {"lossless": True}, False),
        ("a.bmp", {"bits": 1}, False),
        ("a.tif", {"bits": 1}, False),
        ("a.tif", {"tag": 3}, False),
        ("a.tif", {}, True),
        ("a.bmp", {}, False),
        ("a.tif", {"compression": "jpeg"}, False),
        ("a.tif", {"compression": "tiff_lzw"}, True),
        ("a.png", {"bits": 1}, True),
        ("a.pgm", {}, True),
    ],
)
def test_labels_are_read_only_from_formats_that_keep_ids(
    tmp_path: Path, name: str, options: dict[str, Any], kept: bool
) -> None:
    ids = np.resize(np.arange(2, dtype=np.uint8), (64, 96))
    ids[0] = 0
    image = Image.fromarray(ids.astype(bool)) if options.get("bits") else Image.fromarray(ids)
    exif = Image.Exif()
    exif[0x0112] = options.get("tag", 1)
    more = {"exif": exif} if "tag" in options else {}
    if name.endswith("jp2"):
        assert cv2.imwrite(str(tmp_path / name), ids)
    else:
        more |= {key: options[key] for key in ("lossless", "compression") if key in options}
        image.save(tmp_path / name, **more)
    if kept:
        assert np.array_equal(read_label(tmp_path / name), ids)
    else:
        with pytest.raises(DataError, match="a format that may change class ids: store labels as"):
            read_label(tmp_path / name)


def test_orientation_tags_are_reported_and_explain_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, tag, size in (
        ("a", 1, (8, 12)),
        ("b", 6, (8, 12)),
        ("c", 6, (12, 8)),
        ("d", 3, (8, 12)),
    ):
        turned_image(tmp_path / f"images/{name}.jpg", tag)
        label = np.resize(np.arange(9, dtype=np.uint8), size)
        write(tmp_path / f"labels/{name}.png", label)
    code, found = checked(capsys, tmp_path, tmp_path, "--dataset", "folder")
    findings = found["splits"][0]["findings"]
    tags = [each for each in findings if each["problem"] == "orientation tag"]
    assert (code, [Path(each["path"]).name for each in tags]) == (1, ["b.jpg", "c.jpg", "d.jpg"])
    assert tags[0]["text"] == (
        f"{tmp_path}/images/b.jpg has the EXIF orientation tag 6: images are turned when they are "
        "read, labels are not; store both upright without the tag"
    )
    (size,) = (each for each in findings if each["problem"] == "size")
    expected = (
        "b.png is 12x8, but .*b.jpg is 8x12: an image and its label must have the same size; "
    )
    expected += ".*b.jpg has the EXIF orientation tag 6"
    assert re.search(expected, size["text"])
    with pytest.raises(DataError, match=expected):
        list(SETS["folder"].open(tmp_path, "all"))


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([0, 0, 255], "only 0 and 255, .* 0 as road and 255 as unlabelled; say in a mapping.yaml"),
        ([0, 1, 1], "only 0 and 1, .* 0 as road and 1 as sidewalk; say"),
        ([13], "only 13, as masks of one object do, .* 13 as car; say"),
        ([0, 1, 255], None),
    ],
)
def test_labels_that_look_like_masks_of_one_object_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ids: list[int], text: str | None
) -> None:
    write(tmp_path / "images/a.png", photo(len(ids)))
    write(tmp_path / "labels/a.png", columns(ids))
    code, found = checked(capsys, tmp_path, tmp_path, "--dataset", "folder")
    findings = found["splits"][0]["findings"]
    if text is None:
        assert (code, findings) == (0, [])
    else:
        assert (code, findings[0]["problem"]) == (1, "meaning of the labels")
        assert re.search(text, findings[0]["text"])
    (tmp_path / "mapping.yaml").write_text(
        f"ids: {{road: {sorted({*ids} - {255})}, unlabelled: [255]}}\n"
    )
    assert checked(capsys, tmp_path, tmp_path)[0] == 0  # whoever wrote it knows


def test_masks_of_one_object_that_are_read_as_camvids_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "val/images/a.png", photo(3))
    write(tmp_path / "val/labels/a.png", columns([1, 0, 0]))
    _, found = checked(capsys, tmp_path, tmp_path, "--dataset", "camvid")
    (finding,) = found["splits"][0]["findings"]
    assert finding["problem"] == "meaning of the labels"
    assert re.search(
        r"only 0 and 1, .* as those of CamVid with 11 classes: 0 as sky and 1 as building; say",
        finding["text"],
    )


def test_a_label_with_a_palette_or_as_jpeg_is_refused_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.png", photo(3))
    label = Image.fromarray(columns([0, 1, 2]), "P")
    label.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    label.save(tmp_path / "palette.png")
    write(tmp_path / "label.jpg", columns([0, 1, 2]))
    (tmp_path / "all.txt").write_text("a.png palette.png\nb.png label.jpg\n")
    code, found = checked(capsys, tmp_path, tmp_path / "all.txt")
    texts = [each["text"] for each in found["splits"][0]["findings"]]
    assert code == 1
    assert re.search(
        r"palette\.png is a PNG with a palette, whose colours are read, not its indices: "
        "store the class ids in a grey PNG, or list the colours in a mapping",
        "\n".join(texts),
    )
    assert f"{tmp_path}/label.jpg is a JPEG, which changes class ids: store labels as PNG" in texts
    (tmp_path / "mapping.yaml").write_text(
        "colors: {road: [[0, 0, 0]], car: [[128, 0, 0]], sky: [[0, 128, 0]]}\n"
    )
    (tmp_path / "all.txt").write_text("a.png palette.png\n")
    assert checked(capsys, tmp_path, tmp_path / "all.txt")[0] == 0


def test_a_label_that_is_no_file_is_reported_for_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_camvid(tmp_path / "data", "train", frames=4)
    first, second, *_ = sorted((root / "train" / "labels").iterdir())
    for path in (first, second):
        path.unlink()
    first.symlink_to("nowhere.png")
    second.mkdir()
    _, found = checked(capsys, tmp_path, root)
    texts = [each["text"] for each in found["splits"][0]["findings"]]
    assert any(f"missing label {first} (a link to nothing) of image" in text for text in texts)
    assert any(f"missing label {second} (a folder) of image" in text for text in texts)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_only_the_first_of_several_images_in_a_file_is_read_with_a_warning(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = [Image.new("RGB", (32, 24), color) for color in ("red", "blue")]
    for name, others in (("one", []), ("several", pictures[1:])):
        content = io.BytesIO()
        pictures[0].save(content, kind, save_all=True, append_images=others)
        assert several_pictures(content.getvalue()) == (name == "several")
        (tmp_path / f"{name}.{kind.lower()}").write_bytes(content.getvalue())
    assert len([*open_frames(tmp_path)]) == 2
    (said,) = caplog.messages
    assert re.fullmatch(r".*several\.\w+ holds several images: only the first is read", said)
