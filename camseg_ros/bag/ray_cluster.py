"""Evaluates bags on a Ray cluster, some hundred images a task. Every machine of it must see the bags under the same path."""

import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from camseg_core.errors import CamSegError, DataError
from camseg_ros.bag.evaluate import PART_FRAMES, BagFacts, Stopped, evaluate_part
from camseg_ros.bag.evaluation import Evaluating
from camseg_ros.bag.parts import Part, PartFolder

FEWEST, MOST = 50, 5 * PART_FRAMES
"""Images that a task has; it first walks over all images before its own, without decoding them."""

TASKS_A_CORE = 4
"""Where bags are short, there are so many tasks for each core, so that none waits long for the last."""

RETRIES = 3
"""So often a task begins anew whose worker was killed."""

CONNECT_S = 5.0
"""How long the cluster may take to answer."""

WAIT_S = 0.5
"""How long a wish to stop may go unheard."""


def evaluate_on_ray(
    bags: Sequence[tuple[int, BagFacts]],
    evaluating: Evaluating,
    parts: PartFolder,
    failures: dict[int, str],
    stopping: Callable[[], str | None],
    cores: int,
    gpu: bool = False,
    task_frames: int | None = None,
) -> Iterator[int]:
    """As `evaluate_here`, on the cluster at `RAY_ADDRESS`, or on one that is started on this machine and ended afterwards.

    Args:
        bags, evaluating, parts, failures, stopping: as `evaluate_here`; a bag whose worker is killed again and again is a failure.
        cores: that a task has, as many threads as its model uses.
        gpu: whether a task needs a GPU of its own.
        task_frames: images a task has; by the number of images and cores if left out.

    Raises:
        Stopped: there was a reason to stop.
        CamSegError: the cluster cannot be reached, or what a worker says is wrong with the model.
    """
    mine = not ray.is_initialized()
    if mine:
        _connect()
    try:
        task = ray.remote(num_cpus=cores, num_gpus=int(gpu), max_retries=RETRIES)(_task)
        task_frames = task_frames or _share(sum(bag.count for _, bag in bags))
        jobs = (
            (number, bag, start, stop)
            for number, bag in bags
            for start, stop in missing(parts, number, bag.count, task_frames)
        )
        yield from _run(jobs, task, evaluating, parts, failures, stopping)
    finally:
        if mine:
            ray.shutdown()


def missing(
    parts: PartFolder, number: int, count: int, task_frames: int
) -> Iterator[tuple[int, int | None]]:
    """First image and the one after the last (None: to the end) of what `parts` lacks of a bag of `count` images, in tasks."""
    at = 0
    while True:
        part = parts.load(number, at)
        if part is not None:
            if part.ended or part.stop <= at:
                return
            at = part.stop
            continue
        following = [
            start
            for start in range(at + 1, min(at + task_frames, count))
            if parts.has(number, start)
        ]
        stop = following[0] if following else at + task_frames
        if stop >= count and not following:
            yield at, None
            return
        yield at, stop
        at = stop


def _run(
    jobs: Iterator[tuple[int, BagFacts, int, int | None]],
    task: Any,
    evaluating: Evaluating,
    parts: PartFolder,
    failures: dict[int, str],
    stopping: Callable[[], str | None],
) -> Iterator[int]:
    """Keep as many tasks under way as the cluster has cores, and a few more, so that results never fill its memory."""
    shared = ray.put(evaluating)
    most = 2 * _cores()
    under_way: dict[Any, tuple[int, BagFacts, int]] = {}
    done = 0
    while True:
        while len(under_way) < most and (job := next(jobs, None)) is not None:
            number, bag, start, stop = job
            if number not in failures:
                under_way[task.remote(bag.path, shared, start, stop)] = (number, bag, start)
        if not under_way:
            return
        for reference in ray.wait(list(under_way), timeout=WAIT_S)[0]:
            number, bag, start = under_way.pop(reference)
            result = _result(reference, bag, start)
            if isinstance(result, str):
                failures.setdefault(number, result)
                continue
            parts.save(number, result)
            for _ in result.lines:
                done += 1
                yield number
        reason = stopping()
        if reason is not None:
            for reference in under_way:
                ray.cancel(reference, force=True)
            raise Stopped(
                f"stopped after {done} frames ({reason}); the same command goes on from there"
            )


def _cores() -> int:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call, unused-ignore]
    return max(1, int(resources.get("CPU", 1)))


def _share(images: int) -> int:
    """How many of the images a task gets."""
    return min(max(FEWEST, -(-images // (TASKS_A_CORE * _cores()))), MOST)


def _result(reference: Any, bag: BagFacts, start: int) -> Part | str:
    """The part, or why the bag has failed."""
    try:
        result: Part | str = ray.get(reference)
    except RayTaskError as error:
        cause = error.cause
        raise (
            cause
            if isinstance(cause, CamSegError)
            else CamSegError(f"a Ray worker failed: {_one_line(cause or error)}")
        ) from error
    except RayError as error:  # the worker was killed, the machine is gone
        return f"the workers that evaluated the bag {bag.path} from image {start} on were lost {RETRIES + 1} times: {_one_line(error)}"
    return result


def _task(bag: Path, evaluating: Evaluating, start: int, stop: int | None) -> Part | str:
    """Runs in a worker."""
    try:
        return evaluate_part(bag, evaluating, start, stop)
    except DataError as error:
        return str(error)


def _connect() -> None:
    address = os.environ.get("RAY_ADDRESS")
    where = f"the Ray cluster at {address}" if address else "a Ray cluster on this machine"
    try:
        if address and (found := re.fullmatch(r"([\w.-]+):(\d+)", address)):
            socket.create_connection(
                (found[1], int(found[2])), CONNECT_S
            ).close()  # Ray itself tries for minutes
        # with RAY_ADDRESS Ray connects there, else it starts a cluster here
        ray.init(
            log_to_driver=False,
            configure_logging=False,
            include_dashboard=None if address else False,
        )
    except Exception as error:  # from OSError to RuntimeError
        remedy = "check RAY_ADDRESS, and RAY_AUTH_MODE and RAY_AUTH_TOKEN where the cluster wants a token"
        raise CamSegError(f"cannot use {where}: {_one_line(error)}; {remedy}") from error


def _one_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
