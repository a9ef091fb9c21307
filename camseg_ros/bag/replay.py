"""Runs a replay: starts or finds the node, searches the highest rate, measures. Needs rclpy."""

import argparse
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from rclpy.qos import ReliabilityPolicy

from camseg_core.errors import CamSegError, ConfigError, DataError
from camseg_ros import shared_memory
from camseg_ros.bag.link import Topics
from camseg_ros.bag.node_process import (
    NodeProcess,
    free_domain,
    ros_environment,
    segmentation_command,
)
from camseg_ros.bag.player import Player
from camseg_ros.bag.read import WHOLE, BagInput, TimeRange, read_input
from camseg_ros.bag.session import Measurement, Session, check_rate
from camseg_ros.middleware import environment
from camseg_ros.segmentation_node import check as check_arguments

LOWEST_HZ, HIGHEST_HZ = 0.5, 1000.0
"""Bounds of the search; no rate may be higher."""

PRECISION = 1.05
"""The search ends if the lowest failed rate is at most this many times the highest passed one."""

ANSWERED_SHARE = 0.95
"""A trial passes if this share of the images is answered."""

Verdict = Literal["passed", "dropped", "player"]

VERDICTS: Mapping[Verdict, str] = {
    "passed": "kept up",
    "dropped": "too fast for the node",
    "player": "too fast for the player, so nothing is known about the node",
}

TRIAL_S = 5.0
"""Length of a trial, if `trial_seconds` is not given."""

FINAL_TRIALS = 4
"""Length of the final measurement in trials, if `seconds` is not given."""

CONFIRMATIONS, STEP_DOWN = 4, 1.1
"""Number of final measurements at most, each at a rate lower by `STEP_DOWN` if the last failed."""

DEFAULT_SIZE = (64, 48)
DEFAULT_RATE_HZ = 10.0
"""For the warm-up and the start of the search, if the bag does not say."""


@dataclass(frozen=True)
class MaxRate:
    """The highest rate that passed in Hz, None if none did, and what limits it."""

    rate_hz: float | None
    limited_by: Literal["the node", "the player", "the highest rate allowed"]


def find_max_rate(
    measure: Callable[[float], Verdict],
    start: float,
    low: float = LOWEST_HZ,
    high: float = HIGHEST_HZ,
) -> MaxRate:
    """Search the highest rate that passes: double or halve from `start`, then bisect.

    Args:
        measure: measures a rate in Hz.
        start: the first rate.
        low: the lowest rate to try, in Hz.
        high: the highest rate to try, in Hz.
    """
    good: float | None = None
    bad: tuple[float, Verdict] | None = None
    rate = min(max(start, low), high)
    while True:
        verdict = measure(rate)
        if verdict == "passed":
            good = rate
            if rate >= high:
                return MaxRate(rate, "the highest rate allowed")
        else:
            bad = rate, verdict
            if rate <= low:
                return MaxRate(None, _limited_by(verdict))
        if bad is None:
            rate = min(2 * rate, high)
        elif good is None:
            rate = max(rate / 2, low)
        elif bad[0] <= good * PRECISION:
            return MaxRate(good, _limited_by(bad[1]))
        else:
            rate = math.sqrt(good * bad[0])


def _limited_by(verdict: Verdict) -> Literal["the node", "the player"]:
    return "the player" if verdict == "player" else "the node"


def judge(trial: Measurement) -> Verdict:
    """Judge the rate of a trial.

    It fails the node even at a lower rate than planned: the node dropped images all the same.
    """
    if trial.playback.answered_share < ANSWERED_SHARE:
        return "dropped"
    return "passed" if trial.playback.rate_kept else "player"


@dataclass
class ReplayResult:
    """What is known so far; `measurement` is None before the first one has started.

    `error` is why the node ended it early, None if it did not.
    """

    bag: BagInput
    parameters: dict[str, Any] | None = None
    measurement: Measurement | None = None
    trials: list[Measurement] = field(default_factory=list)
    max_rate: MaxRate | None = None
    interrupted: bool = False
    error: str | None = None

    @property
    def ended_early(self) -> bool:
        """Whether Ctrl-C or an error came before the last measurement was complete."""
        return self.interrupted or self.error is not None


def measure(
    options: argparse.Namespace, log: Callable[[str], None], within: TimeRange = WHOLE
) -> Iterator[ReplayResult]:
    """Run the replay; yield the same result whenever it holds more, so that a caller can stop.

    Args:
        options: the options of `camseg bag replay`.
        log: takes a line of progress, never during a measurement.
        within: the part of the bag to play.

    Raises:
        DataError, ConfigError: the bag or an option is not usable.
        CamSegError: the node could not be reached, or ended.
    """
    _topics(options).check()
    if not options.running:
        # before the bag is read
        _report(check_arguments(_command(options, compressed=False)), options, log)
    bag = read_input(options.bag.expanduser(), options.topic, within)
    if bag.note:
        log(bag.note)
    if not options.restamp:
        _check_stamps(bag, options)
    if not options.find_max_rate:
        check_rate(bag, options.rate, options.seconds)
    result = ReplayResult(bag)
    yield result
    with _session(options, bag, log) as session:
        result.parameters = session.parameters
        rate, seconds = options.rate, options.seconds
        start = min(bag.recorded_hz or DEFAULT_RATE_HZ, options.max_rate or HIGHEST_HZ)
        if options.warm_up:
            log(f"warming up for {options.warm_up:g} s")
            recorded = bag.recorded_hz is not None and not options.find_max_rate
            session.warm_up(rate or (None if recorded else start), options.warm_up)
        if options.find_max_rate:
            result.max_rate = _search(options, session, start, result, log)
            if result.max_rate is None or result.max_rate.rate_hz is None:
                yield result
                return
            rate = result.max_rate.rate_hz
            seconds = seconds or FINAL_TRIALS * trial_seconds(options)
        for attempt in range(1, CONFIRMATIONS + 1):
            log(f"measuring {_at(rate)}")
            try:
                result.measurement = measured = session.measure(rate, seconds)
            except CamSegError:
                result.measurement = session.unfinished or result.measurement
                raise
            result.interrupted = measured.playback.interrupted
            yield result
            if result.max_rate is None or rate is None or result.interrupted:
                return
            if judge(measured) == "passed" or attempt == CONFIRMATIONS:
                return
            log(f"the longer measurement fails, {_answered(measured)}: trying a lower rate")
            result.trials.append(measured)
            rate /= STEP_DOWN
            limit = _limited_by(judge(measured))
            result.max_rate = replace(result.max_rate, rate_hz=rate, limited_by=limit)


def _report(
    warnings: Sequence[str], options: argparse.Namespace, log: Callable[[str], None]
) -> None:
    """Log what the node will warn of; raise ConfigError for an unknown `--param`."""
    for text in warnings:
        if any(text.startswith(f"unknown parameter '{name}'") for name, _ in options.param):
            raise ConfigError(f"--param must name a parameter of the node: {text}")
        log(f"warning: {text}")


def trial_seconds(options: argparse.Namespace) -> float:
    """Return the length of a trial in the search for the highest rate."""
    return float(options.trial_seconds or TRIAL_S)


def _check_stamps(bag: BagInput, options: argparse.Namespace) -> None:
    """Raise if stamp and frame_id would not identify the masks."""
    if bag.repeated is not None:
        raise DataError(
            f"image {bag.repeated} of {bag.path} has the stamp and frame_id of an earlier one; "
            "leave out --no-restamp"
        )
    if options.seconds is not None:
        raise ConfigError(
            "--seconds may play the bag repeatedly, so its stamps repeat; leave out --no-restamp"
        )


def _at(rate_hz: float | None) -> str:
    return "at the recorded rate" if rate_hz is None else f"at {rate_hz:.4g} Hz"


def _answered(measured: Measurement) -> str:
    return f"{measured.playback.answered} of {measured.playback.sent} answered"


def _search(
    options: argparse.Namespace,
    session: Session,
    start: float,
    result: ReplayResult,
    log: Callable[[str], None],
) -> MaxRate | None:
    """Search the highest rate; return None if Ctrl-C ended the search."""

    def attempt(rate: float) -> Verdict:
        trial = session.measure(rate, trial_seconds(options))
        result.trials.append(trial)
        if trial.playback.interrupted:
            raise KeyboardInterrupt
        verdict = judge(trial)
        log(f"trial {_at(rate)}: {_answered(trial)}, {VERDICTS[verdict]}")
        return verdict

    try:
        return find_max_rate(attempt, start, high=options.max_rate or HIGHEST_HZ)
    except KeyboardInterrupt:
        result.interrupted = True
        return None
    finally:
        result.measurement = result.trials[-1] if result.trials else None


@contextmanager
def _session(
    options: argparse.Namespace, bag: BagInput, log: Callable[[str], None]
) -> Iterator[Session]:
    """Connect to the node, which is started and stopped here unless it runs already."""
    size, timeout_s = bag.size or DEFAULT_SIZE, options.start_timeout

    def player(domain: int) -> Player:
        reliability = ReliabilityPolicy[options.mask_reliability.upper()]
        return Player(domain, bag.compressed, _topics(options), reliability, options.restamp)

    if options.running:
        # this process publishes the images and needs the settings for large ones
        os.environ.update(environment(os.environ))
        _log_shared_memory(1, log)
        log(f"looking for the node on {options.image_topic}")
        with player(_domain()) as camera:
            camera.wait_for_node(size, timeout_s, lambda: None)
            yield Session(bag, camera, lambda: None, options.pid, options.timeout)
        return
    domain = free_domain()
    folder = options.log or Path(tempfile.mkdtemp(prefix="camseg_replay_"))
    env = ros_environment(domain, folder, os.environ)
    os.environ.update(env)
    _log_shared_memory(2, log)
    log(f"starting the node, which logs in {folder}")
    command = _command(options, bag.compressed)
    with NodeProcess(command, env, folder / "node_output.log") as node, player(domain) as camera:
        camera.wait_for_node(size, timeout_s, node.check)
        yield Session(bag, camera, node.check, node.pid, options.timeout)
    if options.log is None:  # the log is kept after an error only
        shutil.rmtree(folder, ignore_errors=True)


def _topics(options: argparse.Namespace) -> Topics:
    return Topics(image=options.image_topic, mask=options.mask_topic)


def _command(options: argparse.Namespace, compressed: bool) -> list[str]:
    return segmentation_command(
        options.image_topic, compressed, dict(options.param), options.params_file
    )


def _log_shared_memory(participants: int, log: Callable[[str], None]) -> None:
    for text in shared_memory.warnings(os.environ, participants):
        log(f"warning: {text}")


def _domain() -> int:
    """Return the ROS domain of this process."""
    text = os.environ.get("ROS_DOMAIN_ID") or "0"
    if not text.isdecimal():
        raise ConfigError(f"ROS_DOMAIN_ID must be the number of the node's domain, got {text!r}")
    return int(text)
