"""Varied views: image and label stay together, everything is seeded, and each change is what it is called."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from camseg_core.data.augmentation import Variation, Vary
from camseg_core.errors import ConfigError
from camseg_core.labels import UNLABELLED

NOTHING = Variation(
    share=1.0, flip=False, upside_down=False, crop=(1, 1), rotation=0, shear=0, shift=0, cutout=(0, 0), noise=(0, 0),
    salt_and_pepper=(0, 0), blur=(0, 0), motion_blur=(0, 0), jitter=0,
)  # fmt: skip
SIZE = (96, 128)


def scene(height: int = 96, width: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of three grey levels, told by their class."""
    label = np.kron(
        np.random.default_rng(0).integers(0, 3, (height // 16, width // 16)), np.ones((16, 16))
    ).astype(np.uint8)
    return np.repeat((60 + 60 * label)[..., None], 3, axis=2).astype(np.uint8), label


def view(
    variation: Variation, seed: int = 0, size: tuple[int, int] = SIZE, frame: tuple[int, int] = SIZE
) -> tuple[np.ndarray, np.ndarray]:
    return Vary(variation, size, UNLABELLED).view(*scene(*frame), np.random.default_rng(seed))


def only(**changes: Any) -> Variation:
    return replace(NOTHING, **changes)


def test_without_changes_a_frame_of_the_size_is_itself() -> None:
    for one, other in zip(view(NOTHING), scene(), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(
    "changes",
    [
        {"flip": True},
        {"upside_down": True},
        {"crop": (0.6, 0.9)},
        {"rotation": 90},
        {"shear": 10},
        {"shift": 0.2},
        {"cutout": (20, 50)},
    ],
    ids=str,
)
def test_changes_of_place_move_the_label_with_the_image(changes: dict[str, Any]) -> None:
    for seed in range(4):
        rgb, label = view(only(**changes), seed)
        assert not np.array_equal(label, scene()[1])
        known = label != UNLABELLED
        assert (
            np.abs(rgb[..., 0].astype(int) - (60 + 60 * label.astype(int)))[known] < 30
        ).mean() > 0.93  # all but edges
        assert (
            (rgb[~known] < 60).mean() > 0.9 if (~known).any() else True
        )  # black where nothing is, but for its edge


def test_flips_are_exact() -> None:
    rgb, label = scene()
    for changes, flipped in (
        ({"flip": True}, np.s_[:, ::-1]),
        ({"upside_down": True}, np.s_[::-1]),
    ):
        found = view(only(**changes))
        assert np.array_equal(found[0], rgb[flipped])
        assert np.array_equal(found[1], label[flipped])


def test_a_part_is_scaled_to_the_whole() -> None:
    _, label = view(only(crop=(0.5, 0.5)), size=(192, 256))
    assert label.shape == (192, 256)
    edges = np.flatnonzero((np.diff(label.astype(int), axis=0) != 0).any(axis=1))
    assert len(edges) <= 4  # 48 of 96 rows hold three blocks, each now 64 rows high


@pytest.mark.parametrize(
    ("changes", "low", "high"),
    [
        ({"noise": (5, 20)}, 4, 21),
        ({"salt_and_pepper": (0.01, 0.03)}, 5, 40),
        ({"jitter": 0.2}, 0.5, 80),
    ],
)
def test_changes_of_the_image_alone_leave_the_label_and_are_as_large_as_said(
    changes: dict[str, Any], low: float, high: float
) -> None:
    rgb, label = scene()
    for seed in range(5):
        found, same = view(only(**changes), seed)
        assert np.array_equal(same, label)
        assert (
            low
            < np.sqrt((found.astype(float) - rgb).var() + (found.astype(float) - rgb).mean() ** 2)
            < high
        )


def test_salt_and_pepper_strike_as_many_pixels_as_said() -> None:
    rgb, _ = scene()
    shares = [
        (view(only(salt_and_pepper=(0.01, 0.03)), seed)[0] != rgb).any(axis=2).mean()
        for seed in range(8)
    ]
    assert all(0.007 < share < 0.035 for share in shares)


@pytest.mark.parametrize("change", ["blur", "motion_blur"])
def test_blurs_soften_edges_and_keep_the_level(change: str) -> None:
    rgb, _ = scene()
    found, _ = view(only(**{change: (7, 7)}))
    steps = [np.abs(np.diff(each[..., 0].astype(int), axis=1)).max() for each in (rgb, found)]
    assert steps[1] < steps[0]
    assert abs(found.mean() - rgb.mean()) < 2


def test_a_random_subset_is_made() -> None:
    straight = sum(
        np.array_equal(view(only(flip=True, share=0.25), seed)[1], scene()[1])
        for seed in range(200)
    )
    assert 130 < straight < 170


def test_a_view_is_seeded_by_torch_and_keeps_its_form() -> None:
    rgb, label = scene()
    image = torch.from_numpy(rgb).permute(2, 0, 1).unsqueeze(0).float() / 255
    vary = Vary(Variation(cutout=(20, 50)), (64, 64), UNLABELLED)

    def draw(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(seed)
        return vary(image, torch.from_numpy(label).unsqueeze(0))

    found, ids = draw(1)
    assert (found.shape, found.dtype, ids.shape, ids.dtype) == (
        (1, 3, 64, 64),
        torch.float32,
        (1, 64, 64),
        torch.int64,
    )
    assert 0 <= found.min() <= found.max() <= 1
    assert set(ids.unique().tolist()) <= {0, 1, 2, UNLABELLED}
    assert all(torch.equal(a, b) for a, b in zip(draw(1), (found, ids), strict=True))
    assert not torch.equal(draw(2)[0], found)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crop": (0.9, 0.6)}, r"crop is \[0.9, 0.6\]; it is two rising numbers"),
        ({"crop": (0.0, 1.0)}, "crop from above 0 to 1"),
        ({"share": 1.5}, "share and salt_and_pepper are shares"),
        ({"shear": 90}, "shear 0 to below 80"),
        ({"noise": (-1, 5)}, "noise is"),
    ],
)
def test_impossible_variations_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Variation(**changes)
