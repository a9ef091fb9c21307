"""Finds the launch and configuration files of the package, however it was installed."""

import sys
from collections.abc import Iterator
from pathlib import Path

from camseg_core.errors import ConfigError

PACKAGE = "camseg_ros"


def share_file(name: str) -> Path:
    """The path of an installed file, such as `config/fastdds.xml`.

    Looked for in the ament index (a sourced ROS workspace), in the environment's `share/camseg_ros` (`pip install`) and in
    the source checkout (`pip install -e`), in this order.

    Raises:
        ConfigError: it is in none of them.
    """
    candidates = [folder / name for folder in _folders()]
    for path in candidates:
        if path.is_file():
            return path
    raise ConfigError(f"{name} of {PACKAGE} is not installed; looked for {', '.join(map(str, candidates))}; install the package again")


def _folders() -> Iterator[Path]:
    try:
        from ament_index_python.packages import get_package_share_directory

        yield Path(get_package_share_directory(PACKAGE))
    except (ImportError, LookupError, OSError):  # no ROS workspace is sourced (OSError), or not one with this package
        pass
    package = Path(__file__).resolve().parent
    # A prefix has lib/pythonX.Y/site-packages/camseg_ros; with `pip install --user` it is not sys.prefix.
    prefixes = [Path(sys.prefix), *package.parents[3:5]]
    yield from (prefix / "share" / PACKAGE for prefix in prefixes)
    yield package.parent
