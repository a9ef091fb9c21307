"""Reports what a replay measured, as JSON and as a table."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from camseg_core.errors import ConfigError, camseg_command
from camseg_core.evaluation import timing
from camseg_ros.bag.player import Playback
from camseg_ros.bag.read import TimeRange
from camseg_ros.bag.replay import ANSWERED_SHARE, ReplayResult, judge, trial_seconds
from camseg_ros.bag.scenario import DROPS, P95_MS, Scenario
from camseg_ros.bag.session import Measurement

PACKAGES = (
    *("camseg_ros", "onnxruntime", "numpy", "opencv-python-headless", "rosbags"),
    *("ros-kilted-rclpy", "ros-kilted-rmw-fastrtps-cpp"),
)

MACHINE = ("Processor", "Memory", "System")
"""Entries of `describe_machine` that are not versions."""


def describe_machine() -> dict[str, str]:
    """Return processor, memory, operating system and versions, by the name to show."""
    described = timing.describe_machine(PACKAGES)
    memory = f"{psutil.virtual_memory().total / 2**30:.1f} GiB"
    return {"Processor": described.pop("Processor"), "Memory": memory, **described}


def content(
    result: ReplayResult, options: argparse.Namespace, failures: Sequence[str] | None
) -> dict[str, Any]:
    """Return everything for JSON; None for what was not measured.

    `failures` are the limits of the scenario that failed, None without a scenario.
    """
    bag, described = result.bag, describe_machine()
    parameters = result.parameters
    return {
        "input": {
            "paths": [str(bag.path)],
            "sha256": bag.sha256,
            "frames": bag.frames,
            "size": list(bag.size) if bag.size else None,
            "topic": bag.topic,
            "recorded_hz": _rounded(bag.recorded_hz),
            "start_s": bag.within.start_s,
            "end_s": bag.within.end_s,
        },
        "machine": {name: described[name] for name in MACHINE if name in described},
        "versions": {name: value for name, value in described.items() if name not in MACHINE},
        "parameters": parameters if parameters is not None else dict(options.param) or None,
        "options": {
            "running": options.running,
            "restamp": options.restamp,
            "warm_up_s": options.warm_up,
            "seconds": options.seconds,
            "trial_s": trial_seconds(options) if options.find_max_rate else None,
            "image_topic": options.image_topic,
            "mask_topic": options.mask_topic,
            "mask_reliability": options.mask_reliability,
        },
        **_measurement(result.measurement),
        "max_rate": _max_rate(result),
        "trials": [
            {**_measurement(trial), "verdict": None if trial.playback.interrupted else judge(trial)}
            for trial in result.trials
        ],
        "scenario": None
        if failures is None
        else {"passed": not failures, "failures": list(failures)},
        "interrupted": result.interrupted,
        "error": result.error,
    }


def latency_ms(playback: Playback) -> dict[str, float] | None:
    """Return the latency in ms; None if nothing was answered.

    `jitter` is the standard deviation of the latency, not of the time between masks, which would
    include the recording's own jitter and every drop.
    """
    if not playback.latencies_s:
        return None
    values = np.asarray(playback.latencies_s) * 1e3
    found = dict(zip(("p50", "p95", "p99"), np.percentile(values, (50, 95, 99)), strict=True))
    found |= {"mean": values.mean(), "min": values.min(), "max": values.max()}
    found["jitter"] = values.std()
    return {name: round(float(value), 3) for name, value in found.items()}


def _measurement(measured: Measurement | None) -> dict[str, Any]:
    if measured is None:
        return dict.fromkeys(("rate", "latency_ms", "frames", "drops", "cpu_percent", "rss_mb"))
    played, usage = measured.playback, measured.usage
    memory = None
    if usage:
        memory = {"peak": _rounded(usage.rss_peak_mb), "mean": _rounded(usage.rss_mean_mb)}
    return {
        "rate": {
            "requested_hz": _rounded(measured.rate_hz),
            "asked_hz": _rounded(played.asked_hz),
            "achieved_hz": _rounded(played.achieved_hz),
            "worst_delay_ms": _rounded(played.worst_delay_s * 1e3),
            "kept": played.rate_kept,
        },
        "latency_ms": latency_ms(played),
        "frames": {
            "sent": played.sent,
            "answered": played.answered,
            "lost": played.sent - played.answered,
            "refused": played.refused,
            "strays": played.strays,
        },
        "drops": measured.drops,
        "cpu_percent": _rounded(usage.cpu_percent) if usage else None,
        "rss_mb": memory,
    }


def _max_rate(result: ReplayResult) -> dict[str, Any] | None:
    found, measured = result.max_rate, result.measurement
    if found is None:
        return None
    confirmed = (
        found.rate_hz is not None
        and measured is not None
        and not result.ended_early
        and judge(measured) == "passed"
    )
    return {
        "rate_hz": _rounded(found.rate_hz),
        "limited_by": found.limited_by,
        "confirmed": confirmed,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def show(result: ReplayResult, failed: Sequence[str], console: Console) -> None:
    """Print the measurement and what failed."""
    bag, found = result.bag, result.max_rate
    table = Table.grid(padding=(0, 2))
    size = "{}x{}".format(*bag.size) if bag.size else "of unknown size"
    table.add_row("input", f"{bag.frames} images {size} on {bag.topic}, sha256 {bag.sha256[:12]}")
    if found is not None:
        rate = "none" if found.rate_hz is None else f"{found.rate_hz:.4g} Hz"
        share = f"at least {100 * ANSWERED_SHARE:.0f} % answered"
        table.add_row("highest rate", f"{rate} with {share}; limited by {found.limited_by}")
    if result.measurement is not None:
        _add_rows(table, result.measurement)
    console.print(table, soft_wrap=True)
    for warning in warnings_of(result):
        console.print(f"[bold yellow]warning[/]  {escape(warning)}", soft_wrap=True)
    for line in failed:
        console.print(f"[bold red]failed[/]   {escape(line)}", soft_wrap=True)


def _add_rows(table: Table, measured: Measurement) -> None:
    played, usage = measured.playback, measured.usage
    if played.asked_hz is not None:
        rates = f"{played.asked_hz:.4g} Hz asked, {played.achieved_hz:.4g} Hz achieved"
        table.add_row("rate", rates)
    lost = played.sent - played.answered
    table.add_row("frames", f"{played.sent} sent, {played.answered} answered, {lost} lost")
    if found := latency_ms(played):
        names = ("p50", "p95", "p99", "jitter")
        table.add_row("latency", ", ".join(f"{name} {found[name]:.1f}" for name in names) + " ms")
    if measured.drops is None:
        table.add_row("drops", "unknown: no entry of this camera on /diagnostics")
    elif measured.drops:
        reasons = (f"{count} {reason}" for reason, count in measured.drops.items())
        table.add_row("drops", ", ".join(reasons))
    if usage:
        memory = f"memory {usage.rss_peak_mb:.0f} MB peak, {usage.rss_mean_mb:.0f} MB mean"
        table.add_row("node", f"CPU {usage.cpu_percent:.0f} % of a core, {memory}")


def warnings_of(result: ReplayResult) -> list[str]:
    """Return what to know about the measurement, a line each."""
    warnings, measured, found = [], result.measurement, result.max_rate
    if measured is not None:
        played = measured.playback
        if not played.rate_kept:
            warnings.append(rate_not_kept(played))
        failed = played.answered_share < ANSWERED_SHARE and not result.ended_early
        if failed and found is not None and found.rate_hz is not None:
            warnings.append(
                "the rate found did not hold: in a longer measurement, "
                f"{played.answered_share:.1%} were answered; set longer --trial-seconds"
            )
        if played.strays:
            warnings.append(
                f"{played.strays} masks belong to no image that was sent; "
                "does another camera publish to this node?"
            )
    if result.interrupted:
        warnings.append("interrupted: this is what was measured so far")
    return warnings


def rate_not_kept(played: Playback) -> str:
    """Return a line that says why the player could not keep the rate."""
    if played.refused:
        return (
            f"the middleware refused {played.refused} images of the player; "
            "the node did not drop these"
        )
    return (
        f"the player itself kept only {played.achieved_hz or 0:.4g} of "
        f"{played.asked_hz or 0:.4g} Hz, so the node was not measured at the planned rate; "
        "use a lower rate or more cores"
    )


def read_limits(path: Path) -> tuple[TimeRange, Callable[[Measurement], list[str]]]:
    """Read the time range of a scenario and a check that returns a line for each limit that failed.

    Ignores limits on the masks, which `camseg bag evaluate` checks, so that one file serves both.

    Raises:
        ConfigError: the file cannot be read, or has no limit that applies to a replay.
    """
    scenario = replace(Scenario.read(path), min_miou=None, min_iou={})
    if scenario.max_p95_ms is None and scenario.max_drops is None:
        raise ConfigError(
            f"{path} has no limit that applies to a replay; set max_p95_ms or max_drops, "
            f"or use `{camseg_command()} bag evaluate`"
        )

    def check(measured: Measurement) -> list[str]:
        played = measured.playback
        found: dict[str, float] = {DROPS: played.sent - played.answered} if played.sent else {}
        if latency := latency_ms(played):
            found[P95_MS] = latency["p95"]
        failures = scenario.check(found, {})
        return failures if played.rate_kept else [*failures, rate_not_kept(played)]

    return scenario.within, check
