"""The environment that lets large images through Fast DDS, for every process that publishes or
receives them.

With Fast DDS's default shared-memory segment of 512 KB, best-effort images from 640x480 on do not
arrive at all. The shipped profile enlarges it; the allocator settings keep the large buffers mapped
between messages.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from camseg_core.errors import ConfigError

PROFILE, OLD_PROFILE = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"
"""The variable that Fast DDS 3 reads, and that of Fast DDS 2. Not both: Kilted warns about the old one."""

FAST_DDS_2 = ("humble", "iron", "jazzy")
"""The ROS distributions with Fast DDS 2."""

TRANSPORT_CHOICES = (PROFILE, OLD_PROFILE, "FASTDDS_BUILTIN_TRANSPORTS")
"""Where the user set one of these, the transports are the user's choice and the profile stays out of it."""

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "268435456",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_TOP_PAD_": "67108864",
}
"""glibc: keep freed image buffers instead of giving every one back and faulting its pages in again (1080p: 20 -> 6 ms)."""


def environment(current: Mapping[str, str], profile: bool = True) -> dict[str, str]:
    """The variables to add to `current` for a process that handles images; what the user set is
    never replaced.

    Args:
        current: the environment of the process to be, such as `os.environ`.
        profile: also set the Fast DDS profile that the package ships.

    Raises:
        ConfigError: the profile's file cannot be found (a damaged installation).
    """
    added = {name: value for name, value in ALLOCATOR.items() if name not in current}
    if profile and not any(current.get(name) for name in TRANSPORT_CHOICES):
        variable = OLD_PROFILE if current.get("ROS_DISTRO") in FAST_DDS_2 else PROFILE
        added[variable] = str(share_file("config/fastdds.xml"))
    return added


PACKAGE = "camseg_ros"


def share_file(name: str) -> Path:
    """The path of an installed file, such as `config/fastdds.xml`.

    Looked for in the ament index (a sourced ROS workspace), in the environment's `share/camseg_ros`
    (`pip install`) and in the source checkout (`pip install -e`), in this order.

    Raises:
        ConfigError: it is in none of them.
    """
    candidates = [folder / name for folder in _folders()]
    for path in candidates:
        if path.is_file():
            return path
    raise ConfigError(
        f"{name} of {PACKAGE} is not installed; looked for {', '.join(map(str, candidates))}; install the package again"
    )


def _folders() -> Iterator[Path]:
    try:
        from ament_index_python.packages import get_package_share_directory

        yield Path(get_package_share_directory(PACKAGE))
    except (
        ImportError,
        LookupError,
        OSError,
    ):  # no ROS workspace is sourced (OSError), or not one with this package
        pass
    package = Path(__file__).resolve().parent
    # A prefix has lib/pythonX.Y/site-packages/camseg_ros; with `pip install --user` it is not
    # sys.prefix.
    prefixes = [Path(sys.prefix), *package.parents[3:5]]
    yield from (prefix / "share" / PACKAGE for prefix in prefixes)
    yield package.parent
