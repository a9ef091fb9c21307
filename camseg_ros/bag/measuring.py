"""The whole of `camseg bag replay`: start the node or find it, warm it up, search the highest rate if wanted, measure. Needs rclpy."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from camseg_core.errors import ConfigError, DataError
from camseg_ros.bag.input import BagInput, read_input
from camseg_ros.bag.max_rate import HIGHEST_HZ, Found, Verdict, find_max_rate
from camseg_ros.bag.node_process import NodeProcess, free_domain, ros_environment, segmentation_command
from camseg_ros.bag.player import Player
from camseg_ros.bag.replay_options import FINAL_TRIALS, ReplayOptions, check_options
from camseg_ros.bag.schedule import check_rate
from camseg_ros.bag.session import Measured, Session
from camseg_ros.middleware import environment

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
            if result.found is None or rate is None or result.interrupted or judge(result.measured) == "passed" or attempt == CONFIRMATIONS:
                return
            tell(f"measured for longer, {_share(result.measured)}: not the highest rate yet")
            result.trials.append(result.measured)
            rate /= STEP_DOWN
            result.found = replace(result.found, rate_hz=rate)


def _check_stamps(bag: BagInput, options: ReplayOptions) -> None:
    """Masks are told apart by stamp and frame_id alone."""
    if bag.repeated is not None:
        raise DataError(f"image {bag.repeated} of {bag.path} has the stamp and frame_id of one before it; leave --no-restamp out")
    if options.seconds is not None:
        raise ConfigError("--seconds may play the bag more than once, so its stamps repeat; leave --no-restamp out")


def _first_rate(options: ReplayOptions, bag: BagInput) -> float:
    return min(bag.recorded_hz or FIRST_RATE_HZ, options.max_rate_hz or HIGHEST_HZ)


def _at(rate_hz: float | None) -> str:
    return "at the recorded rate" if rate_hz is None else f"at {rate_hz:.4g} Hz"


def _share(measured: Measured) -> str:
    return f"{measured.played.answered} of {measured.played.sent} answered"


def _search(options: ReplayOptions, session: Session, start: float, result: Result, tell: Callable[[str], None]) -> Found | None:
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
def _session(options: ReplayOptions, bag: BagInput, tell: Callable[[str], None]) -> Iterator[Session]:
    """A session with the node, which is stopped afterwards if it was started here."""
    if options.running:
        os.environ.update(environment(os.environ))  # this process publishes the images, and needs the same transport
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
    command = segmentation_command(options.topics.image, bag.compressed, options.parameters, options.params_files)
    with NodeProcess(command, env, log / "node_output.log") as node, _player(options, bag, domain) as player:
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
