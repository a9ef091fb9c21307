"""Size of a JPEG or PNG from its header, so that a small message cannot cause a huge allocation."""

import struct

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8"
JPEG_END = b"\xff\xd9"
JPEG_SCAN_START = 0xDA
JPEG_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


def compressed_size(data: bytes) -> tuple[int, int, bool] | None:
    """Return width and height in pixels, and whether the end of the image is present.

    None if `data` is neither JPEG nor PNG, or its header is damaged.
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
            # some cameras pad the buffer after the image, so search for the end
            return width, height, data.rfind(JPEG_END) > position
        elif marker == JPEG_SCAN_START:
            return None
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None
