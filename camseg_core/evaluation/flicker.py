"""How much a video's masks change from frame to frame, and how much of that the scene does not explain."""

import numpy as np
import numpy.typing as npt

from camseg_core.labels import UNLABELLED

Ids = npt.NDArray[np.uint8]


def pair_counts(
    before: tuple[Ids, Ids | None], now: tuple[Ids, Ids | None]
) -> tuple[int, int, int, int]:
    """What changes between two frames of one size, each a mask `(H, W)` and, if there is one, its label.

    Returns:
        The pixels whose class changes, all pixels, those that change although the true class stays, and those whose true class stays.
    """
    changed = before[0] != now[0]
    if before[1] is None or now[1] is None:
        return int(np.count_nonzero(changed)), changed.size, 0, 0
    steady = (before[1] == now[1]) & (now[1] != UNLABELLED)
    return (
        int(np.count_nonzero(changed)),
        changed.size,
        int(np.count_nonzero(changed & steady)),
        int(np.count_nonzero(steady)),
    )


class Flicker:
    """Counts over the pairs of consecutive frames of a video; memory does not grow with its length.

    With labels, `flicker` is the measure: a class that changes where the true one stays is wrong in one frame or the other. Without
    them, `change_rate` also counts what truly moves, so it compares settings on the same video, and no videos.
    """

    def __init__(self) -> None:
        self._last: tuple[Ids, Ids | None] | None = None
        self._changed = self._pixels = self._flickered = self._steady = 0

    def add(self, mask: Ids, label: Ids | None = None) -> None:
        """The next frame's mask `(H, W)` of class ids and, if there is one, its label of the same shape.

        A frame of another size makes no pair with the one before.
        """
        if self._last is not None and self._last[0].shape == mask.shape:
            changed, pixels, flickered, steady = pair_counts(self._last, (mask, label))
            self._changed += changed
            self._pixels += pixels
            self._flickered += flickered
            self._steady += steady
        self._last = mask, label

    def cut(self) -> None:
        """Another video begins: its first frame makes no pair with the last one."""
        self._last = None

    @property
    def flicker(self) -> float:
        """Share of the pixels with the same true class in both frames whose predicted class changes, 0 to 1; NaN without any."""
        return self._flickered / self._steady if self._steady else float("nan")

    @property
    def change_rate(self) -> float:
        """Share of all pixels whose predicted class changes from a frame to the next, 0 to 1; NaN without a pair of frames."""
        return self._changed / self._pixels if self._pixels else float("nan")
