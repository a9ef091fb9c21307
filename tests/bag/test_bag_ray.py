"""The evaluation on a Ray cluster of this machine: the same numbers as in one process, though workers die and bags are bad."""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from recorded import Painter, drive, labelled_bag, painter

from camseg_core.errors import ModelError
from camseg_ros.bag.evaluate import BagFacts, Stopped, evaluate_here, evaluate_part
from camseg_ros.bag.evaluation import Evaluating
from camseg_ros.bag.frames import Reading
from camseg_ros.bag.labels import LabelPlace
from camseg_ros.bag.make import IMAGE_TOPIC, LABEL_TOPIC
from camseg_ros.bag.merging import merge
from camseg_ros.bag.parts import PartFolder

ray = pytest.importorskip("ray", reason="needs Ray: pip install '.[ray]'")
from camseg_ros.bag.ray_cluster import evaluate_on_ray, missing  # noqa: E402

pytestmark = pytest.mark.slow
READING = Reading(IMAGE_TOPIC, LabelPlace(LABEL_TOPIC, None, 0))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two workers; they find the modules of the tests where this process does."""
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
    """A loader that is killed where it runs first."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return painter()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def always_dies() -> Painter:
    """A loader that is killed wherever it runs."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def no_model() -> Painter:
    """A loader without a model."""
    raise ModelError("no model there")


def bags_in(folder: Path) -> list[tuple[int, BagFacts]]:
    """Two good bags, and between them one whose end is missing."""
    bags = [
        labelled_bag(folder / name, drive(count))
        for name, count in (("one", 11), ("two", 4), ("three", 5))
    ]
    (bags[1] / "two.mcap").write_bytes(b"")
    return [
        (number, BagFacts(bag, IMAGE_TOPIC, count))
        for number, (bag, count) in enumerate(zip(bags, (11, 4, 5), strict=True))
    ]


def test_a_killed_worker_and_a_bad_bag_change_no_number(tmp_path: Path, cluster: None) -> None:
    bags = bags_in(tmp_path)
    here, spread = PartFolder(tmp_path / "here"), PartFolder(tmp_path / "spread")
    plain = Evaluating(READING, painter, painter, keep_masks=True)
    failures: list[dict[int, str]] = [{}, {}]
    assert len(list(evaluate_here(bags, plain, here, failures[0], lambda: None))) == 16
    whole = merge(bags, here, plain, failures[0], tmp_path)
    lines = (tmp_path / "frames.jsonl").read_bytes()
    dying = Evaluating(READING, partial(dies_once, tmp_path / "died"), painter, keep_masks=True)
    assert (
        len(list(evaluate_on_ray(bags, dying, spread, failures[1], lambda: None, 1, task_frames=3)))
        == 16
    )
    assert (tmp_path / "died").exists()
    merged = merge(bags, spread, plain, failures[1], tmp_path)
    assert (tmp_path / "frames.jsonl").read_bytes() == lines
    assert merged.tally.to_json() == whole.tally.to_json()
    assert merged.worst == whole.worst
    assert failures[0] == failures[1]
    assert list(failures[0]) == [1]
    assert list(spread.masks(0)) == list(here.masks(0))


def test_a_bag_that_kills_every_worker_is_told(tmp_path: Path, cluster: None) -> None:
    bags, failures = bags_in(tmp_path)[:1], dict[int, str]()
    parts = PartFolder(tmp_path / "parts")
    assert not list(
        evaluate_on_ray(bags, Evaluating(READING, always_dies), parts, failures, lambda: None, 1)
    )
    assert failures[0].startswith(
        f"the workers that evaluated the bag {tmp_path / 'one'} from image 0 on were lost 4 times: "
    )
    assert "\n" not in failures[0]


def test_what_is_wrong_with_the_model_ends_it(tmp_path: Path, cluster: None) -> None:
    parts = PartFolder(tmp_path / "parts")
    with pytest.raises(ModelError, match="no model there"):
        list(
            evaluate_on_ray(
                bags_in(tmp_path), Evaluating(READING, no_model), parts, {}, lambda: None, 1
            )
        )


def test_a_stopped_one_goes_on_here_and_finds_the_same(tmp_path: Path, cluster: None) -> None:
    bags = bags_in(tmp_path)[:1]
    evaluating = Evaluating(READING, painter)
    parts, whole = PartFolder(tmp_path / "parts"), PartFolder(tmp_path / "whole")
    with pytest.raises(
        Stopped, match=r"stopped after \d+ frames \(enough\); the same command goes on from there"
    ):
        list(evaluate_on_ray(bags, evaluating, parts, {}, lambda: "enough", 1, task_frames=2))
    list(evaluate_here(bags, evaluating, parts, {}, lambda: None))
    list(evaluate_here(bags, evaluating, whole, {}, lambda: None))
    assert (
        merge(bags, parts, evaluating, {}, tmp_path).tally.to_json()
        == merge(bags, whole, evaluating, {}, tmp_path).tally.to_json()
    )


def test_only_what_is_missing_is_done(tmp_path: Path) -> None:
    bag = labelled_bag(tmp_path / "bag", drive(10))
    parts, evaluating = PartFolder(tmp_path / "parts"), Evaluating(READING, painter)
    assert list(missing(parts, 0, 10, 4)) == [(0, 4), (4, 8), (8, None)]
    assert list(missing(parts, 0, 8, 4)) == [(0, 4), (4, None)]
    parts.save(0, evaluate_part(bag, evaluating, 2, 5))
    assert list(missing(parts, 0, 10, 4)) == [(0, 2), (5, 9), (9, None)]
    parts.save(0, evaluate_part(bag, evaluating, 5, None))
    assert list(missing(parts, 0, 10, 4)) == [(0, 2)]
