"""How much a video's masks change from frame to frame, and how much of that the scene does not explain."""

import numpy as np
import numpy.typing as npt

from camseg_core.labels import UNLABELLED

Ids = npt.NDArray[np.uint8]


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
            before, label_before = self._last
            changed = mask != before
            self._changed += int(changed.sum())
            self._pixels += changed.size
            if label is not None and label_before is not None:
                steady = (label == label_before) & (label != UNLABELLED)
                self._flickered += int((changed & steady).sum())
                self._steady += int(steady.sum())
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
