"""The parts of the demo without a node: folder, counts, page, video, command line."""

import base64
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from browser import Browser

from camseg_core.errors import ConfigError
from camseg_core.evaluation.report.charts import latency_chart, tick_step
from camseg_ros.bag.read import BagImage
from camseg_ros.demo.output import DemoFolder, DemoReport, write_page, write_video
from camseg_ros.demo.replay import Answer, DemoCounts

WIDTH, HEIGHT = 40, 30
RGB = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)


def result(
    index: int,
    mask_id: int | None = 0,
    latency_s: float = 0.05,
    problem: str | None = None,
    rgb: npt.NDArray[np.uint8] | None = RGB,
) -> Answer:
    """Return an answer whose mask is half road, half `mask_id`; a lost frame if that is None."""
    image = BagImage(
        index, index, index, "camera", SimpleNamespace(width=WIDTH, height=HEIGHT), b""
    )
    if mask_id is None:
        return Answer(image, problem=problem or "no mask within 2 s", rgb=rgb)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, WIDTH // 2 :] = mask_id
    return Answer(image, latency_s, mask, RGB, problem, rgb)


def tally_of(*results: Answer) -> DemoCounts:
    tally = DemoCounts(show={0, 1})
    for each in results:
        tally.add(each)
    return tally


def report(tally: DemoCounts, failures: list[str], last_lines: str = "") -> DemoReport:
    return DemoReport(
        source="drive <1> & more",
        synthetic=False,
        tally=tally,
        failures=failures,
        seconds=2.0,
        peak_memory_bytes=300 << 20,
        video="overlay.mp4",
        overlays="overlays",
        bag="bag",
        again="make demo",
        machine={"Processor": "one"},
        node={"/segmentation": {"frames dropped": "0"}},
        last_lines=last_lines,
    )


class Links(HTMLParser):
    """Collects everything that a page may request."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "poster", "srcset", "data")
        ]


def test_counts_shares_and_percentiles() -> None:
    tally = tally_of(
        result(0, 10, 0.010),
        result(1, 10, 0.020),
        result(2, 13, 0.030),
        result(3, None),
        result(4, None, problem="the message is cut short", rgb=None),
    )
    assert (tally.sent, tally.answered, tally.lost, len(tally.unreadable)) == (5, 3, 1, 1)
    assert tally.unreadable == ["frame 4: the message is cut short"]
    assert tally.percentile_ms(50) == pytest.approx(20)
    assert tally.problems == ["frame 3: no mask within 2 s"]
    assert {each.name: (round(each.share, 4), each.frames) for each in tally.classes()} == {
        "road": (0.5, 3),
        "sky": (0.3333, 2),
        "car": (0.1667, 1),
    }
    assert [each.index for each in tally.shown] == [0, 1]
    png = base64.b64decode(tally.shown[0].mask.removeprefix("data:image/png;base64,"))
    shown = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    assert tuple(shown[5, WIDTH - 1][::-1]) == (70, 130, 180), "sky in its colour, exactly"


def test_the_page_holds_everything_and_requests_nothing(tmp_path: Path) -> None:
    tally = tally_of(
        result(0, 10),
        result(1, None),
        result(2, 255, problem="the mask is 1x1"),
    )
    page = tmp_path / "index.html"
    write_page(report(tally, ["frame 1: <lost>"], "last words"), page)
    text = page.read_text(encoding="utf-8")
    links = Links(page).links
    assert not [link for link in links if re.match(r"[a-z]+://|//|/", link)], (
        "everything is inside or beside the page"
    )
    assert {link for link in links if not link.startswith("data:")} == {"overlay.mp4", "overlays/"}
    assert len([link for link in links if link.startswith("data:image/")]) == 3
    assert "drive &lt;1&gt; &amp; more" in text
    assert "frame 1: &lt;lost&gt;" in text
    for expected in (
        "last words",
        "road",
        "sky",
        "unlabelled",
        "frames dropped",
        "p95 50 ms",
        ">failed<",
        'class="lost"',
    ):
        assert expected in text, expected


def test_a_browser_shows_the_page_and_requests_only_the_video_beside_it(
    chromium: Browser, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "overlay.png"), RGB)
    assert write_video([tmp_path / "overlay.png"] * 4, tmp_path / "overlay.mp4", 10.0)
    write_page(report(tally_of(result(0, 10), result(1, 13)), []), tmp_path / "index.html")
    page = chromium.open(tmp_path / "index.html")
    assert page.run("return document.getElementById('verdict').innerText") == "all frames answered"
    assert page.run("return Array.from(document.images, e => e.naturalWidth)") == [WIDTH] * 6
    assert set(page.requests()) == {page.path.as_uri(), (tmp_path / "overlay.mp4").as_uri()}
    assert page.complaints() == []
    assert page.faint_texts() == []


def test_the_page_of_a_node_that_never_answered(tmp_path: Path) -> None:
    write_page(report(tally_of(), ["the node ended"]), tmp_path / "index.html")
    assert "the node ended" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_the_chart_leaves_a_gap_where_a_frame_was_lost() -> None:
    chart = latency_chart([10.0, 20.0, None, 30.0], 20.0, 30.0)
    (line,) = (each.path for each in chart.shapes if each.css == "line")
    assert [1 + run.count("L") for run in line.split("M")[1:]] == [2, 1]
    assert [each.text for each in chart.shapes if each.css == "lost"] == ["frame 2: no mask"]
    assert [text for _, text in chart.y_ticks] == ["0", "10", "20", "30", "40"]
    assert [text for *_, text in chart.notes] == ["p95 30 ms", "p50 20 ms"]
    same = latency_chart([10.0], 10.0, 10.0)
    assert same.notes[1][1] - same.notes[0][1] >= 12, (
        "labels of equal values do not cover each other"
    )


@pytest.mark.parametrize(
    ("largest", "step"), [(0.004, 0.001), (4, 1), (10, 2), (27, 5), (100, 20), (260, 50), (101, 20)]
)
def test_round_steps(largest: float, step: float) -> None:
    assert tick_step(largest) == pytest.approx(step)


def test_a_video_that_reads_back(tmp_path: Path) -> None:
    pictures = [tmp_path / f"{i}.png" for i in range(4)]
    for i, path in enumerate(pictures):
        cv2.imwrite(
            str(path), np.full((31, 45, 3), 60 * i, np.uint8)
        )  # odd sizes, which codecs do not take
    pictures.insert(2, tmp_path / "removed.png")
    assert write_video(pictures, tmp_path / "v.mp4", 10.0)
    capture = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    means = []
    while (read := capture.read())[0]:
        means.append(float(read[1].mean()))
    assert len(means) == 4
    assert np.allclose(means, [0, 60, 120, 180], atol=8)
    assert not write_video([], tmp_path / "none.mp4", 10.0)


def test_only_the_demos_own_files_are_replaced(tmp_path: Path) -> None:
    folder = DemoFolder(tmp_path / "out")
    folder.prepare(None)
    ours = [folder.page, folder.video, folder.summary, folder.overlay(3), folder.log / "node.log"]
    others = [folder.path / "notes.txt", folder.overlays / "mine.jpg"]
    for path in (*ours, *others):
        path.write_text("x")
    folder.bag.mkdir()
    (folder.bag / "bag.mcap").touch()
    folder.prepare(tmp_path)
    assert not [path for path in (*ours, folder.bag) if path.exists()]
    assert all(path.exists() for path in others)


def test_a_folder_that_is_not_the_demos_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(
        ConfigError, match="holds files that are not the demo's; name another folder"
    ):
        DemoFolder(tmp_path).prepare(None)
    with pytest.raises(ConfigError, match=r"thesis\.txt is a file; name a folder"):
        DemoFolder(tmp_path / "thesis.txt").prepare(None)
    own = DemoFolder(tmp_path / "out")
    own.prepare(None)
    with pytest.raises(
        ConfigError, match=r"bag lies in .*out, which this run replaces; copy it elsewhere"
    ):
        own.prepare(own.bag)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["--source", "nowhere"],
            "nowhere does not exist; name a bag, a video or a folder of images",
        ),
        (["--source", "empty"], "no images"),
        (["--source", "bad.mcap"], "cannot read the bag bad.mcap"),
        (["--source", "bad.mp4"], "bad.mp4 cannot be read as a video"),
        (["--frames", "0"], "frames must be >= 1, got 0"),
        (["--fps", "0"], "fps must be a number > 0, got 0.0"),
        (
            ["--topic", "/x"],
            "a topic (/x) needs a bag, got the synthetic drive; leave it out",
        ),
    ],
)
def test_bad_options_are_reported_in_one_line(
    tmp_path: Path, arguments: list[str], text: str
) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("bad.mcap", "bad.mp4"):
        (tmp_path / name).write_text("nothing")
    done = subprocess.run(
        [sys.executable, "-m", "camseg_ros.demo", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("demo: ")
    assert text in done.stderr
    assert not (tmp_path / "out" / "demo" / "index.html").exists()


def test_a_bad_source_keeps_the_last_results(tmp_path: Path) -> None:
    folder = DemoFolder(tmp_path / "out" / "demo")
    folder.prepare(None)
    folder.summary.write_text(json.dumps({}))
    subprocess.run(
        [sys.executable, "-m", "camseg_ros.demo", "--source", "nowhere"],
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
    )
    assert folder.summary.exists()
