"""Scenarios: read strictly, checked limit by limit."""

from pathlib import Path

import pytest

from camseg_core.errors import ConfigError
from camseg_ros.bag.scenario import DROPS, MIOU, P95_MS, Scenario

MEASURED = {MIOU: 0.6, P95_MS: 40.0, DROPS: 2}
CLASSES = {"road": 0.9, "car": 0.5, "person": float("nan")}


def read(folder: Path, text: str) -> Scenario:
    path = folder / "scenario.yaml"
    path.write_text(text)
    return Scenario.read(path)


def test_every_entry_is_read_and_may_be_left_out(tmp_path: Path) -> None:
    text = (
        "start_s: 1\nend_s: 2.5\nmin_miou: 0.5\nmin_iou: {road: 0.9, car: 0.4}\n"
        "max_p95_ms: 50\nmax_drops: 3\n"
    )
    scenario = read(tmp_path, text)
    assert scenario == Scenario(1.0, 2.5, 0.5, {"road": 0.9, "car": 0.4}, 50.0, 3)
    assert scenario.check(MEASURED, CLASSES) == []
    assert read(tmp_path, "# nothing\n") == Scenario()
    assert Scenario().check({}, {}) == []


def test_each_failed_limit_has_its_line() -> None:
    scenario = Scenario(
        min_miou=0.7, min_iou={"road": 0.9, "car": 0.6}, max_p95_ms=39.5, max_drops=1
    )
    assert scenario.check(MEASURED, CLASSES) == [
        "min_miou: 0.6 is below the limit of 0.7",
        "max_p95_ms: 40 is above the limit of 39.5",
        "max_drops: 2 is above the limit of 1",
        "min_iou of car: 0.5 is below the limit of 0.6",
    ]


def test_an_unmeasured_metric_fails_its_limit() -> None:
    scenario = Scenario(min_miou=0.1, min_iou={"person": 0.1}, max_drops=0)
    assert scenario.check({DROPS: 0}, CLASSES) == [
        "min_miou: nothing was measured, the limit is 0.1",
        "min_iou of person: nothing was measured, the limit is 0.1",
    ]
    assert Scenario(min_iou={"road": 0.1}).check({}, {}) == [
        "min_iou of road: nothing was measured, the limit is 0.1"
    ]


def test_an_unknown_class_is_reported_with_the_closest_one() -> None:
    with pytest.raises(
        ConfigError,
        match=r"unknown class 'raod': did you mean 'road'\? choose from road, car, person",
    ):
        Scenario(min_iou={"raod": 0.1}).check(MEASURED, CLASSES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("min_mIoU: 0.5", r"scenario\.yaml: unknown entries min_mIoU: did you mean min_miou\?"),
        ("max_p95: 1", r"unknown entries max_p95: did you mean max_p95_ms\?"),
        ("min_miou: 55", r"min_miou must be in 0\.\.1, got 55\.0"),
        ("min_miou: high", r"min_miou must be of type float, got 'high'"),
        ("min_iou: [road]", r"min_iou must be values by name, got \['road'\]"),
        ("min_iou: {road: 2}", r"min_iou\.road must be in 0\.\.1, got 2\.0"),
        ("min_iou: {road: yes}", r"min_iou\.road must be of type float, got True"),
        ("max_drops: -1", r"max_drops must be >= 0, got -1"),
        ("max_drops: 0.5", r"max_drops must be of type int, got 0\.5"),
        ("start_s: 5\nend_s: 5", r"end_s must be > start_s \(5\.0\), got 5\.0"),
        ("a: [", r"is not a configuration in YAML"),
    ],
)
def test_a_wrong_scenario_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*none\.yaml"):
        Scenario.read(tmp_path / "none.yaml")
