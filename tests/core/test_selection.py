"""The choice of frames to label: uncertain ones, apart from each other, never near-duplicates."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest

from camseg_core.diffusion.sampling import Sampling
from camseg_core.evaluation.selection import (
    KEPT,
    Candidate,
    Judge,
    Pool,
    changed,
    choose,
    entropy,
    rarity,
    thumbnail,
)
from camseg_core.runtime.segmenter import Segmentation


def candidate(index: int, uncertainty: float, look: int | None = None, bag: int = 0) -> Candidate:
    """A frame whose features and picture follow from `look`, by default its own."""
    random = np.random.default_rng(index if look is None else 1000 + look)
    counts = np.zeros(256, np.int64)
    counts[0] = 100
    return Candidate(
        (bag, index),
        index,
        {"uncertainty": uncertainty},
        counts,
        random.normal(size=16).astype(np.float32),
        random.uniform(0, 255, (24, 32)).astype(np.float32),
    )


def places(pool: Pool, frames: int) -> list[int]:
    return [each.candidate.place[1] for each in choose(pool, frames)]


def test_the_most_uncertain_frame_is_the_first() -> None:
    pool = Pool(30, 3)
    for index in range(30):
        pool.add(candidate(index, float(index == 17)))
    first = choose(pool, 3)[0]
    assert first.candidate.place == (0, 17)
    assert first.reason.startswith("uncertainty (highest)")


def test_near_duplicates_are_never_both_chosen() -> None:
    pool = Pool(40, 10)
    for index in range(40):
        pool.add(candidate(index, 1 - index / 100, look=index // 10))
    found = places(pool, 10)
    assert sorted(index // 10 for index in found) == [0, 1, 2, 3]


def test_the_choice_is_spread_over_the_drive() -> None:
    pool = Pool(100, 5)
    for index in range(100):
        pool.add(candidate(index, 1.0 if index < 20 else 0.9))
    found = sorted(places(pool, 5))
    assert min(np.diff(found)) >= 10
    assert found[-1] >= 60


def test_the_pool_does_not_grow_with_the_drive() -> None:
    sizes = []
    for frames in (200, 2000):
        pool = Pool(frames, 5)
        for index in range(frames):
            pool.add(candidate(index, float(np.sin(index))))
        sizes.append(len(pool.candidates()))
    assert max(sizes) <= 2 * KEPT * 5


def test_a_drive_longer_than_stated_is_read_to_its_end() -> None:
    pool = Pool(4, 2)
    for index in range(50):
        pool.add(candidate(index, float(index)))
    assert 49 in places(pool, 2)


def test_frames_of_two_bags_are_apart_in_time() -> None:
    pool = Pool(4, 2)
    for bag in (0, 1):
        for index in range(2):
            pool.add(candidate(index, 1.0, look=2 * bag + index, bag=bag))
    assert {each.candidate.place[0] for each in choose(pool, 2)} == {0, 1}


def test_without_frames_nothing_is_chosen() -> None:
    assert choose(Pool(0, 3), 3) == []


def segmentation(mask: int, confidence: float) -> Segmentation:
    return Segmentation(
        np.full((8, 8), mask, np.uint8), np.full((8, 8), confidence, np.float32), {}
    )


@pytest.mark.parametrize(
    ("sampled", "bits"),
    [
        ([(0, 1.0), (0, 1.0)], 0.0),
        ([(0, 1.0), (1, 1.0)], 1.0),
        ([(0, 0.5), (0, 0.5)], 1.0),
        ([(0, 0.5), (1, 0.5)], 1.5),
    ],
)
def test_entropy_is_that_of_the_classes_shares(
    sampled: list[tuple[int, float]], bits: float
) -> None:
    assert entropy([segmentation(*each) for each in sampled]) == pytest.approx(bits, abs=1e-5)


def test_rarity_is_the_information_of_the_classes() -> None:
    total, counts = np.zeros(256, np.int64), np.zeros(256, np.int64)
    total[[0, 1]], counts[1] = (3, 1), 5
    assert rarity(counts, total) == pytest.approx(2)
    assert rarity(np.zeros(256, np.int64), total) == 0


def test_changed_pixels_are_counted() -> None:
    mask = np.zeros((2, 2), np.uint8)
    assert changed(mask, np.array([[0, 0], [0, 9]], np.uint8)) == 0.25
    assert changed(mask, mask[:1]) == 0  # after a change of the camera's size


def test_a_thumbnail_is_small_and_grey() -> None:
    assert thumbnail(np.full((48, 64, 3), 7, np.uint8)).tolist() == np.full((24, 32), 7.0).tolist()


@dataclass
class Blinking:
    """A model whose mask is another class on every call, as far as `Judge` needs one."""

    sampling: Sampling = field(default_factory=Sampling)
    calls: int = 0

    def with_sampling(self, sampling: Sampling) -> "Blinking":
        return Blinking(sampling)

    def segment(self, image: npt.NDArray[np.uint8]) -> Segmentation:
        self.calls += 1
        mask = np.full(image.shape[:2], self.calls, np.uint8)
        return Segmentation(mask, np.ones(mask.shape, np.float32), {})

    def features(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.zeros(4, np.float32)


def test_changes_count_only_between_neighbours_of_one_drive() -> None:
    judge, image = Judge(Blinking()), np.zeros((16, 16, 3), np.uint8)  # type: ignore[arg-type]
    places = [(0, 0), (0, 1), (0, 3), (0, 4), (1, 0), (1, 1)]  # 2 could not be decoded
    follows = [False, True, False, True, False, True]
    found = [
        judge.candidate(place, 0, image, is_so).measures["change"]
        for place, is_so in zip(places, follows, strict=True)
    ]
    assert found == [0, 1, 0, 1, 0, 1]
    another = judge.candidate((1, 2), 0, image, follows=False)  # of another camera
    assert another.measures["change"] == 0
