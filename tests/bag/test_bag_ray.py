"""Evaluation on a local Ray cluster: the numbers of one process, even if workers die."""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from recorded import Painter, drive, labelled_bag, painter

from camseg_core.errors import ModelError
from camseg_ros.bag.evaluation import (
    BagInfo,
    EvaluationOptions,
    EvaluationRun,
    EvaluationStopped,
    evaluate_here,
    evaluate_part,
)
from camseg_ros.bag.frames import ReadOptions
from camseg_ros.bag.labels import LabelSource
from camseg_ros.bag.make import IMAGE_TOPIC, LABEL_TOPIC
from camseg_ros.bag.parts import PartFolder
from camseg_ros.bag.report import merge

ray = pytest.importorskip("ray", reason="needs Ray: pip install '.[ray]'")
from camseg_ros.bag.ray_cluster import evaluate_on_ray, missing  # noqa: E402

pytestmark = pytest.mark.slow
READ = ReadOptions(IMAGE_TOPIC, LabelSource(LABEL_TOPIC, None, 0))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Start two workers, which import the test modules like this process."""
    paths = os.pathsep.join(
        [
            str(Path(__file__).parent),
            str(Path(__file__).parents[2]),
            os.environ.get("PYTHONPATH", ""),
        ]
    )
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )
    yield
    ray.shutdown()


def dies_once(marker: Path) -> Painter:
    """Load the model; kill the first worker that tries."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return painter()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def always_dies() -> Painter:
    """Kill the worker."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def no_model() -> Painter:
    """Fail to load a model."""
    raise ModelError("no model there")


def bags_in(folder: Path) -> dict[int, BagInfo]:
    """Write two good bags, and between them an empty file."""
    bags = [
        labelled_bag(folder / name, drive(count))
        for name, count in (("one", 11), ("two", 4), ("three", 5))
    ]
    (bags[1] / "two.mcap").write_bytes(b"")
    return {
        number: BagInfo(bag, IMAGE_TOPIC, count)
        for number, (bag, count) in enumerate(zip(bags, (11, 4, 5), strict=True))
    }


def test_a_killed_worker_and_a_bad_bag_do_not_change_the_result(
    tmp_path: Path, cluster: None
) -> None:
    bags = bags_in(tmp_path)
    plain = EvaluationOptions(READ, painter, painter, keep_masks=True)
    here = EvaluationRun(plain, bags, PartFolder(tmp_path / "here"))
    assert len(list(evaluate_here(here, lambda: None))) == 16
    whole = merge(here, tmp_path)
    lines = (tmp_path / "frames.jsonl").read_bytes()
    dying = EvaluationOptions(READ, partial(dies_once, tmp_path / "died"), painter, keep_masks=True)
    spread = EvaluationRun(dying, bags, PartFolder(tmp_path / "spread"))
    assert len(list(evaluate_on_ray(spread, lambda: None, 1, task_frames=3))) == 16
    assert (tmp_path / "died").exists()
    merged = merge(spread, tmp_path)
    assert (tmp_path / "frames.jsonl").read_bytes() == lines
    assert merged.scorer.to_json() == whole.scorer.to_json()
    assert merged.worst == whole.worst
    assert here.failures == spread.failures
    assert list(here.failures) == [1]
    assert list(spread.parts.masks(0)) == list(here.parts.masks(0))


def test_a_bag_that_kills_every_worker_is_reported(tmp_path: Path, cluster: None) -> None:
    bags, parts = {0: bags_in(tmp_path)[0]}, PartFolder(tmp_path / "parts")
    run = EvaluationRun(EvaluationOptions(READ, always_dies), bags, parts)
    assert not list(evaluate_on_ray(run, lambda: None, 1))
    assert run.failures[0].startswith(
        f"the workers that evaluated the bag {tmp_path / 'one'} from image 0 on were lost 4 times: "
    )
    assert "\n" not in run.failures[0]


def test_a_model_error_ends_the_evaluation(tmp_path: Path, cluster: None) -> None:
    options, parts = EvaluationOptions(READ, no_model), PartFolder(tmp_path / "parts")
    with pytest.raises(ModelError, match="no model there"):
        list(evaluate_on_ray(EvaluationRun(options, bags_in(tmp_path), parts), lambda: None, 1))


def test_a_stopped_evaluation_resumes_in_this_process_with_the_same_result(
    tmp_path: Path, cluster: None
) -> None:
    bags, options = {0: bags_in(tmp_path)[0]}, EvaluationOptions(READ, painter)
    resumed, whole = (
        EvaluationRun(options, bags, PartFolder(tmp_path / name)) for name in ("parts", "whole")
    )
    with pytest.raises(
        EvaluationStopped,
        match=r"stopped after \d+ frames \(enough\); run the same command to continue",
    ):
        list(evaluate_on_ray(resumed, lambda: "enough", 1, task_frames=2))
    for run in (resumed, whole):
        list(evaluate_here(run, lambda: None))
    assert merge(resumed, tmp_path).scorer.to_json() == merge(whole, tmp_path).scorer.to_json()


def test_only_missing_parts_become_tasks(tmp_path: Path) -> None:
    bag = BagInfo(labelled_bag(tmp_path / "bag", drive(10)), IMAGE_TOPIC, 10)
    parts, options = PartFolder(tmp_path / "parts"), EvaluationOptions(READ, painter)
    assert list(missing(parts, 0, 10, 4)) == [(0, 4), (4, 8), (8, None)]
    assert list(missing(parts, 0, 8, 4)) == [(0, 4), (4, None)]
    parts.save(0, evaluate_part(bag, options, 2, 5))
    assert list(missing(parts, 0, 10, 4)) == [(0, 2), (5, 9), (9, None)]
    parts.save(0, evaluate_part(bag, options, 5, None))
    assert list(missing(parts, 0, 10, 4)) == [(0, 2)]
