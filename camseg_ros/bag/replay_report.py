"""What a replay measured, for programs (JSON) and for readers (a table)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from camseg_core.errors import ConfigError
from camseg_ros.bag.frames import Stretch
from camseg_ros.bag.machine import describe_machine
from camseg_ros.bag.measuring import ANSWERED, Result, judge
from camseg_ros.bag.player import Played
from camseg_ros.bag.replay_options import ReplayOptions
from camseg_ros.bag.scenario import DROPS, P95_MS, Scenario
from camseg_ros.bag.session import Measured

MACHINE = ("Processor", "Memory", "System")
"""Of `describe_machine`; its other entries are versions."""


def content(
    result: Result, options: ReplayOptions, failures: Sequence[str] | None
) -> dict[str, Any]:
    """Everything, for JSON; what was not measured is null. `failures` are the lines of a scenario that was not kept; None without one."""
    bag, machine = result.bag, describe_machine()
    return {
        "input": {
            "paths": [str(bag.path)],
            "sha256": bag.sha256,
            "frames": bag.frames,
            "size": list(bag.size) if bag.size else None,
            "topic": bag.topic,
            "recorded_hz": _rounded(bag.recorded_hz),
            "start_s": bag.stretch.start_s,
            "end_s": bag.stretch.end_s,
        },
        "machine": {name: machine[name] for name in MACHINE if name in machine},
        "versions": {name: value for name, value in machine.items() if name not in MACHINE},
        "parameters": result.parameters
        if result.parameters is not None
        else dict(options.parameters) or None,
        "options": {
            "running": options.running,
            "restamp": options.restamp,
            "warm_up_s": options.warm_up_s,
            "seconds": options.seconds,
            "trial_s": options.trial_s if options.find_max_rate else None,
            "image_topic": options.topics.image,
            "mask_topic": options.topics.mask,
            "mask_reliability": options.mask_reliability.name.lower(),
        },
        **_measured(result.measured),
        "max_rate": _max_rate(result),
        "trials": [
            {**_measured(trial), "verdict": None if trial.played.interrupted else judge(trial)}
            for trial in result.trials
        ],
        "scenario": None
        if failures is None
        else {"passed": not failures, "failures": list(failures)},
        "interrupted": result.interrupted,
    }


def latency_ms(played: Played) -> dict[str, float] | None:
    """The latency in ms; None where nothing was answered.

    `jitter` is the standard deviation: how much the age of a mask varies. The spread of the times between masks would mix that with
    the recording's own unevenness and with every drop.
    """
    if not played.latencies_s:
        return None
    values = np.asarray(played.latencies_s) * 1e3
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    found = {
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "mean": values.mean(),
        "min": values.min(),
        "max": values.max(),
        "jitter": values.std(),
    }
    return {name: round(float(value), 3) for name, value in found.items()}


def _measured(measured: Measured | None) -> dict[str, Any]:
    if measured is None:
        return dict.fromkeys(("rate", "latency_ms", "frames", "drops", "cpu_percent", "rss_mb"))
    played, use = measured.played, measured.use
    return {
        "rate": {
            "requested_hz": _rounded(measured.rate_hz),
            "asked_hz": _rounded(played.asked_hz),
            "achieved_hz": _rounded(played.achieved_hz),
            "worst_delay_ms": _rounded(played.worst_delay_s * 1e3),
            "kept": played.kept,
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
        "cpu_percent": _rounded(use.cpu_percent) if use else None,
        "rss_mb": {"peak": _rounded(use.rss_peak_mb), "mean": _rounded(use.rss_mean_mb)}
        if use
        else None,
    }


def _max_rate(result: Result) -> dict[str, Any] | None:
    if result.found is None:
        return None
    confirmed = (
        result.found.rate_hz is not None
        and result.measured is not None
        and judge(result.measured) == "passed"
    )
    return {
        "rate_hz": _rounded(result.found.rate_hz),
        "limited_by": result.found.limited_by,
        "confirmed": confirmed,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def show(result: Result, failed: Sequence[str], console: Console) -> None:
    """Print the measurement, and the lines that failed."""
    bag, measured = result.bag, result.measured
    table = Table.grid(padding=(0, 2))
    size = "{}x{}".format(*bag.size) if bag.size else "of unknown size"
    table.add_row("input", f"{bag.frames} images {size} on {bag.topic}, sha256 {bag.sha256[:12]}")
    if result.found is not None:
        rate = "none" if result.found.rate_hz is None else f"{result.found.rate_hz:.4g} Hz"
        table.add_row(
            "highest rate",
            f"{rate} with at least {100 * ANSWERED:.0f} % answered; limited by {result.found.limited_by}",
        )
    if measured is not None:
        _show_measured(table, measured)
    console.print(table, soft_wrap=True)
    for warning in _warnings(result):
        console.print(f"[bold yellow]warning[/]  {escape(warning)}", soft_wrap=True)
    for line in failed:
        console.print(f"[bold red]failed[/]   {escape(line)}", soft_wrap=True)


def _show_measured(table: Table, measured: Measured) -> None:
    played, use = measured.played, measured.use
    if played.asked_hz is not None:
        table.add_row(
            "rate", f"{played.asked_hz:.4g} Hz asked, {played.achieved_hz:.4g} Hz achieved"
        )
    lost = played.sent - played.answered
    table.add_row("frames", f"{played.sent} sent, {played.answered} answered, {lost} lost")
    if found := latency_ms(played):
        names = ("p50", "p95", "p99", "jitter")
        table.add_row("latency", ", ".join(f"{name} {found[name]:.1f}" for name in names) + " ms")
    if measured.drops is None:
        table.add_row("drops", "not known: no entry of this camera on /diagnostics")
    elif measured.drops:
        table.add_row(
            "drops", ", ".join(f"{count} {reason}" for reason, count in measured.drops.items())
        )
    if use:
        table.add_row(
            "node",
            f"CPU {use.cpu_percent:.0f} % of a core, memory {use.rss_peak_mb:.0f} MB at most, {use.rss_mean_mb:.0f} MB mean",
        )


def _warnings(result: Result) -> list[str]:
    warnings, measured = [], result.measured
    if measured is not None:
        played = measured.played
        if not played.kept:
            warnings.append(not_kept(played))
        if (
            result.found is not None
            and result.found.rate_hz is not None
            and played.share < ANSWERED
            and not result.interrupted
        ):
            warnings.append(
                f"the rate found did not hold: measured for longer, {played.share:.1%} were answered; give longer --trial-seconds"
            )
        if played.strays:
            warnings.append(
                f"{played.strays} masks belong to no image that was sent; does another camera publish to this node?"
            )
    if result.interrupted:
        warnings.append("interrupted: this is what was measured so far")
    return warnings


def not_kept(played: Played) -> str:
    """That the player could not keep the rate, in one line."""
    if played.refused:
        return f"the middleware refused {played.refused} images of the player; these are no drops of the node"
    rates = f"{played.achieved_hz or 0:.4g} of {played.asked_hz or 0:.4g} Hz"
    return f"the player itself kept only {rates}, so the node was not measured at the rate asked; give a lower rate or more cores"


def read_limits(path: Path) -> tuple[Stretch, Callable[[Measured], list[str]]]:
    """The stretch of the bag that a scenario is for, and what tells its limits that a measurement does not keep, a line each.

    Limits on the masks themselves are for `camseg bag evaluate`, so that one file serves both.

    Raises:
        ConfigError: the file cannot be read, or has no limit that a replay can judge.
    """
    scenario = replace(Scenario.read(path), min_miou=None, min_iou={})
    if scenario.max_p95_ms is None and scenario.max_drops is None:
        raise ConfigError(
            f"{path} has no limit that a replay can judge; give max_p95_ms or max_drops, or use `camseg bag evaluate`"
        )

    def check(measured: Measured) -> list[str]:
        played = measured.played
        found: dict[str, float] = {DROPS: played.sent - played.answered} if played.sent else {}
        if latency := latency_ms(played):
            found[P95_MS] = latency["p95"]
        failures = scenario.check(found, {})
        return failures if played.kept else [*failures, not_kept(played)]

    return Stretch(scenario.start_s, scenario.end_s), check
