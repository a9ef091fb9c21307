"""Holds what a replay measured against a scenario's limits."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from camseg_core.errors import ConfigError
from camseg_ros.bag.input import Stretch
from camseg_ros.bag.replay_report import latency_ms, not_kept
from camseg_ros.bag.scenario import DROPS, P95_MS, Scenario
from camseg_ros.bag.session import Measured


def read_limits(path: Path) -> tuple[Stretch, Callable[[Measured], list[str]]]:
    """The stretch of the bag that a scenario is for, and what tells its limits that a measurement does not keep, a line each.

    Limits on the masks themselves are for `camseg bag evaluate`, so that one file serves both.

    Raises:
        ConfigError: the file cannot be read, or has no limit that a replay can judge.
    """
    scenario = replace(Scenario.read(path), min_miou=None, min_iou={})
    if scenario.max_p95_ms is None and scenario.max_drops is None:
        raise ConfigError(f"{path} has no limit that a replay can judge; give max_p95_ms or max_drops, or use `camseg bag evaluate`")

    def check(measured: Measured) -> list[str]:
        played = measured.played
        found: dict[str, float] = {DROPS: played.sent - played.answered} if played.sent else {}
        if latency := latency_ms(played):
            found[P95_MS] = latency["p95"]
        failures = scenario.check(found, {})
        return failures if played.kept else [*failures, not_kept(played)]

    return Stretch(scenario.start_s, scenario.end_s), check
