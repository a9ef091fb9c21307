"""The report of an evaluation, and the command that makes it."""

import argparse
import base64
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import Browser

from camseg_core.cli import scoring
from camseg_core.data import Sample
from camseg_core.data.sets import open_set
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import CamSegError, ConfigError, DataError, ModelError
from camseg_core.evaluation.evaluate import Evaluation, evaluate
from camseg_core.evaluation.report.evaluation import report_content, score_table, write_report
from camseg_core.labels import CAMVID_11_TRAIN_IDS, CITYSCAPES, TRAIN_ID, Label, cityscapes_labels
from camseg_core.masks import colorize
from camseg_core.runtime import Segmentation, Segmenter
from camseg_core.training.card_figures import Figures, figures_text
from camseg_core.weights import checkpoint_folder

LABELS = cityscapes_labels(CAMVID_11_TRAIN_IDS)
FRAMES = 3


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.from_pretrained()


@pytest.fixture(scope="module")
def drive() -> list[Sample]:
    """Small frames of the synthetic drive; one has a name that would break a page."""
    samples = []
    for i, each in enumerate(SyntheticDrive(frames=FRAMES)):
        image, label = (
            cv2.resize(each.image, (160, 120)),
            cv2.resize(each.label, (160, 120), interpolation=cv2.INTER_NEAREST),
        )
        samples.append(Sample(image, label, f"<script>{i}</script>"))
    return samples


@pytest.fixture(scope="module")
def evaluation(segmenter: Segmenter, drive: list[Sample]) -> Evaluation:
    return evaluate(segmenter, drive, LABELS, about={"data": "drive & co", "seed": 0})


@pytest.fixture(scope="module")
def folder(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "new" / "folder"
    assert write_report(evaluation, folder) == folder / "report.html"
    return folder


class Page(HTMLParser):
    """A page's links, its texts by element id, and the rows of its tables by table id."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.texts: dict[str, str] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self._id = self._table = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = dict(attrs)
        self.links += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "poster", "srcset", "data", "action", "xlink:href")
        ]
        if values.get("id"):
            self._id = str(values["id"])
        if tag == "table":
            self._table = str(values.get("id", ""))
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("dd", "h1"):
            self._id = ""
        if tag == "table":
            self._table = ""

    def handle_data(self, data: str) -> None:
        if self._id:
            self.texts[self._id] = self.texts.get(self._id, "") + data
        if self._table and self.tables[self._table] and self.tables[self._table][-1]:
            self.tables[self._table][-1][-1] += data.strip()


def test_two_runs_write_the_same_json_except_timings(
    segmenter: Segmenter, drive: list[Sample], evaluation: Evaluation, folder: Path, tmp_path: Path
) -> None:
    write_report(
        evaluate(segmenter, drive, LABELS, about={"seed": 0, "data": "drive & co"}), tmp_path
    )
    first, second = (
        json.loads((each / "report.json").read_text(encoding="utf-8"))
        for each in (folder, tmp_path)
    )
    assert (
        set(first["timings"])
        == set(second.pop("timings"))
        == {"frames_ms", "latency_ms", "machine", "stages_ms"}
    )
    assert len(first.pop("timings")["frames_ms"]) == FRAMES
    assert json.dumps(first) == json.dumps(second)
    assert list(first) == sorted(first)


def test_the_json_has_the_evaluations_figures(evaluation: Evaluation, folder: Path) -> None:
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert content["scores"]["mean_iou"] == pytest.approx(evaluation.mean_iou, abs=1e-6)
    assert content["scores"]["boundary_f1"] == pytest.approx(evaluation.boundary_f1, abs=1e-6)
    assert content["scores"]["expected_calibration_error"] == pytest.approx(
        evaluation.calibration.error(), abs=1e-6
    )
    ious = [each["iou"] for each in content["classes"] if each["iou"] is not None]
    assert np.mean(ious) == pytest.approx(content["scores"]["mean_iou"], abs=1e-5)
    pixels = np.array(content["confusion"]["pixels"])
    assert np.trace(pixels) / pixels.sum() == pytest.approx(
        content["scores"]["pixel_accuracy"], abs=1e-6
    )
    assert sum(each["pixels"] for each in content["calibration"]) == pixels.sum()
    assert [each["name"] for each in content["frames"]] == [
        frame.name for frame in evaluation.frames
    ]
    assert sum(len(names) for names in content["groups"].values()) == len(ious)
    assert "4.5 pixels" not in content["definitions"]["boundary F1"]
    assert "1.5 pixels at 160×120" in content["definitions"]["boundary F1"]


def test_what_the_frames_say_nothing_about_is_null(
    segmenter: Segmenter, drive: list[Sample]
) -> None:
    content = report_content(evaluate(segmenter, drive[:1], CITYSCAPES))
    shown = {*np.unique(drive[0].label), *np.unique(segmenter.segment(drive[0].image).mask)}
    absent = next(label.name for label in CITYSCAPES if label.id not in shown)
    found = next(each for each in content["classes"] if each["name"] == absent)
    assert (
        found["iou"],
        found["precision"],
        found["boundary_f1"],
        found["group"],
        found["share"],
    ) == (None, None, None, None, 0)
    assert json.dumps(content, allow_nan=False)


def test_the_page_shows_the_figures_of_the_json(evaluation: Evaluation, folder: Path) -> None:
    content, page = (
        json.loads((folder / "report.json").read_text(encoding="utf-8")),
        Page(folder / "report.html"),
    )
    for name in (
        "mean_iou",
        "pixel_accuracy",
        "average_precision",
        "boundary_f1",
        "expected_calibration_error",
        "error_detection_auroc",
    ):
        assert page.texts[name] == f"{content['scores'][name]:.3f}", name
    for name in ("p50", "p95"):
        assert page.texts[name] == f"{content['timings']['latency_ms'][name]:.0f} ms"
    rows = {row[0]: row for row in page.tables["classes"]}
    for each in content["classes"]:
        if each["iou"] is not None:
            shown = [each["iou"], each["precision"], each["recall"], each["boundary_f1"]]
            assert rows[each["name"]][4:] == [
                "–" if value is None else f"{value:.3f}" for value in shown
            ]
    pixels, names = np.array(content["confusion"]["pixels"]), content["confusion"]["rows"]
    for row in page.tables["confusion"][1:]:
        own = pixels[names.index(row[0])]
        if own.sum():
            expected = [
                f"{share:.1f}" if share >= 0.05 else "0" if share else ""
                for share in 100 * own / own.sum()
            ]
            assert [text for text in row[1:] if text] == [text for text in expected if text]
    stages = [name.replace("_", " ") for name in evaluation.latency.stages()]
    assert [row[0] for row in page.tables["latency"][1:-1]] == stages
    assert (stages[0], stages[-1]) == ("preprocess", "postprocess")
    assert page.tables["groups"][-1][-1] == page.texts["average_precision"]
    worst = sorted(content["frames"], key=lambda frame: frame["mean_iou"])
    assert [row[0] for row in page.tables["worst"][1:]] == [frame["name"] for frame in worst]


def test_the_page_asks_no_network_for_anything_and_trusts_no_name(folder: Path) -> None:
    page = Page(folder / "report.html")
    assert all(link.startswith("data:") for link in page.links)
    assert "script" not in page.tags
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"@import|url\(|<link[^>]*stylesheet", text)
    assert re.findall(r'http-equiv="([^"]+)" content="([^;]+)', text) == [
        ("Content-Security-Policy", "default-src 'none'")
    ]
    assert "drive &amp; co" in text


def test_a_browser_shows_the_page_and_asks_for_nothing_else(
    chromium: Browser, folder: Path
) -> None:
    content, page = (
        json.loads((folder / "report.json").read_text(encoding="utf-8")),
        chromium.open(folder / "report.html"),
    )
    assert (
        page.run("return document.getElementById('mean_iou').innerText")
        == f"{content['scores']['mean_iou']:.3f}"
    )
    assert page.run("return Array.from(document.images).every(e => e.naturalWidth > 0)")
    assert page.run("return document.documentElement.scrollWidth <= innerWidth"), (
        "nothing sticks out"
    )
    assert page.requests() == [page.path.as_uri()]
    assert page.complaints() == []


def test_a_narrow_page_says_that_tables_scroll_and_every_chart_has_a_label(
    chromium: Browser, folder: Path, tmp_path: Path
) -> None:
    page = chromium.open(folder / "report.html")
    for width, hint in ((1240, "none"), (400, '"scroll sideways for more →"')):
        page.screenshot(tmp_path / "page.png", width)
        assert page.run("return document.documentElement.scrollWidth") <= width
        assert (
            page.run("return getComputedStyle(document.querySelector('.wide'), '::before').content")
            == hint
        )
    assert page.faint_texts() == []
    unlabelled = "svg:not([role=img][aria-label]):not([aria-hidden=true])"
    assert page.run("return document.querySelectorAll('svg').length") == 2
    assert page.run("return document.querySelectorAll(arguments[0]).length", unlabelled) == 0


def test_the_pictures_are_those_of_the_frames(evaluation: Evaluation, folder: Path) -> None:
    uris = [link for link in Page(folder / "report.html").links if link.startswith("data:image")]
    pictures = [
        cv2.imdecode(
            np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8), cv2.IMREAD_COLOR_RGB
        )
        for uri in uris
    ]
    assert len(pictures) == 4 * len(evaluation.shown) == 12
    for i, frame in enumerate(evaluation.shown):
        image, label, mask, differences = pictures[4 * i : 4 * i + 4]
        assert np.abs(image.astype(int) - frame.image).mean() < 10  # JPEG
        assert np.array_equal(label, colorize(frame.label))
        assert np.array_equal(mask, colorize(frame.mask))
        red = (differences[..., 0].astype(int) - differences[..., 1]) > 60
        wrong = (frame.label != frame.mask) & (frame.label != 255)
        assert (red == wrong).mean() > 0.95


class Painter:
    """Stands in for a model: its mask is one class, which the data set does not have."""

    name, provider, engine, precision = "painter", "cpu", "a painter", "fp32"
    labels = CITYSCAPES

    def segment(self, rgb: np.ndarray) -> Segmentation:
        mask = np.full(rgb.shape[:2], TRAIN_ID["truck"], np.uint8)
        return Segmentation(mask, np.ones(rgb.shape[:2], np.float32), {"paint": 1.0})


def test_the_legend_names_every_class_of_the_masks_and_labels_shown(
    drive: list[Sample], tmp_path: Path
) -> None:
    assert "truck" not in {label.name for label in LABELS}
    page = write_report(evaluate(Painter(), drive, LABELS), tmp_path).read_text(encoding="utf-8")
    legend = re.search(r'<div class="legend">(.*?)</div>', page, re.S)
    assert legend is not None
    named = set(re.findall(r"</span>([^<]+)</span>", legend[1]))
    ids = {label.id: label.name for label in LABELS}
    shown = {ids[i] for each in drive for i in np.unique(each.label) if i in ids}
    assert named == {"truck", *shown, "not labelled, or no class", "wrong, in the differences"}


def test_a_page_of_a_stream_says_that_no_frame_can_be_shown(
    segmenter: Segmenter, drive: list[Sample], tmp_path: Path
) -> None:
    page = write_report(evaluate(segmenter, iter(drive[:1]), LABELS), tmp_path)
    assert "none can be shown" in page.read_text(encoding="utf-8")


def test_an_unwritable_folder_is_an_error(evaluation: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the report into .*file"):
        write_report(evaluation, tmp_path / "file")


def run(*arguments: str) -> None:
    """Run `camseg evaluate`, letting its errors through."""
    parser = argparse.ArgumentParser()
    scoring.add_evaluate(parser)
    options = parser.parse_args(arguments)
    options.run(options)


@pytest.fixture
def camvid(tmp_path: Path, drive: list[Sample]) -> Path:
    """The drive in CamVid's layout."""
    ids = np.full(256, len(CAMVID_11_TRAIN_IDS), np.uint8)
    ids[list(CAMVID_11_TRAIN_IDS)] = range(len(CAMVID_11_TRAIN_IDS))
    for part in ("images", "labels"):
        (tmp_path / "camvid/val" / part).mkdir(parents=True)
    for i, each in enumerate(drive):
        cv2.imwrite(
            str(tmp_path / f"camvid/val/images/0001TP_{i:06}.png"),
            cv2.cvtColor(each.image, cv2.COLOR_RGB2BGR),
        )
        cv2.imwrite(str(tmp_path / f"camvid/val/labels/0001TP_{i:06}.png"), ids[each.label])
    return tmp_path / "camvid"


def test_classes_that_lower_the_mean_without_a_label_are_named(drive: list[Sample]) -> None:
    labels = cityscapes_labels([TRAIN_ID["road"], TRAIN_ID["train"], TRAIN_ID["bus"]])
    road = [Sample(each.image, each.label * 0 + TRAIN_ID["road"], each.name) for each in drive]

    class Startled:
        name = provider = engine = precision = "startled"
        labels: tuple[Label, ...] = ()

        def segment(self, rgb: np.ndarray) -> Segmentation:
            mask = np.full(rgb.shape[:2], TRAIN_ID["road"], np.uint8)
            mask[0, 0] = TRAIN_ID["bus"]
            return Segmentation(mask, np.ones(mask.shape, np.float32), {})

    Startled.labels = labels
    found = evaluate(Startled(), road, labels)  # type: ignore[arg-type]
    assert found.mean_iou == pytest.approx(0.5, abs=0.001)
    assert "counted as 0 in means, predicted but never labelled: bus" in score_table(found)
    ceiling = {"labelled_mean_iou": 0.9, "iou": {}}
    card = figures_text(Figures({"val": found}, 0.5, {2: 0.5}, 1, ceiling))
    labelled = found.confusion.labelled_mean_iou()
    assert f"mean IoU **{found.mean_iou:.3f}**" in card
    assert "predicted but never labelled count as 0: bus." in card
    assert f"figures can be compared: {labelled:.3f}; in fp32: 0.500" in card
    assert labelled > found.mean_iou


def test_the_command_prints_the_scores_and_where_the_report_is(
    camvid: Path, segmenter: Segmenter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = open_set("camvid", camvid)
    evaluation = evaluate(segmenter, found.samples, found.scored())
    run("--data", str(camvid), "--out", str(tmp_path / "out"))
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert re.search(
        rf"^mean +{evaluation.mean_iou:.3f} +{evaluation.average_precision:.3f} "
        rf"+{evaluation.boundary_f1:.3f}",
        printed.out,
        re.M,
    )
    road = next(each for each in evaluation.classes if each.label.name == "road")
    assert re.search(rf"^road +{road.iou:.3f} ", printed.out, re.M)
    assert re.search(
        r"^AP 0\.\d{3}: frequent 0\.\d{3}, common 0\.\d{3}, rare 0\.\d{3}$", printed.out, re.M
    )
    assert lines[-2].endswith(f"over {FRAMES} frames")
    assert lines[-1] == f"report: {tmp_path}/out/report.html and report.json beside it"
    assert printed.err.splitlines()[-1] == f"{FRAMES}/{FRAMES} frames, about 0 s left"
    content = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    assert content["about"] == {
        "checkpoint": "camseg-lite",
        "data": "camvid/val",
        "eta": 0.0,
        "frames": FRAMES,
        "order": "random",
        "passes": 1,
        "sampler": "one_step",
        "samples": 1,
        "seed": 0,
        "steps": 1,
        "temperature": "the model's own",
        "threads": 0,
    }


def test_the_command_can_stop_early(
    camvid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(
        "--data",
        str(camvid),
        "--out",
        str(tmp_path / "out"),
        "--frames",
        "2",
        "--sampler",
        "ddim",
        "--steps",
        "3",
        "--seed",
        "5",
    )
    assert "over 2 frames" in capsys.readouterr().out
    about = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))["about"]
    assert (about["frames"], about["sampler"], about["steps"], about["seed"]) == (2, "ddim", 3, 5)


def test_the_commands_errors_are_one_clear_line(camvid: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(checkpoint_folder("camseg-lite"), model, ignore=shutil.ignore_patterns("onnx"))
    cases: list[tuple[list[str], type[CamSegError], str]] = [
        (["--data", str(tmp_path / "nowhere")], DataError, "nowhere"),
        (["--data", str(camvid), "--split", "test"], DataError, "test"),
        (
            ["--data", str(camvid), "--model", str(model)],
            ModelError,
            r"missing .*image_encoder\.onnx.*not exported",
        ),
    ]
    for arguments, kind, message in cases:
        with pytest.raises(kind, match=message) as raised:
            run(*arguments)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("package", ["rich", "jinja2"])
def test_a_missing_package_is_an_error_before_any_work(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [
        name
        for name in sys.modules
        if name.split(".")[0] == package
        or name.startswith(("camseg_core.evaluation.", "camseg_core.long_runs"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"needs {package}.*pip install '.\[evaluate\]'"):
        run("--data", str(tmp_path))


def test_declaring_the_command_imports_nothing_heavy() -> None:
    program = "import sys, camseg_core.cli.scoring; sys.stdout.write(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert not {"torch", "rich", "jinja2", "matplotlib", "yaml"} & set(done.stdout.split())
