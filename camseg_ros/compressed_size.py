"""The size of a JPEG or PNG picture from its header, so that a small message cannot ask for a huge allocation."""

import struct

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8"
JPEG_END = b"\xff\xd9"
JPEG_SCAN_START = 0xDA
JPEG_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


def compressed_size(data: bytes) -> tuple[int, int, bool] | None:
    """Width and height in pixels, and whether the end of the picture is there.

    Returns:
        None where `data` is neither a JPEG nor a PNG, or its header cannot be read.
    """
    if data.startswith(PNG_SIGNATURE):
        if len(data) < 24 or data[12:16] != b"IHDR":
            return None
        width, height = struct.unpack(">II", data[16:24])
        return width, height, b"IEND" in data[-32:]
    if data.startswith(JPEG_START):
        return _jpeg_size(data)
    return None


def _jpeg_size(data: bytes) -> tuple[int, int, bool] | None:
    """Walk the segments of a JPEG up to its frame header, which holds the size."""
    position = len(JPEG_START)
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in JPEG_WITHOUT_LENGTH:
            position += 2
        elif marker in JPEG_FRAME_HEADERS:
            if position + 9 > len(data):
                return None
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            # Some cameras pad the buffer behind the picture, so the end is searched and not
            # expected as the last bytes.
            return width, height, data.rfind(JPEG_END) > position
        elif marker == JPEG_SCAN_START:
            return None
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None
