"""Labels that stand for one of several classes: as class indices, in losses, and in scores."""

import numpy as np
import pytest
import torch

from camseg_core.data import Sample
from camseg_core.errors import ConfigError
from camseg_core.groups import FIRST_GROUP, Group, frame_table, joint_groups
from camseg_core.labels import CITYSCAPES, TRAIN_ID, UNLABELLED, cityscapes_labels
from camseg_core.training.frames import Frames


def group(*names: str, id: int = FIRST_GROUP) -> Group:
    return Group.of(id, cityscapes_labels([TRAIN_ID[name] for name in names]))


def frames(
    labels: list[list[int]], *groups: Group, model: tuple[str, ...] = (), held: bool = True
) -> Frames:
    """Frames of one row each, for a model with these classes (all by default)."""
    samples = [
        Sample(np.zeros((1, len(row), 3), np.uint8), np.array([row], np.uint8), "a", groups)
        for row in labels
    ]
    classes = cityscapes_labels([TRAIN_ID[name] for name in model]) if model else CITYSCAPES
    found = joint_groups(classes, groups)
    return Frames.load(samples, classes, found, held_bytes=2**30 if held else 0)


@pytest.mark.parametrize("held", [True, False])
def test_groups_are_numbered_after_the_classes(held: bool) -> None:
    some = frames(
        [[0, 128, 129, 255, 200]], group("person", "rider"), group("car", "bus", id=129), held=held
    )
    assert some[0][1].tolist() == [[0, 19, 20, 255, 255]]
    assert [each.train_ids for each in some.every(1).groups] == [(11, 12), (13, 15)]
    assert some.members().nonzero().tolist() == [[0, 11], [0, 12], [1, 13], [1, 15]]


def test_only_the_model_s_classes_of_a_group_count() -> None:
    some = frames(
        [[128, 129, 130, 131]],
        group("person", "rider"),
        group("car", "bus", "train", id=129),
        group("wall", "fence", id=130),
        group("truck", "car", "bus", id=131),
        model=("bus", "car", "rider"),
    )
    assert some[0][1].tolist() == [[2, 3, 255, 3]]
    assert [(each.name, each.train_ids) for each in some.groups] == [("bus or car", (13, 15))]


def test_sets_with_other_groups_share_one_numbering() -> None:
    coarse, other = (group("car", "bus"), group("wall", "fence", id=129)), (group("bus", "car"),)
    joint = joint_groups(CITYSCAPES, coarse, other)
    assert [each.train_ids for each in joint] == [(13, 15), (3, 4)]
    assert frame_table(CITYSCAPES, joint, coarse)[[128, 129]].tolist() == [19, 20]
    assert frame_table(CITYSCAPES, joint, other)[[128, 129]].tolist() == [19, UNLABELLED]
    assert frame_table(CITYSCAPES, (), coarse)[[128, 129]].tolist() == [UNLABELLED, UNLABELLED]
    assert joint_groups(CITYSCAPES, joint, coarse) == joint


def test_a_group_may_have_the_id_of_the_class_that_a_set_names_it_after() -> None:
    car = group("car", "bus", id=TRAIN_ID["car"])
    joint = joint_groups(CITYSCAPES, (car,))
    assert frame_table(CITYSCAPES, joint, (car,))[[13, 15]].tolist() == [19, 15]
    eleven = cityscapes_labels([0, 13])
    assert joint_groups(eleven, (car,)) == ()
    assert frame_table(eleven, (), (car,))[[0, 13]].tolist() == [0, 1]


def test_there_are_at_most_as_many_groups_as_fit_into_a_byte() -> None:
    many = [
        Group(0, "", (0, 0, 0), tuple(i for i in range(19) if number >> i & 1))
        for number in range(2**8)
    ]
    with pytest.raises(ConfigError, match="at most 127 different groups together, got 247"):
        joint_groups(CITYSCAPES, many)


def test_a_group_s_pixels_weigh_as_the_classes_that_they_probably_have() -> None:
    row = [0] * 4 + [13] * 3 + [15] + [128] * 8
    some = frames([row], group("car", "bus"), model=("road", "car", "bus"))
    alone = frames([[0] * 4 + [13] * 9 + [15] * 3], model=("road", "car", "bus")).class_weights(3)
    weights = some.class_weights(3)
    assert torch.allclose(weights[:3], alone)
    assert weights[3].item() == pytest.approx((0.75 * alone[1] + 0.25 * alone[2]).item())
