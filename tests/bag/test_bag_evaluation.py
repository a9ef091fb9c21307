"""Evaluation of bags: scores by hand, in parts as at once; errors are reported in one line."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from recorded import (
    CAR,
    LABELS,
    PERSON,
    RIDER,
    ROAD,
    SECOND,
    SKY,
    START,
    STEP,
    TREE,
    TRUCK,
    VOID,
    WALL,
    Commands,
    Painter,
    camseg,
    drive,
    frame,
    labelled_bag,
    painter,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from camseg_core.data import Sample
from camseg_core.data.frame_source import SourceFrame
from camseg_core.data.mapping import scored_over
from camseg_core.evaluation.evaluate import evaluate
from camseg_core.groups import FIRST_GROUP
from camseg_core.labels import CITYSCAPES, Label
from camseg_core.runtime import Segmentation
from camseg_ros.bag import evaluate_command
from camseg_ros.bag.evaluation import (
    BagInfo,
    EvaluationOptions,
    EvaluationRun,
    EvaluationStopped,
    evaluate_here,
    evaluate_part,
)
from camseg_ros.bag.frames import ReadOptions
from camseg_ros.bag.labels import LabelSource
from camseg_ros.bag.make import (
    IMAGE_TOPIC,
    LABEL_TOPIC,
    BagTopics,
    LabelledFrame,
    image_message,
    new_bag,
    write_bag,
)
from camseg_ros.bag.parts import PartFolder
from camseg_ros.bag.read import BagDamaged, ImageBag, TimeRange
from camseg_ros.bag.report import Merged, build_report, merge
from camseg_ros.bag.topics import COMPRESSED, RAW

__all__ = ["camseg"]
STORE = get_typestore(Stores.ROS2_KILTED)
BY_TOPIC = LabelSource(LABEL_TOPIC, None, 5_000_000)


def rows(*ids: int) -> Any:
    """Return rows of four pixels, one for each id."""
    return np.repeat(np.array(ids, np.uint8)[:, None], 4, axis=1)


def report_of(folder: Path) -> dict[str, Any]:
    """Return the report without its timings."""
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    del report["timings"]
    return report


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]


def test_scores_by_hand(tmp_path: Path, camseg: Commands) -> None:
    frames = [
        frame(0, rows(SKY, ROAD, ROAD, CAR), rows(SKY, SKY, ROAD, VOID), 80),
        frame(1, rows(SKY, SKY, CAR, CAR), rows(SKY, SKY, ROAD, CAR), 60),
    ]
    labelled_bag(tmp_path / "bag", frames)
    code, out, err = camseg(
        "evaluate", tmp_path / "bag", "--labels", LABEL_TOPIC, "--out", tmp_path / "out"
    )
    assert (code, err) == (0, "")
    report = report_of(tmp_path / "out")
    # road: 1 right of 2 true and 1 false; sky: 3 of 4; car: 1 and 1 false
    assert report["scores"]["miou"] == pytest.approx((1 / 3 + 3 / 4 + 1 / 2) / 3, abs=1e-6)
    assert report["scores"]["pixel_accuracy"] == pytest.approx(5 / 7, abs=1e-6)
    by_name = {each["name"]: each for each in report["classes"]}
    assert [by_name["car"][key] for key in ("iou", "precision", "recall", "truth_share")] == [
        0.5,
        0.5,
        1.0,
        round(1 / 7, 6),
    ]
    assert by_name["car"]["predicted_share"] == 3 / 8
    assert by_name["person"]["iou"] is None
    assert report["confidence"] == {"mean": 0.7, "p05": 0.6}
    # rows 1 and 2 change; of the rows whose truth stays (0, 1, 2) both do
    assert report["flicker"] == {"change_rate": 0.5, "with_truth": round(2 / 3, 6)}
    assert sum(map(sum, report["confusion"]["matrix"])) == 7 * 4
    bag = report["bag"]
    assert (bag["topic"], bag["labels"], bag["frames"], bag["scored"]) == (
        IMAGE_TOPIC,
        LABEL_TOPIC,
        2,
        2,
    )
    assert (bag["start_ns"], bag["end_ns"], bag["damage"]) == (START, START + STEP, "")
    assert report["model"] == {
        "name": "painter 1",
        "precision": "fp32",
        "engine": "a painter",
        "checkpoint": "camseg-lite",
        "sampler": "one_step",
        "steps": 1,
        "temperature": "the model's own",
        "eta": 0.0,
        "samples": 1,
        "passes": 1,
        "order": "random",
        "seed": 0,
        "threads": 0,
    }
    first, second = lines_of(tmp_path / "out")
    assert first == {
        "index": 0,
        "bag": "bag",
        "stamp_ns": START,
        "frame_id": "camera",
        "miou": 0.5,
        "iou": {"sky": 0.5, "road": 0.5},
        "pixel_accuracy": round(2 / 3, 6),
        "confidence": 0.8,
        "changed": None,
        "share": {"sky": 0.25, "road": 0.5, "car": 0.25},
        "noise_removed": False,
    }
    assert (second["changed"], second["index"]) == (0.5, 1)
    assert report["worst"] == [0, 1]
    assert "mean IoU 0.528" in out
    assert not (tmp_path / "out" / "parts").exists()


def test_the_scores_are_those_of_camseg_evaluate(tmp_path: Path) -> None:
    frames = drive(6)
    merged = merged_of(
        tmp_path,
        labelled_bag(tmp_path / "bag", frames),
        EvaluationOptions(ReadOptions(labels=BY_TOPIC), painter),
    )
    expected = evaluate(
        Painter(), [Sample(each.image, each.label, each.name) for each in frames], LABELS
    )  # type: ignore[arg-type]
    assert np.array_equal(merged.scorer.confusion.matrix, expected.confusion.matrix)
    assert merged.scorer.boundary.mean() == pytest.approx(expected.boundary_f1, abs=1e-6)
    assert merged.scorer.calibration.error() == pytest.approx(
        expected.calibration.error(), abs=1e-3
    )


def merged_of(folder: Path, bag: Path, options: EvaluationOptions, name: str = "parts") -> Merged:
    """Evaluate one bag in one pass."""
    run = run_of(bag, options, folder / name)
    assert len(list(evaluate_here(run, lambda: None))) > 0
    return merge(run, folder)


def run_of(bag: Path, options: EvaluationOptions, parts: Path) -> EvaluationRun:
    return EvaluationRun(options, {0: BagInfo(bag, IMAGE_TOPIC, 0)}, PartFolder(parts))


@pytest.mark.parametrize("size", [1, 4, 7])
def test_parts_add_up_to_exactly_the_result_of_one_pass(tmp_path: Path, size: int) -> None:
    bag = labelled_bag(tmp_path / "bag", drive(11))
    options = EvaluationOptions(ReadOptions(labels=BY_TOPIC), painter, painter, keep_masks=True)
    whole = merged_of(tmp_path, bag, options)
    lines = (tmp_path / "frames.jsonl").read_bytes()
    run = run_of(bag, options, tmp_path / "in parts")
    starts = list(range(0, 11, size))
    for start in reversed(starts):  # whichever is done first
        stop = start + size if start != starts[-1] else None
        run.parts.save(0, evaluate_part(run.bags[0], options, start, stop))
    merged = merge(run, tmp_path)
    assert (tmp_path / "frames.jsonl").read_bytes() == lines
    assert merged.scorer.to_json() == whole.scorer.to_json()
    assert merged.scorer.flicker.counts[0] > 0
    reports = [build_report(each, run, {}, []) for each in (whole, merged)]
    assert {**reports[0], "timings": 0} == {**reports[1], "timings": 0}
    assert list(run.parts.masks(0)) == list(PartFolder(tmp_path / "parts").masks(0))


def test_the_same_bag_twice_gives_the_same_bytes(tmp_path: Path, camseg: Commands) -> None:
    labelled_bag(tmp_path / "bag", drive(5))
    for out in ("one", "two"):
        camseg.painters.clear()
        assert (
            camseg("evaluate", tmp_path / "bag", "--labels", LABEL_TOPIC, "--out", tmp_path / out)[
                0
            ]
            == 0
        )
    assert report_of(tmp_path / "one") == report_of(tmp_path / "two")
    assert (tmp_path / "one" / "frames.jsonl").read_bytes() == (
        tmp_path / "two" / "frames.jsonl"
    ).read_bytes()


def test_a_stopped_evaluation_resumes_with_the_same_result(tmp_path: Path) -> None:
    bag = labelled_bag(tmp_path / "bag", drive(9))
    options = EvaluationOptions(ReadOptions(labels=BY_TOPIC), painter)
    whole = merged_of(tmp_path, bag, options, "whole")
    lines = (tmp_path / "frames.jsonl").read_bytes()
    run, asked = run_of(bag, options, tmp_path / "parts"), 0

    def stopping() -> str | None:
        nonlocal asked
        asked += 1
        return "enough" if asked == 4 else None

    with pytest.raises(
        EvaluationStopped,
        match=r"stopped after image 4 of 0 of .*bag \(enough\); run the same command to continue",
    ):
        list(evaluate_here(run, stopping))
    model = options.models().model
    assert isinstance(model, Painter)
    before = model.segmented
    assert len(list(evaluate_here(run, lambda: None))) == 5
    assert model.segmented - before == 6  # and the one before, for what changed
    merged = merge(run, tmp_path)
    assert (tmp_path / "frames.jsonl").read_bytes() == lines
    assert merged.scorer.to_json() == whole.scorer.to_json()
    assert not list(evaluate_here(run, lambda: None))


def test_ctrl_c_stops_the_command_which_then_resumes(
    tmp_path: Path, camseg: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled_bag(tmp_path / "bag", drive(6))
    arguments = ("evaluate", tmp_path / "bag", "--labels", LABEL_TOPIC, "--write-bag")
    segment = Painter.segment

    def interrupted(self: Painter, rgb: Any) -> Any:
        if self.segmented == 3:  # one of them before the first frame
            os.kill(os.getpid(), signal.SIGINT)
        return segment(self, rgb)

    monkeypatch.setattr(Painter, "segment", interrupted)
    code, _, err = camseg(*arguments, tmp_path / "new", "--out", tmp_path / "out")
    assert code == 130
    assert re.fullmatch(
        r"camseg: stopped after image 3 of 6 of .*bag \(SIGINT, .*\); "
        r"run the same command to continue\n",
        err,
    )
    monkeypatch.setattr(Painter, "segment", segment)
    assert camseg(*arguments, tmp_path / "new", "--out", tmp_path / "out")[0] == 0
    assert (
        camseg.painters[-1].segmented == (1 + 3) + (1 + 3) + 6
    )  # to warm up and three; the one before and the rest; the worst
    assert camseg(*arguments, tmp_path / "again", "--out", tmp_path / "whole")[0] == 0
    assert (tmp_path / "out" / "frames.jsonl").read_bytes() == (
        tmp_path / "whole" / "frames.jsonl"
    ).read_bytes()
    assert messages_of(tmp_path / "new") == messages_of(tmp_path / "again")


def unlabelled_bag(path: Path) -> list[LabelledFrame]:
    """Write the images of four frames; return the frames with their labels."""
    frames = drive(4)
    write_bag([SourceFrame(each.stamp_ns, each.image, each.name) for each in frames], path)
    return frames


def test_an_evaluation_does_not_resume_with_other_labels(
    tmp_path: Path, camseg: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = unlabelled_bag(tmp_path / "bag")
    labels = tmp_path / "labels"
    labels.mkdir()
    for each in frames:
        cv2.imwrite(str(labels / f"{each.stamp_ns}.png"), each.label)
    arguments = ("evaluate", tmp_path / "bag", "--labels", labels, "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr("camseg_core.long_runs.StopRequest.requested", "enough")
        assert camseg(*arguments)[0] == 130  # one frame is done
    for each in frames:
        cv2.imwrite(str(labels / f"{each.stamp_ns}.png"), np.full_like(each.label, ROAD))
    assert camseg(*arguments)[0] == 0
    names = {each["name"] for each in report_of(tmp_path / "out")["classes"] if each["iou"]}
    assert names == {"road"}
    assert sum(report_of(tmp_path / "out")["confusion"]["matrix"][3]) == 4 * 36 * 48


def test_an_evaluation_does_not_resume_with_another_class_table(
    tmp_path: Path, camseg: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = unlabelled_bag(tmp_path / "bag")
    labels = tmp_path / "labels"
    labels.mkdir()
    for each in frames:
        label = np.where(each.label == ROAD, 0, 255).astype(np.uint8)
        cv2.imwrite(str(labels / f"{each.stamp_ns}.png"), label)
    table = "- {id: 0, name: ground, color: [1, 2, 3], was: [CLASS]}\n"
    (labels / "labels.yaml").write_text(table.replace("CLASS", "road"))
    arguments = ("evaluate", tmp_path / "bag", "--labels", labels, "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr("camseg_core.long_runs.StopRequest.requested", "enough")
        assert camseg(*arguments)[0] == 130  # one frame is done
    (labels / "labels.yaml").write_text(table.replace("CLASS", "sidewalk"))
    assert camseg(*arguments)[0] == 0
    report = report_of(tmp_path / "out")
    assert [each["name"] for each in report["classes"]] == ["ground"]
    assert report["classes"][0]["iou"] < 0.1  # of the frame before it was nearly 1


def messages_of(bag: Path) -> list[tuple[str, int, bytes]]:
    """Return everything in a bag, read with another library."""
    with (bag / f"{bag.name}.mcap").open("rb") as file:
        return [
            (channel.topic, message.log_time, message.data)
            for _, channel, message in make_reader(file).iter_messages()
        ]


def record(
    path: Path,
    frames: list[LabelledFrame],
    storage: StoragePlugin,
    compression: CompressionMode,
    compressed: bool,
) -> Path:
    """Write the frames as other recorders do."""
    writer = Writer(path, version=9, storage_plugin=storage)
    if compression is not CompressionMode.NONE:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        kind = COMPRESSED if compressed else RAW
        connections = [
            writer.add_connection(topic, kind, typestore=STORE) for topic in ("/cam", "/truth")
        ]
        for each in frames:
            header = STORE.types["std_msgs/msg/Header"](
                STORE.types["builtin_interfaces/msg/Time"](*divmod(each.stamp_ns, SECOND)), "c"
            )
            for connection, pixels in zip(
                connections, (each.image[..., ::-1], each.label), strict=True
            ):
                if compressed:
                    data = np.asarray(cv2.imencode(".png", pixels)[1]).ravel()
                    message = STORE.types[kind](header, "png", data)
                else:
                    encoding = "bgr8" if pixels.ndim == 3 else "mono8"
                    flat = np.ascontiguousarray(pixels).ravel()
                    message = STORE.types[kind](
                        header, *pixels.shape[:2], encoding, 0, flat.size // len(pixels), flat
                    )
                writer.write(connection, each.stamp_ns, STORE.serialize_cdr(message, kind))
    return path


@pytest.mark.parametrize(
    ("storage", "compression"),
    [
        *(
            (plugin, mode)
            for plugin in StoragePlugin
            for mode in (CompressionMode.NONE, CompressionMode.FILE, CompressionMode.MESSAGE)
        ),
        (StoragePlugin.MCAP, CompressionMode.STORAGE),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_bags_of_other_recorders_give_the_same(
    tmp_path: Path, storage: Any, compression: Any, compressed: bool
) -> None:
    frames = drive(3)
    expected = merged_of(
        tmp_path,
        labelled_bag(tmp_path / "ours", frames),
        EvaluationOptions(ReadOptions(labels=BY_TOPIC), painter),
    )
    bag = record(tmp_path / "theirs", frames, storage, compression, compressed)
    reading = ReadOptions(labels=LabelSource("/truth", None, 0))
    merged = merged_of(tmp_path, bag, EvaluationOptions(reading, painter), "theirs parts")
    assert merged.scorer.to_json() == expected.scorer.to_json()


def test_a_split_bag_is_one_bag(tmp_path: Path) -> None:
    frames = drive(6)
    expected = merged_of(
        tmp_path,
        labelled_bag(tmp_path / "whole", frames),
        EvaluationOptions(ReadOptions(labels=BY_TOPIC), painter),
    )
    split = tmp_path / "split"
    split.mkdir()
    for number, some in enumerate((frames[:4], frames[4:])):
        labelled_bag(tmp_path / str(number), some)
        (tmp_path / str(number) / f"{number}.mcap").rename(split / f"split_{number}.mcap")
    merged = merged_of(
        tmp_path, split, EvaluationOptions(ReadOptions(labels=BY_TOPIC), painter), "split parts"
    )
    assert merged.scorer.to_json() == expected.scorer.to_json()


def test_a_split_bag_that_lacks_a_file_fails_its_scenario(tmp_path: Path, camseg: Commands) -> None:
    frames = drive(6)
    bag = labelled_bag(tmp_path / "bag", frames)
    (bag / "bag.mcap").rename(bag / "bag_0.mcap")
    metadata = bag / "metadata.yaml"
    text = metadata.read_text().replace("  - bag.mcap\n", "  - bag_0.mcap\n  - bag_1.mcap\n")
    metadata.write_text(text.replace("message_count: 6", "message_count: 9"))
    (tmp_path / "scenario.yaml").write_text("min_miou: 0.1\n")
    code, _, err = camseg(
        "evaluate", bag, "--labels", LABEL_TOPIC, "--scenario", tmp_path / "scenario.yaml",
        "--out", tmp_path / "out",
    )  # fmt: skip
    report = report_of(tmp_path / "out")
    assert (code, report["bag"]["frames"], report["scenario"]["passed"]) == (1, 6, False)
    lost = "is incomplete (6 of 9 images on /camera/image_raw are there): it lacks bag_1.mcap"
    assert lost in report["bag"]["damage"]
    assert lost in err


def test_a_folder_of_labels(tmp_path: Path, camseg: Commands) -> None:
    frames = drive(4)
    write_bag(
        [SourceFrame(each.stamp_ns, each.image, each.name) for each in frames], tmp_path / "bag"
    )
    (tmp_path / "labels").mkdir()
    for each in frames[1:3]:  # not every image has one, and stamps are off by 3 ms
        cv2.imwrite(str(tmp_path / "labels" / f"left_{each.stamp_ns + 3_000_000}.png"), each.label)
    camseg("evaluate", tmp_path / "bag", "--labels", tmp_path / "labels", "--out", tmp_path / "out")
    report, lines = report_of(tmp_path / "out"), lines_of(tmp_path / "out")
    assert (report["bag"]["frames"], report["bag"]["scored"], report["bag"]["labels"]) == (
        4,
        2,
        "labels",
    )
    assert [each["miou"] is None for each in lines] == [True, False, False, True]
    assert [each["iou"] == {} for each in lines] == [True, False, False, True]
    assert set(report["worst"]) == {1, 2}
    code, _, err = camseg(
        "evaluate",
        tmp_path / "bag",
        "--labels",
        tmp_path / "labels",
        "--tolerance",
        2,
        "--out",
        tmp_path / "out",
    )
    assert code == 2
    assert "no label of labels is within 2 ms of an image of the bag" in err
    assert "images are stamped 100.000 s to 100.300 s, the first label at 100.103 s" in err


def test_labels_that_belong_to_no_image_are_counted(tmp_path: Path, camseg: Commands) -> None:
    frames, bag, folder = drive(3), tmp_path / "bag", tmp_path / "labels"
    write_bag([SourceFrame(each.stamp_ns, each.image, each.name) for each in frames], bag)
    folder.mkdir()
    for each in frames:
        cv2.imwrite(str(folder / f"{each.stamp_ns}.png"), each.label)
    (folder / "front.png").write_bytes(next(folder.iterdir()).read_bytes())
    (folder / "5.png").write_bytes((folder / "front.png").read_bytes())
    code, out, _ = camseg("evaluate", bag, "--labels", folder, "--out", tmp_path / "out")
    assert code == 0
    text = "2 of the 5 labels of labels belong to no image: front.png, …"
    assert f"labels left out: {text}" in out.splitlines()
    assert report_of(tmp_path / "out")["bag"]["unpaired_labels"] == text
    assert text in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_images_whose_noise_was_removed_are_counted(
    tmp_path: Path, camseg: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, noisy, paint = drive(4), (0, 2, 3), Painter.segment
    for number, each in enumerate(frames):
        each.image[0, 0, 1] = 95 if number in noisy else 85

    def segment(self: Painter, rgb: npt.NDArray[np.uint8]) -> Segmentation:
        return replace(paint(self, rgb), noise_removed=bool(rgb[0, 0, 1] > 90))

    bag = labelled_bag(tmp_path / "bag", frames)
    monkeypatch.setattr(Painter, "segment", segment)
    code, out, _ = camseg("evaluate", bag, "--out", tmp_path / "out")
    assert code == 0
    assert "strong noise was removed from: 3 of 4 frames" in out.splitlines()
    assert report_of(tmp_path / "out")["bag"]["noise_removed"] == 3
    assert [each["noise_removed"] for each in lines_of(tmp_path / "out")] == [
        number in noisy for number in range(4)
    ]
    assert "3 of 4 frames" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_without_labels_the_report_has_confidence_change_and_agreement(
    tmp_path: Path, camseg: Commands
) -> None:
    frames = [
        frame(
            i, rows(SKY, SKY, ROAD, CAR if i else ROAD), rows(VOID, VOID, VOID, VOID), 50 + 10 * i
        )
        for i in range(3)
    ]
    write_bag(
        (SourceFrame(each.stamp_ns, each.image, each.name) for each in frames), tmp_path / "bag"
    )
    code, out, err = camseg(
        "evaluate", tmp_path / "bag", "--compare", "camseg-lite", "--out", tmp_path / "out"
    )
    assert (code, err) == (0, "")
    report = report_of(tmp_path / "out")
    assert (
        report["scores"]
        is report["confusion"]
        is report["bag"]["labels"]
        is report["flicker"]["with_truth"]
        is None
    )
    assert report["flicker"]["change_rate"] == 1 / 8
    assert report["confidence"]["mean"] == 0.6
    assert report["worst"] == [0, 1, 2]  # the lowest confidence first
    assert report["compare"]["model"] == "painter 2"
    assert report["compare"]["agreement"] == 1
    assert {each["name"]: each["agreement"] for each in report["compare"]["classes"]}["car"] == 1
    assert all(each["iou"] is each["truth_share"] is None for each in report["classes"])
    assert "agreement with painter 2 1.000" in out


def test_a_time_range(tmp_path: Path, camseg: Commands) -> None:
    labelled_bag(tmp_path / "bag", drive(8))
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text("start_s: 0.2\nend_s: 0.5\n")
    assert (
        camseg(
            "evaluate",
            tmp_path / "bag",
            "--topic",
            IMAGE_TOPIC,
            "--scenario",
            scenario,
            "--out",
            tmp_path / "out",
        )[0]
        == 0
    )
    assert [each["stamp_ns"] for each in lines_of(tmp_path / "out")] == [
        START + i * STEP for i in (2, 3, 4)
    ]
    assert lines_of(tmp_path / "out")[0]["changed"] is None
    scenario.write_text("start_s: 50\n")
    code, _, err = camseg(
        "evaluate",
        tmp_path / "bag",
        "--topic",
        IMAGE_TOPIC,
        "--scenario",
        scenario,
        "--out",
        tmp_path / "out",
    )
    assert code == 2
    assert "no images on /camera/image_raw of the bag" in err
    assert "from 50 s to its end" in err


def test_a_scenario_decides_the_exit_code(tmp_path: Path, camseg: Commands) -> None:
    labelled_bag(tmp_path / "bag", drive(4))
    scenario = tmp_path / "scenario.yaml"
    arguments = (
        "evaluate",
        tmp_path / "bag",
        "--labels",
        LABEL_TOPIC,
        "--scenario",
        scenario,
        "--out",
        tmp_path / "out",
    )
    scenario.write_text("min_miou: 0.3\nmin_iou: {road: 0.5}\nmax_p95_ms: 3.1\nmax_drops: 0\n")
    assert camseg(*arguments)[0] == 0
    assert report_of(tmp_path / "out")["scenario"] == {"passed": True, "failures": []}
    scenario.write_text("min_iou: {road: 0.9999}\nmax_p95_ms: 2.5\n")
    code, _, err = camseg(*arguments)
    assert code == 1
    failures = report_of(tmp_path / "out")["scenario"]["failures"]
    assert failures[0] == "max_p95_ms: 3 is above the limit of 2.5"
    assert failures[1].startswith("min_iou of road: 0.9")
    assert all(f"camseg: scenario: {failure}" in err for failure in failures)
    scenario.write_text("min_iou: {raod: 0.9}\n")
    code, _, err = camseg(*arguments)
    assert code == 2
    assert "unknown class 'raod': did you mean 'road'?" in err


def test_another_library_reads_the_bag_with_masks(tmp_path: Path, camseg: Commands) -> None:
    frames = drive(4)
    labelled_bag(tmp_path / "bag", frames)
    code, _, _ = camseg(
        "evaluate",
        tmp_path / "bag",
        "--labels",
        LABEL_TOPIC,
        "--out",
        tmp_path / "out",
        "--write-bag",
        tmp_path / "new",
    )
    assert code == 0
    with (tmp_path / "new" / "new.mcap").open("rb") as file:
        read = list(
            make_reader(
                file, validate_crcs=True, decoder_factories=[DecoderFactory()]
            ).iter_decoded_messages()
        )
    topics = [channel.topic for _, channel, _, _ in read]
    assert {topic: topics.count(topic) for topic in topics} == dict.fromkeys(
        (IMAGE_TOPIC, "/camera/camera_info", LABEL_TOPIC, "/segmentation/mask"), 4
    )
    masks = [
        (recorded, mask)
        for _, channel, recorded, mask in read
        if channel.topic == "/segmentation/mask"
    ]
    for each, (recorded, mask) in zip(frames, masks, strict=True):
        assert (
            recorded.log_time
            == each.stamp_ns
            == mask.header.stamp.sec * SECOND + mask.header.stamp.nanosec
        )
        assert (mask.header.frame_id, mask.encoding, mask.step) == (
            "camera",
            "mono8",
            each.image.shape[1],
        )
        assert bytes(mask.data) == Painter().segment(each.image).mask.tobytes()
    code, _, err = camseg(
        "evaluate",
        tmp_path / "bag",
        "--out",
        tmp_path / "out",
        "--topic",
        IMAGE_TOPIC,
        "--write-bag",
        tmp_path / "new",
    )
    assert code == 2
    assert "new exists already" in err


def big(count: int) -> list[LabelledFrame]:
    """Return frames that each fill a chunk of the file."""
    ids = np.tile(np.array([SKY, ROAD, CAR], np.uint8), (600, 200))
    return [frame(i, np.roll(ids, i, 1), ids) for i in range(count)]


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_the_intact_part_of_a_truncated_bag_is_scored(
    tmp_path: Path, storage: Any, camseg: Commands
) -> None:
    bag = record(tmp_path / "bag", big(6), storage, CompressionMode.NONE, compressed=False)
    (file,) = (each for each in bag.iterdir() if each.suffix in (".mcap", ".db3"))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])
    target = tmp_path / "new"
    arguments = (
        "evaluate",
        bag,
        "--topic",
        "/cam",
        "--labels",
        "/truth",
        "--out",
        tmp_path / "out",
        "--write-bag",
        target,
    )
    code, _, err = camseg(*arguments)
    report = report_of(tmp_path / "out")
    frames = report["bag"]["frames"]
    assert code == 0, err
    assert 2 <= frames < 5
    assert report["bag"]["scored"] >= frames - 1  # a label is recorded after its image
    assert f"is damaged after image {frames} of 6 on /cam: " in report["bag"]["damage"]
    assert report["bag"]["damage"] in err
    intact = big(report["bag"]["scored"])
    less = record(tmp_path / "less", intact, storage, CompressionMode.NONE, compressed=False)
    read = ReadOptions("/cam", LabelSource("/truth", None, 0))
    expected = merged_of(tmp_path, less, EvaluationOptions(read, painter))
    assert report["confusion"]["matrix"] == expected.scorer.confusion.matrix[:, :-1].tolist()
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text("max_p95_ms: 100\n")
    assert (
        camseg(*arguments[:-2], "--scenario", scenario)[0] == 1
    )  # a damaged bag fails every scenario


def test_parts_of_another_version_are_refused_in_one_line(
    tmp_path: Path, camseg: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled_bag(tmp_path / "bag", drive(4))
    arguments = ("evaluate", tmp_path / "bag", "--labels", LABEL_TOPIC, "--out", tmp_path / "out")
    monkeypatch.setattr("camseg_core.long_runs.StopRequest.requested", "enough")
    assert camseg(*arguments)[0] == 130
    monkeypatch.undo()
    (part,) = (tmp_path / "out" / "parts").glob("*/*.json")
    content = json.loads(part.read_text())
    content["tally"], content["facts"] = content.pop("scorer"), content.pop("info")
    part.write_text(json.dumps(content))  # as version 0.1 wrote it
    code, _, err = camseg(*arguments)
    assert code == 2
    assert re.fullmatch(
        rf"camseg: error: {part} was written by another version of camseg, so this evaluation "
        rf"cannot be resumed; remove {part.parent} to start again\n",
        err,
    )


MAPPING = """
ids: {road: [0], sky: [10], building: [2]}
groups:
  - {classes: [car, truck], ids: [20]}
  - {classes: [person, rider], ids: [21]}
"""


def grouped(folder: Path) -> Path:
    """Write a bag whose labels say "car or truck" with its group's id, or as one of the two."""
    (folder / "groups.yaml").write_text(MAPPING, encoding="utf-8")
    frames = [
        frame(0, rows(ROAD, CAR, TRUCK, SKY), rows(ROAD, TRUCK, FIRST_GROUP, SKY)),
        frame(1, rows(PERSON, TRUCK, CAR, TREE), rows(FIRST_GROUP + 1, RIDER, CAR, SKY)),
        frame(2, rows(ROAD, TRUCK, CAR, SKY), rows(WALL, CAR, FIRST_GROUP, WALL)),
    ]
    return labelled_bag(folder / "bag", frames)


def test_labels_of_several_classes_are_scored_as_groups(
    tmp_path: Path, camseg: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Painter, "classes", CITYSCAPES)
    bag, groups = grouped(tmp_path), tmp_path / "groups.yaml"
    limits = tmp_path / "limits.yaml"
    limits.write_text("min_iou: {car or truck: 0.75, person or rider: 0.6}", encoding="utf-8")
    code, out, err = camseg(
        *("evaluate", bag, "--labels", LABEL_TOPIC, "--groups", groups, "--out", tmp_path / "out"),
        *("--scenario", limits),
    )
    assert code == 1
    assert err.splitlines() == [
        "camseg: scenario: min_iou of person or rider: 0.5 is below the limit of 0.6"
    ]
    report = report_of(tmp_path / "out")
    iou = {each["name"]: each["iou"] for each in report["classes"]}
    # of the six rows that are or should be a car or truck, five are; the rider is taken for one
    expected = {"road": 1.0, "building": None, "sky": 0.5}
    assert iou == expected | {"car or truck": round(5 / 6, 6), "person or rider": 0.5}
    assert report["counted_as"] == {
        "merged": {"car or truck": ["car", "truck"], "person or rider": ["person", "rider"]},
        "predicted_outside": {"vegetation": 4},
        "not_scored": {"wall": 8},
    }
    assert "car or truck (car + truck), person or rider (person + rider)" in out
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "car or truck (car + truck)" in page
    assert "wall (8 pixels)" in page
    # a car that becomes a truck, which are one, is no change: only the first and last row change
    assert [each["changed"] for each in lines_of(tmp_path / "out")] == [None, 0.5, 0.5]
    assert lines_of(tmp_path / "out")[0]["share"]["car or truck"] == 0.5


OWN = (
    Label(0, "lane", (1, 1, 1)),
    Label(1, "road", (2, 2, 2)),
    Label(2, "vehicle", (3, 3, 3), was=("car", "truck")),
)


def test_groups_of_another_table_are_matched_with_the_classes_of_the_model_by_name(
    tmp_path: Path, camseg: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Painter, "classes", OWN)
    monkeypatch.setattr(evaluate_command, "model_labels", lambda model: OWN)
    groups = tmp_path / "groups.yaml"
    groups.write_text("ids: {road: [0], car: [13], sky: [10]}\n", encoding="utf-8")
    drive = [frame(i, rows(1, 2, 2, 0), rows(ROAD, CAR, CAR, ROAD)) for i in range(2)]
    bag = labelled_bag(tmp_path / "bag", drive)
    arguments = ("evaluate", bag, "--labels", LABEL_TOPIC, "--groups", groups)
    code, _, err = camseg(*arguments, "--out", tmp_path / "out")
    assert code == 0
    assert "not scored, missing in camseg-lite: sky" in err
    report = report_of(tmp_path / "out")
    assert {each["name"]: each["iou"] for each in report["classes"]} == {"road": 0.5, "car": 1.0}
    assert report["counted_as"]["predicted_outside"] == {"lane": 8}


def test_models_of_different_tables_are_not_compared_by_id(
    tmp_path: Path, camseg: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {"camseg-lite": CITYSCAPES, "other": OWN}
    monkeypatch.setattr(evaluate_command, "model_labels", lambda model: tables[model])
    bag = grouped(tmp_path)
    code, _, err = camseg("evaluate", bag, "--compare", "other", "--out", tmp_path / "out")
    assert code == 2
    assert "camseg-lite and other must give each class the same id" in err


def test_labels_that_count_as_no_class_are_named(tmp_path: Path, camseg: Commands) -> None:
    bag = grouped(tmp_path)
    code, out, _ = camseg("evaluate", bag, "--labels", LABEL_TOPIC, "--out", tmp_path / "out")
    left_out = {"wall": 8, "truck": 4, "id 128": 8, "id 129": 4}
    assert code == 0
    assert report_of(tmp_path / "out")["counted_as"] == {
        "merged": {},
        "predicted_outside": {},
        "not_scored": left_out,
    }
    assert "labels not scored: wall (8 pixels)" in out


def test_classes_that_count_as_0_because_no_pixel_has_them_are_named(
    tmp_path: Path, camseg: Commands
) -> None:
    drive = [frame(i, rows(ROAD, ROAD, SKY, CAR), rows(ROAD, ROAD, ROAD, CAR)) for i in range(2)]
    bag = labelled_bag(tmp_path / "bag", drive)
    code, out, _ = camseg("evaluate", bag, "--labels", LABEL_TOPIC, "--out", tmp_path / "out")
    assert code == 0
    fact = "counted as 0 in means, predicted but never labelled"
    assert f"{fact}: sky" in out.splitlines()
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert re.search(rf"{fact}</t[hd]>\s*<td[^>]*>sky<", page)
    assert report_of(tmp_path / "out")["scores"]["miou"] == round((2 / 3 + 1 + 0) / 3, 6)


def test_parts_over_groups_resume_with_the_same_result(tmp_path: Path) -> None:
    bag = grouped(tmp_path)
    over = scored_over(tmp_path / "groups.yaml")
    options = EvaluationOptions(ReadOptions(labels=BY_TOPIC), painter, painter, over=over)
    info = {0: BagInfo(bag, IMAGE_TOPIC, 3)}
    whole = EvaluationRun(options, info, PartFolder(tmp_path / "whole"))
    parts = EvaluationRun(options, info, PartFolder(tmp_path / "parts"))
    assert len(list(evaluate_here(whole, lambda: None))) == 3
    while True:
        try:
            list(evaluate_here(parts, lambda: "now"))
            break
        except EvaluationStopped:
            continue
    assert len(list(parts.parts.in_order(0))) > 2
    reports = []
    for run in (whole, parts):
        report = build_report(merge(run, tmp_path / run.parts.folder.name), run, {}, [])
        del report["timings"]
        reports.append(report)
    assert reports[0] == reports[1]
    assert reports[0]["compare"]["agreement"] == 1
    assert reports[0]["classes"][3]["name"] == "car or truck"


@pytest.mark.parametrize("size", [1, 2, 4])
def test_parts_of_a_truncated_bag_add_up_too(tmp_path: Path, size: int) -> None:
    bag = labelled_bag(tmp_path / "bag", big(6))
    file = bag / "bag.mcap"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    options = EvaluationOptions(ReadOptions(IMAGE_TOPIC, BY_TOPIC), painter)
    whole = merged_of(tmp_path, bag, options)
    lines = (tmp_path / "frames.jsonl").read_bytes()
    assert whole.scorer.frames[0] in (2, 3)
    run = run_of(bag, options, tmp_path / "in parts")
    for start in range(0, 6, size):  # as many as the bag had before
        run.parts.save(0, evaluate_part(run.bags[0], options, start, start + size))
    merged = merge(run, tmp_path)
    assert (tmp_path / "frames.jsonl").read_bytes() == lines
    assert merged.scorer.to_json() == whole.scorer.to_json()
    assert merged.damage == whole.damage
    assert "is damaged after image" in whole.damage[0]


def test_a_label_too_short_for_a_header_is_reported(tmp_path: Path, camseg: Commands) -> None:
    frames = drive(2)
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        write_both(writer, lambda stamp: stamp)
        writer.write(writer.connections[1], frames[0].stamp_ns, b"\0\1")
    code, _, err = camseg(
        "evaluate", tmp_path / "bag", "--labels", LABEL_TOPIC, "--out", tmp_path / "out"
    )
    assert code == 2
    assert re.search(
        r"labels on /camera/labels of the bag .*: message \d has 2 bytes, too few for a header", err
    )


def stamped(path: Path, images_ns: list[int], labels_ns: list[int]) -> list[LabelledFrame]:
    """Write a bag whose images and labels have these stamps, and were recorded one by one."""
    frames = drive(max(len(images_ns), len(labels_ns)))
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        images, labels = (
            writer.add_connection(topic, RAW, typestore=STORE)
            for topic in (IMAGE_TOPIC, LABEL_TOPIC)
        )
        for number, each in enumerate(frames):
            for connection, stamps, pixels, encoding in (
                (images, images_ns, each.image, "rgb8"),
                (labels, labels_ns, each.label, "mono8"),
            ):
                if number < len(stamps):
                    message = image_message(pixels, encoding, header_at(stamps[number]))
                    writer.write(
                        connection, START + number * STEP, STORE.serialize_cdr(message, RAW)
                    )
    return frames


@pytest.mark.parametrize(
    "stamps", [[0] * 6, [START + i // 2 * STEP for i in range(6)], [0, 0, 0, START, START, START]]
)
def test_labels_whose_stamps_repeat_are_paired_by_order(
    tmp_path: Path, camseg: Commands, stamps: list[int]
) -> None:
    expected = merged_of(
        tmp_path,
        labelled_bag(tmp_path / "right", drive(6)),
        EvaluationOptions(ReadOptions(labels=BY_TOPIC), painter),
    )
    stamped(tmp_path / "bag", stamps, stamps)
    arguments = ("evaluate", tmp_path / "bag", "--topic", IMAGE_TOPIC, "--labels", LABEL_TOPIC)
    code, out, err = camseg(*arguments, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert "6 frames, 6 with labels (of 6 whose stamps repeat by their order)" in out
    assert "of 6 images whose stamps repeat" in (tmp_path / "out" / "report.html").read_text()
    report = report_of(tmp_path / "out")
    assert report["bag"]["paired_by_order"] == 6
    assert report["confusion"]["matrix"] == expected.scorer.confusion.matrix[:, :-1].tolist()
    options = EvaluationOptions(ReadOptions(IMAGE_TOPIC, BY_TOPIC), painter)
    run = run_of(tmp_path / "bag", options, tmp_path / "in parts")
    for start in (4, 2, 0):  # in parts as at once
        run.parts.save(
            0, evaluate_part(run.bags[0], options, start, start + 2 if start < 4 else None)
        )
    assert merge(run, tmp_path).scorer.to_json() == expected.scorer.to_json()


def test_labels_that_cannot_be_told_apart_are_left_out_and_reported(
    tmp_path: Path, camseg: Commands
) -> None:
    twice = [START, START, START + STEP, START + 2 * STEP]
    stamped(tmp_path / "bag", twice, twice[1:])
    arguments = ("evaluate", tmp_path / "bag", "--topic", IMAGE_TOPIC, "--labels", LABEL_TOPIC)
    code, _, err = camseg(*arguments, "--out", tmp_path / "out")
    report = report_of(tmp_path / "out")
    assert (code, report["bag"]["frames"], report["bag"]["scored"]) == (0, 4, 2)
    left = "left without a label, as 2 images and 1 label are stamped 100.000 s"
    assert re.search(rf"2 images of .*bag {left}", report["bag"]["damage"])
    assert left in err


def test_images_outside_the_time_range_are_not_reported_as_unclear(
    tmp_path: Path, camseg: Commands
) -> None:
    stamps = [0, 0, 0, *(START + i * STEP for i in range(3, 6))]  # unset while the driver starts
    stamped(tmp_path / "bag", stamps, stamps[1:])
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text("start_s: 0.3\nmin_miou: 0.1\n")
    arguments = ("evaluate", tmp_path / "bag", "--topic", IMAGE_TOPIC, "--labels", LABEL_TOPIC)
    code, _, err = camseg(*arguments, "--scenario", scenario, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    bag = report_of(tmp_path / "out")["bag"]
    assert (bag["scored"], bag["paired_by_order"], bag["damage"]) == (3, 0, "")
    scenario.write_text("start_s: 0.2\nmin_miou: 0.1\n")
    code, _, err = camseg(*arguments, "--scenario", scenario, "--out", tmp_path / "out")
    assert code == 1
    assert "1 images of" in err
    assert "left without a label, as 3 images and 2 labels are stamped 0.000 s" in err


def test_labels_whose_stamps_say_nothing_are_refused_before_the_work(
    tmp_path: Path, camseg: Commands
) -> None:
    stamped(tmp_path / "bag", [0] * 5, [0] * 4)
    arguments = ("evaluate", tmp_path / "bag", "--topic", IMAGE_TOPIC, "--labels", LABEL_TOPIC)
    code, _, err = camseg(*arguments, "--out", tmp_path / "out")
    assert (code, camseg.painters) == (2, [])
    assert re.search(
        r"no image of the bag .*bag has a label, as 5 images and 4 labels are stamped 0\.000 s: "
        "record both with stamps that differ",
        err,
    )


@pytest.mark.parametrize(("suffix", "cut"), [(".png", True), (".jpg", True), (".jpg", False)])
def test_an_image_that_cannot_be_decoded_is_left_out_and_reported(
    tmp_path: Path, camseg: Commands, suffix: str, cut: bool
) -> None:
    frames = drive(5)
    bag = tmp_path / "bag"
    with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/cam", COMPRESSED, typestore=STORE)
        for i, each in enumerate(frames):
            data = np.asarray(cv2.imencode(suffix, each.image)[1]).ravel()
            if i == 2:
                middle = len(data) * 2 // 3
                data = data[:middle] if cut else data
                data[middle : middle + 100] = np.arange(100, 200)[: len(data) - middle]
            header = STORE.types["std_msgs/msg/Header"](
                STORE.types["builtin_interfaces/msg/Time"](i, 0), "c"
            )
            message = STORE.types[COMPRESSED](header, suffix[1:], data)
            writer.write(connection, i * SECOND, STORE.serialize_cdr(message, COMPRESSED))
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text("max_drops: 1\n")
    camseg("evaluate", bag, "--scenario", scenario, "--out", tmp_path / "out")
    report = report_of(tmp_path / "out")
    assert report["bag"]["frames"] == 4
    assert "1 image of " in report["bag"]["damage"]
    assert "left out, the first: image 2 on /cam of the bag" in report["bag"]["damage"]
    assert [each["changed"] is None for each in lines_of(tmp_path / "out")] == [
        True,
        False,
        True,
        False,
    ]


def labels_of_another_size(path: Path) -> None:
    labelled_bag(
        path,
        [LabelledFrame(each.stamp_ns, each.image, each.name, each.label[:20]) for each in drive(2)],
    )


def labels_of_another_clock(path: Path) -> None:
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        write_both(writer, lambda stamp: stamp + 1000 * SECOND)


def write_both(writer: Writer, clock: Callable[[int], int], encoding: str = "rgb8") -> None:
    connections = [
        writer.add_connection(topic, RAW, typestore=STORE) for topic in (IMAGE_TOPIC, LABEL_TOPIC)
    ]
    for each in drive(3):
        for connection, pixels, stamp in zip(
            connections,
            (each.image, each.label),
            (each.stamp_ns, clock(each.stamp_ns)),
            strict=True,
        ):
            header = STORE.types["std_msgs/msg/Header"](
                STORE.types["builtin_interfaces/msg/Time"](*divmod(stamp, SECOND)), "c"
            )
            name = encoding if pixels.ndim == 3 else "mono8"
            message = STORE.types[RAW](
                header, *pixels.shape[:2], name, 0, pixels.nbytes // len(pixels), pixels.ravel()
            )
            writer.write(connection, each.stamp_ns, STORE.serialize_cdr(message, RAW))


def an_unknown_encoding(path: Path) -> None:
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        write_both(writer, lambda stamp: stamp, "32FC7")


def clock_set_back(path: Path) -> None:
    """Write three images of road, then three of sky, while the recorder's clock is set back."""
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for number, ids in enumerate([ROAD] * 3 + [SKY] * 3):
            back_ns = 3 * STEP // 2 if number > 2 else 0
            write_image(writer, frame(number, rows(ids, ids), rows(ids, ids)), "c", back_ns)


def write_image(writer: Writer, each: LabelledFrame, camera: str, back_ns: int = 0) -> None:
    """Write an image, recorded at its stamp by a clock that is set back so far."""
    connection = next(iter(writer.connections), None) or writer.add_connection(
        IMAGE_TOPIC, RAW, typestore=STORE
    )
    stamp = STORE.types["builtin_interfaces/msg/Time"](*divmod(each.stamp_ns, SECOND))
    header, (height, width) = STORE.types["std_msgs/msg/Header"](stamp, camera), each.label.shape
    pixels = each.image.ravel()
    message = STORE.types[RAW](header, height, width, "rgb8", 0, 3 * width, pixels)
    writer.write(connection, each.stamp_ns - back_ns, STORE.serialize_cdr(message, RAW))


def test_no_change_is_counted_where_the_clock_was_set_back(
    tmp_path: Path, camseg: Commands
) -> None:
    clock_set_back(tmp_path / "bag")
    (tmp_path / "limits.yaml").write_text("max_p95_ms: 1000\n")
    options = ("--out", tmp_path / "out", "--scenario", tmp_path / "limits.yaml")
    code, out, err = camseg("evaluate", tmp_path / "bag", *options)
    assert (code, err) == (0, "")  # all is scored, and nothing is damaged
    assert f"1 image of {tmp_path}/bag with a stamp before that of the image before" in out
    assert "was set back" in (tmp_path / "out" / "report.html").read_text()
    # in recorded order 0, 1, 3, 2, 4, 5: of the pairs that go forward, two of four change
    assert report_of(tmp_path / "out")["flicker"]["change_rate"] == 0.5


def test_no_change_is_counted_between_cameras_on_one_topic(
    tmp_path: Path, camseg: Commands
) -> None:
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for number, (camera, ids) in enumerate([("l", ROAD), ("l", SKY), ("r", ROAD), ("r", ROAD)]):
            write_image(writer, frame(number, rows(ids, ids), rows(ids, ids)), camera)
    code, out, err = camseg("evaluate", tmp_path / "bag", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert "are of several cameras, by their frame_ids 'l', 'r': no change is counted from" in out
    assert "set back" not in out
    assert report_of(tmp_path / "out")["flicker"]["change_rate"] == 0.5  # of two pairs, one changes


def test_a_damaged_bag_is_read_to_its_end_where_the_clock_was_set_back(tmp_path: Path) -> None:
    clock_set_back(tmp_path / "bag")
    (file,) = (tmp_path / "bag").glob("*.mcap")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / file.name).write_bytes(file.read_bytes()[:-200])
    with ImageBag(tmp_path / "cut", salvage=True) as bag:
        images = bag.images(TimeRange(end_s=0.18))
        assert [(image.stamp_ns - START) // STEP for image in images] == [0, 1, 3]
        with pytest.raises(BagDamaged):
            list(bag)


def stamps_that_go_back(path: Path) -> None:
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        write_both(writer, lambda stamp: 2 * START - stamp)


def zero_length(path: Path) -> None:
    labelled_bag(path, drive(2))
    (path / f"{path.name}.mcap").write_bytes(b"")


def no_labels(path: Path) -> None:
    write_bag([SourceFrame(each.stamp_ns, each.image, each.name) for each in drive(2)], path)


def only_labels(path: Path) -> None:
    write_bag(
        [SourceFrame(each.stamp_ns, each.image, each.name) for each in drive(2)],
        path,
        BagTopics(LABEL_TOPIC),
    )


BAD = [
    (
        labels_of_another_size,
        r"image 0 on /camera/image_raw of the bag .*bad: the label is 48x20, the image 48x36; "
        "they must have the same size",
    ),
    (
        labels_of_another_clock,
        r"no label of /camera/labels is within 5 ms of .* 100.000 s to 100.200 s, "
        "the first label at 1100.000 s",
    ),
    (
        an_unknown_encoding,
        r"image 0 on /camera/image_raw of the bag .*bad: unknown image encoding '32FC7'; "
        "known are rgb8",
    ),
    (
        stamps_that_go_back,
        r"the stamps of the labels go back in time in the bag .*bad, "
        "from 100.000 s to 99.900 s: labels on /camera/labels",
    ),
    (zero_length, r"cannot read the bag .*bad: .* seems to be empty"),
    (
        no_labels,
        r"the topic /camera/labels of the bag .*bad is not in it; "
        "its image topics: /camera/image_raw",
    ),
    (only_labels, r"no image topic in the bag .*bad \(only /camera/labels\)"),
    (lambda path: None, r"the bag .*bad does not exist"),
]


@pytest.mark.parametrize(
    ("make", "message"), BAD, ids=lambda value: getattr(value, "__name__", "")[:30]
)
def test_a_bad_bag_is_reported_in_one_line_and_the_others_are_evaluated(
    tmp_path: Path, make: Callable[[Path], None], message: str, camseg: Commands
) -> None:
    make(tmp_path / "bad")
    labelled_bag(tmp_path / "good", drive(3))
    labelled_bag(tmp_path / "more", drive(3))
    code, _, err = camseg(
        "evaluate", tmp_path / "bad", "--labels", LABEL_TOPIC, "--out", tmp_path / "out"
    )
    assert code == 2
    (line,) = err.splitlines()
    assert re.search(message, line), line
    both = (
        "evaluate",
        tmp_path / "good",
        tmp_path / "bad",
        tmp_path / "more",
        "--labels",
        LABEL_TOPIC,
        "--out",
        tmp_path / "both",
    )
    code, _, err = camseg(*both)
    assert code == 1
    assert line.partition("error: ")[2] in err
    report = report_of(tmp_path / "both")
    assert report["bag"]["paths"] == ["good", "more"]
    assert (report["bag"]["frames"], len(lines_of(tmp_path / "both"))) == (6, 6)
    assert [each["index"] for each in lines_of(tmp_path / "both")] == list(range(6))
    assert [each["changed"] is None for each in lines_of(tmp_path / "both")] == [
        True,
        False,
        False,
    ] * 2  # no pair over two bags


def test_neither_torch_nor_ros_is_imported() -> None:
    modules = "import camseg_ros.bag.evaluate_command, camseg_ros.bag.make"
    heavy = "{'torch', 'rclpy', 'sensor_msgs', 'ray'}"
    program = f"{modules}\nimport sys\nsys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=120).returncode == 0


def test_missing_packages_are_reported_in_one_line(
    camseg: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(("camseg_ros.bag.", "rosbags."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rosbags", None)
    code, _, err = camseg("evaluate", "bag")
    assert (code, err) == (
        2,
        "camseg: error: this command needs rosbags, which is not installed: "
        "pip install '.[bag]' in the project's folder\n",
    )


def test_a_topic_with_two_types_costs_only_its_own_bag(tmp_path: Path, camseg: Commands) -> None:
    labelled_bag(tmp_path / "good", drive(2))
    kinds = {RAW: image_message(drive(1)[0].image, "rgb8", header_at(0))}
    kinds[COMPRESSED] = STORE.types[COMPRESSED](header_at(0), "png", np.zeros(4, np.uint8))
    with new_bag(tmp_path / "bad") as writer:
        for kind, message in kinds.items():
            connection = writer.add_connection("/camera/image_raw", kind, typestore=STORE)
            writer.write(connection, START, STORE.serialize_cdr(message, kind))
    code, out, err = camseg(
        "evaluate", tmp_path / "bad", tmp_path / "good", "--out", tmp_path / "out"
    )
    assert code == 1
    assert "2 frames, 0 with labels" in out
    assert "camseg: the topic /camera/image_raw of the bag" in err
    assert "reading /camera/image_raw (rgb8), the only topic in colour, not /camera/labels" in err


def test_the_report_names_the_topic_of_each_bag(tmp_path: Path, camseg: Commands) -> None:
    bags = [
        labelled_bag(tmp_path / name, drive(2), images=f"/{name}/image")
        for name in ("front", "left")
    ]
    assert camseg("evaluate", *bags, "--labels", LABEL_TOPIC, "--out", tmp_path / "out")[0] == 0
    bag = report_of(tmp_path / "out")["bag"]
    assert (bag["topics"], bag["topic"]) == (
        ["/front/image", "/left/image"],
        "/front/image, /left/image",
    )
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "/front/image of front, /left/image of left" in page


def test_bags_whose_names_differ_after_a_dot_get_masks_of_their_own(
    tmp_path: Path, camseg: Commands
) -> None:
    bags = [labelled_bag(tmp_path / name, drive(2)) for name in ("run.1", "run.2")]
    written = ("--write-bag", tmp_path / "masks", "--out", tmp_path / "out")
    assert camseg("evaluate", *bags, "--topic", IMAGE_TOPIC, *written)[0] == 0
    assert {each.name for each in (tmp_path / "masks").iterdir()} == {"run.1", "run.2"}


def test_a_folder_that_appeared_during_the_work_stays(
    tmp_path: Path, camseg: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag, target = labelled_bag(tmp_path / "bag", drive(2)), tmp_path / "masks"

    def merged(*given: Any) -> Merged:
        target.mkdir()
        (target / "notes.txt").write_text("mine")
        return merge(*given)

    monkeypatch.setattr(evaluate_command, "merge", merged)
    arguments = ("evaluate", bag, "--topic", IMAGE_TOPIC, "--out", tmp_path / "out", "--write-bag")
    code, _, err = camseg(*arguments, target)
    assert (code, err) == (
        2,
        f"camseg: error: {target} exists already; remove it or name another folder for the bag\n",
    )
    assert (target / "notes.txt").read_text() == "mine"
    monkeypatch.undo()


def test_an_image_too_large_for_the_memory_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = labelled_bag(tmp_path / "bag", drive(2))
    options = EvaluationOptions(ReadOptions(labels=BY_TOPIC), painter)
    options.models()

    def segment(self: Painter, rgb: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(Painter, "segment", segment)
    run = run_of(bag, options, tmp_path / "parts")
    assert not list(evaluate_here(run, lambda: None))
    assert run.failures[0].startswith(f"not enough memory for image 0 of {bag}, 48x36 pixels: ")


def test_a_bag_with_masks_needs_no_topic(tmp_path: Path, camseg: Commands) -> None:
    bag, masks = labelled_bag(tmp_path / "bag", drive(2)), tmp_path / "masks"
    assert camseg("evaluate", bag, "--write-bag", masks, "--out", tmp_path / "out")[0] == 0
    code, out, _ = camseg("evaluate", masks, "--labels", LABEL_TOPIC, "--out", tmp_path / "again")
    assert (code, "2 frames, 2 with labels" in out) == (0, True)


def header_at(stamp_ns: int) -> Any:
    """Return a header with a stamp."""
    time = STORE.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, SECOND))
    return STORE.types["std_msgs/msg/Header"](time, "camera")


@pytest.mark.parametrize("second", ["bag", "there", "bag/bag.mcap"])
def test_a_bag_named_twice_is_refused(tmp_path: Path, camseg: Commands, second: str) -> None:
    labelled_bag(tmp_path / "bag", drive(2))
    (tmp_path / "there").symlink_to("bag")
    code, _, err = camseg(
        "evaluate", tmp_path / "bag", tmp_path / second, "--out", tmp_path / "out"
    )
    assert code == 2
    assert "each bag must be named once, got " in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tolerance", "3"), "--tolerance must come with --labels"),
        (("--mask-topic", "/x"), "--mask-topic must come with --write-bag"),
    ],
)
def test_options_without_effect_are_refused(
    tmp_path: Path, camseg: Commands, arguments: tuple[str, ...], said: str
) -> None:
    bag = labelled_bag(tmp_path / "bag", drive(2))
    code, _, err = camseg("evaluate", bag, *arguments, "--out", tmp_path / "out")
    assert (code, said in err) == (2, True)
