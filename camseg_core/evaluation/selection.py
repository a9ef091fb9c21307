"""Chooses frames of a drive that are worth labelling: uncertain, diverse and spread over time."""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.labels import UNLABELLED
from camseg_core.runtime.segmenter import Segmentation, Segmenter

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]

MEASURES: Mapping[str, str] = {
    "uncertainty": "entropy of the sampled masks",
    "disagreement": "share of pixels in which the other checkpoint differs",
    "change": "share of pixels whose class changed since the frame before",
    "rarity": "mean information of the classes in the mask",
}
"""What makes a frame worth labelling, by name."""

KEPT = 4
"""Candidates that each measure keeps of a window of the drive."""

ALIKE = 3.0
"""Mean difference of two thumbnails, in grey levels, below which frames are near-duplicates."""

_STEP = 4
"""Measures use every fourth pixel in both directions."""

_THUMBNAIL = (32, 24)

_SAMPLES = 3
"""Masks to sample of a frame; each takes as long as segmenting it."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A frame that may be chosen.

    `place` is the number of its bag and its own within it, `measures` are by name, `counts` the
    pixels by train id `(256,)`, `features` the image encoder's `(D,)`, `thumbnail` small and grey.
    """

    place: tuple[int, int]
    stamp_ns: int
    measures: Mapping[str, float]
    counts: Counts
    features: Floats
    thumbnail: Floats


@dataclass(frozen=True, eq=False)
class Chosen:
    """A chosen frame: its rank within the candidates by measure, 0..1, and the reason in words."""

    candidate: Candidate
    ranks: Mapping[str, float]
    reason: str


def thumbnail(image: Ids) -> Floats:
    """Return a small grey picture of RGB `(H, W, 3)`, to recognise near-duplicates."""
    small = cv2.resize(image, _THUMBNAIL, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.float32)


def sparse(mask: Ids) -> Ids:
    """Return the pixels of a mask that the measures use."""
    return mask[::_STEP, ::_STEP]


def entropy(sampled: Sequence[Segmentation]) -> float:
    """Return the mean entropy per pixel, in bits, of masks sampled from one frame.

    Each mask assigns its confidence to its class; the remainder counts as one further class.
    """
    masks = np.stack([sparse(each.mask) for each in sampled])  # (S, h, w)
    confidences = np.stack([each.confidence[::_STEP, ::_STEP] for each in sampled])
    shares = [np.clip(1 - confidences.mean(0), 0, 1)]
    shares += [np.where(masks == id, confidences, 0).mean(0) for id in np.unique(masks).tolist()]
    bits = sum(-share * np.log2(np.maximum(share, 1e-9)) for share in shares)
    return float(np.mean(bits))


def changed(mask: Ids, other: Ids) -> float:
    """Return the share of pixels with different classes in two masks from `sparse`, 0..1."""
    return float((mask != other).mean()) if mask.shape == other.shape else 0.0


def rarity(counts: Counts, total: Counts) -> float:
    """Return the mean information in bits of a frame's classes, given the pixels of all frames."""
    known = np.flatnonzero(counts[:UNLABELLED])
    if not known.size:
        return 0.0
    shares = total[known] / max(1, int(total[:UNLABELLED].sum()))
    bits = -np.log2(np.maximum(shares, 1e-9))
    return float((counts[known] * bits).sum() / counts[:UNLABELLED].sum())


class Judge:
    """Measures frames by masks that a model samples, and by those of an `other` model if given."""

    def __init__(self, segmenter: Segmenter, other: Segmenter | None = None) -> None:
        # in parts, as the image encoder's features are needed
        settings = replace(segmenter.sampling, streams=True)
        self.segmenter = segmenter.with_sampling(settings)
        self._sampled = [
            self.segmenter,
            *(
                self.segmenter.with_sampling(replace(settings, seed=settings.seed + i))
                for i in range(1, _SAMPLES)
            ),
        ]
        self._other = other
        self._previous: Ids | None = None

    def candidate(
        self, place: tuple[int, int], stamp_ns: int, image: Ids, follows: bool
    ) -> Candidate:
        """Measure the RGB frame `(H, W, 3)`; its change is 0 unless it `follows` the last one.

        Raises:
            ImageError: see `Segmenter.segment`.
        """
        found = [each.segment(image) for each in self._sampled]
        mask = sparse(found[0].mask)
        before = self._previous if follows and self._previous is not None else mask
        measures = {"uncertainty": entropy(found), "change": changed(mask, before)}
        if self._other is not None:
            measures["disagreement"] = changed(mask, sparse(self._other.segment(image).mask))
        self._previous = mask
        return Candidate(
            place,
            stamp_ns,
            measures,
            np.bincount(mask.ravel(), minlength=256),
            self.segmenter.features(image),
            thumbnail(image),
        )


class Pool:
    """Keeps the best candidates by each measure in each window of the drive; drops the rest.

    Its size depends on the number of windows, not on the number of frames.

    Args:
        frames: number of frames in all bags, as far as known.
        windows: number of parts of the drive, with equally many frames each.
    """

    def __init__(self, frames: int, windows: int) -> None:
        self._per_window = max(1, math.ceil(frames / windows))
        self._windows = windows
        self._best: dict[tuple[int, str], list[tuple[float, int, Candidate]]] = {}
        self.total: Counts = np.zeros(256, np.int64)
        self.seen = 0

    def add(self, candidate: Candidate) -> None:
        """Keep the next frame if it is among the best of its window."""
        self.total += candidate.counts
        window = min(self.seen // self._per_window, self._windows - 1)
        measures = {**candidate.measures, "rarity": rarity(candidate.counts, self.total)}
        for name, value in measures.items():
            best = self._best.setdefault((window, name), [])
            heapq.heappush(best, (value, -self.seen, candidate))  # the earlier one wins a tie
            if len(best) > KEPT:
                heapq.heappop(best)
        self.seen += 1

    def candidates(self) -> list[Candidate]:
        """Return the candidates, in the order of the drive."""
        found = {each.place: each for best in self._best.values() for _, _, each in best}
        return [found[place] for place in sorted(found)]


def choose(pool: Pool, frames: int) -> list[Chosen]:
    """Choose frames: greedy k-centre over appearance and time, weighted by the mean rank.

    The first frame has the best mean rank over the measures. Each further one maximises its mean
    rank, plus 0.5, times its distance to the chosen frames: in features (cosine, relative to the
    median of all) and in time (up to the mean spacing). Near-duplicates of a chosen frame are left
    out, so there may be fewer frames than requested.
    """
    candidates = pool.candidates()
    if not candidates:
        return []
    measures = [{**each.measures, "rarity": rarity(each.counts, pool.total)} for each in candidates]
    names = list(measures[0])
    ranks = np.stack([_ranks([each[name] for each in measures]) for name in names], axis=1)
    score = 0.5 + ranks.mean(1)  # frames of low rank still count if they are unlike the others
    looks = np.stack([each.features for each in candidates])
    looks = looks - looks.mean(0)
    looks = looks / np.maximum(np.linalg.norm(looks, axis=1, keepdims=True), 1e-9)
    typical = max(1e-6, float(np.median(1 - looks @ looks.T)))
    spacing = max(1.0, pool.seen / frames)
    distance = np.full(len(candidates), np.inf)
    chosen: list[int] = []
    while len(chosen) < frames:
        priority = score * np.minimum(distance, 1)
        if chosen and priority.max() <= 0:
            break
        best = int(priority.argmax())
        chosen.append(best)
        apart = np.array([_spacing(each, candidates[best]) for each in candidates]) / spacing
        unlike = (1 - looks @ looks[best]) / typical
        alike = np.array([_alike(each, candidates[best]) for each in candidates])
        near = np.where(alike, 0, np.minimum(unlike, 1) * np.minimum(apart, 1))
        distance = np.minimum(distance, near)
    return [
        Chosen(
            candidates[i],
            dict(zip(names, ranks[i].tolist(), strict=True)),
            _reason(names, ranks[i]),
        )
        for i in chosen
    ]


def _ranks(values: Sequence[float]) -> Floats:
    """Return the share of values below each, 0..1; equal values have equal ranks."""
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, "left")
    return np.asarray(below / max(1, len(ordered) - 1), np.float32)


def _spacing(one: Candidate, other: Candidate) -> float:
    return abs(one.place[1] - other.place[1]) if one.place[0] == other.place[0] else math.inf


def _alike(one: Candidate, other: Candidate) -> bool:
    return float(np.abs(one.thumbnail - other.thumbnail).mean()) < ALIKE


def _reason(names: Sequence[str], ranks: Floats) -> str:
    high = sorted(zip(ranks.tolist(), names, strict=True), key=lambda each: -each[0])
    named = [
        f"{name} (highest)" if rank == 1 else f"{name} (above {100 * rank:.0f} %)"
        for rank, name in high
        if rank >= 0.5
    ]
    return ", ".join(named[:2]) or "unlike the others"
