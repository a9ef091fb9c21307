"""Two models on the same frames: shared labels, intervals, limits, and what is measured."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser

from camseg_core.data import Sample
from camseg_core.data.label_table import LabelTable, OwnClass
from camseg_core.data.shared_labels import shared_labels
from camseg_core.errors import ConfigError, DataError
from camseg_core.evaluation import intervals
from camseg_core.evaluation.comparison import ComparedModel, Comparison, Footage, Limits, compare
from camseg_core.evaluation.intervals import differences, ratio_of_medians
from camseg_core.evaluation.metrics import Confusion
from camseg_core.evaluation.report.comparison import comparison_lines, write_comparison
from camseg_core.evaluation.report.page import write_files
from camseg_core.groups import Group, ScoredLabels
from camseg_core.labels import CITYSCAPES, UNLABELLED, Label, cityscapes_labels
from camseg_core.runtime.segmenter import Segmentation
from camseg_core.training.start import ClassChanges

ROAD, TREE, SKY, CAR, TRUCK = 0, 8, 10, 13, 14
STREET = cityscapes_labels([ROAD, SKY, CAR])


class Painted:
    """A model whose mask is the image's red channel, wrong in some of the frames."""

    provider, engine, precision = "cpu", "a painter", "fp32"

    def __init__(self, labels: tuple[Label, ...] = STREET, wrong: tuple[int, ...] = ()) -> None:
        self.name, self.labels, self.wrong = "painted", labels, wrong
        self.order: list[int] = []

    def segment(self, rgb: np.ndarray) -> Segmentation:
        number = int(rgb[0, 0, 2])
        self.order.append(number)
        mask = rgb[..., 0].copy()
        if number in self.wrong:
            mask[:, :2] = ROAD
        return Segmentation(mask, np.full(mask.shape, 0.75, np.float32), {"paint": 2.0})


def sample(number: int, label: np.ndarray, seen: np.ndarray | None = None) -> Sample:
    image = np.zeros((*label.shape, 3), np.uint8)
    image[..., 0], image[..., 2] = label if seen is None else seen, number
    return Sample(image, label, f"frame {number}")


def street(columns: tuple[int, ...] = (CAR, CAR, SKY, ROAD)) -> np.ndarray:
    return np.array([columns] * 4, np.uint8)


def compared(
    old: Painted, new: Painted, samples: list[Sample], follows: bool = False
) -> Comparison:
    def read() -> Iterator[tuple[Sample, bool]]:
        return ((each, follows and i > 0) for i, each in enumerate(samples))

    scored = ScoredLabels.of(STREET)
    return compare(
        ComparedModel("old", old, scored),  # type: ignore[arg-type]
        ComparedModel("new", new, scored),  # type: ignore[arg-type]
        Footage("street", len(samples), read, lambda numbers: {i: samples[i] for i in numbers}),
    )


def table(*classes: tuple[int, str, tuple[str, ...] | None]) -> LabelTable:
    return LabelTable(tuple(OwnClass(id, name, (id, 0, 0), was) for id, name, was in classes))


def names(scored: ScoredLabels) -> list[str]:
    return [label.name for label in scored.labels]


def test_scores_changes_and_agreement_of_two_models_are_those_of_their_masks() -> None:
    samples = [sample(i, street()) for i in range(4)]
    found = compared(Painted(wrong=(1, 3)), Painted(wrong=(2,)), samples)
    labels = names(found.sides[1].contender.scored)
    # of 64 pixels, 32 are cars: the old model misses 16 of them, the new one 8
    gains = dict(zip(labels, (each.value for each in found.iou), strict=True))
    assert gains["car"] == pytest.approx(24 / 32 - 16 / 32)
    assert gains["road"] == pytest.approx(16 / 24 - 16 / 32)
    assert gains["sky"] == 0
    old, new = (side.scorer.confusion.mean_iou() for side in found.sides)
    assert found.mean_iou.value == pytest.approx(new - old)
    assert [frame.change > 0 for frame in found.frames] == [False, True, False, True]
    assert found.frames[2].change < 0
    assert [frame.agreement for frame in found.frames] == [1, 0.5, 0.5, 0.5]
    assert found.agreement == 1 - 24 / 64
    assert found.slowdown.value == 1


def test_a_class_that_only_one_model_predicts_and_no_label_has_moves_no_mean(
    tmp_path: Path,
) -> None:
    road = street((ROAD, ROAD, ROAD, ROAD))

    class Startled(Painted):
        def segment(self, rgb: np.ndarray) -> Segmentation:
            found = super().segment(rgb)
            found.mask[0, 0] = CAR
            return found

    found = compared(Painted(), Startled(), [sample(i, road) for i in range(5)])
    assert found.mean_iou.value == pytest.approx(-1 / 16)
    assert math.isnan(found.iou[2].value)
    content = write_comparison([found], tmp_path, {})
    assert "in no mean, predicted but never labelled: car" in content["parts"][0]["notes"]
    lines = comparison_lines(content)
    assert not any(line.startswith("car") for line in lines)
    assert found.mean_iou.low == pytest.approx(found.mean_iou.high)


def test_a_class_with_only_a_recall_for_one_model_is_in_no_mean_of_either(tmp_path: Path) -> None:
    classes = table(
        (ROAD, "road", None), (8, "tree", ("vegetation",)), (9, "hedge", ("vegetation",))
    )
    label = street((8, 9, ROAD, ROAD))
    seen = street((8, 8, 8, ROAD))  # the new model takes hedges and half of the road for trees
    samples = [sample(i, label, seen) for i in range(5)]
    before = LabelTable.of(cityscapes_labels([ROAD, TREE]))
    own = ScoredLabels.of(classes.labels)
    old = ClassChanges.of(before.labels, classes).scored(own)
    assert (old.recall_only.tolist(), own.recall_only.any()) == ([False, False, True], False)
    found = compare(
        ComparedModel("old", Painted(before.labels), old),  # type: ignore[arg-type]
        ComparedModel("new", Painted(classes.labels), own),  # type: ignore[arg-type]
        Footage.of("street", samples),  # type: ignore[arg-type]
    )
    # road 1/2 for both; tree 1/2 for the old model, which is right on hedges, and 1/3 for the new
    assert found.mean_iou.value == pytest.approx((1 / 2 + 1 / 3) / 2 - 1 / 2)
    assert found.frames[0].mean_iou == pytest.approx((1 / 2, 5 / 12))
    assert math.isnan(found.iou[2].value)
    (part,) = write_comparison([found], tmp_path, {})["parts"]
    assert part["mean_iou"]["iou"] == pytest.approx([1 / 2, 5 / 12], abs=1e-6)
    assert part["classes"][2]["iou"] == [None, 0]
    assert "old: in no mean, only their recall is defined: hedge" in part["notes"]
    assert Limits(max_drop=0.05).broken([found])


def test_the_models_take_turns_after_a_first_frame_that_is_not_timed() -> None:
    calls: list[str] = []

    class Noted(Painted):
        def segment(self, rgb: np.ndarray) -> Segmentation:
            calls.append(self.name)
            return super().segment(rgb)

    old, new = Noted(), Noted()
    old.name, new.name = "A", "B"
    found = compared(old, new, [sample(i, street()) for i in range(3)])
    assert "".join(calls) == "AB" + "AB" + "BA" + "AB"
    assert len(found.sides[0].latency.frames_ms) == 3


def test_flicker_is_counted_only_between_frames_that_follow_each_other() -> None:
    samples = [sample(i, street()) for i in range(3)]
    old, new = Painted(), Painted(wrong=(1,))
    apart, together = (compared(old, new, samples, follows) for follows in (False, True))
    assert math.isnan(apart.sides[1].flicker)
    assert [side.flicker for side in together.sides] == [0, 0.5]
    assert Limits(max_flicker_rise=0.1).broken([apart]) == [
        "max_flicker_rise: nothing was measured, the limit is 0.1"
    ]
    assert Limits(max_flicker_rise=0.4).broken([apart, together]) == [
        "max_flicker_rise of flicker on street: 0.5 is above the limit of 0.4"
    ]


def test_frames_without_labels_are_compared_by_what_needs_none(tmp_path: Path) -> None:
    void = np.full((4, 4), UNLABELLED, np.uint8)
    samples = [sample(i, void, street()) for i in range(3)]
    found = compared(Painted(), Painted(wrong=(1,)), samples, follows=True)
    assert (found.labelled, found.agreement) == (0, 1 - 8 / 48)
    assert math.isnan(found.mean_iou.value)
    assert [side.flicker for side in found.sides] == [0, 0.5]
    content = write_comparison([found], tmp_path, {})
    page = (tmp_path / "comparison.html").read_text()
    assert 'data-frame="frame 1"' in page
    assert 'data-frame="frame 0"' not in page
    assert content["parts"][0]["scores"]["mean_iou"] == [None, None]
    assert Limits(max_drop=0.5).broken([found]) == [
        "max_drop: nothing was measured, the limit is 0.5"
    ]


def test_labels_that_are_not_scored_and_predictions_of_no_label_are_named(tmp_path: Path) -> None:
    label, seen = street(), street()
    label[:, 3] = TREE  # no label of the data stands for it
    seen[:, 1] = TRUCK
    trucks = Painted(cityscapes_labels([ROAD, SKY, CAR, TRUCK]))
    found = compared(Painted(), trucks, [sample(0, label, seen)])
    (part,) = write_comparison([found], tmp_path, {})["parts"]
    wrong = "wrong, as no label stands for them"
    assert part["notes"] == [
        f"old: {wrong}: id {TRUCK} (4 pixels)",
        "labels not scored: vegetation (4 pixels)",
        f"new: {wrong}: truck (4 pixels)",
    ]


def test_there_must_be_frames() -> None:
    with pytest.raises(DataError, match="street has no frames: there is nothing to compare on"):
        compared(Painted(), Painted(), [])


@pytest.mark.parametrize("wrong", [((0, 1, 2, 3, 4, 5), ()), ((), (0, 1, 2, 3, 4, 5))])
def test_a_browser_shows_gains_and_losses_on_wide_and_narrow_screens(
    wrong: tuple[tuple[int, ...], tuple[int, ...]], chromium: Browser, tmp_path: Path
) -> None:
    found = compared(
        *(Painted(wrong=each) for each in wrong), [sample(i, street()) for i in range(6)]
    )
    write_comparison([found], tmp_path, {"seed": 0}, Limits(max_drop=0.01).broken([found]))
    page = chromium.open(tmp_path / "comparison.html")
    assert page.requests() == [page.path.as_uri()]
    assert page.complaints() == []
    assert page.faint_texts() == []
    colored = f"return document.querySelectorAll('.{'better' if wrong[0] else 'worse'}').length"
    assert page.run(colored) == 3  # two classes and the mean
    for width in (1240, 400):
        page.screenshot(tmp_path / "page.png", width)
        assert page.run("return document.documentElement.scrollWidth <= innerWidth")


def test_files_and_lines_hold_what_was_measured(tmp_path: Path) -> None:
    samples = [sample(i, street()) for i in range(6)]
    found = compared(Painted(wrong=(1,)), Painted(wrong=(2, 3)), samples)
    broken = Limits(max_drop=0.01).broken([found])
    content: dict[str, Any] = write_comparison([found], tmp_path, {"seed": 0}, broken)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "comparison.html",
        "comparison.json",
    ]
    (part,) = content["parts"]
    assert content["limits"] == {"passed": False, "failures": broken}
    car = next(each for each in part["classes"] if each["name"] == "car")
    assert car["iou"] == pytest.approx([40 / 48, 32 / 48], abs=1e-6)
    assert car["low"] <= car["difference"] <= car["high"]
    page = (tmp_path / "comparison.html").read_text()
    for number in range(6):
        assert (f'data-frame="frame {number}"' in page) == (number in (1, 2, 3))
    assert "limits failed" in page
    lines = "\n".join(comparison_lines(content))
    assert "street: 6 frames, 6 with labels" in lines
    assert "car                       0.833         0.667      -0.167" in lines
    assert broken[0].startswith("max_drop of mean IoU on street: 0.1056 is above the limit of 0.01")


def test_an_interval_is_that_of_the_mean_over_frames() -> None:
    random = np.random.default_rng(1)
    frames, pixels = 400, 1000
    hits = np.stack([random.binomial(pixels, share, frames) for share in (0.5, 0.6)], 1)
    counts = np.zeros((frames, 2, 3, 2), np.int64)
    counts[:, :, 0, 0] = hits
    counts[:, :, 1:, 0] = pixels  # the second class is not labelled
    counts[0, 1, 1, 1] = 1  # but the new model predicts it once, which must not move its mean
    (first, absent), mean = differences(counts)
    gains = (hits[:, 1] - hits[:, 0]) / pixels
    assert first.value == pytest.approx(gains.mean())
    assert (first.value, first.low, first.high) == (mean.value, mean.low, mean.high)
    half = 1.96 * gains.std() / math.sqrt(frames)
    assert first.low == pytest.approx(first.value - half, abs=0.15 * half)
    assert first.high == pytest.approx(first.value + half, abs=0.15 * half)
    assert first.significant
    assert all(math.isnan(each) for each in (absent.value, absent.low, absent.high))
    assert differences(counts)[1] == mean


@pytest.mark.parametrize(("shown", "has_interval"), [(1, False), (4, False), (5, True)])
def test_a_class_in_few_frames_has_no_interval(shown: int, has_interval: bool) -> None:
    counts = np.zeros((40, 2, 3, 2), np.int64)
    counts[:, :, :, 0] = 100
    counts[:shown, 0, 0, 1] = 40
    counts[:shown, 1, 0, 1] = 30
    counts[:shown, :, 1:, 1] = 100
    (everywhere, rare), mean = differences(counts)
    assert rare.value == pytest.approx(-0.1)
    assert rare.significant == has_interval
    assert math.isnan(rare.low) == math.isnan(rare.high) == (not has_interval)
    assert (everywhere.low, everywhere.high) == (0, 0)
    assert not math.isnan(mean.low)
    few = differences(counts[:4])[1]
    assert math.isnan(few.low)
    assert not few.significant


@pytest.mark.parametrize("frames", [5, 20])
def test_intervals_of_few_frames_are_wide_enough(
    frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two models that are equally good, plain percentiles of 5 frames prefer one in 18 %."""
    monkeypatch.setattr(intervals, "RESAMPLES", 500)
    random, cases, wrong = np.random.default_rng(0), 300, np.zeros(2)
    for _ in range(cases):
        labelled = random.lognormal(6, 0.7, (frames, 1, 3))
        quality = random.beta(6, 2, (frames, 1, 3)) + random.normal(0, 0.04, (frames, 2, 3))
        hits = labelled * quality.clip(0, 1)
        union = labelled + random.poisson((labelled - hits) / 2)
        counts = np.stack([hits, union, np.broadcast_to(labelled, hits.shape)], 2)
        (first, *_), mean = differences(counts.astype(np.int64))
        wrong += first.significant, mean.significant
    assert (wrong / cases <= 0.08).all()


@pytest.mark.parametrize(("freedom", "quantile"), [(4, 2.776), (9, 2.262), (30, 2.042)])
def test_quantiles_of_students_distribution_are_those_of_tables(
    freedom: int, quantile: float
) -> None:
    assert intervals.student_t(freedom) == pytest.approx(quantile, rel=0.005)


def test_few_pairs_of_times_have_no_interval() -> None:
    assert math.isnan(ratio_of_medians([1.0] * 4, [2.0] * 4).low)
    assert ratio_of_medians([1.0] * 5, [2.0] * 5).low == 0.5


def test_differences_of_a_model_to_itself_are_zero() -> None:
    confusion = Confusion(3)
    random = np.random.default_rng(0)
    confusion.add(random.integers(0, 3, 100), random.integers(0, 3, 100))
    hits, labelled = confusion.hits, confusion.labelled
    one = np.stack([hits, labelled + confusion.predicted - hits, labelled])
    each, mean = differences(np.stack([np.stack([one, one])] * 5))
    assert {(found.value, found.low, found.high) for found in (*each, mean)} == {(0.0, 0.0, 0.0)}


def test_models_with_the_classes_of_the_labels_share_all_of_them() -> None:
    own = ScoredLabels.of(STREET)
    shared = shared_labels(own, LabelTable.of(CITYSCAPES), {"a": STREET, "b": STREET[::-1]})
    assert shared.lines == []
    for each in shared.scored:
        assert each.labels == own.labels
        assert each.classes == own.classes
        assert (each.truth == own.truth).all()


def test_what_one_model_cannot_tell_is_left_out_split_or_merged() -> None:
    classes = table(
        (9, "road", None),
        (0, "green", ("vegetation",)),
        (1, "hedge", ("vegetation",)),
        (2, "vehicle", ("car", "truck")),
        (3, "cone", None),
    )
    old = cityscapes_labels([ROAD, TREE, SKY, CAR, TRUCK])
    shared = shared_labels(
        ScoredLabels.of(classes.labels), classes, {"old": old, "new": classes.labels}
    )
    assert shared.lines == [
        "not scored, missing in old: cone",
        "green and hedge count as one class",
    ]
    first, second = shared.scored
    assert names(first) == names(second) == ["road", "green or hedge", "vehicle"]
    assert first.classes == ((ROAD,), (TREE,), (CAR, TRUCK))
    assert second.classes == ((9,), (0, 1), (2,))
    truth = np.array([[9, 0, 1, 2, 3, 255]], np.uint8)
    assert first.truth_of(truth).tolist() == second.truth_of(truth).tolist() == [[0, 1, 1, 2, 3, 3]]
    found = first.predicted_of(np.array([[ROAD, TREE, TREE, TRUCK, SKY]], np.uint8))
    assert found.tolist() == [[0, 1, 1, 2, 3]]
    assert second.predicted_of(np.array([[9, 1, 0, 2, 3]], np.uint8)).tolist() == [[0, 1, 1, 2, 3]]


def test_groups_of_the_data_are_shared_if_both_models_know_one_of_their_classes() -> None:
    group = Group.of(128, cityscapes_labels([CAR, TRUCK]))
    own = ScoredLabels.of(cityscapes_labels([ROAD, SKY]), [group])
    shared = shared_labels(
        own,
        LabelTable.of(CITYSCAPES),
        {"few": cityscapes_labels([ROAD, CAR]), "many": CITYSCAPES},
    )
    assert shared.lines == ["not scored, missing in few: sky"]
    assert names(shared.scored[0]) == ["road", "car or truck"]
    assert shared.scored[0].classes == ((ROAD,), (CAR,))
    assert shared.scored[1].classes == ((ROAD,), (CAR, TRUCK))


def test_labels_that_a_class_of_a_model_may_be_any_of_count_as_one_in_any_order() -> None:
    merged = (1, "vehicle", ("car", "truck"))
    first = table((0, "road", None), merged, (2, "bus", None)).labels
    second = table((0, "road", None), (1, "heavy", ("truck", "bus")), (2, "car", None)).labels
    own = ScoredLabels.of(CITYSCAPES)
    for models in ({"a": first, "b": second}, {"b": second, "a": first}):
        shared = shared_labels(own, LabelTable.of(CITYSCAPES), models)
        assert names(shared.scored[0]) == ["road", "car or truck or bus"]
    group = Group.of(128, cityscapes_labels([TRUCK, 15]))
    own = ScoredLabels.of(cityscapes_labels([ROAD, CAR]), [group])
    shared = shared_labels(own, LabelTable.of(CITYSCAPES), {"a": first})
    assert shared.lines == ["car and truck or bus count as one class"]
    # a label that contains another one is no reason
    group = Group.of(128, cityscapes_labels([CAR, TRUCK]))
    own = ScoredLabels.of(cityscapes_labels([ROAD, CAR]), [group])
    shared = shared_labels(own, LabelTable.of(CITYSCAPES), {"a": CITYSCAPES})
    assert names(shared.scored[0]) == ["road", "car", "car or truck"]


def test_labels_that_a_model_cannot_tell_apart_count_as_one() -> None:
    groups = [
        Group.of(128 + i, cityscapes_labels([CAR, other])) for i, other in enumerate((TRUCK, 15))
    ]
    own = ScoredLabels.of(cityscapes_labels([ROAD]), groups)
    shared = shared_labels(
        own, LabelTable.of(CITYSCAPES), {"few": cityscapes_labels([ROAD, CAR]), "all": CITYSCAPES}
    )
    assert shared.lines == ["car or truck and car or bus count as one class"]
    assert not any(each.recall_only.any() for each in shared.scored)


def test_a_name_that_is_new_is_not_the_class_of_that_name_before() -> None:
    classes = table((0, "road", None), (1, "car", ()))
    other = (Label(4, "road", (0, 0, 0)), Label(5, "car", (0, 0, 0)))
    shared = shared_labels(
        ScoredLabels.of(classes.labels), classes, {"old": other, "new": classes.labels}
    )
    assert shared.lines == ["not scored, missing in old: car"]
    assert names(shared.scored[0]) == ["road"]


def test_models_without_a_common_class_are_refused() -> None:
    with pytest.raises(ConfigError, match="a and b must share a class with the labels"):
        shared_labels(
            ScoredLabels.of(STREET),
            LabelTable.of(CITYSCAPES),
            {"a": cityscapes_labels([ROAD]), "b": cityscapes_labels([SKY])},
        )


@pytest.mark.parametrize(
    ("limits", "lines"),
    [
        (Limits(), 0),
        (Limits(max_drop=0.2, max_class_drop=0.4, max_slowdown=1.5), 0),
        (Limits(max_drop=0.01), 1),
        (Limits(max_class_drop=0.1), 2),
        (Limits(max_class_drop=0.3), 1),
        (Limits(max_slowdown=0.9), 1),
        (Limits(max_calibration_rise=0), 0),
    ],
)
def test_each_failed_limit_gives_a_line(limits: Limits, lines: int) -> None:
    samples = [sample(i, street()) for i in range(4)]
    found = compared(Painted(), Painted(wrong=(2,)), samples)
    # a quarter of the cars is taken for road: car falls by 1/4, road by 1/3, their mean by 7/36
    assert len(limits.broken([found])) == lines


@pytest.mark.parametrize(
    ("old", "new", "lost"),
    [
        ([ROAD, SKY, CAR], [ROAD, CAR], ["sky"]),
        ([ROAD, CAR], [ROAD, SKY, CAR], []),  # a new class is no loss
        ([ROAD, CAR, TRUCK], [ROAD, CAR], []),  # the labels have no truck
        ([ROAD, CAR], [ROAD, CAR], []),
    ],
)
def test_limits_of_the_iou_fail_for_a_model_that_lost_a_class_of_the_labels(
    old: list[int], new: list[int], lost: list[str]
) -> None:
    samples = [sample(i, street()) for i in range(2)]
    classes = {"old": cityscapes_labels(old), "new": cityscapes_labels(new)}
    shared = shared_labels(ScoredLabels.of(CITYSCAPES), LabelTable.of(CITYSCAPES), classes)
    found = compare(
        ComparedModel("old", Painted(), shared.scored[0]),  # type: ignore[arg-type]
        ComparedModel("new", Painted(), shared.scored[1]),  # type: ignore[arg-type]
        Footage("street", 2, lambda: ((each, False) for each in samples), lambda numbers: {}),
        left_out=shared.left_out,
    )
    assert list(found.lost) == lost
    for limits in (Limits(max_drop=0.9), Limits(max_class_drop=0.9)):
        broken = limits.broken([found])
        assert [("new lacks sky, which old has" in line) for line in broken] == [True] * len(lost)
    assert Limits(max_slowdown=99.0).broken([found]) == []


def test_a_report_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.json": "before"})
    (tmp_path / "a.json.tmp").mkdir()
    with pytest.raises(DataError, match="cannot write the report into"):
        write_files(tmp_path, {"a.json": "after"})
    assert (tmp_path / "a.json").read_text() == "before"
