"""Run the experiments of `experiments.yaml` one after the other; a killed queue resumes.

    python benchmarks/experiments.py --data FOLDER --list
    python benchmarks/experiments.py --data FOLDER --run runs/experiments
    python benchmarks/results.py --write docs/results.md

The result of a job is one JSON file in `docs/results/`, and a job with a result is not run again.
What is under way is kept in `--run`: trainings go on from their last saved step.
"""

import argparse
import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from document import command_of, current_commit, log_training, machine_and_torch
from experiment_models import Outcome, Place, check
from experiment_plan import PLAN, Job, jobs_of, load_plan
from experiment_work import WORK
from job_files import CODE, check_versions, commits_of, measured, note_commit

from camseg_core.errors import CamSegError, ConfigError
from camseg_core.long_runs import atomic_write, writable_folder
from camseg_core.training.trainer import Stopped

RESULTS = Path(__file__).parents[1] / "docs" / "results"


class Queued(Protocol):
    """What gives one result: a unique name, the minutes expected, and what decides the result.

    `trained_in` names the folder of another job whose model this one uses.
    """

    @property
    def name(self) -> str: ...
    @property
    def minutes(self) -> float: ...
    @property
    def trained_in(self) -> str | None: ...
    def identity(self) -> dict[str, Any]: ...


AnyJob = TypeVar("AnyJob", bound=Queued)


def _file_of(job: Queued, results: Path) -> Path:
    return results / f"{job.name}.json"


def result_of(job: Queued, results: Path) -> dict[str, Any] | None:
    """Return the result of a job; None if it was not run, or with other settings.

    Raises:
        ConfigError: the file is not a result.
    """
    path = _file_of(job, results)
    if not path.is_file():
        return None
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return result if result["job"] == job.identity() else None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} must be a result of experiments.py: remove it") from error


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` until the block ends.

    Raises:
        ConfigError: another queue holds it; `what` names what it works on.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"{what} must be free: another queue is at work") from error
        if not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino:
            raise ConfigError(f"{what} must be free: another queue has just ended, run it again")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def run_job(
    job: AnyJob, work: Callable[[AnyJob], Outcome], command: str, run: Path, results: Path
) -> dict[str, Any]:
    """Run or resume a job, write its result into the folder `results` and return it.

    `command` is what runs all jobs.
    """
    folder = writable_folder(run / job.name, "--run")
    path, identity = folder / "job.json", json.dumps(job.identity())
    if path.is_file() and path.read_text(encoding="utf-8") != identity:
        raise ConfigError(
            f"{folder} was begun with other settings: remove it, or use another --run"
        )
    with atomic_write(path) as temporary:
        temporary.write_text(identity, encoding="utf-8")
    check_versions(folder)
    note_commit(folder)
    with measured(folder) as seconds:
        n, figures = work(job)
    used = commits_of(run / job.trained_in) if job.trained_in else []
    result = {
        "job": job.identity(),
        "command": f"{command} --only {job.name}",
        "commit": ", ".join(dict.fromkeys([*used, *commits_of(folder)])),
        "machine": machine_and_torch(),
        "seconds": round(seconds[0], 1),
        "n": n,
        "figures": figures,
    }
    with atomic_write(_file_of(job, results)) as path:
        path.write_text(json.dumps(result, separators=(",", ":")) + "\n", encoding="utf-8")
    return result


def run_all(
    jobs: Sequence[AnyJob],
    work: Callable[[AnyJob], Outcome],
    command: str,
    run: Path,
    results: Path,
) -> int:
    """Run the jobs that have no result yet; returns how many failed, each with a line on stderr.

    `command` is what runs all jobs, for their results.

    Raises:
        ConfigError: another queue is at work in `run`, a folder cannot be written to, or a job has
            a result of other settings, which is not replaced.
        Stopped: the queue was asked to stop.
    """
    failed = 0
    writable_folder(results, "--results")
    current_commit(*CODE)  # what is committed from here on does not run
    others = [
        str(_file_of(job, results))
        for job in jobs
        if _file_of(job, results).is_file() and result_of(job, results) is None
    ]
    if others:
        raise ConfigError(
            f"results of other settings must not be replaced: {', '.join(others[:3])}"
            f"{', …' * (len(others) > 3)}; use another --results, or remove them"
        )
    log_training()
    with alone(writable_folder(run, "--run") / "lock", f"--run {run}"):
        for job in jobs:
            if result_of(job, results) is None:
                print(f"{job.name} …", flush=True)
                try:
                    # a queue with another --run may write there as well
                    with alone(results / f".{job.name}.lock", job.name):
                        if result_of(job, results) is None:
                            run_job(job, work, command, run, results)
                except Stopped:
                    raise
                except CamSegError as error:  # the others may still be run
                    failed += 1
                    sys.stderr.write(f"{job.name}: {error}\n")
    return failed


def listing(jobs: Sequence[Queued], results: Path) -> list[str]:
    """Return a line for each job, then what is done, what is not, and the time."""
    lines, spent, left, done = [], 0.0, 0.0, 0
    width = max(len(job.name) for job in jobs)
    for job in jobs:
        result = result_of(job, results)
        if result is not None:
            spent, done = spent + result["seconds"] / 60, done + 1
            state = f"done in {result['seconds'] / 60:.1f} min, commit {result['commit']}"
        else:
            left += job.minutes
            other = _file_of(job, results).is_file()
            state = "not run" + " with these settings" * other + f", about {job.minutes:.0f} min"
        lines.append(f"{job.name:<{width}}  {state}")
    lines.append(
        f"{len(jobs)} jobs: {done} done in {spent / 60:.1f} h, {len(jobs) - done} not run, about "
        f"{left / 60:.1f} h on 2 cores"
    )
    return lines


def chosen(jobs: Sequence[AnyJob], names: Sequence[str]) -> list[AnyJob]:
    """Return the jobs whose names begin with one of `names`, all without names.

    Raises:
        ConfigError: no job's name begins so.
    """
    for name in names:
        if not any(job.name.startswith(name) for job in jobs):
            raise ConfigError(f"--only must begin a job's name, got {name!r}: see --list")
    return [job for job in jobs if not names or job.name.startswith(tuple(names))]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what was asked for; the exit code is 1 if a job failed."""
    parser = argparse.ArgumentParser(description="Run the experiments behind docs/results.md.")
    parser.add_argument(
        "--data", type=Path, metavar="<data>", help="folder that holds the recipe's data sets"
    )
    parser.add_argument("--run", type=Path, default=Path("runs/experiments"), help="working files")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--plan", type=Path, default=PLAN, help="the experiments")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="beginnings of jobs' names"
    )
    parser.add_argument("--list", action="store_true", help="say what is done, and run nothing")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare samples")
    given = parser.parse_args(arguments)
    failed = 0
    try:
        plan = load_plan(given.plan)
        jobs = chosen(jobs_of(plan), given.only)
        if given.list:
            print("\n".join(listing(jobs, given.results)))
            return
        if given.data is None:
            raise ConfigError("--data must name the folder of the data sets")
        place = Place(given.data, given.run, Path(plan.recipe), given.workers)
        check(plan, place)

        def work(job: Job) -> Outcome:
            return WORK[job.kind](job, plan, place)

        command = command_of("experiments", parser, given)
        failed = run_all(jobs, work, command, given.run, given.results)
        print(listing(jobs, given.results)[-1])
    except CamSegError as error:
        sys.exit(str(error))
    if failed:
        sys.exit(f"{failed} of {len(jobs)} jobs failed")


if __name__ == "__main__":
    main()
