"""Runs a replay: starts or finds the node, searches the highest rate, measures. Needs rclpy."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
from rclpy.qos import ReliabilityPolicy

from camseg_core.errors import ConfigError, DataError
from camseg_ros.bag.link import Topics
from camseg_ros.bag.max_rate import (
    HIGHEST_HZ,
    VERDICTS,
    MaxRate,
    Verdict,
    find_max_rate,
    judge,
)
from camseg_ros.bag.node_process import (
    NodeProcess,
    free_domain,
    ros_environment,
    segmentation_command,
)
from camseg_ros.bag.player import Player
from camseg_ros.bag.read import WHOLE, TimeRange
from camseg_ros.bag.schedule import BagInput, check_rate, read_input
from camseg_ros.bag.session import Measurement, Session
from camseg_ros.middleware import environment

FINAL_TRIALS = 4
"""Length of the final measurement in trials, if `seconds` is not given."""

CONFIRMATIONS, STEP_DOWN = 4, 1.1
"""Number of final measurements at most, each at a rate lower by `STEP_DOWN` if the last failed."""

DEFAULT_SIZE = (64, 48)
DEFAULT_RATE_HZ = 10.0
"""For the warm-up and the start of the search, if the bag does not say."""


@dataclass(frozen=True)
class ReplayOptions:
    """The options of a replay; times in s, rates in Hz.

    Attributes:
        rate_hz: images per second; None for the recorded times.
        seconds: how long to play; None plays the bag once.
        running: measure a running node in this process's domain, whose process is `pid`.
        parameters, params_files: for the node that is started.
        log: where that node logs; None for a temporary folder.
    """

    bag: Path
    topic: str | None = None
    within: TimeRange = WHOLE
    rate_hz: float | None = None
    seconds: float | None = None
    warm_up_s: float = 1.0
    restamp: bool = True
    running: bool = False
    pid: int | None = None
    topics: Topics = field(default_factory=Topics)
    mask_reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE
    parameters: Mapping[str, str] = field(default_factory=dict)
    params_files: Sequence[Path] = ()
    find_max_rate: bool = False
    max_rate_hz: float | None = None
    trial_s: float = 5.0
    timeout_s: float = 20.0
    start_timeout_s: float = 90.0
    log: Path | None = None

    def check(self) -> None:
        """Raise ConfigError if options contradict each other."""
        for contradiction, text in (
            (
                self.running and (self.parameters or self.params_files),
                "--param and --params-file are for a node that this command starts; "
                "with --running, set them at the node",
            ),
            (self.pid is not None and not self.running, "--pid needs --running; add it"),
            (
                self.find_max_rate and self.rate_hz is not None,
                "--find-max-rate searches the rate itself; leave out --rate, "
                "or limit the search with --max-rate",
            ),
            (
                self.find_max_rate and not self.restamp,
                "--find-max-rate plays the bag repeatedly, so its stamps repeat; "
                "leave out --no-restamp",
            ),
            (
                self.max_rate_hz is not None and not self.find_max_rate,
                "--max-rate limits the search of --find-max-rate; add that, or use --rate",
            ),
            (
                self.pid is not None and not psutil.pid_exists(self.pid),
                f"there is no process {self.pid}; set --pid to the node's process, or leave it out",
            ),
        ):
            if contradiction:
                raise ConfigError(text)
        for path in self.params_files:
            if not path.is_file():
                raise ConfigError(f"the parameter file {path} does not exist")


@dataclass
class ReplayResult:
    """What is known so far; `measurement` is None before the first one has started."""

    bag: BagInput
    parameters: dict[str, Any] | None = None
    measurement: Measurement | None = None
    trials: list[Measurement] = field(default_factory=list)
    max_rate: MaxRate | None = None
    interrupted: bool = False


def measure(options: ReplayOptions, log: Callable[[str], None]) -> Iterator[ReplayResult]:
    """Run the replay; yield the same result whenever it holds more, so that a caller can stop.

    Args:
        options: what to do.
        log: takes a line of progress, never during a measurement.

    Raises:
        DataError, ConfigError: the bag or an option is not usable.
        CamSegError: the node could not be reached, or ended.
    """
    options.check()
    bag = read_input(options.bag, options.topic, options.within)
    if not options.restamp:
        _check_stamps(bag, options)
    if not options.find_max_rate:
        check_rate(bag, options.rate_hz, options.seconds)
    result = ReplayResult(bag)
    yield result
    with _session(options, bag, log) as session:
        result.parameters = session.parameters
        rate, seconds = options.rate_hz, options.seconds
        start = min(bag.recorded_hz or DEFAULT_RATE_HZ, options.max_rate_hz or HIGHEST_HZ)
        if options.warm_up_s:
            log(f"warming up for {options.warm_up_s:g} s")
            recorded = bag.recorded_hz is not None and not options.find_max_rate
            session.warm_up(rate or (None if recorded else start), options.warm_up_s)
        if options.find_max_rate:
            result.max_rate = _search(options, session, start, result, log)
            if result.max_rate is None or result.max_rate.rate_hz is None:
                result.measurement = result.trials[-1] if result.trials else None
                yield result
                return
            rate = result.max_rate.rate_hz
            seconds = seconds or FINAL_TRIALS * options.trial_s
        for attempt in range(1, CONFIRMATIONS + 1):
            log(f"measuring {_at(rate)}")
            result.measurement = measured = session.measure(rate, seconds)
            result.interrupted = measured.playback.interrupted
            yield result
            if result.max_rate is None or rate is None or result.interrupted:
                return
            if judge(measured) == "passed" or attempt == CONFIRMATIONS:
                return
            log(f"the longer measurement fails, {_answered(measured)}: trying a lower rate")
            result.trials.append(measured)
            rate /= STEP_DOWN
            result.max_rate = replace(result.max_rate, rate_hz=rate)


def _check_stamps(bag: BagInput, options: ReplayOptions) -> None:
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
    options: ReplayOptions,
    session: Session,
    start: float,
    result: ReplayResult,
    log: Callable[[str], None],
) -> MaxRate | None:
    """Search the highest rate; return None if Ctrl-C ended the search."""

    def attempt(rate: float) -> Verdict:
        trial = session.measure(rate, options.trial_s)
        result.trials.append(trial)
        if trial.playback.interrupted:
            raise KeyboardInterrupt
        verdict = judge(trial)
        log(f"trial {_at(rate)}: {_answered(trial)}, {VERDICTS[verdict]}")
        return verdict

    try:
        return find_max_rate(attempt, start, high=options.max_rate_hz or HIGHEST_HZ)
    except KeyboardInterrupt:
        result.interrupted = True
        return None


@contextmanager
def _session(
    options: ReplayOptions, bag: BagInput, log: Callable[[str], None]
) -> Iterator[Session]:
    """Connect to the node, which is started and stopped here unless it runs already."""
    size, timeout_s = bag.size or DEFAULT_SIZE, options.start_timeout_s

    def player(domain: int) -> Player:
        return Player(
            domain, bag.compressed, options.topics, options.mask_reliability, options.restamp
        )

    if options.running:
        # this process publishes the images and needs the settings for large ones
        os.environ.update(environment(os.environ))
        log(f"looking for the node on {options.topics.image}")
        with player(_domain()) as camera:
            camera.wait_for_node(size, timeout_s, lambda: None)
            yield Session(bag, camera, lambda: None, options.pid, options.timeout_s)
        return
    domain = free_domain()
    folder = options.log or Path(tempfile.mkdtemp(prefix="camseg_replay_"))
    env = ros_environment(domain, folder, os.environ)
    os.environ.update(env)
    log(f"starting the node, which logs in {folder}")
    command = segmentation_command(
        options.topics.image, bag.compressed, options.parameters, options.params_files
    )
    with NodeProcess(command, env, folder / "node_output.log") as node, player(domain) as camera:
        camera.wait_for_node(size, timeout_s, node.check)
        yield Session(bag, camera, node.check, node.pid, options.timeout_s)
    if options.log is None:  # the log is kept after an error only
        shutil.rmtree(folder, ignore_errors=True)


def _domain() -> int:
    """Return the ROS domain of this process."""
    text = os.environ.get("ROS_DOMAIN_ID") or "0"
    if not text.isdecimal():
        raise ConfigError(f"ROS_DOMAIN_ID must be the number of the node's domain, got {text!r}")
    return int(text)
