"""The robustness suite: its scores, resuming after a stop, its page, and the command."""

import argparse
import json
import re
import shutil
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from browser import Browser

from camseg_core.cli import scoring
from camseg_core.data import Sample
from camseg_core.data.disturbances import PAPER
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import CamSegError, ConfigError, DataError, ModelError
from camseg_core.evaluation.evaluate import Evaluation, evaluate
from camseg_core.evaluation.metrics import GROUPS
from camseg_core.evaluation.report.charts import KEPT
from camseg_core.evaluation.report.robustness import (
    AP,
    CLEAN_AP,
    robustness_content,
    write_robustness,
)
from camseg_core.evaluation.robustness import Robustness, SupportsSegment, run_suite
from camseg_core.evaluation.robustness_suite import (
    CLEAN,
    CLEAR,
    SUITE,
    Condition,
    Pictures,
    Series,
    selected,
)
from camseg_core.labels import CAMVID_11_TRAIN_IDS, TRAIN_ID, UNLABELLED, cityscapes_labels
from camseg_core.runtime import Segmenter
from camseg_core.runtime.segmenter import Segmentation
from camseg_core.weights import checkpoint_folder

LABELS = cityscapes_labels(CAMVID_11_TRAIN_IDS)
SHORT = ("paper/salt_and_pepper", "common/contrast", "weather/fog")
SIZE = (120, 160)
COARSE = "coarse & <b>co</b>"


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Small frames, as if they were a data set."""
    return list(SyntheticDrive(frames=3, height=SIZE[0], width=SIZE[1], seed=5, fps=0.5))


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.from_pretrained()


def mask_of(rgb: np.ndarray, train_id: int = TRAIN_ID["road"]) -> Segmentation:
    return Segmentation(
        np.full(rgb.shape[:2], train_id, np.uint8), np.ones(rgb.shape[:2], np.float32), {}
    )


class Blind:
    """Predicts road everywhere."""

    def segment(self, rgb: np.ndarray) -> Segmentation:
        return mask_of(rgb)


class Recorder(Blind):
    """Keeps what it saw, repetitions once, and gives up at the picture of a certain number."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.seen: list[bytes] = []
        self._stop_at = stop_at

    def segment(self, rgb: np.ndarray) -> Segmentation:
        if len(self.seen) == self._stop_at:
            raise KeyboardInterrupt
        if self.seen[-1:] != [rgb.tobytes()]:  # the first is segmented twice, see `WarmUp`
            self.seen.append(rgb.tobytes())
        return Segmentation(
            (rgb[..., 0] > 100).astype(np.uint8) * TRAIN_ID["sky"],
            np.ones(rgb.shape[:2], np.float32),
            {},
        )


class Coarse:
    """A worse model: it sees a quarter of the resolution."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter

    def segment(self, rgb: np.ndarray) -> Segmentation:
        height, width = rgb.shape[:2]
        return self._segmenter.segment(
            cv2.resize(cv2.resize(rgb, (width // 4, height // 4)), (width, height))
        )


@pytest.fixture(scope="module")
def robustness(segmenter: Segmenter, samples: list[Sample]) -> Robustness:
    contenders = {"camseg-lite": segmenter, COARSE: Coarse(segmenter)}
    return run_suite(
        contenders, samples, LABELS, selected(SHORT), seed=1, about={"data": "drive & co"}
    )


@pytest.fixture(scope="module")
def folder(robustness: Robustness, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("robustness") / "new"
    assert write_robustness(robustness, folder) == folder / "robustness.html"
    return folder


def without_timings(robustness: Robustness) -> str:
    content = robustness_content(robustness)
    content.pop("timings")
    return json.dumps(content, sort_keys=True)


def test_the_clean_scores_are_those_of_an_evaluation(
    robustness: Robustness, segmenter: Segmenter, samples: list[Sample]
) -> None:
    expected = evaluate(segmenter, samples, LABELS)
    clean = robustness.scores[CLEAN]["camseg-lite"]
    assert (clean.mean_iou, clean.average_precision) == pytest.approx(over_labelled(expected))
    assert clean.iou == pytest.approx([each.iou for each in expected.classes], nan_ok=True)
    assert clean.kept_precision == clean.kept_iou == 1
    drive = SyntheticDrive(frames=3, height=SIZE[0], width=SIZE[1], seed=1, fps=1.0)
    on_drive = over_labelled(evaluate(segmenter, drive, LABELS))
    assert robustness.scores[CLEAR]["camseg-lite"].mean_iou == pytest.approx(on_drive[0])


def over_labelled(found: Evaluation) -> tuple[float, float]:
    """The mean IoU and AP over the classes that are labelled."""
    labelled = [each for each in found.classes if not np.isnan(each.recall)]
    iou, precision = zip(*((each.iou, each.precision) for each in labelled), strict=True)
    return float(np.mean(iou)), float(np.mean(precision))


def test_the_scores_of_a_disturbance_are_those_of_an_evaluation_of_its_pictures(
    robustness: Robustness, segmenter: Segmenter, samples: list[Sample]
) -> None:
    salt = next(each for each in PAPER if each.name == "salt_and_pepper")
    disturbed = [
        Sample(salt(each.image, 10, seed=1, frame=each.name), each.label, each.name)
        for each in samples
    ]
    expected = evaluate(segmenter, disturbed, LABELS)
    found = robustness.scores[Condition("paper/salt_and_pepper", 10)]["camseg-lite"]
    assert (found.mean_iou, found.average_precision) == pytest.approx(over_labelled(expected))
    clean = robustness.scores[CLEAN]["camseg-lite"]
    assert found.kept_iou == found.mean_iou / clean.mean_iou
    assert found.kept_precision == found.average_precision / clean.average_precision


def test_the_groups_come_from_the_labels_and_hold_for_every_condition(
    samples: list[Sample],
) -> None:
    found = run_suite({"blind": Blind()}, samples, LABELS, selected(["salt_and_pepper"]))
    counts = np.bincount(np.concatenate([each.label.ravel() for each in samples]), minlength=256)
    groups = dict(zip([label.name for label in LABELS], found.groups[CLEAN], strict=True))
    assert {name for name, group in groups.items() if group} == {
        label.name for label in LABELS if counts[label.id]
    }
    least = {
        group: min(counts[TRAIN_ID[name]] for name, its in groups.items() if its == group)
        for group in GROUPS
    }
    most = {
        group: max(counts[TRAIN_ID[name]] for name, its in groups.items() if its == group)
        for group in GROUPS
    }
    assert least["frequent"] >= most["common"]
    assert least["common"] >= most["rare"]
    scored = counts[[label.id for label in LABELS]]
    road = counts[TRAIN_ID["road"]] / scored.sum()
    for scores in (each["blind"] for each in found.scores.values()):
        assert scores.average_precision == pytest.approx(road / np.count_nonzero(scored)), (
            "a blind model's AP does not change"
        )
        assert scores.by_group["rare"] == 0
        assert scores.kept_iou == scores.kept_precision == scores.kept_by_group["frequent"] == 1
        assert np.isnan(scores.kept_by_group["rare"]), "nothing can be kept of nothing"


def test_a_class_that_is_predicted_but_not_labelled_moves_no_mean(samples: list[Sample]) -> None:
    labelled = np.unique(np.concatenate([each.label.ravel() for each in samples]))
    absent = next(each.id for each in LABELS if each.id not in labelled)
    clean = {each.image.tobytes() for each in samples}

    class Startled(Blind):
        def segment(self, rgb: np.ndarray) -> Segmentation:
            found = mask_of(rgb)
            if rgb.tobytes() not in clean:
                found.mask[0, 0] = absent  # sky, which road did not hit either
            return found

    found = run_suite(
        {"blind": Blind(), "startled": Startled()},
        samples,
        LABELS,
        selected(["paper/salt_and_pepper"]),
    )
    for scores in found.scores.values():
        startled = scores["startled"]
        assert startled.mean_iou == pytest.approx(scores["blind"].mean_iou, abs=1e-4)
        assert startled.kept_iou == pytest.approx(1, abs=1e-4)
        assert startled.kept_precision == pytest.approx(1, abs=1e-4)


def test_contenders_see_the_very_same_pictures_made_once(samples: list[Sample]) -> None:
    made = []

    def apply(rgb: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
        made.append(level)
        return PAPER[0].apply(rgb, level, rng)

    noise = selected(["paper/gaussian_noise"])[0]
    series = replace(noise, disturbance=replace(PAPER[0], apply=apply))
    one, other = Recorder(), Recorder()
    run_suite({"one": one, "other": other}, samples, LABELS, [series])
    assert one.seen == other.seen
    assert len(set(one.seen)) == 3 * (1 + len(series.levels))
    assert len(made) == 3 * len(series.levels) + 1, "and once more for the example"


def test_a_subset_in_another_order_gives_the_same_scores(
    robustness: Robustness, segmenter: Segmenter, samples: list[Sample]
) -> None:
    salt, _, fog = robustness.suite
    part = run_suite(
        {"camseg-lite": segmenter},
        samples,
        LABELS,
        [replace(fog, levels=(1.0,), shown=1.0), salt],
        seed=1,
    )
    for condition in part.scores:
        mine, whole = (
            part.scores[condition]["camseg-lite"],
            robustness.scores[condition]["camseg-lite"],
        )
        assert mine.mean_iou == whole.mean_iou
    other = run_suite(
        {"camseg-lite": segmenter}, samples, LABELS, [replace(salt, levels=(25,), shown=25)], seed=2
    )
    condition = Condition("paper/salt_and_pepper", 25)
    assert (
        other.scores[condition]["camseg-lite"].mean_iou
        != robustness.scores[condition]["camseg-lite"].mean_iou
    )


def test_a_stopped_run_resumes_and_ends_with_the_same_bytes(
    samples: list[Sample], tmp_path: Path
) -> None:
    suite, same = selected(["paper/salt_and_pepper", "weather/rain"]), {"it": "the same"}
    whole = run_suite({"it": Recorder()}, samples, LABELS, suite)
    with pytest.raises(KeyboardInterrupt):
        run_suite(
            {"it": Recorder(stop_at=14)}, samples, LABELS, suite, keep=tmp_path, identities=same
        )
    again = Recorder()
    resumed = run_suite({"it": again}, samples, LABELS, suite, keep=tmp_path, identities=same)
    assert without_timings(resumed) == without_timings(whole)
    conditions, examples = 2 + 6 + 4, 4
    assert len(again.seen) == 3 * (conditions - 4) + examples, (
        "14 pictures are four conditions and two pictures of the fifth"
    )
    last = Recorder()
    assert without_timings(
        run_suite({"it": last}, samples, LABELS, suite, keep=tmp_path, identities=same)
    ) == without_timings(whole)
    assert len(last.seen) == examples


def test_what_is_done_serves_a_run_with_more_and_no_run_with_something_else(
    samples: list[Sample], tmp_path: Path
) -> None:
    small, large = selected(["paper/hue"]), selected(["paper/hue", "common/contrast"])

    def seen(
        suite: tuple[Series, ...],
        identity: str | None,
        data: list[Sample] = samples,
        **options: Any,
    ) -> int:
        recorder = Recorder()
        identities = {} if identity is None else {"it": identity}
        contenders: dict[str, SupportsSegment] = {"it": recorder, "blind": Blind()}
        run_suite(contenders, data, LABELS, suite, keep=tmp_path, identities=identities, **options)
        return len(recorder.seen) - 1 - len(suite)

    hue, more = 3 * (1 + 4), 3 * 5
    assert seen(small, "a") == hue
    assert seen(small, "a") == 0, "though another contender's results are not kept"
    assert seen(large, "a") == more
    assert seen(small, "b") == hue
    assert seen(small, None) == hue
    assert seen(small, "a", seed=1) == hue
    assert seen(small, "a", frames=2) == hue // 3 * 2
    for number, each in enumerate(samples):  # a change of any frame counts
        changed = Sample(each.image ^ 1, each.label, each.name)
        assert seen(small, "a", [*samples[:number], changed, *samples[number + 1 :]]) == hue
    for part in tmp_path.rglob("paper-hue-0.1.json"):
        part.write_text("{", encoding="utf-8")
    assert seen(small, "a") == 3, "a damaged part is made anew"


def test_one_picture_at_a_time_is_in_memory(samples: list[Sample]) -> None:
    alive: list[weakref.ref[np.ndarray]] = []

    class Watched:
        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> Sample:
            image = samples[index % 3].image.copy()
            alive.append(weakref.ref(image))
            return Sample(image, samples[index % 3].label, str(index))

        def __iter__(self) -> Iterator[Sample]:
            return (self[i] for i in range(len(self)))

    class Counting(Blind):
        most = 0

        def segment(self, rgb: np.ndarray) -> Segmentation:
            self.most = max(self.most, sum(reference() is not None for reference in alive))
            return super().segment(rgb)

    counting = Counting()
    run_suite({"it": counting}, Watched(), LABELS, selected(["paper/contrast"]))
    assert 1 <= counting.most <= 3


def test_errors_say_what_cannot_be_run(samples: list[Sample]) -> None:
    class Small(Blind):
        def segment(self, rgb: np.ndarray) -> Segmentation:
            return mask_of(rgb[::2])

    hue = selected(["hue"])
    odd = [Sample(samples[0].image, samples[0].label[1:], "odd one")]
    nothing = [Sample(samples[0].image, np.full_like(samples[0].label, UNLABELLED), "a")]
    cases: list[tuple[type[CamSegError], str, dict[str, Any]]] = [
        (ConfigError, "at least one model", {"contenders": {}}),
        (ConfigError, "at least one model and one disturbance", {"suite": []}),
        (DataError, "no frames", {"samples": []}),
        (DataError, "label of odd one must have its image's size", {"samples": odd}),
        (DataError, "no frame has a pixel labelled as one of the classes", {"samples": nothing}),
        (
            DataError,
            r"a mask must have its image's size: that of small for .* is \(60, 160\), but the "
            r"image \(120, 160\)",
            {"contenders": {"small": Small()}},
        ),
    ]
    for kind, message, changes in cases:
        with pytest.raises(kind, match=message):
            run_suite(
                **{
                    "contenders": {"it": Blind()},
                    "samples": samples,
                    "labels": LABELS,
                    "suite": hue,
                    **changes,
                }
            )
    with pytest.raises(
        ConfigError,
        match="no disturbance is called 'banana': choose from paper, common, weather, "
        "paper/gaussian_noise",
    ):
        selected(["hue", "banana"])


def test_names_choose_families_series_and_all_of_a_name() -> None:
    assert selected(["paper"]) == SUITE[:8]
    assert [each.key for each in selected(["weather/night", "fog"])] == [
        "common/fog",
        "weather/fog",
        "weather/night",
    ]
    assert len(SUITE) == 8 + 19 + 4
    assert (
        len({condition.key for series in SUITE for condition in series.conditions()})
        == 40 + 95 + 16
    )


def test_every_published_value_belongs_to_a_level_of_the_suite() -> None:
    levels = {series.key: series.levels for series in SUITE}
    assert sum(len(of) for of in AP.values()) == 15
    assert all(level in levels[key] for key, of in AP.items() for level in of)


def test_the_json_has_every_condition_and_says_what_is_kept(
    robustness: Robustness, folder: Path
) -> None:
    content = json.loads((folder / "robustness.json").read_text(encoding="utf-8"))
    assert content["contenders"] == ["camseg-lite", COARSE]
    assert [each["name"] for each in content["series"]] == list(SHORT)
    clean = content["references"]["clean"]["contenders"]
    for series in content["series"]:
        reference = content["references"][series["reference"]]["contenders"]
        for each in series["levels"]:
            found = robustness.scores[Condition(series["name"], each["level"])]
            for name, scores in each["contenders"].items():
                assert scores["mean_iou"] == pytest.approx(found[name].mean_iou, abs=1e-6)
                assert scores["kept"]["mean_iou"] == pytest.approx(
                    scores["mean_iou"] / reference[name]["mean_iou"], abs=1e-5
                )
                assert list(scores["average_precision_by_group"]) == sorted(GROUPS)
    salt = content["series"][0]
    assert {
        each["level"]: each["published_kept"] for each in salt["levels"] if each["published_kept"]
    } == pytest.approx({10: 0.624 / CLEAN_AP, 50: 0.539 / CLEAN_AP, 80: 0.051 / CLEAN_AP}, abs=1e-6)
    assert (
        salt["levels"][-1]["contenders"]["camseg-lite"]["mean_iou"]
        < clean["camseg-lite"]["mean_iou"]
    )
    kept = [each["contenders"][COARSE]["kept"]["mean_iou"] for each in salt["levels"]]
    assert content["kept_by_family"]["paper"][COARSE]["mean_iou"] == pytest.approx(
        np.mean(kept), abs=1e-5
    )
    assert json.dumps(content, sort_keys=True, indent=1) + "\n" == (
        folder / "robustness.json"
    ).read_text(encoding="utf-8")


def test_a_browser_shows_the_figures_of_the_json_and_asks_for_nothing_else(
    chromium: Browser, folder: Path
) -> None:
    content, page = (
        json.loads((folder / "robustness.json").read_text(encoding="utf-8")),
        chromium.open(folder / "robustness.html"),
    )
    page.run("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.faint_texts() == []

    def shown(metric: str) -> dict[tuple[str, float, str], str]:
        return {
            (each["series"], float(each["level"]), each["contender"]): each["text"]
            for each in page.figures(metric)
        }

    figures = {
        (each["name"], float(level["level"]), name): scores
        for each in content["series"]
        for level in each["levels"]
        for name, scores in level["contenders"].items()
    }
    for reference, of in content["references"].items():
        figures |= {(reference, 0.0, name): scores for name, scores in of["contenders"].items()}

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}"

    for metric in ("average_precision", "mean_iou"):
        assert shown(metric) == {key: number(scores[metric]) for key, scores in figures.items()}
        kept = {key: scores["kept"][metric] for key, scores in figures.items()}
        assert shown(f"kept_{metric}") == {key: share(value) for key, value in kept.items()}
        for each in page.figures(f"family_{metric}"):
            assert each["text"] == share(
                content["kept_by_family"][each["family"]][each["contender"]][metric]
            )
        for each in page.figures(f"reference_{metric}"):
            assert each["text"] == number(
                content["references"][each["reference"]]["contenders"][each["contender"]][metric]
            )
    for group in GROUPS:
        assert shown(group) == {
            key: number(scores["average_precision_by_group"][group])
            for key, scores in figures.items()
        }
    assert page.run("return Array.from(document.images).every(e => e.naturalWidth > 0)")
    assert page.run("return document.images.length") == (2 * 4 + 3 * 3), (
        "both references with their label, three series without"
    )
    for width in (1240, 420):
        page.run("document.body.style.width = arguments[0] + 'px'", width)
        assert page.run(
            "return document.documentElement.scrollWidth <= Math.max(innerWidth, arguments[0])",
            width,
        ), "nothing sticks out"
    assert page.requests() == [page.path.as_uri()]
    assert page.complaints() == []
    assert (
        page.run("return document.querySelector('h1').innerText")
        == f"Robustness of camseg-lite and {COARSE}"
    )


def share(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.1 %" if 0 < value < 0.0005 else f"{100 * value:.1f} %"


def test_the_charts_draw_both_contenders_and_the_published_values(
    chromium: Browser, folder: Path
) -> None:
    content, page = (
        json.loads((folder / "robustness.json").read_text(encoding="utf-8")),
        chromium.open(folder / "robustness.html"),
    )
    points = page.run(
        "return Array.from(document.querySelectorAll('figure[data-kind=all] .point'))"
        ".map(e => ({...e.dataset, y: e.cy.baseVal.value, x: e.cx.baseVal.value, "
        "color: getComputedStyle(e).fill, series: e.closest('figure').dataset.series}))"
    )
    found = {
        (each["series"], float(each["level"]), each["contender"], each["measure"]): each
        for each in points
    }
    expected = {
        (series["name"], float(level["level"]), name, measure): scores["kept"][measure]
        for series in content["series"]
        for level in series["levels"]
        for name, scores in level["contenders"].items()
        for measure in ("average_precision", "mean_iou")
    }
    assert {key: float(each["kept"]) for key, each in found.items()} == expected
    assert len({each["color"] for each in points}) == 2, "a colour for each contender"
    # 100 % and 0 % lie where the charts' own lines are
    whole = page.run("return document.querySelector('figure[data-kind=all] .whole').getBBox().y")
    for key, each in found.items():
        if expected[key] < 1.5:
            assert each["y"] == pytest.approx(
                KEPT.floor + expected[key] * (whole - KEPT.floor), abs=0.2
            ), key
    for series in content["series"]:
        xs = [
            found[(series["name"], float(level["level"]), COARSE, "mean_iou")]["x"]
            for level in series["levels"]
        ]
        assert xs == sorted(set(xs))
    marks = page.run(
        "return Array.from(document.querySelectorAll('figure .published'))"
        ".map(e => ({...e.dataset, text: e.textContent}))"
    )
    assert [float(each["level"]) for each in marks] == [10, 50, 80]
    for each, value in zip(marks, (0.624, 0.539, 0.051), strict=True):
        assert float(each["kept"]) == pytest.approx(value / CLEAN_AP, abs=1e-6)
        assert float(each["y"]) == pytest.approx(
            KEPT.floor + value / CLEAN_AP * (whole - KEPT.floor), abs=0.2
        )
        assert re.search("published.*another data set", each["text"])
    assert "published" in page.run("return document.querySelector('#paper .legend').innerText")
    groups = page.run(
        "return new Set(Array.from(document.querySelectorAll('figure[data-kind=groups] .point'))"
        ".map(e => e.dataset.measure)).size"
    )
    assert groups == 3


def test_an_unwritable_folder_is_an_error(
    robustness: Robustness, samples: list[Sample], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the report into .*file"):
        write_robustness(robustness, tmp_path / "file")
    with pytest.raises(DataError, match="cannot write into .*file"):
        run_suite(
            {"it": Blind()},
            samples,
            LABELS,
            selected(["hue"]),
            keep=tmp_path / "file",
            identities={"it": "it"},
        )


def run(*arguments: str) -> None:
    """Run `camseg robustness`, letting its errors through."""
    parser = argparse.ArgumentParser()
    scoring.add_robustness(parser)
    options = parser.parse_args(arguments)
    options.run(options)


@pytest.fixture
def camvid(tmp_path: Path, samples: list[Sample]) -> Path:
    """The samples in CamVid's layout."""
    ids = np.full(256, len(CAMVID_11_TRAIN_IDS), np.uint8)
    ids[list(CAMVID_11_TRAIN_IDS)] = range(len(CAMVID_11_TRAIN_IDS))
    for part in ("images", "labels"):
        (tmp_path / "camvid/val" / part).mkdir(parents=True)
    for i, each in enumerate(samples):
        cv2.imwrite(
            str(tmp_path / f"camvid/val/images/0001TP_{i:06}.png"),
            cv2.cvtColor(each.image, cv2.COLOR_RGB2BGR),
        )
        cv2.imwrite(str(tmp_path / f"camvid/val/labels/0001TP_{i:06}.png"), ids[each.label])
    return tmp_path / "camvid"


@pytest.mark.slow
def test_the_command_compares_two_checkpoints_prints_what_is_kept_and_resumes(
    camvid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "models" / "other"
    shutil.copytree(checkpoint_folder("camseg-lite"), other, ignore=shutil.ignore_patterns("int8"))
    arguments = [
        "--data",
        str(camvid),
        "--only",
        "paper/contrast,weather/fog",
        "--frames",
        "2",
        "--out",
        str(tmp_path / "out"),
    ]
    run(*arguments, "--compare", str(other))
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    content = json.loads((tmp_path / "out/robustness.json").read_text(encoding="utf-8"))
    assert content["contenders"] == ["camseg-lite", "other"]
    engine = content["about"]["camseg-lite"]
    assert engine.startswith("camseg-lite, int8+")
    assert " on OpenVINO " in engine
    assert content["about"]["other"].split(" on ")[0] in ("camseg-lite, bf16", "camseg-lite, fp32")
    assert content["frames"] == 2
    for name in content["contenders"]:
        clean = content["references"]["clean"]["contenders"][name]
        assert (
            f"{name}: clean AP {clean['average_precision']:.3f}, "
            f"mean IoU {clean['mean_iou']:.3f}, clear AP" in printed.out
        )
    level = content["series"][0]["levels"][0]["contenders"]["other"]["kept"]
    (line,) = (lines[i + 1] for i, line in enumerate(lines) if line.startswith("paper/contrast"))
    assert re.search(
        rf"^ +other +0\.5: {100 * level['average_precision']:.0f}/{100 * level['mean_iou']:.0f} ",
        line,
    )
    assert lines[-1] == f"report: {tmp_path}/out/robustness.html and robustness.json beside it"
    assert printed.err.splitlines()[-1] == "20/20 frames, about 0 s left"

    run(*arguments)  # the same without the other one: nothing is left to do
    printed = capsys.readouterr()
    assert printed.err == ""
    alone = json.loads((tmp_path / "out/robustness.json").read_text(encoding="utf-8"))
    assert (
        alone["series"][1]["levels"][0]["contenders"]["camseg-lite"]
        == content["series"][1]["levels"][0]["contenders"]["camseg-lite"]
    )
    run(*arguments, "--seed", "3")
    assert capsys.readouterr().err.splitlines()[-1].startswith("20/20 frames"), (
        "other noise of the model, other results"
    )


def test_the_list_names_every_disturbance_with_its_levels(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        run("--list")
    assert ended.value.code == 0
    listed = {
        line.split()[0]: line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("  ")
    }
    assert list(listed) == [series.key for series in SUITE]
    assert re.search(
        r"^  paper/motion_blur +3 9 21 51 105 221  \(length in pixels, clean at 1\)$",
        listed["paper/motion_blur"],
    )


def test_the_commands_errors_are_one_clear_line(camvid: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "out")]
    cases: list[tuple[list[str], type[CamSegError], str]] = [
        (["--data", str(tmp_path / "nowhere")], DataError, "nowhere"),
        (
            ["--data", str(camvid), "--only", "banana"],
            ConfigError,
            "no disturbance is called 'banana'",
        ),
        (["--data", str(camvid), "--against", "nothing"], ModelError, "no model 'nothing'"),
    ]
    for arguments, kind, message in cases:
        with pytest.raises(kind, match=message) as raised:
            run(*arguments, *out)
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_models_of_one_name_are_distinguished_by_their_folders() -> None:
    assert scoring.titles(["camseg-lite"]) == ["camseg-lite"]
    assert scoring.titles(["runs/a/checkpoint", "runs/b/checkpoint"]) == [
        "a/checkpoint",
        "b/checkpoint",
    ]
    assert scoring.titles(["same", "same"]) == ["same (1)", "same (2)"]


@pytest.mark.parametrize("package", ["rich", "jinja2"])
def test_a_missing_package_is_an_error_before_any_work(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [
        name
        for name in sys.modules
        if name.split(".")[0] == package
        or name.startswith(("camseg_core.evaluation.", "camseg_core.long_runs"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"needs {package}.*pip install '.\[evaluate\]'"):
        run("--data", str(tmp_path))


def test_declaring_the_command_imports_nothing_heavy_and_the_suite_no_torch() -> None:
    for module, unwanted in (
        ("camseg_core.cli.scoring", {"torch", "rich", "jinja2", "matplotlib", "yaml"}),
        ("camseg_core.evaluation.report.robustness", {"torch", "matplotlib", "rclpy"}),
    ):
        program = f"import sys, {module}; sys.stdout.write(' '.join(sys.modules))"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
        )
        assert not unwanted & set(done.stdout.split())


def test_frames_too_small_for_the_synthetic_drive_only_need_it_for_weather() -> None:
    small = [Sample(np.zeros((8, 40, 3), np.uint8), np.zeros((8, 40), np.uint8), "tiny")]
    pictures = Pictures(small, None, selected(["paper"]), seed=0)
    assert pictures.at(CLEAN, 0).name == "tiny"
    with pytest.raises(DataError, match="of the first frame, tiny: .*--only paper,common"):
        pictures.at(CLEAR, 0)
