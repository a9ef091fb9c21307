"""Scores against cases small enough to work out by hand, and the walk over a data set."""

import json
import math
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from reconstruction_work import thin_mean_iou

from camseg_core.data import Sample
from camseg_core.errors import DataError
from camseg_core.evaluation.boundary_f1 import BoundaryF1
from camseg_core.evaluation.calibration import Calibration, ErrorDetection
from camseg_core.evaluation.evaluate import evaluate
from camseg_core.evaluation.metrics import (
    Confusion,
    frequency_groups,
    scores,
)
from camseg_core.evaluation.scorer import Scorer
from camseg_core.evaluation.timing import Latency, WarmUp
from camseg_core.labels import CITYSCAPES, UNLABELLED, cityscapes_labels
from camseg_core.runtime import Segmentation

VOID = UNLABELLED
SIDE = 20
DIAGONAL = math.hypot(SIDE, SIDE)
LABELS = cityscapes_labels((10, 0, 13))  # sky, road, car: ids that are not their own indices


def split(column: int) -> npt.NDArray[np.uint8]:
    """Class 0 left of a column, class 1 from there on."""
    ids = np.zeros((SIDE, SIDE), np.uint8)
    ids[:, column:] = 1
    return ids


def boundary_f1(
    label: npt.NDArray[np.uint8], prediction: npt.NDArray[np.uint8], pixels: float, classes: int = 2
) -> list[float]:
    """F1 per class of one frame, with a tolerance in pixels."""
    return BoundaryF1(classes, pixels / math.hypot(*label.shape)).add(label, prediction).tolist()


def confusion_of(label: list[int], prediction: list[int], classes: int) -> Confusion:
    confusion = Confusion(classes)
    confusion.add(np.array(label), np.array(prediction))
    return confusion


def test_precision_and_recall_by_hand() -> None:
    confusion = confusion_of([0, 0, 0, 1, 1, 2, VOID], [0, 0, 1, 1, 0, 0, 2], 5)
    assert confusion.precision().tolist()[:3] == [2 / 4, 1 / 2, 0]
    assert confusion.recall().tolist()[:3] == [2 / 3, 1 / 2, 0]
    assert np.isnan(confusion.precision()[3:]).all()
    assert np.isnan(confusion.recall()[3:]).all()


def test_a_class_that_only_the_masks_have_scores_nothing() -> None:
    confusion = confusion_of([0, 0], [0, 1], 3)
    assert confusion.precision().tolist()[:2] == [1, 0]
    assert confusion.iou().tolist()[:2] == [0.5, 0]
    assert math.isnan(confusion.recall()[1])


def test_a_prediction_that_is_no_class_is_wrong_but_no_false_positive() -> None:
    confusion = confusion_of([0, 0, 1, 1], [0, VOID, 1, 7], 2)
    assert confusion.precision().tolist() == [1, 1]
    assert confusion.recall().tolist() == [0.5, 0.5]
    assert confusion.accuracy() == 0.5


def test_without_a_labelled_pixel_there_is_no_mean() -> None:
    assert math.isnan(confusion_of([VOID], [0], 2).mean_iou())


@pytest.mark.parametrize(
    ("pixels", "groups"),
    [
        (list(range(11, 0, -1)), ["frequent"] * 4 + ["common"] * 4 + ["rare"] * 3),
        ([5, 0, 9, 7], ["rare", None, "frequent", "common"]),
        ([4, 4, 4], ["frequent", "common", "rare"]),
        ([3, 0], ["frequent", None]),
    ],
)
def test_groups_are_thirds_of_the_classes_that_occur(
    pixels: list[int], groups: list[str | None]
) -> None:
    ids = np.repeat(np.arange(len(pixels)), pixels)
    assert frequency_groups(confusion_of(ids.tolist(), ids.tolist(), len(pixels))) == groups


def test_the_same_boundary_scores_one_and_another_none() -> None:
    assert boundary_f1(split(10), split(10), 0.5) == [1, 1]
    assert boundary_f1(split(10), split(15), 4) == [0, 0]


def test_a_boundary_may_be_off_by_the_tolerance_and_no_more() -> None:
    assert boundary_f1(split(10), split(12), 2) == [1, 1]
    assert boundary_f1(split(10), split(12), 1.9) == [0, 0]


def test_boundary_f1_of_a_mask_that_is_half_right_by_hand() -> None:
    prediction = split(10)
    prediction[10:] = split(15)[10:]
    # class 0: 11 of the mask's 24 boundary pixels match, and 11 of the label's 20
    assert boundary_f1(split(10), prediction, 1)[0] == pytest.approx(
        2 * (11 / 24) * (11 / 20) / (11 / 24 + 11 / 20)
    )


def test_a_class_without_boundary_has_no_boundary_score_and_one_in_the_mask_alone_scores_none() -> (
    None
):
    plain = np.zeros((SIDE, SIDE), np.uint8)
    assert np.isnan(boundary_f1(plain, plain, 2, 3)).all()
    with_spot = plain.copy()
    with_spot[5:8, 5:8] = 1
    assert boundary_f1(plain, with_spot, 2, 3)[:2] == [0, 0]
    assert boundary_f1(with_spot, plain, 2, 3)[:2] == [0, 0]


def test_what_the_mask_draws_in_or_beside_void_is_not_held_against_it() -> None:
    label = split(12)
    label[:, 8:12] = VOID
    for column in (7, 9, 10, 12):  # the true boundary may be anywhere in between
        assert np.isnan(boundary_f1(label, split(column), 2)).all()
    assert boundary_f1(label, split(3), 2) == [0, 0]
    label[:] = VOID
    assert np.isnan(boundary_f1(label, split(3), 2)).all()


def test_labels_with_void_along_every_object_have_no_boundary_score() -> None:
    """Only a pixel far from any edge is wrong: a score of 0 would say that the edges are."""
    label = np.zeros((SIDE, SIDE), np.uint8)
    label[4:16, 4:16] = 1
    edged = label.copy()
    edged[3:17, 3:17] = VOID
    edged[5:15, 5:15] = 1
    wrong = label.copy()
    wrong[9, 9] = 0
    score = BoundaryF1(2, 1.5 / DIAGONAL)
    score.add(edged, wrong)
    assert score.unknown().all()
    assert np.isnan(score.per_class()).all()
    assert math.isnan(score.mean())
    for _ in range(2):  # edges of these frames count, and are most of both classes'
        score.add(label, label)
    assert not score.unknown().any()
    assert score.per_class() == pytest.approx([2 / 3, 2 / 3])


def test_boundary_scores_agree_with_a_naive_search() -> None:
    random = np.random.default_rng(0)
    reach = 2.3

    def blobs() -> npt.NDArray[np.uint8]:
        return np.kron(random.integers(0, 3, (4, 5)), np.ones((5, 4))).astype(np.uint8)

    def outline(ids: npt.NDArray[np.uint8], c: int, others: Iterable[int]) -> list[tuple[int, int]]:
        steps = ((0, 1), (1, 0), (0, -1), (-1, 0))
        inside = [(y, x) for y, x in np.ndindex(ids.shape) if ids[y, x] == c]
        return [
            (y, x)
            for y, x in inside
            if any(
                (y + i, x + j) in np.ndindex(ids.shape) and ids[y + i, x + j] in others
                for i, j in steps
            )
        ]

    def share(of: list[tuple[int, int]], near: list[tuple[int, int]]) -> float:
        return sum(any(math.dist(a, b) <= reach for b in near) for a in of) / len(of) if of else 1.0

    for _ in range(3):
        label, prediction = blobs(), blobs()
        label[random.integers(0, 20, 2), random.integers(0, 20, 2)] = VOID
        void = list(zip(*np.nonzero(label == VOID), strict=True))
        for c in range(3):
            truth, found = (outline(ids, c, {0, 1, 2} - {c}) for ids in (label, prediction))
            counted = [
                [at for at in side if all(math.dist(at, v) > reach for v in void)]
                for side in (truth, found)
            ]
            precision, recall = share(counted[1], truth), share(counted[0], found)
            expected = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
            if any(counted):
                assert boundary_f1(label, prediction, reach, 3)[c] == pytest.approx(expected)


def test_the_boundary_score_is_the_mean_over_frames_then_over_classes() -> None:
    score = BoundaryF1(3, 1 / DIAGONAL)
    score.add(split(10), split(10))
    score.add(split(10), split(16))
    assert score.per_class().tolist()[:2] == [0.5, 0.5]
    assert math.isnan(score.per_class()[2])
    assert score.mean() == 0.5


def test_calibration_error_by_hand() -> None:
    calibration = Calibration()
    calibration.add(np.full(10, 0.9, np.float32), np.arange(10) < 9)
    assert calibration.error() == pytest.approx(0, abs=1e-6)
    calibration.add(np.full(10, 0.5, np.float32), np.zeros(10, bool))
    assert calibration.error() == pytest.approx(0.5 * 0.5)
    filled = [each for each in calibration.bins() if each.pixels]
    assert [(each.pixels, each.accuracy) for each in filled] == [(10, 0.0), (10, 0.9)]
    assert [each.confidence for each in filled] == pytest.approx([0.5, 0.9])
    assert all(each.low < each.confidence <= each.high for each in filled)


def test_confidences_of_nought_and_one_have_bins() -> None:
    calibration = Calibration()
    calibration.add(np.array([0.0, 1.0], np.float32), np.array([False, True]))
    bins = calibration.bins()
    assert (len(bins), bins[0].pixels, bins[-1].pixels, calibration.error()) == (15, 1, 1, 0)
    assert math.isnan(bins[7].accuracy)
    assert math.isnan(Calibration().error())


def errors_of(confidence: list[float], correct: list[bool]) -> ErrorDetection:
    detection = ErrorDetection()
    detection.add(np.array(confidence, np.float32), np.array(correct))
    return detection


def test_error_detection_by_hand() -> None:
    """Two sure pixels are right, of two unsure ones one is: risk 0, then t / 2 of 2 + t."""
    detection = errors_of([0.9, 0.9, 0.5, 0.5], [True, True, True, False])
    assert detection.auroc() == pytest.approx((2 + 1 / 2) / 3)
    assert detection.area_under_risk_coverage() == pytest.approx((1 - math.log(2)) / 4)


def test_confidences_that_rank_errors_last_or_first_are_the_best_and_the_worst() -> None:
    right = [True] * 6 + [False] * 2
    best, worst, none = (
        errors_of(confidence, right)
        for confidence in ([0.9] * 6 + [0.2] * 2, [0.2] * 6 + [0.9] * 2, [0.7] * 8)
    )
    assert [each.auroc() for each in (best, worst, none)] == [1, 0, 0.5]
    assert none.area_under_risk_coverage() == pytest.approx(1 / 4)
    areas = [each.area_under_risk_coverage() for each in (best, none, worst)]
    assert areas == sorted(areas)


def test_error_detection_equals_the_definition_over_single_pixels() -> None:
    random = np.random.default_rng(0)
    confidence = (1 - 10.0 ** -random.uniform(0, 6, 4000)).astype(np.float32)
    right = random.random(4000) < confidence
    detection = errors_of(confidence.tolist(), right.tolist())
    pairs = np.sign(confidence[right][:, None] - confidence[~right][None])
    assert detection.auroc() == pytest.approx((1 + pairs.mean()) / 2, abs=1e-3)
    wrong = ~right[np.argsort(-confidence, kind="stable")]
    risks = np.cumsum(wrong) / np.arange(1, 4001)
    assert detection.area_under_risk_coverage() == pytest.approx(risks.mean(), abs=1e-3)


def test_certain_and_impossible_confidences_are_counted() -> None:
    detection = errors_of([0.0, 1.0], [False, True])
    assert (detection.auroc(), int(detection.counts.sum())) == (1, 2)
    assert math.isnan(errors_of([0.5], [True]).auroc())
    assert math.isnan(ErrorDetection().area_under_risk_coverage())


def test_the_iou_of_thin_classes_leaves_others_out() -> None:
    labels = [CITYSCAPES[i] for i in (5, 0, 7, 6)]  # pole, road, traffic sign, traffic light
    confusion = confusion_of([0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 2], 4)
    assert thin_mean_iou(confusion, labels) == (1 / 2 + 1) / 2
    assert math.isnan(thin_mean_iou(confusion_of([1], [1], 4), labels))


def test_latency_is_the_sum_of_the_stages() -> None:
    latency = Latency()
    for i in range(5):
        latency.add({"first": float(i), "second": 10.0})
    assert latency.frames_ms == [10, 11, 12, 13, 14]
    assert (latency.total().p50, latency.stages()["first"].p50, latency.stages()["second"].p95) == (
        12,
        2,
        10,
    )


class Painter:
    """Stands in for a model: its mask is the red channel, its confidence the green one in %."""

    name, provider, engine, precision = "painter", "cpu", "a painter", "fp32"
    labels = CITYSCAPES

    def segment(self, rgb: npt.NDArray[np.uint8]) -> Segmentation:
        return Segmentation(
            rgb[..., 0].copy(), (rgb[..., 1] / 100).astype(np.float32), {"paint": 2.0, "dry": 1.0}
        )


def sample(name: str, label: list[int], mask: list[int], confidence: int = 80) -> Sample:
    """Rows of four pixels each, one per entry."""
    rows = np.array([mask, [confidence] * len(mask), [0] * len(mask)], np.uint8)
    return Sample(
        np.repeat(rows.T[:, None], 4, axis=1),
        np.repeat(np.array(label, np.uint8)[:, None], 4, axis=1),
        name,
    )


ROAD, SKY, CAR, TRUCK = 0, 10, 13, 14
FRAMES = [
    sample("half", [SKY, SKY, ROAD, ROAD], [SKY, ROAD, ROAD, ROAD]),
    sample("right", [SKY, ROAD, CAR, VOID], [SKY, ROAD, CAR, ROAD]),
    sample("wrong", [CAR, CAR, CAR, CAR], [SKY, SKY, SKY, SKY]),
    sample("void", [VOID, VOID, TRUCK, VOID], [SKY, SKY, SKY, SKY]),
]


def test_scores_over_frames_by_hand() -> None:
    result = evaluate(Painter(), FRAMES, LABELS)
    sky, road, car = result.classes
    assert (sky.iou, road.iou, car.iou) == (2 / 7, 3 / 4, 1 / 5)
    assert (sky.precision, road.precision, car.precision) == (2 / 6, 3 / 4, 1)
    assert result.mean_iou == pytest.approx((2 / 7 + 3 / 4 + 1 / 5) / 3)
    assert result.pixel_accuracy == 6 / 11
    assert result.average_precision == pytest.approx((1 / 3 + 3 / 4 + 1) / 3)
    assert (car.group, sky.group, road.group) == ("frequent", "common", "rare")
    assert result.average_precision_by_group == {"frequent": 1, "common": 1 / 3, "rare": 3 / 4}
    assert result.calibration.error() == pytest.approx(0.8 - 6 / 11)
    assert [each.share for each in result.classes] == [3 / 11, 3 / 11, 5 / 11]


def random_frames(count: int) -> list[tuple[npt.NDArray[np.uint8], ...]]:
    """Label, mask, confidence and another model's mask, with ids outside of `LABELS` among them."""
    random = np.random.default_rng(3)
    ids = np.array([SKY, ROAD, CAR, TRUCK, VOID], np.uint8)

    def draw() -> npt.NDArray[np.uint8]:
        return random.choice(ids, (12, 16))

    return [(draw(), draw(), random.random((12, 16), np.float32), draw()) for _ in range(count)]


def scorer_of(frames: list[tuple[npt.NDArray[np.uint8], ...]]) -> Scorer:
    scorer = Scorer(LABELS)
    for label, mask, confidence, other in frames:
        scorer.add(label, mask, confidence, other=other, before=(other, label))
    return scorer


@pytest.mark.parametrize("dropped", [True, False])
def test_pixels_whose_mask_has_no_class_count_in_all_scores_or_in_none(dropped: bool) -> None:
    """As `--protocol camseg` drops them; elsewhere they are wrong."""
    label = np.zeros((4, 4), np.uint8)
    mask, confidence = label.copy(), np.full((4, 4), 0.75, np.float32)
    mask[:2], mask[3, 3] = UNLABELLED, 1
    scorer = Scorer(CITYSCAPES, drop_no_class=dropped)
    scorer.add(label, mask, confidence)
    pixels, right = (8, 7) if dropped else (16, 7)
    assert scorer.confusion.accuracy() == right / pixels
    assert scorer.calibration.counts[:2].sum(1).tolist() == [pixels, right]
    assert scorer.error_detection.counts.sum(1).tolist() == [right, pixels - right]
    facts = dict(scorer.counted_as(CITYSCAPES).facts())
    expected = {} if dropped else {"wrong, as no label stands for them": "no class (8 pixels)"}
    assert facts == expected


def test_scorers_of_parts_add_up_to_the_scorer_of_one_walk() -> None:
    frames = random_frames(7)
    merged = scorer_of(frames[4:])
    for part in (frames[:1], frames[1:4]):
        merged.merge(Scorer.from_json(json.loads(json.dumps(scorer_of(part).to_json())), LABELS))
    whole = scorer_of(frames)
    assert merged.to_json() == whole.to_json()
    assert merged.calibration.error() == whole.calibration.error() > 0
    assert merged.boundary.mean() == whole.boundary.mean() > 0
    assert all(any(counts) for counts in whole.to_json().values())


def test_a_scorer_counts_confidence_agreement_and_changes_by_hand() -> None:
    scorer = Scorer(LABELS)
    mask = np.array([[SKY, ROAD, CAR, TRUCK]], np.uint8)
    other = np.array([[SKY, CAR, CAR, TRUCK]], np.uint8)
    confidence = np.array([[0.2, 0.4, 0.6, 1.0]], np.float32)
    label = np.array([[SKY, SKY, CAR, VOID]], np.uint8)
    scorer.add(label, mask, confidence, other=other, before=(other, label))
    scorer.add(None, mask, confidence)
    assert scorer.frames.tolist() == [2, 1]
    assert scorer.predicted.tolist() == [2, 2, 2, 2]  # sky, road, car, none of them
    assert scorer.mean_confidence() == pytest.approx(0.55)
    assert scorer.confidence_quantile(0.5) == pytest.approx(0.4)
    assert scorer.agreement_share() == 3 / 4
    assert scorer.agreement_by_class() == [1, 0, 1 / 2]
    assert (scorer.flicker.change_rate, scorer.flicker.flicker) == (1 / 4, 1 / 3)
    assert scorer.confusion.mean_iou() == pytest.approx((1 / 2 + 0 + 1) / 3)


def test_a_scorer_without_frames_has_no_scores() -> None:
    scorer = Scorer(LABELS)
    assert all(
        math.isnan(score)
        for score in (
            scorer.mean_confidence(),
            scorer.confidence_quantile(0.05),
            scorer.agreement_share(),
            scorer.calibration.error(),
            scorer.boundary.mean(),
            scorer.flicker.flicker,
        )
    )


def test_every_frame_has_its_line_and_best_median_and_worst_are_shown() -> None:
    result = evaluate(Painter(), FRAMES, LABELS)
    assert [frame.name for frame in result.frames] == ["half", "right", "wrong", "void"]
    assert [frame.mean_iou for frame in result.frames[:3]] == pytest.approx(
        [(1 / 2 + 2 / 3) / 2, 1, 0]
    )
    assert [frame.pixel_accuracy for frame in result.frames[:3]] == [3 / 4, 1, 0]
    assert math.isnan(result.frames[3].mean_iou)
    assert math.isnan(result.frames[3].pixel_accuracy)
    assert [frame.latency_ms for frame in result.frames] == [3] * 4
    assert [frame.name for frame in result.worst_first()] == ["wrong", "half", "right"]
    assert [(each.rank, each.score.name) for each in result.shown] == [
        ("best", "right"),
        ("median", "half"),
        ("worst", "wrong"),
    ]
    assert result.shown[0].mask[:, 0].tolist() == [SKY, ROAD, CAR, ROAD]


def test_labels_that_are_not_scored_are_void_and_such_predictions_wrong() -> None:
    result = evaluate(
        Painter(), [sample("a", [TRUCK, ROAD, ROAD, ROAD], [ROAD, ROAD, ROAD, TRUCK])], LABELS
    )
    assert result.pixel_accuracy == pytest.approx(2 / 3)
    assert result.classes[1].precision == 1
    assert result.shown[0].label[:, 0].tolist() == [VOID, ROAD, ROAD, ROAD]
    assert result.confusion.matrix[1].tolist() == [0, 8, 0, 4]


def test_the_order_of_the_classes_changes_no_score() -> None:
    frames = [*FRAMES, sample("sky", [SKY] * 4, [SKY, SKY, SKY, CAR])]  # no two classes tie
    forward, backward = (evaluate(Painter(), frames, each) for each in (LABELS, LABELS[::-1]))
    assert forward.classes == backward.classes[::-1]
    assert forward.mean_iou == pytest.approx(backward.mean_iou, abs=1e-15)
    assert forward.average_precision_by_group == backward.average_precision_by_group
    assert [frame.mean_iou for frame in forward.frames] == pytest.approx(
        [frame.mean_iou for frame in backward.frames], nan_ok=True
    )


def test_few_frames_are_shown_once_each() -> None:
    assert [each.rank for each in evaluate(Painter(), FRAMES[:1], LABELS).shown] == ["best"]
    assert [each.rank for each in evaluate(Painter(), FRAMES[:2], LABELS).shown] == [
        "best",
        "worst",
    ]


def test_frames_bound_what_is_read_and_progress_sees_it_all() -> None:
    seen = []

    def watch(samples: Iterable[Sample]) -> Iterator[Sample]:
        for each in samples:
            seen.append(each.name)
            yield each

    result = evaluate(Painter(), FRAMES, LABELS, frames=2, progress=watch)
    assert seen == [frame.name for frame in result.frames] == ["half", "right"]
    assert {each.score.name for each in result.shown} == {"half", "right"}


def test_a_stream_is_scored_as_a_list_is_but_shows_no_frames() -> None:
    stream, whole = evaluate(Painter(), iter(FRAMES), LABELS), evaluate(Painter(), FRAMES, LABELS)
    assert stream.classes == whole.classes
    assert stream.shown == ()


def test_frames_are_released() -> None:
    images: list[weakref.ref[npt.NDArray[np.uint8]]] = []
    most = 0

    class Drive:
        def __iter__(self) -> Iterator[Sample]:
            nonlocal most
            for i in range(30):
                frame = sample(str(i), [ROAD, SKY], [ROAD, SKY if i % 3 else ROAD])
                images.append(weakref.ref(frame.image))
                yield frame
                del frame
                most = max(most, sum(image() is not None for image in images))

    result = evaluate(Painter(), Drive(), LABELS)
    assert len(result.frames) == 30
    assert most <= 4


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "no frames"),
        ([FRAMES[3]], r"none of the 1 frames has a pixel labelled .*sky, road, car"),
        (
            [Sample(FRAMES[0].image, FRAMES[0].label[:2], "odd")],
            r"label of odd must have its image's size \(4, 4\), got \(2, 4\)",
        ),
    ],
)
def test_errors_say_what_cannot_be_evaluated(samples: list[Sample], message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(Painter(), samples, LABELS)


def test_short_scores_are_those_of_the_confusion() -> None:
    confusion = Confusion(2)
    confusion.add(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
    first, second = LABELS[:2]
    labels = (replace(first, id=0), replace(second, id=1))
    assert scores(confusion, labels) == {
        "mean_iou": 0.5833,
        "pixel_accuracy": 0.75,
        "iou": {first.name: 0.6667, second.name: 0.5},
    }


def test_the_first_frame_of_each_size_is_segmented_once_more() -> None:
    segmented: list[npt.NDArray[np.uint8]] = []
    warm_up = WarmUp()
    for height in (2, 2, 4, 2):
        warm_up([segmented.append], np.zeros((height, 3, 3), np.uint8))
    assert [len(each) for each in segmented] == [2, 4]
