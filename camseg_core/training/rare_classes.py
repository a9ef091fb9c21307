"""Samples that show rare classes, which few frames have and most crops of these miss."""

import numpy as np

from camseg_core.training.frames import Frames
from camseg_core.training.loading import seed_of

TEMPERATURE = 0.01
"""How much rarer classes are preferred, as published: below 1 % of the pixels, moderately."""

LEAST_SHARE = 0.003
"""Of the pixels of a frame that is drawn for a class, unless no frame shows so much of it."""


class RareClasses:
    """Draws frames by class: rare class sampling (DAFormer, arXiv 2111.14887, equation 9).

    A class c with the share f of the pixels is drawn with a probability in proportion to
    exp((1 - f) / `TEMPERATURE`), then one of its frames. Only classes that are labelled by
    themselves are drawn, not groups.

    Args:
        frames: to draw from; those that are not held in memory are all read.
        share: of the samples that are drawn in this way.
        seed: a sample's draw depends on it and on the sample's number alone.
    """

    def __init__(self, frames: Frames, share: float, seed: int) -> None:
        self._share, self._seed = share, seed
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
        if rng.random() >= self._share or not self._odds.any():
            return None
        shown = int(rng.choice(len(self._odds), p=self._odds))
        return int(rng.choice(self._frames[shown])), shown
