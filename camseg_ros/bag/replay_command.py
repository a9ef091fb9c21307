"""`camseg bag replay`: parses, has it measured, tells what came of it."""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rclpy.qos import ReliabilityPolicy
from rich.console import Console

from camseg_core.cli.options import at_least, not_negative
from camseg_core.errors import CamSegError, ConfigError, DataError
from camseg_ros.bag.frames import WHOLE, Stretch
from camseg_ros.bag.link import Topics
from camseg_ros.bag.measuring import HIGHEST_HZ, LOWEST_HZ, Result, measure
from camseg_ros.bag.node_process import NodeDied
from camseg_ros.bag.replay_options import FINAL_TRIALS, ReplayOptions, check_options
from camseg_ros.bag.replay_report import content, show
from camseg_ros.bag.session import Measured

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130

STDOUT = Path("-")


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    usual = Topics()
    parser.description = (
        "Play a bag's images over DDS into the segmentation node, at the recorded or a fixed rate, whether it keeps up or not, and tell "
        "the latency of its masks, its drops by reason, its CPU and memory. The node is started for it, in a ROS domain of its own, "
        "or runs already (--running)."
    )
    parser.add_argument(
        "bag", type=Path, metavar="BAG", help="a bag folder, or one .mcap or .db3 file"
    )
    parser.add_argument("--topic", help="the image topic, where the bag has several")
    parser.add_argument(
        "--rate", type=_above_0, metavar="HZ", help="images per second (default: as recorded)"
    )
    parser.add_argument(
        "--seconds",
        type=_above_0,
        metavar="S",
        help="play for so long, and begin the bag anew where it ends (default: the bag once)",
    )
    parser.add_argument(
        "--warm-up",
        type=not_negative,
        default=1.0,
        metavar="S",
        help="before that, not counted (default: %(default)s)",
    )
    parser.add_argument(
        "--restamp",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="give each image the time of its sending as stamp, as a camera does; else the recorded ones, which must be unique",
    )
    parser.add_argument(
        "--timeout",
        type=_above_0,
        default=20.0,
        metavar="S",
        help="wait so long for late masks (default: %(default)s)",
    )
    parser.add_argument(
        "--json",
        type=Path,
        nargs="?",
        const=STDOUT,
        metavar="FILE",
        help="everything, to a file or as the last line",
    )
    parser.add_argument(
        "--scenario",
        type=Path,
        metavar="FILE",
        help="limits to keep, in YAML; exits 1 where one is not",
    )
    search = parser.add_argument_group("highest rate")
    search.add_argument(
        "--find-max-rate",
        action="store_true",
        help="search the highest rate with under 5 %% drops, and measure there",
    )
    search.add_argument(
        "--max-rate",
        type=_above_0,
        metavar="HZ",
        help=f"do not search above this (default: {HIGHEST_HZ:g}; never below {LOWEST_HZ:g})",
    )
    search.add_argument(
        "--trial-seconds",
        type=_above_0,
        default=5.0,
        metavar="S",
        help=f"of each rate tried; --seconds is then {FINAL_TRIALS} times this if not given (default: %(default)s)",
    )
    node = parser.add_argument_group("node")
    node.add_argument(
        "--running",
        action="store_true",
        help="measure the node that runs in this ROS_DOMAIN_ID; start none",
    )
    node.add_argument(
        "--pid", type=at_least(1), help="its process, for CPU and memory (with --running)"
    )
    node.add_argument(
        "--image-topic",
        default=usual.image,
        metavar="TOPIC",
        help="without /compressed (default: %(default)s)",
    )
    node.add_argument(
        "--mask-topic", default=usual.mask, metavar="TOPIC", help="(default: %(default)s)"
    )
    node.add_argument(
        "--mask-reliability",
        choices=("reliable", "best_effort"),
        default="reliable",
        help="QoS to listen with (default: %(default)s)",
    )
    node.add_argument(
        "--param",
        type=_parameter,
        action="append",
        default=[],
        metavar="NAME:=VALUE",
        help="of the started node",
    )
    node.add_argument(
        "--params-file",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="of the started node",
    )
    node.add_argument(
        "--start-timeout",
        type=_above_0,
        default=90.0,
        metavar="S",
        help="wait so long for it (default: %(default)s)",
    )
    node.add_argument(
        "--log",
        type=Path,
        metavar="FOLDER",
        help="where the started node logs (default: a temporary folder)",
    )


def run(options: argparse.Namespace) -> None:
    """Measure and tell.

    Raises:
        DataError, ConfigError: the bag or an option does not fit.
        SystemExit: with 1 where the node failed or a limit was not held, with 130 after Ctrl-C.
    """
    signal.signal(
        signal.SIGTERM, _interrupt
    )  # a started node is stopped on the way out, however this process is asked to go
    stretch, check = _limits(options.scenario)
    asked = _options(options, stretch)
    check_options(asked)
    if options.json not in (None, STDOUT):
        _write(options.json, "")  # now, not after minutes of measuring
    result = _measure(asked)
    if result is None:
        sys.exit(EXIT_INTERRUPTED)
    over = (
        check(result.measured)
        if check is not None and result.measured is not None and not result.interrupted
        else None
    )
    failed = [
        *([] if result.interrupted else _failed(result)),
        *(f"scenario: {line}" for line in over or []),
    ]
    # progress is told while nothing is measured only, so that no display takes the player's time
    show(result, failed, Console(highlight=False))
    if options.json is not None:
        document = content(result, asked, over)
        if options.json == STDOUT:
            sys.stdout.write(json.dumps(document, default=str) + "\n")
        else:
            _write(options.json, json.dumps(document, indent=1, default=str) + "\n")
    if result.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    if failed:
        sys.exit(EXIT_FAILED)


def _limits(scenario: Path | None) -> tuple[Stretch, Callable[[Measured], list[str]] | None]:
    """The stretch of the bag to play, and what holds a measurement against the limits; None without a scenario."""
    if scenario is None:
        return WHOLE, None
    from camseg_ros.bag.replay_report import read_limits

    return read_limits(scenario)


def _measure(options: ReplayOptions) -> Result | None:
    """The result; None where Ctrl-C came before anything was measured."""
    result = None
    progress = Console(stderr=True, highlight=False)
    try:
        for known in measure(
            options, lambda line: progress.print(line, markup=False, soft_wrap=True)
        ):
            result = known
    except KeyboardInterrupt:
        if result is not None:
            result.interrupted = True
    except (DataError, ConfigError):
        raise
    except CamSegError as error:
        last = error.last_lines.strip().rpartition("\n")[2] if isinstance(error, NodeDied) else ""
        sys.stderr.write(f"camseg: error: {error}{f'; its last line: {last}' if last else ''}\n")
        sys.exit(EXIT_FAILED)
    return result


def _failed(result: Result) -> Sequence[str]:
    """What makes the command fail, each in one line."""
    if result.found is not None and result.found.rate_hz is None:
        return [
            f"not even the lowest rate tried was kept up with; limited by {result.found.limited_by}"
        ]
    if (
        result.measured is not None
        and result.measured.played.sent
        and not result.measured.played.answered
    ):
        return ["not one image was answered; see the drops, and the node's log"]
    return []


def _options(given: argparse.Namespace, stretch: Stretch) -> ReplayOptions:
    return ReplayOptions(
        bag=given.bag.expanduser(),
        topic=given.topic,
        stretch=stretch,
        rate_hz=given.rate,
        seconds=given.seconds,
        warm_up_s=given.warm_up,
        restamp=given.restamp,
        running=given.running,
        pid=given.pid,
        topics=Topics(image=given.image_topic, mask=given.mask_topic),
        mask_reliability=ReliabilityPolicy[given.mask_reliability.upper()],
        parameters=dict(given.param),
        params_files=given.params_file,
        find_max_rate=given.find_max_rate,
        max_rate_hz=given.max_rate,
        trial_s=given.trial_seconds,
        timeout_s=given.timeout,
        start_timeout_s=given.start_timeout,
        log=given.log,
    )


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _above_0(text: str) -> float:
    value = not_negative(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _parameter(text: str) -> tuple[str, str]:
    name, assigned, value = text.partition(":=")
    if not name or not assigned:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME:=VALUE, such as threads:=2")
    return name, value


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--json {path} cannot be written: {error.strerror}") from error
