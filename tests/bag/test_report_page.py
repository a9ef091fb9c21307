"""The page of an evaluated bag, opened in a real browser and held against `report.json`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bag_report import HOSTILE, evaluated, long
from browser import Browser, Page

from camseg_core.errors import DataError
from camseg_ros.bag.report_page import write_page

Report = tuple[Path, dict[str, Any], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The page of a drive with every section, the content of its `report.json`, and the frames."""
    content, frames, worst = evaluated()
    path = tmp_path_factory.mktemp("bag report") / "report.html"
    path.with_suffix(".json").write_text(json.dumps(content), encoding="utf-8")
    write_page(path, content, iter(frames), worst)
    return path, json.loads(path.with_suffix(".json").read_text(encoding="utf-8")), frames


@pytest.fixture(scope="module", params=["made up", "evaluated"])
def report(
    request: pytest.FixtureRequest, made_up: Report, tmp_path_factory: pytest.TempPathFactory
) -> Report:
    """The same, and those of a bag that was evaluated."""
    return (
        made_up
        if request.param == "made up"
        else evaluate_drive(tmp_path_factory.mktemp("bag") / "report.html")
    )


def evaluate_drive(path: Path) -> Report:
    """What `camseg bag evaluate` leaves for a bag that `camseg bag make` made."""
    folder = path.parent
    drive = ["--synthetic", "--frames", "6"]
    for command in (
        ["make", "drive", *drive],
        [
            "evaluate",
            "drive",
            "--labels",
            "/camera/labels",
            "--compare",
            "camseg-lite",
            "--out",
            ".",
        ],
    ):
        subprocess.run(
            [sys.executable, "-m", "camseg_core.cli", "bag", *command],
            cwd=folder,
            check=True,
            capture_output=True,
        )
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    frames, times = (
        [
            json.loads(line)
            for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        for name in ("frames", "timings")
    )
    return (
        path,
        content,
        [
            {**frame, "latency_ms": time["latency_ms"]}
            for frame, time in zip(frames, times, strict=True)
        ],
    )


def opened(chromium: Browser, path: Path, **changes: Any) -> Page:
    """A page of an unlabelled drive with such changes to its report."""
    content, frames, worst = evaluated(3, labels=False)
    write_page(path, content | changes, frames, worst)
    return checked(chromium.open(path))


def checked(page: Page) -> Page:
    """The page, if its texts can be read, and the browser asked for and complained of nothing."""
    assert page.requests() == [page.path.as_uri()]
    assert page.complaints() == []
    assert page.faint_texts() == []
    assert (
        page.run(
            "return document.scripts.length"
            " + document.querySelectorAll('iframe, object, embed, form').length"
        )
        == 0
    )
    return page


def score(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def share(value: float | None) -> str:
    return "–" if value is None else "< 0.1 %" if 0 < value < 0.0005 else f"{100 * value:.1f} %"


def by(page: Page, metric: str, key: str) -> dict[str, str]:
    return {each[key]: each["text"] for each in page.figures(metric)}


def test_the_pages_figures_are_those_of_the_json(chromium: Browser, report: Report) -> None:
    path, content, frames = report
    page = checked(chromium.open(path))
    for name, value in content["scores"].items():
        assert page.figure(name) == score(value), name
    assert page.figure("confidence.mean") == score(content["confidence"]["mean"])
    assert page.figure("confidence.p05") == score(content["confidence"]["p05"])
    assert page.figure("frames") == str(len(frames))
    for name in ("p50", "p95"):
        assert page.figure(f"latency_ms.{name}") == score(content["timings"]["latency_ms"][name], 1)
    stages = content["timings"]["stages_ms"]
    medians = {name: ms["p50"] if isinstance(ms, dict) else ms for name, ms in stages.items()}
    assert by(page, "stage_ms.p50", "stage") == {name: score(ms, 1) for name, ms in medians.items()}
    assert by(page, "stage_ms.p95", "stage") == {
        name: score(ms["p95"], 1) for name, ms in stages.items() if isinstance(ms, dict)
    }
    assert (
        page.figure("flicker.with_truth")
        == page.figure("flicker")
        == share(content["flicker"]["with_truth"])
    )
    assert page.figure("flicker.change_rate") == share(content["flicker"]["change_rate"])
    assert (
        page.figure("compare.agreement")
        == page.figure("agreement")
        == share(content["compare"]["agreement"])
    )
    compared = {
        each["name"]: share(each["agreement"])
        for each in content["compare"]["classes"]
        if each["agreement"] is not None
    }
    assert by(page, "compare.class", "class") == compared
    assert page.figure("read_share") == share(content["timings"]["read_share"])
    seen = [each for each in content["classes"] if each["truth_share"] or each["predicted_share"]]
    for name, text in (
        ("iou", score),
        ("precision", score),
        ("recall", score),
        ("truth_share", share),
        ("predicted_share", share),
    ):
        assert by(page, f"class.{name}", "class") == {
            each["name"]: text(each[name]) for each in seen
        }, name


def test_the_confusion_matrix_is_that_of_the_json(chromium: Browser, report: Report) -> None:
    path, content, _ = report
    shown = {
        (each["row"], each["column"]): each["text"]
        for each in chromium.open(path).figures("confusion")
    }
    names, pixels = content["confusion"]["names"], np.array(content["confusion"]["matrix"])
    seen = [i for i in range(len(names)) if pixels[i].any() or pixels[:, i].any()]
    expected = {}
    for i in seen:
        for j in seen:
            if pixels[i].any():
                part = 100 * pixels[i, j] / pixels[i].sum()
                expected[names[i], names[j]] = (
                    f"{part:.1f}" if part >= 0.05 else "0" if part else ""
                )
    assert shown == expected


def test_the_figures_over_time_are_those_of_the_frames(chromium: Browser, report: Report) -> None:
    path, content, frames = report
    page = chromium.open(path)
    page.run("document.querySelector('details').open = true")
    for name, text in (
        ("miou", score),
        ("confidence", score),
        ("changed", share),
        ("latency_ms", lambda ms: score(ms, 1)),
    ):
        expected = {
            str(frame["index"]): text(frame[name]) for frame in frames if frame[name] is not None
        }
        assert by(page, f"series.{name}", "frame") == expected, name
        assert page.run(
            "return document.querySelectorAll(`#chart-${arguments[0]} .hover`).length", name
        ) == len(expected)
    assert page.run("return document.querySelectorAll('#chart-miou .mark').length") == len(
        content["worst"]
    )
    assert by(page, "worst.miou", "frame") == {
        str(i): score(frames[i]["miou"]) for i in content["worst"]
    }
    present = by(page, "presence.frames", "class")
    assert present == {
        name: str(sum(name in frame["share"] for frame in frames)) for name in present
    }
    assert set(present) == {name for frame in frames for name in frame["share"]}


def test_the_worst_frames_are_shown_whole(chromium: Browser, report: Report) -> None:
    path, content, _ = report
    page = chromium.open(path)
    shown = page.run(
        "return Array.from(document.querySelectorAll('#worst img'),"
        " e => [e.alt, e.naturalWidth, e.naturalHeight])"
    )
    kinds = ("image", "truth", "mask", "confidence")
    sizes = {(width, height) for _, width, height in shown}
    assert sizes in ({(320, 240)}, {(480, 360)})
    assert [alt for alt, *_ in shown] == [
        f"{kind} of frame {i}" for i in content["worst"] for kind in kinds
    ]


def test_no_name_becomes_markup(chromium: Browser, made_up: Report) -> None:
    page = chromium.open(made_up[0])
    assert page.run("return document.querySelectorAll('main b').length") == 0
    assert page.run("return document.querySelector('header bdi').textContent") == HOSTILE
    assert (
        page.run("return document.querySelector('#worst bdi:last-of-type').textContent") == HOSTILE
    )


def test_the_policy_stops_what_gets_past_the_escaping(chromium: Browser, tmp_path: Path) -> None:
    page = opened(chromium, tmp_path / "report.html")
    page.run(
        "document.querySelector('footer').innerHTML = '<img src=\"http://localhost:9/x.png\">'"
    )
    assert page.run("return document.querySelector('footer img').naturalWidth") == 0
    assert any("Content Security Policy" in each for each in page.complaints())


def test_a_recording_without_labels(chromium: Browser, tmp_path: Path) -> None:
    page = opened(chromium, tmp_path / "report.html")
    assert (
        page.figures("miou")
        == page.figures("class.iou")
        == page.figures("confusion")
        == page.figures("flicker.with_truth")
        == []
    )
    assert page.figures("class.predicted_share")
    assert page.figures("compare.class")
    assert page.run("return document.getElementById('unlabelled') !== null")
    assert page.run("return document.querySelectorAll('#worst img').length") == 6


def test_a_damaged_recording_and_a_failed_scenario(chromium: Browser, tmp_path: Path) -> None:
    bag = evaluated(3, labels=False)[0]["bag"] | {"damage": f"cut off at {HOSTILE}"}
    page = opened(
        chromium,
        tmp_path / "report.html",
        bag=bag,
        scenario={"passed": False, "failures": ["too unsure", HOSTILE]},
    )
    assert page.figure("scenario") == "scenario failed"
    assert page.run(
        "return Array.from(document.querySelectorAll('#failures li'), e => e.textContent)"
    ) == ["too unsure", HOSTILE]
    assert f"cut off at {HOSTILE}" in page.run(
        "return document.getElementById('damage').textContent"
    )


def test_nothing_to_compare_nothing_shown_nothing_measured(
    chromium: Browser, tmp_path: Path
) -> None:
    content, _, _ = evaluated(1, labels=False)
    nothing = {
        "compare": None,
        "scenario": None,
        "worst": [],
        "timings": {"latency_ms": {}, "stages_ms": {}},
    }
    write_page(tmp_path / "report.html", content | nothing, [], [])
    page = checked(chromium.open(tmp_path / "report.html"))
    assert (
        page.figures("compare.agreement")
        == page.figures("scenario")
        == page.figures("latency_ms.p50")
        == []
    )
    assert "No frame was read" in page.run("return document.getElementById('time').textContent")
    assert "None is shown" in page.run("return document.getElementById('worst').textContent")


def test_a_long_recording_makes_no_larger_page(chromium: Browser, tmp_path: Path) -> None:
    content, _, _ = evaluated(2)
    write_page(tmp_path / "report.html", content, long(20_000), [])
    assert (tmp_path / "report.html").stat().st_size < 700_000
    page = checked(chromium.open(tmp_path / "report.html"))
    assert (
        200
        <= page.run("return document.querySelectorAll('#chart-confidence .hover').length")
        <= 500
    )
    assert page.run("return document.querySelector('#chart-confidence .band') !== null")
    assert by(page, "presence.frames", "class")["road"] == "20000"


@pytest.mark.parametrize("dark", [False, True])
def test_it_can_be_read_by_day_and_by_night(
    chromium: Browser, report: Report, tmp_path: Path, dark: bool
) -> None:
    page = chromium.open(report[0])
    page.show_dark(dark)
    page.screenshot(tmp_path / "page.png")
    page.show_dark(False)
    picture = cv2.imread(str(tmp_path / "page.png"))
    assert picture is not None
    assert (np.median(picture) < 80) == dark
    assert page.run("return document.documentElement.scrollWidth <= innerWidth"), (
        "nothing sticks out"
    )


def test_names_that_are_no_text_do_not_cost_the_report(tmp_path: Path) -> None:
    content, frames, worst = evaluated(1)
    content["bag"]["paths"] = ["drive\udcff.mcap"]
    write_page(tmp_path / "report.html", content, frames, worst)
    assert r"drive\udcff.mcap" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_an_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    content, frames, worst = evaluated(1)
    with pytest.raises(DataError, match=r"cannot write .*nowhere.*choose a folder"):
        write_page(tmp_path / "nowhere/report.html", content, frames, worst)
