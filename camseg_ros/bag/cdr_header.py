"""Reads and changes the header at the start of a serialized message, so that a picture need not be deserialized for it."""

import struct

ENCAPSULATION = 4
"""Bytes before the message itself; the second one is odd where it is little-endian."""

STAMP = slice(ENCAPSULATION, ENCAPSULATION + 8)
SECOND_NS = 1_000_000_000


def read_header(cdr: bytes) -> tuple[int, str]:
    """The stamp in ns and the frame_id of a serialized message that begins with a `std_msgs/Header`."""
    order = _order(cdr)
    seconds, nanoseconds, length = struct.unpack_from(f"{order}iII", cdr, ENCAPSULATION)
    name = cdr[STAMP.stop + 4 : STAMP.stop + 4 + length]
    return seconds * SECOND_NS + nanoseconds, name.rstrip(b"\0").decode(errors="replace")


def with_stamp(cdr: bytes, stamp_ns: int) -> bytes:
    """The same message with another stamp."""
    stamp = struct.pack(f"{_order(cdr)}iI", *divmod(stamp_ns, SECOND_NS))
    return b"".join((cdr[: STAMP.start], stamp, memoryview(cdr)[STAMP.stop :]))


def _order(cdr: bytes) -> str:
    return "<" if cdr[1] & 1 else ">"
