"""What a user may ask of `camseg bag replay`, and what of it does not go together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rclpy.qos import ReliabilityPolicy

from camseg_core.errors import ConfigError
from camseg_ros.bag.frames import WHOLE, Stretch
from camseg_ros.bag.link import Topics

FINAL_TRIALS = 4
"""The measurement at the rate found is so many times as long as a trial, where its length is not given."""


@dataclass(frozen=True)
class ReplayOptions:
    """What the user asked for; times in s, rates in Hz. `None` for rate: as recorded; for seconds: the bag once.

    `running` is whether to measure a node that runs already, in the domain of this process; `parameters` and `params_files` are
    for one that is started. `log` is where that one logs; None for a temporary folder.
    """

    bag: Path
    topic: str | None = None
    stretch: Stretch = WHOLE
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


def check_options(options: ReplayOptions) -> None:
    """Raises ConfigError where options do not go together."""
    if options.running and (options.parameters or options.params_files):
        raise ConfigError(
            "--param and --params-file are for a node that this command starts; with --running, set them at the node"
        )
    if options.pid is not None and not options.running:
        raise ConfigError(
            "--pid names the process of a node that runs already; give --running too, or leave it out"
        )
    if options.find_max_rate and options.rate_hz is not None:
        raise ConfigError(
            "--find-max-rate searches the rate itself; leave --rate out, or say with --max-rate where to end"
        )
    if options.find_max_rate and not options.restamp:
        raise ConfigError(
            "--find-max-rate plays the bag again and again, so its stamps repeat; leave --no-restamp out"
        )
    if options.max_rate_hz is not None and not options.find_max_rate:
        raise ConfigError(
            "--max-rate bounds the search of --find-max-rate; give that too, or --rate"
        )
    if options.pid is not None and not psutil.pid_exists(options.pid):
        raise ConfigError(
            f"there is no process {options.pid}; give --pid of the node's process, or leave it out"
        )
    for path in options.params_files:
        if not path.is_file():
            raise ConfigError(f"the parameter file {path} does not exist")
