"""The figures over time: how many frames become few bins, and what the charts make of them."""

import math

import pytest

from camseg_core.evaluation.report.charts import Chart, Shape, elapsed, ticks
from camseg_core.evaluation.report.timeline import (
    OVER_FRAMES,
    FrameAxis,
    Timeline,
    frames_chart,
    presence,
)


def frame(index: int, **figures: object) -> dict[str, object]:
    return {"index": index, "stamp_ns": index * 10**9, **figures}


def shapes(chart: Chart, css: str) -> list[Shape]:
    return [each for each in chart.shapes if each.css == css]


def test_many_frames_become_few_bins_that_lose_no_value() -> None:
    timeline = Timeline(["road"], max_bins=8)
    values = [(7 * i) % 101 / 100 for i in range(1003)]
    for i, value in enumerate(values):
        timeline.add(frame(i, miou=value, share={"road": value, "not a class": 1.0}))
    assert 5 <= len(timeline.bins) <= 8
    assert (timeline.frames, timeline.frames_in_bin) == (1003, 128)
    at = 0
    for each, spread in zip(timeline.bins, timeline.series("miou"), strict=True):
        own = values[at : at + 128]
        assert spread is not None
        assert (each.first, each.last, each.stamp_ns) == (at, at + len(own) - 1, at * 10**9)
        assert (spread.count, spread.low, spread.high) == (len(own), min(own), max(own))
        assert spread.mean == pytest.approx(sum(own) / len(own))
        at += len(own)
    assert at == 1003
    assert timeline.total("share", "not a class") is None
    present = timeline.total("present", "road")
    assert present is not None
    assert present.total == sum(value > 0 for value in values)


def test_what_a_frame_does_not_say_is_a_gap_and_a_lone_value_a_dot() -> None:
    timeline = Timeline()
    for i, value in enumerate([0.5, 0.6, None, 0.7, math.nan]):
        timeline.add(frame(i, miou=value))
    drawn = frames_chart(timeline, "miou", "Mean IoU", str, top=1)
    assert drawn is not None
    (line,) = shapes(drawn, "line")
    assert line.path.count("M") == 2
    assert line.path.count("h0") == 1
    assert shapes(drawn, "band") == [], "single frames have no band"
    hovers = [each.text for each in shapes(drawn, "hover")]
    assert hovers == ["frame 0: 0.5", "frame 1: 0.6", "frame 3: 0.7"]
    assert [tick.texts for tick in drawn.x_ticks] == [(str(i), f"{i}.0 s") for i in range(5)]
    assert frames_chart(timeline, "latency_ms", "Latency", str) is None


def test_one_slow_frame_does_not_flatten_the_chart() -> None:
    timeline = Timeline()
    for i in range(100):
        timeline.add(frame(i, latency_ms=2000.0 if i == 0 else 40.0))
    drawn = frames_chart(timeline, "latency_ms", "Latency", str, usual=40.0)
    assert drawn is not None
    assert drawn.cut == 2000
    assert drawn.y_ticks[-1] == (OVER_FRAMES.top, "80")
    whole = frames_chart(timeline, "latency_ms", "Latency", str)
    assert whole is not None
    assert (whole.cut, whole.y_ticks[-1][1]) == (None, "2000")


def test_a_lone_frame_and_none_at_all() -> None:
    timeline = Timeline(["road"])
    assert FrameAxis(timeline.bins, OVER_FRAMES).ticks() == []
    assert frames_chart(timeline, "miou", "Mean IoU", str, top=1) is None
    timeline.add(frame(7, miou=0.5, share={"road": 0.0}))
    assert [tick.texts[0] for tick in FrameAxis(timeline.bins, OVER_FRAMES).ticks()] == ["7"]
    assert presence(timeline, "road") == ("", "")


def test_a_class_that_comes_and_goes() -> None:
    timeline = Timeline(["car"])
    for i, share in enumerate([0.1, 0.0, 0.2, None]):
        timeline.add(frame(i, share={} if share is None else {"car": share}))
    total = timeline.total("share", "car")
    assert total is not None
    assert total.mean == pytest.approx(0.075), "a frame that does not list the class has none of it"
    area, line = presence(timeline, "car")
    assert area.count("Z") == line.count("M") == 2


def test_times_and_ticks() -> None:
    assert [elapsed(each) for each in (0, 99.94, 125, 3725, -130)] == [
        "0.0 s",
        "99.9 s",
        "2:05 min",
        "1:02:05 h",
        "−2:10 min",
    ]
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(90, 210) == [100, 150, 200]
