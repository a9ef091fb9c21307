"""Samples drawn to show rare classes, which few frames have and most of their crops miss."""

import numpy as np

from camseg_core.training.frames import Frames
from camseg_core.training.loading import seed_of

TEMPERATURE = 0.01
"""Controls how strongly rarer classes are preferred; the published value."""

LEAST_SHARE = 0.003
"""Smallest share of a class in a frame drawn for it, unless no frame has that much."""


class RareClasses:
    """Draws frames by class: rare class sampling (DAFormer, arXiv 2111.14887, equation 9).

    A class c with the share f of the pixels is drawn with a probability in proportion to
    exp((1 - f) / `TEMPERATURE`), then one of its frames. Groups are not drawn, only single classes.

    Args:
        frames: frames to draw from; all that are not held in memory are read once.
        share: share of the samples that are drawn this way.
        seed: a sample's draw depends only on the seed and the sample's number.
        until: number of the sample by which the share has faded evenly to 0; 0: it stays.
    """

    def __init__(self, frames: Frames, share: float, seed: int, until: int = 0) -> None:
        self._share, self._until, self._seed = share, until, seed
        classes = len(frames.labels)
        pixels = frames.pixels_by_frame()
        shares = pixels[:, :classes] / pixels.sum(1, keepdims=True)
        self._frames = [
            np.flatnonzero((each > 0) & (each >= min(LEAST_SHARE, each.max()))) for each in shares.T
        ]
        counts = frames.pixel_counts()[:classes]
        odds = np.exp(-counts / max(1, counts.sum()) / TEMPERATURE)
        odds *= [len(each) > 0 for each in self._frames]
        self._odds = odds / max(odds.sum(), 1e-300)

    def drawn(self, number: int) -> tuple[int, int] | None:
        """Return frame and class of a sample, or None for one that is not drawn by class."""
        rng = np.random.default_rng(seed_of(self._seed, "rare class", number))
        share = self._share * max(0.0, 1 - number / self._until) if self._until else self._share
        if rng.random() >= share or not self._odds.any():
            return None
        shown = int(rng.choice(len(self._odds), p=self._odds))
        return int(rng.choice(self._frames[shown])), shown
