"""Names of bags, and of files of their images: what they say of bag, number and stamp."""

import re
from pathlib import Path
from typing import NamedTuple

from camseg_core.data.folders import real_path
from camseg_ros.bag.storage import METADATA, SECOND_NS, STORAGE_SUFFIXES

_STAMP = re.compile(
    r"(?:(?<!\d)(?:(?P<point>\d+)\.|(?P<line>0|[1-9]\d*)_)(?P<rest>\d{1,9})|(?P<ns>\d+))$"
)
"""Before `_`, seconds have no leading zeros: in `000001_50000000`, the first number is an index."""

_FRAME = re.compile(r"(?:\d\d|[1-9]\d\d)_(?P<bag>.*)_(?P<index>\d{6}|[1-9]\d{6,})_\d{10,}")
"""What `frame_name` returns."""

_MAX_NS = 2**63 - 1


class NamedFrame(NamedTuple):
    """The image that a file is named for: its bag, as in file names, and its number."""

    bag: str
    number: int


def bag_name(bag: Path) -> str:
    """Return the name of a bag: that of its folder, or of its file without suffix."""
    path = real_path(bag)
    if path.name == METADATA:
        path = path.parent
    return path.stem if path.suffix in STORAGE_SUFFIXES and not path.is_dir() else path.name


def frame_name(number: int, bag: Path, index: int, stamp_ns: int) -> str:
    """Return a file name for the image `index` of the bag with this number among several.

    The stamp has more digits than nanoseconds in a second: the index before it are no seconds.
    """
    return f"{number:02}_{name_in_files(bag)}_{index:06}_{stamp_ns:010}"


def name_in_files(bag: Path) -> str:
    """Return the name of a bag as it stands in `frame_name`: ASCII letters, digits, `-` and `_`."""
    name = bag_name(bag)
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name)


def frame_of(name: str) -> NamedFrame | None:
    """Return the image that a name from `frame_name` stands for; None for other names."""
    found = _FRAME.fullmatch(name)
    return NamedFrame(found["bag"], int(found["index"])) if found else None


def stamp_of(name: str) -> int | None:
    """Return the stamp in ns that a file name ends with; None without one that 64 bits hold.

    `12500000000` (ns), `12.5` (s) and `12_500000000` (s and ns) are the same stamp.
    """
    found = _STAMP.search(name)
    if found is None:
        return None
    if found["ns"] is not None:
        stamp_ns = int(found["ns"])
    elif found["point"] is not None:
        stamp_ns = int(found["point"]) * SECOND_NS + int(found["rest"].ljust(9, "0"))
    else:
        stamp_ns = int(found["line"]) * SECOND_NS + int(found["rest"])
    return stamp_ns if stamp_ns <= _MAX_NS else None
