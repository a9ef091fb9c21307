"""Reads and replaces the header of serialized (CDR) messages without deserializing them."""

import struct

SECOND_NS = 1_000_000_000

ENCAPSULATION = 4
"""Bytes before the message itself; the second one is odd if the message is little-endian."""

STAMP = slice(ENCAPSULATION, ENCAPSULATION + 8)


def read_stamp(cdr: bytes) -> int:
    """Return the stamp, in ns, of a message that begins with a `std_msgs/Header`.

    Raises:
        struct.error: the message is too short for a header.
    """
    seconds, nanoseconds = struct.unpack_from(f"{_byte_order(cdr)}iI", cdr, STAMP.start)
    return int(seconds) * SECOND_NS + int(nanoseconds)


def read_header(cdr: bytes) -> tuple[int, str]:
    """Return the stamp, in ns, and the frame_id of a message that begins with a `std_msgs/Header`.

    Raises:
        struct.error: the message is too short for a header.
    """
    (length,) = struct.unpack_from(f"{_byte_order(cdr)}I", cdr, STAMP.stop)
    name = cdr[STAMP.stop + 4 : STAMP.stop + 4 + length]
    return read_stamp(cdr), name.rstrip(b"\0").decode(errors="replace")


def with_stamp(cdr: bytes, stamp_ns: int) -> bytes:
    """Return the same message with another stamp, in ns."""
    stamp = struct.pack(f"{_byte_order(cdr)}iI", *divmod(stamp_ns, SECOND_NS))
    return b"".join((cdr[: STAMP.start], stamp, memoryview(cdr)[STAMP.stop :]))


def _byte_order(cdr: bytes) -> str:
    if len(cdr) < ENCAPSULATION:
        raise struct.error(f"a message of {len(cdr)} bytes has no encapsulation header")
    return "<" if cdr[1] & 1 else ">"
