"""Class tables: groups, what is enabled, and what is said where a table makes no sense."""

from collections.abc import Sequence

import numpy as np
import pytest

from camseg_core.errors import ConfigError
from camseg_core.labels import (
    CAMVID_11_TRAIN_IDS,
    CITYSCAPES,
    TRAIN_ID,
    UNLABELLED,
    Label,
    cityscapes_labels,
    index_table,
    match_by_name,
    train_id_table,
)
from camseg_core.masks import ClassTable, colorize, overlay

LABELS = cityscapes_labels(CAMVID_11_TRAIN_IDS)
MASK = np.array([[label.id for label in LABELS] + [UNLABELLED]], np.uint8)


def mapped(table: ClassTable) -> dict[str, int]:
    """The wanted id of each of the model's classes."""
    return dict(
        zip([label.name for label in LABELS], table.apply(MASK)[0, :-1].tolist(), strict=True)
    )


def test_without_groups_every_class_stays_and_the_mask_is_not_even_copied() -> None:
    for table in (
        ClassTable.of(LABELS),
        ClassTable.of(LABELS, enabled=[label.name for label in LABELS]),
    ):
        assert table.is_identity
        assert table.labels == LABELS
        assert table.apply(MASK) is MASK


def test_a_group_takes_the_id_colour_and_place_of_its_first_class_unless_it_is_given_an_id() -> (
    None
):
    table = ClassTable.of(
        LABELS, ["drivable = road", "flat thing:100=sidewalk,traffic sign", "alive = rider, person"]
    )
    ids = mapped(table)
    assert ids["road"] == TRAIN_ID["road"]
    assert ids["sidewalk"] == ids["traffic sign"] == 100
    assert ids["rider"] == ids["person"] == TRAIN_ID["rider"]
    assert ids["sky"] == TRAIN_ID["sky"]
    assert table.apply(MASK)[0, -1] == UNLABELLED
    assert Label(100, "flat thing", CITYSCAPES[TRAIN_ID["sidewalk"]].color) in table.labels
    assert Label(TRAIN_ID["rider"], "alive", CITYSCAPES[TRAIN_ID["rider"]].color) in table.labels
    names = [label.name for label in table.labels]
    assert names == [
        "sky",
        "building",
        "pole",
        "drivable",
        "flat thing",
        "vegetation",
        "fence",
        "car",
        "alive",
    ]
    assert not table.is_identity


def test_a_group_of_one_class_renames_it_and_leaves_masks_alone() -> None:
    table = ClassTable.of(LABELS, ["drivable = road"])
    assert table.is_identity
    assert "drivable" in [label.name for label in table.labels]


def test_a_group_may_have_the_name_or_the_id_of_a_class_that_is_in_a_group() -> None:
    table = ClassTable.of(
        LABELS, ["road = road, sidewalk", f"thing:{TRAIN_ID['sidewalk']} = pole, fence"]
    )
    assert mapped(table)["sidewalk"] == TRAIN_ID["road"]
    assert mapped(table)["fence"] == TRAIN_ID["sidewalk"]


def test_what_is_not_enabled_is_unlabelled() -> None:
    table = ClassTable.of(LABELS, ["flat = road, sidewalk"], ["flat", "car"])
    assert [label.name for label in table.labels] == ["flat", "car"]
    ids = mapped(table)
    assert {name for name, number in ids.items() if number != UNLABELLED} == {
        "road",
        "sidewalk",
        "car",
    }
    assert ids["car"] == TRAIN_ID["car"]


@pytest.mark.parametrize(
    ("groups", "enabled", "said"),
    [
        (
            ["flat"],
            [],
            "group 'flat' must be NAME = CLASS, CLASS or NAME:ID = CLASS, CLASS, "
            "as in 'flat:100 = road, sidewalk'",
        ),
        (["= road"], [], "group '= road' must be NAME"),
        (["flat ="], [], "group 'flat =' must be NAME"),
        (["flat = road,"], [], "group 'flat = road,' must be NAME"),
        ([":7 = road"], [], "group ':7 = road' must be NAME"),
        (["flat:x = road"], [], "the id of a group must be 0 to 254, got 'x'"),
        (["flat: = road"], [], "must be 0 to 254, got ''"),
        (["flat:-1 = road"], [], "must be 0 to 254, got '-1'"),
        (["flat:255 = road"], [], "must be 0 to 254, got '255'"),
        (
            ["flat = road, sidewalks"],
            [],
            "unknown class 'sidewalks' in group .*: did you mean 'sidewalk'\\? "
            "choose from building, car, .*vegetation",
        ),
        (
            ["flat = zebra crossing"],
            [],
            "unknown class 'zebra crossing' in group 'flat = zebra crossing': choose from building",
        ),
        (["flat = road, road"], [], "class 'road' must be in at most one group, found again"),
        (
            ["flat = road", "ground = sidewalk, road"],
            [],
            "class 'road' must be in at most one group, found again in 'ground = sidewalk, road'",
        ),
        (["flat:10 = road"], [], "'sky' and 'flat' both have the id 10; give the group another"),
        (["flat:100 = road", "tall:100 = pole"], [], "both have the id 100"),
        (["sky = road"], [], "two classes or groups are called 'sky'; give the group another name"),
        (["flat = road", "flat:100 = sidewalk"], [], "two classes or groups are called 'flat'"),
        ([], ["raod"], "unknown class 'raod' in enabled: did you mean 'road'"),
        (["flat = road"], ["road"], "unknown class 'road' in enabled: .*flat"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(
    groups: Sequence[str], enabled: Sequence[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        ClassTable.of(LABELS, groups, enabled)


def test_classes_that_the_model_lacks_are_skipped_and_reported() -> None:
    groups = ["drivable = terrain, road", "tall = zebra crossing, pole"]
    table = ClassTable.of(LABELS, groups, ["drivable", "train", "tall"])
    assert [label.name for label in table.labels] == ["tall", "drivable"]
    ids = mapped(table)
    assert (ids["road"], ids["pole"]) == (TRAIN_ID["road"], TRAIN_ID["pole"])
    assert [text.split(" is skipped")[0] for text in table.skipped] == [
        "class 'terrain' in group 'drivable = terrain, road'",
        "class 'zebra crossing' in group 'tall = zebra crossing, pole'",
        "class 'train' in enabled",
    ]
    assert ClassTable.of(LABELS, ["drivable = road"]).skipped == ()


def test_a_class_of_cityscapes_is_never_taken_for_a_misspelt_one() -> None:
    labels = cityscapes_labels((0, 16))  # road and train, which looks like terrain
    table = ClassTable.of(labels, ["drivable = road, terrain"])
    assert len(table.skipped) == 1
    with pytest.raises(ConfigError, match="unknown class 'roads' in group .*: did you mean 'road'"):
        ClassTable.of(labels, ["drivable = road, roads"])
    with pytest.raises(ConfigError, match="unknown class 'terrain' in group 'g = terrain'"):
        ClassTable.of(labels, ["g = terrain"])


def test_ids_may_be_equal_where_only_one_is_published() -> None:
    table = ClassTable.of(LABELS, ["flat:10 = road"], ["flat", "car"])
    assert mapped(table)["sky"] == UNLABELLED
    assert mapped(table)["road"] == 10


def test_pictures_take_the_tables_colours() -> None:
    table = ClassTable.of(LABELS, ["flat:100 = sidewalk, road"], ["flat", "sky"])
    mask = table.apply(MASK)
    colors = colorize(mask, table.colors)
    assert (colors[mask == 100] == CITYSCAPES[TRAIN_ID["sidewalk"]].color).all()
    assert (colors[mask == TRAIN_ID["sky"]] == CITYSCAPES[TRAIN_ID["sky"]].color).all()
    assert (colors[mask == UNLABELLED] == 0).all()
    assert table.colors is table.colors
    rgb = np.full((*mask.shape, 3), 9, np.uint8)
    assert np.array_equal(
        overlay(rgb, mask, 1.0, table.colors), np.where(mask[..., None] == UNLABELLED, rgb, colors)
    )


def test_index_and_train_id_tables_are_inverse_and_name_what_is_no_class() -> None:
    index, train_id = index_table(LABELS), train_id_table(LABELS)
    assert index.dtype == train_id.dtype == np.uint8
    assert [index[label.id] for label in LABELS] == list(range(len(LABELS)))
    assert np.array_equal(train_id[index[MASK]], MASK)
    assert np.count_nonzero(index != UNLABELLED) == len(LABELS)
    assert (train_id[len(LABELS) :] == UNLABELLED).all()
    assert index_table(LABELS, other=11)[UNLABELLED] == 11


def test_classes_in_another_order_are_matched_by_name() -> None:
    by_id = sorted(LABELS, key=lambda label: label.id)
    places = match_by_name(LABELS, by_id)
    assert [by_id[place] for place in places] == list(LABELS)
    with pytest.raises(ConfigError, match="no class named train among sky, building"):
        match_by_name(CITYSCAPES[16:17], LABELS)
