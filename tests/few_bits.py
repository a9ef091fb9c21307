"""PNG files with few bits a value, which OpenCV cannot write."""

import struct
import zlib

import numpy as np
import numpy.typing as npt


def few_bits_png(ids: npt.NDArray[np.uint8], bits: int) -> bytes:
    """Return a grey PNG of `ids` `(H, W)`, whose values have 1, 2 or 4 bits."""
    rows = np.unpackbits(ids[..., None], axis=2)[..., 8 - bits :].reshape(len(ids), -1)
    lines = b"".join(b"\0" + np.packbits(row).tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], bits, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")):
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        content += struct.pack(">I", len(data)) + kind + data + check
    return content
