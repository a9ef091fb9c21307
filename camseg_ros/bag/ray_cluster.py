"""Evaluates bags on a Ray cluster. Every machine must see the bags under the same path."""

import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from camseg_core.errors import CamSegError, DataError
from camseg_ros.bag.evaluation import (
    PART_FRAMES,
    BagInfo,
    EvaluationOptions,
    EvaluationRun,
    EvaluationStopped,
    evaluate_part,
)
from camseg_ros.bag.parts import BagPart, PartFolder

MIN_TASK_FRAMES, MAX_TASK_FRAMES = 50, 5 * PART_FRAMES
"""Images in a task; it reads all images before its own first, without decoding them."""

TASKS_PER_CORE = 4
"""Tasks for each core if the bags are short, so that none waits long for the last."""

RETRIES = 3
"""How often a task is started again after its worker was killed."""

CONNECT_S = 5.0
"""How long the cluster may take to answer."""

WAIT_S = 0.5
"""How often to check for a request to stop."""


def evaluate_on_ray(
    run: EvaluationRun,
    stopping: Callable[[], str | None],
    cores: int,
    gpu: bool = False,
    task_frames: int | None = None,
) -> Iterator[int]:
    """Do what `evaluate_here` does, on the cluster at `RAY_ADDRESS` or on a temporary local one.

    Args:
        run: a bag whose worker is killed again and again becomes a failure.
        stopping: returns a reason to stop, or None.
        cores: cores for a task, one for each thread of its model.
        gpu: whether a task needs a GPU of its own.
        task_frames: images in a task; by default from the number of images and cores.

    Raises:
        EvaluationStopped: there was a reason to stop.
        CamSegError: the cluster cannot be reached, a worker cannot run the model, or workers have
            different engines or versions.
    """
    connected_here = not ray.is_initialized()
    if connected_here:
        _connect()
    try:
        task = ray.remote(num_cpus=cores, num_gpus=int(gpu), max_retries=RETRIES)(_task)
        task_frames = task_frames or _task_size(sum(bag.count for bag in run.bags.values()))
        jobs = (
            (number, start, stop)
            for number, bag in run.bags.items()
            for start, stop in missing(run.parts, number, bag.count, task_frames)
        )
        yield from _run(run, jobs, task, stopping)
    finally:
        if connected_here:
            ray.shutdown()


def missing(
    parts: PartFolder, number: int, count: int, task_frames: int
) -> Iterator[tuple[int, int | None]]:
    """Divide what `parts` lacks of a bag of `count` images into tasks.

    Yields the first image of a task and the one after its last, None for the end of the bag.
    """
    at = 0
    while True:
        part = parts.load(number, at)
        if part is not None:
            if part.ended or part.stop <= at:
                return
            at = part.stop
            continue
        after = range(at + 1, min(at + task_frames, count))
        following = next((start for start in after if parts.has(number, start)), None)
        stop = following or at + task_frames
        if stop >= count and following is None:
            yield at, None
            return
        yield at, stop
        at = stop


def _run(
    run: EvaluationRun,
    jobs: Iterator[tuple[int, int, int | None]],
    task: Any,
    stopping: Callable[[], str | None],
) -> Iterator[int]:
    """Keep two tasks for each core in flight, so that results never fill the cluster's memory."""
    options = ray.put(run.options)
    bags = {number: ray.put(bag) for number, bag in run.bags.items()}
    limit = 2 * _cores()
    in_flight: dict[Any, tuple[int, int]] = {}
    done = 0
    while True:
        while len(in_flight) < limit and (job := next(jobs, None)) is not None:
            number, start, stop = job
            if number not in run.failures:
                reference = task.remote(bags[number], options, start, stop)
                in_flight[reference] = number, start
        if not in_flight:
            return
        for reference in ray.wait(list(in_flight), timeout=WAIT_S)[0]:
            number, start = in_flight.pop(reference)
            result = _result(reference, run.bags[number].path, start)
            if isinstance(result, str):
                run.failures.setdefault(number, result)
                continue
            run.parts.save(number, result)
            for _ in result.lines:
                done += 1
                yield number
        reason = stopping()
        if reason is not None:
            for reference in in_flight:
                ray.cancel(reference, force=True)
            raise EvaluationStopped(
                f"stopped after {done} frames ({reason}); run the same command to continue"
            )


def _cores() -> int:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call, unused-ignore]
    return max(1, int(resources.get("CPU", 1)))


def _task_size(images: int) -> int:
    return min(max(MIN_TASK_FRAMES, -(-images // (TASKS_PER_CORE * _cores()))), MAX_TASK_FRAMES)


def _result(reference: Any, bag: Path, start: int) -> BagPart | str:
    """Return the part, or why the bag failed."""
    try:
        result: BagPart | str = ray.get(reference)
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, CamSegError):
            raise cause from error
        raise CamSegError(f"a Ray worker failed: {_one_line(cause or error)}") from error
    except RayError as error:  # the worker was killed, or its machine is gone
        return (
            f"the workers that evaluated the bag {bag} from image {start} on were lost "
            f"{RETRIES + 1} times: {_one_line(error)}"
        )
    return result


def _task(bag: BagInfo, options: EvaluationOptions, start: int, stop: int | None) -> BagPart | str:
    """Evaluate a part in a worker."""
    try:
        return evaluate_part(bag, options, start, stop)
    except DataError as error:
        return str(error)


def _connect() -> None:
    address = os.environ.get("RAY_ADDRESS")
    where = f"the Ray cluster at {address}" if address else "a Ray cluster on this machine"
    try:
        if address and (found := re.fullmatch(r"([\w.-]+):(\d+)", address)):
            # Ray itself would try for minutes
            socket.create_connection((found[1], int(found[2])), CONNECT_S).close()
        # with RAY_ADDRESS Ray connects there, else it starts a cluster here
        dashboard = None if address else False
        ray.init(log_to_driver=False, configure_logging=False, include_dashboard=dashboard)
    except Exception as error:  # from OSError to RuntimeError
        raise CamSegError(
            f"cannot use {where}: {_one_line(error)}; check RAY_ADDRESS, "
            "and RAY_AUTH_MODE and RAY_AUTH_TOKEN if the cluster needs a token"
        ) from error


def _one_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
