"""The page of a replay shows its figures, fits narrow screens, and asks for nothing else."""

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import browser
import pytest

from camseg_ros.bag.replay_page import MAX_DOTS, write_replay_page
from camseg_ros.demo import __main__ as demo
from camseg_ros.demo.output import DemoFolder

FAILED = "scenario: max_p95_ms: 82.3 is above the limit of 80"
PATH = "/drive/2026-11-02 <b>\udcff"


def measured(rate_hz: float, answered: int) -> dict[str, Any]:
    """Return a measurement of a replay as the JSON has it."""
    latency = {"p50": 60.1, "p95": 82.3, "p99": 99.0, "mean": 61.0, "max": 120.5}
    rate = {"requested_hz": rate_hz, "asked_hz": rate_hz, "achieved_hz": rate_hz - 0.02}
    return {
        "rate": rate,
        "latency_ms": latency,
        "frames": {"sent": 310, "answered": answered, "lost": 310 - answered},
        "drops": {"newer frame": 310 - answered},
        "cpu_percent": 163.2,
        "rss_mb": {"peak": 402.1, "mean": 380.0},
    }


def result(**changes: Any) -> dict[str, Any]:
    """Return the result of a replay as the JSON has it."""
    path = {"paths": [PATH], "frames": 310, "size": [640, 480], "topic": "/camera/image_raw"}
    trials = [
        {**measured(20.0, 305), "verdict": "passed"},
        {**measured(40.0, 90), "verdict": "dropped"},
    ]
    return {
        "input": path,
        "machine": {"Processor": "x" * 80},
        "versions": {"numpy": "2"},
        "parameters": {"model": "camseg-lite"},
        "options": {"running": False, "seconds": None},
        **measured(20.0, 300),
        "max_rate": {"rate_hz": 18.3, "limited_by": "the node", "confirmed": True},
        "trials": trials,
        "interrupted": False,
        **changes,
    }


def test_a_browser_shows_the_replay_on_wide_and_narrow_screens(
    tmp_path: Path, chromium: browser.Browser
) -> None:
    path = tmp_path / "replay.html"
    frames = {"sent": 3010, "answered": 3000, "lost": 10}
    write_replay_page(path, result(frames=frames), [0.06] * 3 * MAX_DOTS, [FAILED], ["a warning"])
    page = chromium.open(path)
    assert page.faint_texts() == []
    for width in (1240, 400):
        page.screenshot(tmp_path / "page.png", width)
        assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    text = page.run("return document.body.innerText")
    for shown in (
        PATH.replace("\udcff", r"\udcff"),
        "310 images of 640×480 on /camera/image_raw",
        "18.3 Hz",
        "3000 / 3010",
        "120.5 ms",
        "163 % of a core",
        f"{MAX_DOTS} of 3000 masks, evenly spread",
        FAILED,
        "a warning",
        "newer frame",
        "dropped",
        "camseg-lite",
        "latency p95",
    ):
        assert shown in text, shown
    unlabelled = "svg:not([role=img][aria-label]):not([aria-hidden=true])"
    assert page.run("return document.querySelectorAll(arguments[0]).length", unlabelled) == 0
    assert page.run("return document.querySelectorAll('#latency circle').length") == MAX_DOTS
    assert [each for each in page.requests() if not each.endswith("replay.html")] == []
    assert page.complaints() == []


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_replay_without_a_measurement_has_a_page(tmp_path: Path, interrupted: bool) -> None:
    nothing = dict.fromkeys(("rate", "latency_ms", "frames", "drops", "cpu_percent", "rss_mb"))
    content = result(**nothing, max_rate=None, trials=[], parameters=None, interrupted=interrupted)
    write_replay_page(tmp_path / "page.html", content, [], [], [])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert ("interrupted</span>" in text) == interrupted
    assert "<svg" not in text


@pytest.mark.parametrize("source", ["/bag", "/data/bag", "drives/bag"])
def test_the_demo_shows_the_source_as_it_was_named(source: str, tmp_path: Path) -> None:
    options = Namespace(source=Path(source), topic=None, frames=None, out=tmp_path, fps=10.0)
    bag: Any = SimpleNamespace(count=3)
    report = demo._empty_report(options, DemoFolder(tmp_path), bag, 3)
    assert report.source == source
