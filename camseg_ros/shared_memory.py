"""Fast DDS's segments in /dev/shm: whether a new one fits, and those that ended processes left.

A participant allocates its whole segment when it is created. A process that ends without taking its
participant down leaves the segment, which is memory, until someone removes it. Needs no ROS.
"""

import fcntl
import os
import re
import shutil
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from camseg_ros.middleware import OLD_PROFILE, PROFILE

FOLDER = Path("/dev/shm")

_SEGMENT = re.compile(r"fast(dds|rtps)_[0-9a-f]{16}")

LOCK_SUFFIX = "_el"
"""Of the file beside a segment that its living owner holds locked."""

DEFAULT_SEGMENT_BYTES = 512 * 1024
"""Size of a segment without a profile."""

EXTRA_BYTES = 4 * 1024**2
"""What a segment of the shipped profile needs beyond its `segment_size`, rounded up."""

MIN_AGE_S = 5.0
"""A younger segment may belong to a process that has not locked it yet."""

MIB = 1024**2


def warnings(environ: Mapping[str, str], participants: int = 1) -> list[str]:
    """Return what is wrong with /dev/shm before participants are created.

    Args:
        environ: the environment of the process, such as `os.environ`.
        participants: how many are about to be created with this environment.
    """
    found = []
    needed, name = participants * needed_bytes(environ), f"{FOLDER}"
    if needed and FOLDER.is_dir():
        usage = shutil.disk_usage(FOLDER)
        if usage.free < needed:
            found.append(
                f"{name} has {_mib(usage.free)} free of {_mib(usage.total)}, but Fast DDS needs "
                f"{_mib(needed, up=True)} for images in shared memory; without it they go over "
                "UDP, and many are lost; start the container with --shm-size=256m or --ipc=host"
            )
    dead = dead_segments()
    if dead:
        total = sum(_size(path) for path in dead)
        what = "1 segment" if len(dead) == 1 else f"{len(dead)} segments"
        found.append(
            f"{name} holds {what} of Fast DDS ({_mib(total)} of memory) whose processes have "
            f"ended, killed or crashed; remove with: {clean_command()}"
        )
    return found


def clean_command() -> str:
    """Return the command that removes the segments of ended processes."""
    return "fastdds shm clean" if shutil.which("fastdds") else "python3 -m camseg_ros.shared_memory"


def needed_bytes(environ: Mapping[str, str]) -> int:
    """Return the size of the segment that a participant creates; 0 if it needs none."""
    if "fastrtps" not in environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp"):
        return 0
    profile = environ.get(PROFILE) or environ.get(OLD_PROFILE)
    if profile:
        return _segment_bytes(Path(profile))
    transports = environ.get("FASTDDS_BUILTIN_TRANSPORTS", "DEFAULT").upper()
    return 0 if transports.startswith(("UDP", "NONE")) else DEFAULT_SEGMENT_BYTES


def _segment_bytes(profile: Path) -> int:
    """Return the size of the largest shared-memory segment of a Fast DDS profile; 0 if unknown."""
    try:
        root = ElementTree.parse(profile).getroot()
    except (OSError, ElementTree.ParseError):
        return 0  # Fast DDS reports it
    sizes = [0]
    for transport in root.iterfind(".//{*}transport_descriptor"):
        if transport.findtext("{*}type") == "SHM":
            text = transport.findtext("{*}segment_size") or str(DEFAULT_SEGMENT_BYTES)
            sizes.append(int(text) + EXTRA_BYTES if text.strip().isdecimal() else 0)
    return max(sizes)


def dead_segments(min_age_s: float = MIN_AGE_S) -> list[Path]:
    """Return the segments whose owner has ended, as `fastdds shm clean` finds them."""
    found = []
    with suppress(OSError):
        for path in sorted(FOLDER.iterdir()):
            if _SEGMENT.fullmatch(path.name) and _is_dead(path, min_age_s):
                found.append(path)
    return found


def _is_dead(segment: Path, min_age_s: float) -> bool:
    try:
        if time.time() - segment.stat().st_mtime < min_age_s:
            return False
        with segment.with_name(segment.name + LOCK_SUFFIX).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # closing releases it
    except OSError:  # locked, not ours to read, removed just now, or without a lock file
        return False
    return True


def held(pid: int | str = "self") -> list[Path]:
    """Return the segments that a process holds.

    Its ports, which are small, are not among them: publishers would go on writing to a removed one.
    """
    found = []
    with suppress(OSError):  # the process has ended, or belongs to another user
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                target = Path(os.readlink(entry))
                owner = target.with_name(target.name.removesuffix(LOCK_SUFFIX))
                if target.parent != FOLDER or target == owner or not _SEGMENT.fullmatch(owner.name):
                    continue
                # Fast DDS also opens other processes' lock files for a moment
                if "FLOCK" in Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text():
                    found.append(owner)
    return found


def remove(owners: list[Path]) -> None:
    """Remove segments, with their lock files, after their process has ended.

    Processes that still map them keep the memory until they end.
    """
    for path in owners:
        for each in (path, path.with_name(path.name + LOCK_SUFFIX)):
            with suppress(OSError):
                each.unlink(missing_ok=True)


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _mib(count: int, up: bool = False) -> str:
    return f"{-(-count // MIB) if up else count // MIB} MiB"


def main() -> int:
    """Remove the segments of ended processes, and print how many."""
    dead = dead_segments()
    remove(dead)
    sys.stdout.write(f"removed {len(dead)} segments of ended processes from {FOLDER}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
