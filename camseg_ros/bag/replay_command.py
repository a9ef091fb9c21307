"""`camseg bag replay`: parses the options, measures, prints the result."""

import argparse
import functools
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

import psutil
from rich.console import Console

from camseg_core.cli.console import say
from camseg_core.cli.options import at_least, not_negative
from camseg_core.errors import CamSegError, ConfigError, DataError, ModelError, camseg_command
from camseg_core.long_runs import writable_file, writable_folder
from camseg_ros.bag.command import positive
from camseg_ros.bag.link import Topics
from camseg_ros.bag.node_process import NodeDied
from camseg_ros.bag.read import WHOLE, TimeRange
from camseg_ros.bag.replay import (
    FINAL_TRIALS,
    HIGHEST_HZ,
    LOWEST_HZ,
    TRIAL_S,
    ReplayResult,
    measure,
)
from camseg_ros.bag.replay_page import write_replay_page
from camseg_ros.bag.replay_report import content, read_limits, show, warnings_of

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130

STDOUT = Path("-")


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Play a bag's images over DDS into the segmentation node, at the recorded or a fixed rate, "
        "whether it keeps up or not. Report the latency of its masks, its drops by reason, its CPU "
        "and memory. Starts a node in a ROS domain of its own, or uses a running one (--running)."
    )
    option = parser.add_argument
    option("bag", type=Path, metavar="BAG", help="bag folder, or .mcap or .db3 file")
    option("--topic", help="image topic, if the bag has several")
    option("--rate", type=positive, metavar="HZ", help="images per second (default: as recorded)")
    option(
        "--seconds",
        type=positive,
        metavar="S",
        help="how long to play, repeating the bag if needed (default: the bag once)",
    )
    option(
        "--warm-up",
        type=not_negative,
        default=1.0,
        metavar="S",
        help="seconds to play before measuring",
    )
    option(
        "--restamp",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="stamp each image with the time it is sent, as a camera does; with --no-restamp, the "
        "recorded stamps must be unique",
    )
    option(
        "--timeout",
        type=positive,
        default=20.0,
        metavar="S",
        help="how long to wait for late masks",
    )
    option(
        "--json",
        type=Path,
        nargs="?",
        const=STDOUT,
        metavar="FILE",
        help="write all results to a file, or to stdout as the last line",
    )
    option("--page", type=Path, metavar="FILE", help="also write the result as an HTML page")
    option("--scenario", type=Path, metavar="FILE", help="limits, YAML; exits with 1 if one fails")
    _add_search_options(parser.add_argument_group("highest rate").add_argument)
    _add_node_options(parser.add_argument_group("node").add_argument)


def _add_search_options(option: Callable[..., object]) -> None:
    option(
        "--find-max-rate",
        action="store_true",
        help="search the highest rate with under 5 %% drops, and measure there",
    )
    option(
        "--max-rate",
        type=positive,
        metavar="HZ",
        help=f"highest rate to try (default: {HIGHEST_HZ:g}; the lowest is {LOWEST_HZ:g})",
    )
    option(
        "--trial-seconds",
        type=positive,
        metavar="S",
        help=f"length of a trial (default: {TRIAL_S:g}); --seconds then defaults to "
        f"{FINAL_TRIALS} times this",
    )


def _add_node_options(option: Callable[..., object]) -> None:
    topics = Topics()
    option(
        "--running",
        action="store_true",
        help="measure the running node in this ROS_DOMAIN_ID instead of starting one",
    )
    option("--pid", type=at_least(1), help="its process, for CPU and memory (with --running)")
    option(
        "--image-topic",
        default=topics.image,
        metavar="TOPIC",
        help="the node's image topic, without /compressed",
    )
    option("--mask-topic", default=topics.mask, metavar="TOPIC", help="of its masks")
    option(
        "--mask-reliability",
        choices=("reliable", "best_effort"),
        default="reliable",
        help="QoS of the subscription to the masks",
    )
    option(
        "--param",
        type=_parameter,
        action="append",
        default=[],
        metavar="NAME:=VALUE",
        help="parameter of the started node",
    )
    option(
        "--params-file",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="parameter file of the started node",
    )
    option(
        "--start-timeout",
        type=positive,
        default=90.0,
        metavar="S",
        help="how long to wait for the node",
    )
    option(
        "--log",
        type=Path,
        metavar="FOLDER",
        help="log folder of the started node (default: a temporary one)",
    )


def run(options: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        DataError, ConfigError, ModelError: the bag, an option or the model is not usable.
        SystemExit: 1 if the node or a limit failed, 130 after Ctrl-C.
    """
    # so that a started node is stopped too, and its shared memory and this process's are removed
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)
    within, check = read_limits(options.scenario) if options.scenario else (WHOLE, None)
    _check(options)
    read = [options.bag, options.scenario, *options.params_file]
    if options.json not in (None, STDOUT):
        writable_file(options.json, "--json", read)  # now, not after minutes of measuring
        read.append(options.json)
    if options.page is not None:
        writable_file(options.page, "--page", read)
    if options.log is not None:
        writable_folder(options.log, "--log")
    result = _measure(options, within)
    if result is None:
        say(f"{camseg_command()}: interrupted; nothing was measured")
        sys.exit(EXIT_INTERRUPTED)
    over, measured = None, result.measurement
    if check is not None and measured is not None and not result.ended_early:
        over = check(measured)
    failed = [*_failures(result), *(f"scenario: {line}" for line in over or [])]
    show(result, failed, Console(highlight=False))
    document = content(result, options, over)
    if options.page is not None:
        latencies = result.measurement.playback.latencies_s if result.measurement else []
        write_replay_page(options.page, document, latencies, failed, warnings_of(result))
    if options.json is not None:
        if options.json == STDOUT:
            sys.stdout.write(json.dumps(document, default=str) + "\n")
        else:
            _write(options.json, json.dumps(document, indent=1, default=str) + "\n")
    if result.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    if failed:
        sys.exit(EXIT_FAILED)


def _check(options: argparse.Namespace) -> None:
    """Raise ConfigError if options contradict each other."""
    for contradiction, text in (
        (
            options.running and (options.param or options.params_file),
            "--param and --params-file are for a node that this command starts; "
            "with --running, set them at the node",
        ),
        (options.pid is not None and not options.running, "--pid needs --running; add it"),
        (
            options.find_max_rate and options.rate is not None,
            "--find-max-rate searches the rate itself; leave out --rate, "
            "or limit the search with --max-rate",
        ),
        (
            options.find_max_rate and not options.restamp,
            "--find-max-rate plays the bag repeatedly, so its stamps repeat; "
            "leave out --no-restamp",
        ),
        (
            options.max_rate is not None and not options.find_max_rate,
            "--max-rate limits the search of --find-max-rate; add that, or use --rate",
        ),
        (
            options.trial_seconds is not None and not options.find_max_rate,
            "--trial-seconds is for the trials of --find-max-rate; add that, or use --seconds",
        ),
        (
            options.running and options.log is not None,
            "--log is for a node that this command starts; with --running, leave it out",
        ),
        (
            len(dict(options.param)) < len(options.param),
            "--param must name each parameter once, got "
            + ", ".join(f"{name}:={value}" for name, value in options.param),
        ),
        *(
            (
                rate is not None and rate > HIGHEST_HZ,
                f"{option} must be at most {HIGHEST_HZ:g} Hz, got {rate}",
            )
            for option, rate in (("--rate", options.rate), ("--max-rate", options.max_rate))
        ),
        (
            options.pid is not None and not psutil.pid_exists(options.pid),
            f"there is no process {options.pid}; set --pid to the node's process, or leave it out",
        ),
    ):
        if contradiction:
            raise ConfigError(text)
    for path in options.params_file:
        if not path.is_file():
            raise ConfigError(f"the parameter file {path} does not exist")


def _measure(options: argparse.Namespace, within: TimeRange) -> ReplayResult | None:
    """Return the result; None if Ctrl-C came before anything was measured."""
    result = None
    console = Console(stderr=True, highlight=False)
    try:
        log = functools.partial(console.print, markup=False, soft_wrap=True)
        for known in measure(options, log, within):
            result = known
    except KeyboardInterrupt:
        if result is not None:
            result.interrupted = True
    except (DataError, ConfigError, ModelError):
        raise
    except CamSegError as error:
        last = error.last_lines.strip().rpartition("\n")[2] if isinstance(error, NodeDied) else ""
        text = f"{error}{f'; its last line: {last}' if last else ''}"
        if result is None or result.measurement is None:
            sys.stderr.write(f"{camseg_command()}: error: {text}\n")
            sys.exit(EXIT_FAILED)
        result.error = text
    return result


def _failures(result: ReplayResult) -> list[str]:
    """Return what makes the command fail, apart from a scenario."""
    if result.error is not None:
        return [f"{result.error}; this is what was measured before"]
    if result.interrupted:
        return []
    found, measured = result.max_rate, result.measurement
    if found is not None and found.rate_hz is None:
        return [f"no rate passed, not even the lowest; limited by {found.limited_by}"]
    if measured is not None and measured.playback.sent and not measured.playback.answered:
        return ["no image was answered; see the drops, and the node's log"]
    return []


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _parameter(text: str) -> tuple[str, str]:
    name, assigned, value = text.partition(":=")
    if not name or not assigned:
        raise argparse.ArgumentTypeError(f"must be NAME:=VALUE, such as threads:=2, got {text!r}")
    return name, value


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--json {path} cannot be written: {error.strerror}") from error
