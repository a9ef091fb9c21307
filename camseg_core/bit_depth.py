"""Which bits of a 16-bit image its camera fills, by its largest value."""

CAMERA_BITS = (10, 12, 14)
"""Bits of cameras that give 16-bit images without filling their range."""

_DARK = 255
"""Brightest value up to which a 16-bit image says nothing about the camera's bits."""


def white_of(brightest: int) -> int | None:
    """Return white of a camera with fewer than 16 bits that explains the largest value in images.

    None if these fill the range, or are too dark to decide.
    """
    white = next((2**bits - 1 for bits in CAMERA_BITS if brightest < 2**bits), None)
    return white if brightest > _DARK else None
