"""Crops and varied views: image and label move together, seeded; each change does as named."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camseg_core.data.augmentation import Augmentation, Variation, random_crops, varied_views
from camseg_core.data.corruptions import COMMON
from camseg_core.data.random_changes import KINDS, Disturb
from camseg_core.errors import ConfigError
from camseg_core.labels import UNLABELLED

NOTHING = Variation(
    share=1.0, flip=False, upside_down=False, crop=(1, 1), rotation=0, shear=0, shift=0,
    cutout=(0, 0), noise=(0, 0), salt_and_pepper=(0, 0), blur=(0, 0), motion_blur=(0, 0), jitter=0,
)  # fmt: skip
SIZE = (96, 128)


def scene(height: int = 96, width: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of three classes, each with its grey level."""
    label = np.kron(
        np.random.default_rng(0).integers(0, 3, (height // 16, width // 16)), np.ones((16, 16))
    ).astype(np.uint8)
    return np.repeat((60 + 60 * label)[..., None], 3, axis=2).astype(np.uint8), label


def view(
    variation: Variation, seed: int = 0, size: tuple[int, int] = SIZE, frame: tuple[int, int] = SIZE
) -> tuple[np.ndarray, np.ndarray]:
    return varied_views(size, variation)(*scene(*frame), np.random.default_rng(seed))


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
        )  # black outside of the frame, except at its edge


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


@pytest.mark.parametrize(
    "augment",
    [
        varied_views((64, 64), Variation(cutout=(20, 50))),
        random_crops((64, 64), (0.2, 1.0), color=True),
    ],
    ids=["views", "crops"],
)
def test_a_sample_is_decided_by_the_generator_and_keeps_its_form(augment: Augmentation) -> None:
    rgb, label = scene()
    before = rgb.copy(), label.copy()

    def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
        return augment(rgb, label, np.random.default_rng(seed))

    found, ids = draw(1)
    assert (found.shape, ids.shape) == ((64, 64, 3), (64, 64))
    assert (found.dtype, ids.dtype) == (np.uint8, np.uint8)
    assert set(np.unique(ids)) <= {0, 1, 2, UNLABELLED}
    assert all(np.array_equal(a, b) for a, b in zip(draw(1), (found, ids), strict=True))
    assert not np.array_equal(draw(2)[0], found)
    assert all(np.array_equal(a, b) for a, b in zip(before, (rgb, label), strict=True))


@pytest.mark.parametrize("frame", [(96, 128), (64, 224), (224, 64)], ids=str)
def test_crops_move_the_label_with_the_image(frame: tuple[int, int]) -> None:
    augment = random_crops((96, 128), (0.3, 1.0), color=False)
    rgb, label = scene(*frame)
    seen = set()
    for seed in range(8):
        found, ids = augment(rgb, label, np.random.default_rng(seed))
        assert found.shape == (96, 128, 3)
        assert set(np.unique(ids)) <= {0, 1, 2}
        assert (np.abs(found[..., 0].astype(int) - (60 + 60 * ids.astype(int))) < 30).mean() > 0.93
        seen.add(ids.tobytes())
    assert len(seen) == 8


def test_crops_take_the_stated_share_of_the_area() -> None:
    ramps = np.zeros((300, 400, 3), np.uint8)
    ramps[..., 0] = np.linspace(0, 255, 400)[None]
    ramps[..., 1] = np.linspace(0, 255, 300)[:, None]
    augment = random_crops((96, 128), (0.25, 0.5), color=False)
    label = np.zeros((300, 400), np.uint8)
    for seed in range(20):
        found, _ = augment(ramps, label, np.random.default_rng(seed))
        width, height = (np.ptp(found[..., i].astype(int)) / 255 for i in (0, 1))
        assert 0.22 < width * height < 0.53
        assert 1.0 < 400 * width / (300 * height) < 1.7


def test_crops_are_mirrored_half_of_the_time() -> None:
    ramp = np.repeat(np.linspace(0, 255, 128).astype(np.uint8)[None], 96, axis=0)
    rgb = np.repeat(ramp[..., None], 3, axis=2)
    augment = random_crops((32, 48), (0.5, 1.0), color=False)
    crops = [augment(rgb, ramp, np.random.default_rng(seed))[0] for seed in range(200)]
    assert 75 < sum(int(crop[0, 0, 0]) > int(crop[0, -1, 0]) for crop in crops) < 125


def test_colours_of_crops_change_without_the_label() -> None:
    rgb, label = scene()
    plain, colored = (
        [
            random_crops(SIZE, (1.0, 1.0), color=color)(rgb, label, np.random.default_rng(seed))
            for seed in range(60)
        ]
        for color in (False, True)
    )
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(plain, colored, strict=True))
    same = sum(np.array_equal(a[0], b[0]) for a, b in zip(plain, colored, strict=True))
    assert 1 <= same <= 20  # 0.2 * 0.95 * 0.85 * 0.85 of 60 is 8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crop": (0.9, 0.6)}, r"crop must be two numbers >= 0 in rising order, got \[0.9, 0.6\]"),
        ({"crop": (0.0, 1.0)}, r"crop must be above 0 and at most 1, got \[0.0, 1.0\]"),
        ({"share": 1.5}, "share must be from 0 to 1, got 1.5"),
        ({"shear": 90}, "shear must be at least 0 and below 80, got 90"),
        ({"salt_and_pepper": (0, 2)}, r"salt_and_pepper must be at most 1, got \[0, 2\]"),
        ({"noise": (-1, 5)}, "noise must be"),
    ],
)
def test_impossible_variations_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Variation(**changes)


def test_parts_may_reach_beyond_the_frame_where_nothing_is_labelled() -> None:
    """The label is the place in the frame, so both can be compared wherever there is a label."""
    rows, columns = np.mgrid[:60, :100].astype(np.uint8)
    rgb, label = np.stack([2 * columns, 3 * rows, rows], 2), columns.copy()
    augment = random_crops((48, 64), (0.2, 4.0), False, aspect=(0.8, 2.0), beyond=True)
    unlabelled, scales = [], []
    for seed in range(60):
        view, ids = augment(rgb, label, np.random.default_rng(seed))
        assert (view.shape, ids.shape) == ((48, 64, 3), (48, 64))
        known = ids != UNLABELLED
        unlabelled.append(1 - known.mean())
        far = np.abs(view[..., 0].astype(int) - 2 * ids)[known]
        assert np.quantile(far, 0.95) <= 8
        assert not (view.max(2) == 0).all(0).any()  # mirrored, not black
        first = next(row[row != UNLABELLED] for row in ids if (row != UNLABELLED).any())
        scales.append(np.ptp(first.astype(int)) / max(1, len(first) - 1))
    assert min(unlabelled) == 0
    assert 0.5 < max(unlabelled) < 0.9
    assert min(scales) < 0.9 < 2.0 < max(scales)


def only_kinds(*kinds: str) -> dict[str, float]:
    return {name: float(name in kinds) for name in KINDS}


@pytest.mark.parametrize("kind", [*KINDS])
def test_training_disturbs_by_every_kind_and_leaves_the_label(kind: str) -> None:
    grey, label = scene()
    rgb = grey - np.array([0, 20, 40], np.uint8)
    changes = Disturb(1.0, 0.0, weights=only_kinds(kind)).changes()
    augment = Augmentation(SIZE, lambda *_: (1.0, 1.0), changes=changes)
    found = [augment(rgb, label, np.random.default_rng(seed)) for seed in (0, 0, 1, 2, 3)]
    assert np.array_equal(found[0][0], found[1][0])
    assert any(not np.array_equal(view, rgb) for view, _ in found)
    assert all(np.array_equal(ids, label) for _, ids in found)
    assert all(view.dtype == np.uint8 and view.shape == rgb.shape for view, _ in found)


def test_the_stated_share_is_disturbed_some_of_it_twice() -> None:
    rgb = np.full((8, 8, 3), 100, np.uint8)
    options = Disturb(
        0.4, 0.5, brightness=(0.5, 0.5), gamma=(2, 2), weights=only_kinds("brightness", "gamma")
    )
    (change,) = options.changes()
    means = [int(change(rgb, np.random.default_rng(seed)).mean()) for seed in range(1000)]
    once, twice = means.count(50) + means.count(39), means.count(10) + means.count(20)
    assert means.count(100) + once + twice == 1000
    assert means.count(100) / 1000 == pytest.approx(0.6, abs=0.05)
    assert twice / (once + twice) == pytest.approx(0.5, abs=0.08)
    assert Disturb().changes() == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"share": 1.5}, "share must be from 0 to 1, got 1.5"),
        ({"jpeg": (0, 50)}, "jpeg must be two rising numbers from 1 to 100, got"),
        ({"hue": (0.2, -0.2)}, "hue must be two rising numbers from -1 to 1"),
        ({"weights": {"rain": 1.0}}, "weights must name kinds .gaussian_noise, .*, got rain"),
        ({"weights": {"hue": -1.0}}, "weights must be >= 0"),
        ({"share": 0.5, "weights": dict.fromkeys(KINDS, 0.0)}, "needs a kind with a range and"),
    ],
)
def test_impossible_disturbances_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Disturb(**changes)


def test_what_robustness_is_measured_with_alone_is_not_trained() -> None:
    text = (Path(__file__).parents[2] / "docs" / "robustness.md").read_text(encoding="utf-8")
    listed = text.partition("## Kept out of training")[2].partition("## ")[0]
    kept = {name for name in (each.name for each in COMMON) if f"`{name}`" in listed}
    assert {"glass_blur", "zoom_blur", "elastic_transform", "snow", "spatter"} <= kept
    assert not kept & {*KINDS}
