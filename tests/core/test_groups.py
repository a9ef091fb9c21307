"""Labels that stand for one of several classes: as class indices, in losses, and in scores."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from camvid_folder import write_camvid
from lite import tiny_lite

from camseg_core.cli.main import main
from camseg_core.config.model import MaskAutoencoderConfig
from camseg_core.data import Sample
from camseg_core.data.sets import open_set
from camseg_core.data.sets.kind import OwnLabels
from camseg_core.errors import ConfigError
from camseg_core.evaluation.scorer import Scorer
from camseg_core.groups import (
    FIRST_GROUP,
    Group,
    ScoredLabels,
    distinguished,
    frame_table,
    joint_groups,
)
from camseg_core.labels import (
    CAMVID_11_TRAIN_IDS,
    CITYSCAPES,
    TRAIN_ID,
    UNLABELLED,
    cityscapes_labels,
)
from camseg_core.training import objectives
from camseg_core.training.completion import complete_at_random, complete_by_model, has_groups
from camseg_core.training.distributed import Processes
from camseg_core.training.frames import Frames
from camseg_core.training.losses import pixel_loss
from camseg_core.training.mask_autoencoder import (
    AutoencoderTraining,
    reconstruction_confusion,
    train_autoencoder,
)
from camseg_core.training.objectives import TaskLoss, task_objective
from camseg_core.training.settings import LoopConfig
from camseg_core.training.trainer import Run


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


def brute_force_loss(
    logits: torch.Tensor,
    indices: torch.Tensor,
    weights: torch.Tensor,
    jaccard_weight: float,
    members: torch.Tensor,
) -> torch.Tensor:
    """The loss as `pixel_loss` documents it, pixel by pixel, differentiated by autograd."""
    classes = logits.shape[1]
    sets = [{k} for k in range(classes)] + [
        set(row.nonzero().flatten().tolist()) for row in members
    ]
    losses = []
    for image, truth in zip(logits.double(), indices.tolist(), strict=True):
        log_share = image.log_softmax(0)
        pixels = [
            (label, log_share[:, y, x])
            for y, row in enumerate(truth)
            for x, label in enumerate(row)
            if label != UNLABELLED
        ]
        entropy = [-weights[t] * p[sorted(sets[t])].logsumexp(0) for t, p in pixels]
        loss = torch.stack([*entropy, image.sum() * 0]).sum() / max(
            1e-6, sum(float(weights[t]) for t, _ in pixels)
        )
        shown = sorted({t for t, _ in pixels})
        for region in shown:
            common = size = predicted = torch.zeros(())
            for t, p in pixels:
                probability = p.exp()[sorted(sets[region])].sum()
                if sets[t] <= sets[region]:
                    common, size = common + probability, size + 1
                if sets[t] <= sets[region] or not sets[t] & sets[region]:
                    predicted = predicted + probability
            iou = (common + 1) / (predicted + size - common + 1)
            loss = loss + jaccard_weight * (1 - iou) / len(shown)
        losses.append(loss)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("spread", [3.0, 300.0])
def test_the_loss_with_groups_and_its_gradient_against_brute_force(spread: float) -> None:
    """With a spread of 300 the probability of labels is below the smallest float."""
    drawn = torch.Generator().manual_seed(0)
    logits = (spread * torch.randn(5, 6, 5, 6, generator=drawn)).requires_grad_()
    members = torch.tensor([[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1]]).bool()
    indices = torch.randint(9, (5, 5, 6), generator=drawn, dtype=torch.uint8)
    indices[0, :2] = UNLABELLED
    indices[1] = UNLABELLED  # an image without any label
    indices[2] = torch.where(indices[2] < 6, 7, indices[2])  # groups only, which overlap
    indices[3] %= 6  # classes only
    weights = torch.rand(9, generator=drawn) + 0.5
    expected = brute_force_loss(logits, indices, weights, 0.7, members)
    (wanted,) = torch.autograd.grad(2 * expected, logits)
    found = pixel_loss(logits, indices, weights, 0.7, members).total
    (gradient,) = torch.autograd.grad(2 * found, logits)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-7)
    assert not gradient[1].any()


def test_a_pixel_of_a_group_does_not_count_for_its_classes_alone() -> None:
    """Moving probability between the classes of a group changes nothing."""
    members = torch.tensor([[True, True, False]])
    indices = torch.tensor([[[3, 3, 0, 2]]], dtype=torch.uint8)
    losses = []
    for car in (0.1, 0.5, 0.7):
        shares = torch.tensor(
            [[car, car, 0.9, 0.1], [0.8 - car] * 2 + [0.05, 0.1], [0.2] * 2 + [0.05, 0.8]]
        )
        loss = pixel_loss(shares.log()[None, :, None], indices, torch.ones(4), 1.0, members)
        losses.append((loss.cross_entropy, loss.jaccard))
    assert losses[1] == pytest.approx(losses[0])
    assert losses[2] == pytest.approx(losses[0])


MEMBERS = torch.tensor([[True, True, False, False], [False, True, True, True]])  # of four classes


def test_each_region_of_a_group_gets_one_of_its_classes_by_the_sample_s_number() -> None:
    rows = ["44055", "44055", "00555", "44.3."]  # the fives touch; the two areas of fours do not
    text = [[UNLABELLED if c == "." else int(c) for c in row] for row in rows]
    indices = torch.tensor([text] * 40, dtype=torch.uint8)
    completed = complete_at_random(indices, MEMBERS, range(40), seed=3)
    assert torch.equal(completed[7:9], complete_at_random(indices[7:9], MEMBERS, range(7, 9), 3))
    first, second, other = completed[:, 0, 0], completed[:, 3, 0], completed[:, 0, 3]
    assert set(first.tolist()) == set(second.tolist()) == {0, 1}
    assert set(other.tolist()) == {1, 2, 3}
    assert (first != second).any()
    for (y, x), value in (((1, 1), first), ((3, 1), second), ((2, 2), other)):
        assert torch.equal(completed[:, y, x], value)
    kept = (indices < 4) | (indices == UNLABELLED)
    assert torch.equal(completed[kept], indices[kept])
    assert not has_groups(completed, 4)
    assert has_groups(indices, 4)


def test_the_model_completes_each_pixel_within_its_group() -> None:
    drawn = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 6, 7, generator=drawn)
    indices = torch.randint(7, (2, 6, 7), generator=drawn, dtype=torch.uint8)
    indices[indices == 6] = UNLABELLED
    completed = complete_by_model(indices, logits, MEMBERS)
    for b, y, x in np.ndindex(2, 6, 7):
        label = expected = int(indices[b, y, x])
        if label in (4, 5):
            expected = max(
                MEMBERS[label - 4].nonzero().flatten().tolist(),
                key=lambda k: float(logits[b, k, y, x]),
            )
        assert completed[b, y, x] == expected


def figures(indices: torch.Tensor, all_hidden: float, own_share: float = 0.34) -> dict[str, float]:
    """The figures of one step of a small model with 11 classes on frames with these indices."""
    model = copy.deepcopy(tiny_lite())
    images = torch.rand(3, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    members = torch.zeros(2, 11, dtype=torch.bool)
    members[0, [1, 2, 3]] = members[1, [8, 9]] = True
    loss = task_objective(
        model,
        lambda numbers: (images, indices),
        3,
        torch.ones(13),
        TaskLoss(own_share=own_share, decoder_joins=0),
        all_hidden,
        LoopConfig(steps=1, lr=1e-3, precision="fp32"),
        Processes(),
        members=members,
    )
    total, found = loss(0)
    total.backward()
    gradient = model.denoiser.cond_embed.weight.grad
    return {**found, "total": total.item(), "gradient": gradient.norm().item()}


@pytest.mark.parametrize(("parts", "own"), [(1, [2]), (2, [2, 0]), (4, [1, 1, 0, 0])])
def test_the_share_of_own_estimates_is_of_the_whole_batch(
    parts: int, own: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a process or part has a single frame, which alone would round to none."""
    followed: list[int] = []

    def chain(model: object, condition: object, start: torch.Tensor, *scored: int) -> object:
        followed.append(len(start))
        return start, 0

    monkeypatch.setattr(objectives, "ddim_input", chain)
    images = torch.rand(4, 3, 64, 96)
    indices = torch.randint(11, (4, 64, 96), dtype=torch.uint8)

    def batch(numbers: range) -> tuple[torch.Tensor, torch.Tensor]:
        inside = [number % 4 for number in numbers]
        return images[inside], indices[inside]

    loss = task_objective(
        copy.deepcopy(tiny_lite()),
        batch,
        4,
        torch.ones(11),
        TaskLoss(own_share=0.5, decoder_joins=0, chains=(2,)),
        1.0,
        LoopConfig(steps=1, lr=1e-3, precision="fp32", grad_accum_steps=parts),
        Processes(),
    )
    for step in range(2):
        followed.clear()
        totals = [loss(step, part)[0] for part in range(parts)]
        assert followed == [count for count in own if count]
        assert all(torch.isfinite(total) for total in totals)


@pytest.mark.parametrize("all_hidden", [0.0, 1.0])
def test_latents_of_groups_are_those_of_the_model_s_own_completion(
    all_hidden: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = torch.randint(13, (3, 4, 6), generator=torch.Generator().manual_seed(1))
    indices = blocks.repeat_interleave(16, 1).repeat_interleave(16, 2).to(torch.uint8)
    seen = []

    def spy(*arguments: torch.Tensor) -> torch.Tensor:
        seen.append(complete_by_model(*arguments))
        return seen[-1]

    monkeypatch.setattr(objectives, "complete_by_model", spy)
    grouped = figures(indices, all_hidden)
    (completed,) = seen
    assert not has_groups(completed, 11)
    assert torch.equal(completed[indices < 11], indices[indices < 11])
    alone = figures(completed, all_hidden)
    assert len(seen) == 1
    assert grouped["latents"] == pytest.approx(alone["latents"], rel=1e-4)
    assert grouped["cross_entropy"] < alone["cross_entropy"]
    assert grouped["gradient"] > 0


def test_a_step_scores_one_diagonal_of_each_four_pixels() -> None:
    indices = torch.randint(11, (3, 64, 96), generator=torch.Generator().manual_seed(1))
    counted, others = indices.clone(), indices.clone()
    counted[:, ::2, 1::2] = others[:, ::2, ::2] = others[:, 1::2, 1::2] = 0
    found, changed, same = (
        [figures(each.to(torch.uint8), 1.0, own_share=0)[n] for n in ("cross_entropy", "jaccard")]
        for each in (indices, counted, others)
    )
    assert same == found
    assert changed != found


def test_pixels_without_label_ask_for_nothing() -> None:
    blank = torch.full((3, 64, 96), UNLABELLED, dtype=torch.uint8)
    nothing = figures(blank, 1.0)
    assert nothing["total"] == nothing["gradient"] == 0


def test_the_mask_autoencoder_learns_all_classes_of_a_group(tmp_path: Path) -> None:
    label = np.full((64, 64), 128, np.uint8)
    samples = [
        Sample(np.zeros((64, 64, 3), np.uint8), label, str(i), (group("car", "bus"),))
        for i in range(12)
    ]
    classes = cityscapes_labels([TRAIN_ID["car"], TRAIN_ID["bus"]])
    some = Frames.load(samples, classes, joint_groups(classes, samples[0].groups))
    config = AutoencoderTraining(
        MaskAutoencoderConfig(2, 4, (8, 8), (8, 8)),
        LoopConfig(steps=120, lr=5e-3, ema_decay=0.5, precision="fp32"),
        batch=4,
        crop=(32, 32),
    )
    trained = train_autoencoder(config, some, Run(tmp_path))
    confusion = reconstruction_confusion(trained, some)
    assert (confusion.labelled > 0).all()
    assert confusion.mean_iou() > 0.9


def test_camvid_s_classes_stand_for_those_that_a_model_knows(tmp_path: Path) -> None:
    found = open_set("camvid", write_camvid(tmp_path, "val", frames=1))
    assert found.labels == cityscapes_labels(CAMVID_11_TRAIN_IDS)
    assert distinguished(found.labels, found.groups) == found.labels
    eleven = Frames.load(found.samples, found.labels, joint_groups(found.labels, found.groups))
    assert eleven.groups == ()
    assert set(eleven[0][1].unique().tolist()) <= {*range(11), UNLABELLED}
    groups = joint_groups(CITYSCAPES, found.groups)
    nineteen = Frames.load(found.samples, CITYSCAPES, groups)
    assert [each.name for each in nineteen.groups] == [
        "building or wall",
        "vegetation or terrain",
        "traffic light or traffic sign",
        "car or truck or bus or train",
        "rider or motorcycle or bicycle",
    ]
    possible = torch.cat([torch.eye(19).bool(), nineteen.members()])
    for name, index in zip(found.labels, range(11), strict=True):
        pixels = eleven[0][1] == index
        for fine in nineteen[0][1][pixels].unique().tolist():
            assert possible[fine, name.id]
    told_apart = [int(i) for i in torch.arange(19) if not nineteen.members()[:, i].any()]
    assert [CITYSCAPES[i].name for i in told_apart] == [
        "road",
        "sidewalk",
        "fence",
        "pole",
        "sky",
        "person",
    ]


SETS = {
    "disjoint": (("road",), (group("car", "bus"), group("person", "rider", id=129))),
    "named after a class": (("road", "car"), (group("car", "bus", "truck", id=13),)),
    "overlapping": (("car", "road"), (group("car", "bus"), group("bus", "truck", "car", id=129))),
    "classes alone": (("road", "car", "person"), ()),
}


def stands_for(classes: tuple[str, ...], groups: tuple[Group, ...]) -> dict[int, set[int]]:
    """The train ids that each id in a label stands for, in the order of the scores."""
    found = {TRAIN_ID[name]: {TRAIN_ID[name]} for name in classes}
    for each in groups:
        found[each.id] = {*each.train_ids}
    return found


def counted(label: int, mask: int, meaning: dict[int, set[int]]) -> int | None:
    """The id that a prediction counts as, by the rule that `ScoredLabels` documents."""
    if label in meaning and mask in meaning[label]:
        return label
    fitting = [id for id, classes in meaning.items() if mask in classes]
    return min(fitting, key=lambda id: len(meaning[id])) if fitting else None


@pytest.mark.parametrize("kind", SETS)
def test_scores_over_groups_against_brute_force(kind: str) -> None:
    meaning = stands_for(*SETS[kind])
    names, groups = SETS[kind]
    scored = ScoredLabels.of(cityscapes_labels([TRAIN_ID[name] for name in names]), groups)
    assert [label.id for label in scored.labels] == [*meaning]
    drawn = np.random.default_rng(0)
    label = drawn.choice(np.array([*meaning, 2, UNLABELLED], np.uint8), (30, 40))
    mask = drawn.choice(np.array([0, 2, 11, 12, 13, 14, 15, UNLABELLED], np.uint8), (30, 40))
    scorer = Scorer(scored)
    scorer.add(label, mask, np.full(label.shape, 0.5, np.float32))
    size, place = len(meaning), {id: i for i, id in enumerate(meaning)}
    matrix = np.zeros((size, size + 1), np.int64)
    outside: dict[str, int] = {}
    for true, found in zip(label.flat, mask.flat, strict=True):
        if true in meaning:
            id = counted(int(true), int(found), meaning)
            matrix[place[int(true)], size if id is None else place[id]] += 1
            if id is None:
                name = CITYSCAPES[found].name if found < 19 else "no class"
                outside[name] = outside.get(name, 0) + 1
    assert np.array_equal(scorer.confusion.matrix, matrix)
    assert scorer.predicted_outside() == outside
    assert scorer.not_scored() == {"building": np.count_nonzero(label == TRAIN_ID["building"])}
    assert scorer.calibration.counts.sum() > 0
    again = Scorer.from_json(scorer.to_json(), scored)
    again.merge(scorer)
    assert np.array_equal(again.confusion.matrix, 2 * matrix)
    assert again.predicted_outside() == {name: 2 * count for name, count in outside.items()}


def test_a_group_whose_classes_are_all_scored_has_only_a_recall() -> None:
    """No prediction counts as it elsewhere, so its IoU would be its recall, and its precision 1."""
    groups = (group("car", "bus"), group("person", "rider", id=129))
    labels = cityscapes_labels([TRAIN_ID[name] for name in ("road", "car", "bus", "person")])
    scored = ScoredLabels.of(labels, groups)
    assert scored.recall_only.tolist() == [False, False, False, False, True, False]
    label = np.array([[128, 128, 129, 129, TRAIN_ID["road"]]], np.uint8)
    mask = np.array(
        [[TRAIN_ID[name] for name in ("car", "road", "rider", "bus", "road")]], np.uint8
    )
    scorer = Scorer(scored)
    scorer.add(label, mask)
    confusion = scorer.confusion
    assert confusion.recall().tolist()[4:] == [0.5, 0.5]
    for scores in (confusion.iou(), confusion.precision(), scorer.boundary.per_class()):
        assert np.isnan(scores[4])
    road, bus, either = 0.5, 0.0, 0.5  # car and person: neither labelled nor predicted
    assert confusion.mean_iou() == pytest.approx(np.mean([road, bus, either]))
    counted = scorer.counted_as(CITYSCAPES)
    assert ("in no mean, only their recall is defined", "car or bus") in counted.facts()
    assert counted.to_json()["recall_only"] == {"car or bus": 2}
    assert "recall_only" not in Scorer(labels).counted_as(CITYSCAPES).to_json()


@pytest.mark.parametrize("second", ["[car, truck]", "[truck, car]", "[car, truck, car]"])
def test_two_groups_of_the_same_classes_are_refused(tmp_path: Path, second: str) -> None:
    """The second one would be in no mean: every prediction counts as the first."""
    file = tmp_path / "mapping.yaml"
    file.write_text(
        "ids: {road: [0]}\n"
        f"groups: [{{classes: [car, truck], ids: [50]}}, {{classes: {second}, ids: [51]}}]\n"
    )
    with pytest.raises(ConfigError, match="must not stand for the same classes, got car or truck "):
        open_set("folder", tmp_path, "val", OwnLabels(mapping=file))


def test_members_of_a_group_that_is_named_after_a_class_count_as_it_in_other_sets() -> None:
    """As in the weather on the synthetic drive, which distinguishes them."""
    scored = ScoredLabels.of(
        cityscapes_labels([TRAIN_ID["road"], TRAIN_ID["car"]]),
        [group("car", "bus", "truck", id=TRAIN_ID["car"])],
    )
    names = ("road", "car", "bus", "truck", "sky")
    assert [int(scored.truth[TRAIN_ID[name]]) for name in names] == [0, 1, 1, 1, 2]


def test_a_fine_set_is_scored_over_another_s_groups() -> None:
    coarse = ScoredLabels.of(
        cityscapes_labels([TRAIN_ID["road"]]),
        (group("car", "bus"), group("person", "rider", id=129)),
    )
    fine = ScoredLabels.of(cityscapes_labels([0, 2, 11, 12, 13, 15])).over(coarse)
    scorer = Scorer(fine)
    label = np.array([[0, 2, 11, 12, 13, 15, 255, 128]], np.uint8)
    scorer.add(label, np.array([[0, 13, 12, 15, 15, 13, 0, 0]], np.uint8))
    assert scorer.confusion.matrix.tolist() == [[1, 0, 0, 0], [0, 2, 0, 0], [0, 1, 1, 0]]
    assert scorer.not_scored() == {"building": 1, "id 128": 1}
    assert scorer.predicted_outside() == {}
    assert fine.merged(CITYSCAPES) == {
        "car or bus": ["car", "bus"],
        "person or rider": ["person", "rider"],
    }
    vehicles = ScoredLabels.of((), (group("car", "bus"),)).over(
        ScoredLabels.of((), (group("car", "bus", "truck"), group("bus", "train", id=129)))
    )
    assert vehicles.truth_of(np.array([[128, 13, 15]], np.uint8)).tolist() == [[0, 0, 0]]


def test_camvid_scores_a_model_of_nineteen_classes_over_its_eleven(tmp_path: Path) -> None:
    found = open_set("camvid", write_camvid(tmp_path, "val", frames=1))
    scored = found.scored()
    assert scored.labels == found.labels
    label = np.array([[2, 2, 8, 7, 13, 13, 12, 5, 255]], np.uint8)
    mask = np.array([[3, 2, 9, 6, 14, 17, 18, 4, 2]], np.uint8)
    scorer = Scorer(scored)
    scorer.add(label, mask)
    right = [True, True, True, True, True, False, True, False]
    assert scorer.confusion.hits.sum() == sum(right)
    assert scorer.predicted_outside() == {}
    assert scored.merged(CITYSCAPES) == {
        "building": ["building", "wall"],
        "vegetation": ["vegetation", "terrain"],
        "traffic sign": ["traffic light", "traffic sign"],
        "car": ["car", "truck", "bus", "train"],
        "rider": ["rider", "motorcycle", "bicycle"],
    }
    assert scored.merged(found.labels) == {}


def test_the_mapping_file_of_camvid_says_what_its_kind_knows(tmp_path: Path) -> None:
    root = write_camvid(tmp_path, "val", frames=1)
    known = open_set("camvid", root)
    file = Path(__file__).parents[2] / "config/data/camvid.yaml"
    listed = open_set("folder", root, "val", OwnLabels(mapping=file))
    one, other = (
        dict(zip(each.classes, each.labels, strict=True))
        for each in (known.scored(), listed.scored())
    )
    assert set(one) == set(other)
    first, second = (each.scored().truth_of(each.samples[0].label) for each in (known, listed))
    for classes in one:
        places = [[*each.scored().classes].index(classes) for each in (known, listed)]
        assert np.array_equal(first == places[0], second == places[1])
    assert np.array_equal(first == len(one), second == len(one))


@pytest.mark.slow
def test_the_reports_say_which_classes_counted_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_camvid(tmp_path / "data", "val", frames=1, size=(64, 96))
    folder = Path(__file__).parents[2] / "config" / "data"
    command = ["evaluate", f"--data={root}", f"--groups={folder / 'idd-lite.yaml'}"]
    main([*command, f"--out={tmp_path / 'out'}"])
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    counted = report["counted_as"]
    assert counted["merged"]["person or rider"] == ["person", "rider"]
    assert "building" in counted["not_scored"]  # or wall, which is in another group than building
    assert [each["name"] for each in report["classes"]][:3] == [
        "road",
        "sky",
        "sidewalk or terrain",
    ]
    text = "person or rider (person + rider)"
    assert text in capsys.readouterr().out
    assert text in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    main(["evaluate", f"--data={root}", f"--out={tmp_path / 'own'}"])
    own = json.loads((tmp_path / "own" / "report.json").read_text(encoding="utf-8"))
    assert own["counted_as"]["merged"]["car"] == ["car", "truck", "bus", "train"]
    assert not own["counted_as"]["not_scored"]
    assert len(own["classes"]) == 11
    with pytest.raises(SystemExit):
        main([*command, "--protocol=cityscapes"])
    assert "give --groups without it" in capsys.readouterr().err
    for protocol in ("cityscapes", "camseg"):
        with pytest.raises(SystemExit):
            main(["evaluate", f"--data={root}", f"--protocol={protocol}"])
        expected = "labels of the data set stand for one of several: building"
        assert expected in capsys.readouterr().err


def test_the_robustness_report_says_which_classes_counted_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_camvid(tmp_path / "data", "val", frames=1, size=(64, 96))
    groups = Path(__file__).parents[2] / "config" / "data" / "idd-lite.yaml"
    command = ["robustness", f"--data={root}", "--only=paper/contrast", f"--groups={groups}"]
    main([*command, f"--out={tmp_path / 'out'}"])
    report = json.loads((tmp_path / "out" / "robustness.json").read_text(encoding="utf-8"))
    assert report["merged"]["person or rider"] == ["person", "rider"]
    text = "person or rider (person + rider)"
    assert text in capsys.readouterr().out
    assert text in (tmp_path / "out" / "robustness.html").read_text(encoding="utf-8")
