"""The whole of `camseg bag replay`: start the node or find it, warm it up, search the highest rate if wanted, measure. Needs rclpy."""

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from camseg_core.errors import ConfigError, DataError
from camseg_ros.bag.frames import BagInput, read_input
from camseg_ros.bag.node_process import (
    NodeProcess,
    free_domain,
    ros_environment,
    segmentation_command,
)
from camseg_ros.bag.player import Player, check_rate
from camseg_ros.bag.replay_options import FINAL_TRIALS, ReplayOptions, check_options
from camseg_ros.bag.session import Measured, Session
from camseg_ros.middleware import environment

LOWEST_HZ = 0.5
"""The search gives up below this rate."""

HIGHEST_HZ = 1000.0

PRECISION = 1.05
"""The search ends where the lowest rate that failed is at most this many times the highest that passed."""

Verdict = Literal["passed", "dropped", "player"]
"""Of one trial; "player": the player itself could not keep the rate, so nothing is known of the node."""


@dataclass(frozen=True)
class Found:
    """The highest rate that passed in Hz, None where none did, and why there is no higher one."""

    rate_hz: float | None
    limited_by: Literal["the node", "the player", "the highest rate allowed"]


def find_max_rate(
    measure: Callable[[float], Verdict],
    start: float,
    low: float = LOWEST_HZ,
    high: float = HIGHEST_HZ,
    precision: float = PRECISION,
) -> Found:
    """Search the highest rate from `low` to `high` that passes.

    Args:
        measure: tries a rate.
        start: the first rate tried; taken into the range.
        low: the lowest rate tried.
        high: the highest rate tried.
        precision: of the result, as a ratio above 1.
    """
    good: float | None = None
    bad: tuple[float, Verdict] | None = None
    rate = min(max(start, low), high)
    while True:
        verdict = measure(rate)
        if verdict == "passed":
            good = rate
            if rate >= high:
                return Found(rate, "the highest rate allowed")
        else:
            bad = rate, verdict
            if rate <= low:
                return Found(None, _limit(verdict))
        if bad is None:
            rate = min(2 * rate, high)
        elif good is None:
            rate = max(rate / 2, low)
        elif bad[0] <= good * precision:
            return Found(good, _limit(bad[1]))
        else:
            rate = math.sqrt(good * bad[0])


def _limit(verdict: Verdict) -> Literal["the node", "the player"]:
    return "the player" if verdict == "player" else "the node"


ANSWERED = 0.95
"""A rate is kept up with where this share of the images is answered."""

CONFIRMATIONS, STEP_DOWN = 4, 1.1
"""The rate found has to hold over the longer measurement as well; else a rate lower by this ratio is measured, so often in all."""

UNKNOWN_SIZE = (64, 48)
FIRST_RATE_HZ = 10.0
"""For the warm-up and the beginning of the search where the bag has no rate of its own."""


@dataclass
class Result:
    """What is known so far. `measured` is None before the first measurement has begun to count."""

    bag: BagInput
    parameters: dict[str, Any] | None = None
    measured: Measured | None = None
    trials: list[Measured] = field(default_factory=list)
    found: Found | None = None
    interrupted: bool = False


def measure(options: ReplayOptions, tell: Callable[[str], None]) -> Iterator[Result]:
    """Do it all; yields the same result each time that it knows more, so that whoever stops here has what was measured.

    Args:
        options: as `check_options` lets them pass.
        tell: takes a line about what happens, before and after measuring but never meanwhile.

    Raises:
        DataError, ConfigError: the bag or an option does not fit.
        CamSegError: the node could not be reached, or ended.
    """
    check_options(options)
    bag = read_input(options.bag, options.topic, options.stretch)
    if not options.restamp:
        _check_stamps(bag, options)
    if not options.find_max_rate:
        check_rate(bag, options.rate_hz, options.seconds)
    result = Result(bag)
    yield result
    with _session(options, bag, tell) as session:
        result.parameters = session.parameters
        rate = _first_rate(options, bag) if options.find_max_rate else options.rate_hz
        if options.warm_up_s:
            tell(f"warming up for {options.warm_up_s:g} s")
            session.warm_up(rate if rate or bag.recorded_hz else FIRST_RATE_HZ, options.warm_up_s)
        seconds = options.seconds
        if options.find_max_rate:
            assert rate is not None
            result.found = _search(options, session, rate, result, tell)
            if result.found is None or result.found.rate_hz is None:
                result.measured = result.trials[-1] if result.trials else None
                yield result
                return
            rate = result.found.rate_hz
            seconds = seconds or FINAL_TRIALS * options.trial_s
        for attempt in range(1, CONFIRMATIONS + 1):
            tell(f"measuring {_at(rate)}")
            result.measured = session.measure(rate, seconds)
            result.interrupted = result.measured.played.interrupted
            yield result
            if (
                result.found is None
                or rate is None
                or result.interrupted
                or judge(result.measured) == "passed"
                or attempt == CONFIRMATIONS
            ):
                return
            tell(f"measured for longer, {_share(result.measured)}: not the highest rate yet")
            result.trials.append(result.measured)
            rate /= STEP_DOWN
            result.found = replace(result.found, rate_hz=rate)


def _check_stamps(bag: BagInput, options: ReplayOptions) -> None:
    """Masks are told apart by stamp and frame_id alone."""
    if bag.repeated is not None:
        raise DataError(
            f"image {bag.repeated} of {bag.path} has the stamp and frame_id of one before it; leave --no-restamp out"
        )
    if options.seconds is not None:
        raise ConfigError(
            "--seconds may play the bag more than once, so its stamps repeat; leave --no-restamp out"
        )


def _first_rate(options: ReplayOptions, bag: BagInput) -> float:
    return min(bag.recorded_hz or FIRST_RATE_HZ, options.max_rate_hz or HIGHEST_HZ)


def _at(rate_hz: float | None) -> str:
    return "at the recorded rate" if rate_hz is None else f"at {rate_hz:.4g} Hz"


def _share(measured: Measured) -> str:
    return f"{measured.played.answered} of {measured.played.sent} answered"


def _search(
    options: ReplayOptions,
    session: Session,
    start: float,
    result: Result,
    tell: Callable[[str], None],
) -> Found | None:
    """The highest rate; None where Ctrl-C ended the search."""

    def attempt(rate: float) -> Verdict:
        trial = session.measure(rate, options.trial_s)
        result.trials.append(trial)
        if trial.played.interrupted:
            raise KeyboardInterrupt
        verdict = judge(trial)
        tell(f"trial {_at(rate)}: {_share(trial)}, {VERDICTS[verdict]}")
        return verdict

    try:
        return find_max_rate(attempt, start, high=options.max_rate_hz or HIGHEST_HZ)
    except KeyboardInterrupt:
        result.interrupted = True
        return None


VERDICTS: Mapping[Verdict, str] = {
    "passed": "kept up",
    "dropped": "too fast for the node",
    "player": "too fast for the player, so nothing is known of the node",
}


def judge(trial: Measured) -> Verdict:
    """What a trial says about its rate. Where the node dropped images although it got fewer than asked, it is the node's limit."""
    if trial.played.share < ANSWERED:
        return "dropped"
    return "passed" if trial.played.kept else "player"


@contextmanager
def _session(
    options: ReplayOptions, bag: BagInput, tell: Callable[[str], None]
) -> Iterator[Session]:
    """A session with the node, which is stopped afterwards if it was started here."""
    if options.running:
        os.environ.update(
            environment(os.environ)
        )  # this process publishes the images, and needs the same transport
        tell(f"looking for the node on {options.topics.image}")
        with _player(options, bag, _domain()) as player:
            player.wait_for_node(bag.size or UNKNOWN_SIZE, options.start_timeout_s, lambda: None)
            yield Session(bag, player, lambda: None, options.pid, options.timeout_s)
        return
    domain = free_domain()
    log = options.log or Path(tempfile.mkdtemp(prefix="camseg_replay_"))
    env = ros_environment(domain, log, os.environ)
    os.environ.update(env)
    tell(f"starting the node, which logs in {log}")
    command = segmentation_command(
        options.topics.image, bag.compressed, options.parameters, options.params_files
    )
    with (
        NodeProcess(command, env, log / "node_output.log") as node,
        _player(options, bag, domain) as player,
    ):
        player.wait_for_node(bag.size or UNKNOWN_SIZE, options.start_timeout_s, node.check)
        yield Session(bag, player, node.check, node.pid, options.timeout_s)
    if options.log is None:  # only what went wrong is worth looking up
        shutil.rmtree(log, ignore_errors=True)


def _player(options: ReplayOptions, bag: BagInput, domain: int) -> Player:
    return Player(domain, bag.compressed, options.topics, options.mask_reliability, options.restamp)


def _domain() -> int:
    """The ROS domain of this process."""
    text = os.environ.get("ROS_DOMAIN_ID") or "0"
    if not text.isdecimal():
        raise ConfigError(f"ROS_DOMAIN_ID is {text!r}; set it to the number of the node's domain")
    return int(text)
