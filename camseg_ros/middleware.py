"""Environment variables that let large images through Fast DDS, for publishers and subscribers.

With Fast DDS's default shared-memory segment of 512 KB, best-effort images of 640x480 and more do
not arrive at all. The shipped profile enlarges it; the allocator settings keep large buffers mapped
between messages. Needs no ROS.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from camseg_core.errors import ConfigError

PROFILE, OLD_PROFILE = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"
"""The variables of Fast DDS 3 and Fast DDS 2. Set only one: Kilted warns about the old one."""

FAST_DDS_2 = ("humble", "iron", "jazzy")
"""The ROS distributions with Fast DDS 2."""

TRANSPORT_CHOICES = (PROFILE, OLD_PROFILE, "FASTDDS_BUILTIN_TRANSPORTS")
"""If the user sets one of these, the shipped profile is not used."""

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "268435456",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_TOP_PAD_": "67108864",
}
"""glibc: keep freed image buffers, which avoids page faults (1080p: 6 ms in place of 20)."""

PACKAGE = "camseg_ros"


def environment(current: Mapping[str, str], profile: bool = True) -> dict[str, str]:
    """Return the variables to add to `current` for a process that handles images.

    Never replaces what the user has set.

    Args:
        current: the environment of the process, such as `os.environ`.
        profile: also set the shipped Fast DDS profile.

    Raises:
        ConfigError: the profile's file is missing (a damaged installation).
    """
    added = {name: value for name, value in ALLOCATOR.items() if name not in current}
    if profile and not any(current.get(name) for name in TRANSPORT_CHOICES):
        added[_profile_variable(current)] = str(share_file("config/fastdds.xml"))
    return added


def _profile_variable(current: Mapping[str, str]) -> str:
    return OLD_PROFILE if _is_fast_dds_2(current) else PROFILE


def _is_fast_dds_2(current: Mapping[str, str]) -> bool:
    distribution = current.get("ROS_DISTRO")
    if distribution:
        return distribution in FAST_DDS_2
    with suppress(PackageNotFoundError):  # wheels, whose Fast DDS 3 has another name
        return bool(metadata.distribution("ros-fastrtps"))
    return False


def large_images_hint(rmw: str, current: Mapping[str, str]) -> str:
    """Return how to start a publisher of large images so that they arrive; empty if all do.

    Args:
        rmw: the middleware's identifier, such as `rmw_fastrtps_cpp`.
        current: the environment.
    """
    if "fastrtps" not in rmw:
        return ""
    hint = f"start it with {_profile_variable(current)}={share_file('config/fastdds.xml')}"
    if current.get("ROS_DISTRO") == "humble":  # its Fast DDS lacks the other
        return hint
    return f"{hint} or FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA"


def share_file(name: str) -> Path:
    """Return the path of an installed file, such as `config/fastdds.xml`.

    Searches the ament index (a sourced workspace), the environment's `share/camseg_ros` (`pip
    install`) and the source checkout (`pip install -e`), in this order.

    Raises:
        ConfigError: the file is in none of them.
    """
    candidates = [folder / name for folder in _folders()]
    for path in candidates:
        if path.is_file():
            return path
    searched = f"searched {', '.join(map(str, candidates))}"
    raise ConfigError(f"{name} of {PACKAGE} is not installed; {searched}; reinstall the package")


def _folders() -> Iterator[Path]:
    try:
        from ament_index_python.packages import get_package_share_directory

        yield Path(get_package_share_directory(PACKAGE))
    except (ImportError, LookupError, OSError):
        pass  # no sourced workspace (OSError), or one without this package
    package = Path(__file__).resolve().parent
    # PREFIX/lib/pythonX.Y/site-packages/camseg_ros; with `pip install --user` not sys.prefix
    prefixes = [Path(sys.prefix), *package.parents[3:5]]
    yield from (prefix / "share" / PACKAGE for prefix in prefixes)
    yield package.parent
