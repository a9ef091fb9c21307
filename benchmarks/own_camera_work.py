"""What the jobs of `own_camera.py` do: choose frames of a `val`, train on them, score on others."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from document import current_commit
from experiment_models import Outcome, Place, in_steps, in_torch
from experiment_work import counts_of
from job_files import CODE, kept_in, measured

from camseg_core.data.file_set import Pair
from camseg_core.data.sets import SETS, LabelledSet
from camseg_core.data.sets.kind import OwnLabels
from camseg_core.errors import ConfigError
from camseg_core.evaluation.selection import ALIKE, Judge, Pool, choose, thumbnail
from camseg_core.training.finetune import OF_THE_START, FinetuneRecipe, run_finetuning
from camseg_core.training.joined import SetConfig
from camseg_core.training.recipes import Recipe
from camseg_core.training.recipes import run as train

VALIDATED = 8
"""Frames of `val` in a training, which needs some: what is scored here is not chosen by them."""

Choice = Literal["none", "first", "mined", "random"]


@dataclass(frozen=True)
class Job:
    """A model to fine-tune, or the one as it is (`choice` none), and to score on the other frames.

    `settings` are what decides the result beside the set of frames, how some are chosen to train
    on, whether the training starts from the model, and the seed.
    """

    pool: str
    choice: Choice
    from_model: bool
    seed: int
    settings: Mapping[str, Any]
    minutes: float

    @property
    def name(self) -> str:
        """A unique name, also of its result's file."""
        start = "" if self.from_model else "-from-scratch"
        seed = "" if self.choice == "none" else f"-s{self.seed}"
        return f"own-camera-{self.pool}-{self.choice}{start}{seed}"

    @property
    def trained_in(self) -> str | None:
        """None: a job trains its own model."""
        return None

    def identity(self) -> dict[str, Any]:
        """Return what decides the result, for JSON."""
        content = {key: value for key, value in asdict(self).items() if key != "minutes"}
        found: dict[str, Any] = json.loads(json.dumps(content))
        return found


class Bench(NamedTuple):
    """Data, working files, the model to start from, recipes, and the set whose `val` is a drive."""

    place: Place
    start: Path
    tuning: FinetuneRecipe
    scratch: Recipe
    frames: int
    drive: str

    def open(self, pool: str) -> tuple[SetConfig, LabelledSet, list[Pair]]:
        """Open the `val` of a set; return it with its files.

        Raises:
            ConfigError: there is no such set, or too few frames.
            DataError: it cannot be used.
        """
        sets = self.place.sets()
        if pool not in sets:
            raise ConfigError(
                f"--drive and --pools must name sets of {self.place.recipe.name} "
                f"({', '.join(sets)}), got {pool!r}"
            )
        source = sets[pool]
        opened = source.open(self.place.data, source.val)
        own = OwnLabels(mapping=None if source.mapping is None else Path(source.mapping))
        files = SETS[source.kind].files(self.place.data / source.root, source.val, own)
        pairs = [pair for each in files for pair in each.pairs]
        if not 0 < self.frames < len(pairs):
            raise ConfigError(
                f"--frames must be 1 to {len(pairs) - 1}, as {pool} has {len(pairs)} in val, got "
                f"{self.frames}"
            )
        return source, opened, pairs

    def recipe(self, job: Job) -> FinetuneRecipe | Recipe:
        """Return the recipe of a job without its data."""
        steps, loop = job.settings["steps"], self.tuning.training.loop
        warmup = round(loop.warmup * steps / loop.steps)
        if job.from_model:
            training = in_steps(self.tuning.training, steps, job.seed)
            loop = replace(training.loop, warmup=warmup)
            return replace(self.tuning, classes=OF_THE_START, training=replace(training, loop=loop))
        codec, training = self.scratch.autoencoder, in_steps(self.scratch.training, steps, job.seed)
        # weights averaged over more steps than there are would trail far behind
        loop = replace(training.loop, warmup=warmup, ema_decay=loop.ema_decay)
        codec = replace(codec, loop=replace(codec.loop, steps=steps, seed=job.seed))
        return replace(self.scratch, autoencoder=codec, training=replace(training, loop=loop))


def jobs_of(
    bench: Bench, pools: Sequence[str], seeds: Sequence[int], steps: int, brief: int
) -> list[Job]:
    """Return all jobs, seed by seed; those of mining have `brief` steps."""
    weights = hashlib.blake2b((bench.start / "model.safetensors").read_bytes(), digest_size=8)
    common = {"model": weights.hexdigest(), "frames": bench.frames}
    tuning, scratch = (
        {key: value for key, value in asdict(each).items() if key != "data"}
        for each in (bench.tuning, bench.scratch)
    )
    jobs = [
        Job(pool, "none", True, 0, {"model": common["model"]}, 2)
        for pool in dict.fromkeys((bench.drive, *pools))
    ]
    for seed in seeds:
        settings = {**common, "steps": steps}
        jobs.append(Job(bench.drive, "first", True, seed, settings | tuning, 1 + steps / 30))
        jobs.append(Job(bench.drive, "first", False, seed, settings | scratch, 1 + steps / 20))
        short = {**common, "steps": brief, **tuning}
        jobs += [
            Job(pool, choice, True, seed, short, 3 + brief / 30)
            for pool in pools
            for choice in ("mined", "random")
        ]
    return jobs


def frames_of(job: Job, bench: Bench, opened: LabelledSet) -> list[int]:
    """Return the numbers of the frames to train on."""
    if job.choice == "none":
        return []
    if job.choice == "first":
        return [*range(bench.frames)]
    mined = _mined(job, bench, opened)
    if job.choice == "mined":
        return mined
    random = np.random.default_rng(job.seed)
    drawn = random.choice(len(opened.samples), len(mined), replace=False)  # fewer if so are mined
    return sorted(drawn.tolist())


def _mined(job: Job, bench: Bench, opened: LabelledSet) -> list[int]:
    """Return what `camseg bag mine` would choose; of single frames, each is a drive of its own."""
    commit = current_commit(*CODE).replace(" ", "-")  # how frames are chosen may change
    name = f"mined-{job.pool}-{job.settings['model']}-{bench.frames}-{commit}.json"
    known = bench.place.run / name

    def numbers() -> list[int]:
        pool, judge = Pool(len(opened.samples), bench.frames), Judge(in_torch(bench.start))
        for i, sample in enumerate(opened.samples):
            one_drive = job.pool == bench.drive
            place = (0, i) if one_drive else (i, 0)
            pool.add(judge.candidate(place, i, sample.image, follows=one_drive))
        return sorted(each.candidate.stamp_ns for each in choose(pool, bench.frames))

    return list(kept_in(known, numbers))


def work(job: Job, bench: Bench) -> Outcome:
    """Train if the job does, and count the masks of all frames that were not trained on."""
    source, opened, pairs = bench.open(job.pool)
    numbers, folder = frames_of(job, bench, opened), bench.place.run / job.name
    begun = (folder / "training").is_dir() and not (folder / "frames.json").is_file()
    if begun or kept_in(folder / "frames.json", lambda: numbers) != numbers:
        raise ConfigError(
            f"{folder} was begun with other frames to train on: remove it, or use another --run"
        )
    others = [i for i in range(len(pairs)) if i not in {*numbers}]
    out, seconds = bench.start, 0.0
    if numbers:
        out = folder / "model"
        every = max(1, len(others) // VALIDATED)
        splits = {"train": numbers, "val": others[::every]}
        data = _linked({name: [pairs[i] for i in each] for name, each in splits.items()}, folder)
        data_set = replace(
            source, root=os.path.realpath(data), weight=1.0, train="train", val="val"
        )
        (folder / "training").mkdir(exist_ok=True)
        with measured(folder / "training") as spent:
            if not (out / "MODEL_CARD.md").is_file():
                _train(bench.recipe(job), (data_set,), bench, folder / "training", out)
        seconds = spent[0]
    segmenter = in_torch(out)
    models = {"start": in_torch(bench.start).labels, "tuned": segmenter.labels}
    shared = opened.scored_by(models)
    scored, notes = shared.scored[1], shared.lines
    learnt = [thumbnail(opened.samples[i].image) for i in numbers]
    counts, alike = {}, []
    for i in others:
        sample = opened.samples[i]
        counts[sample.name] = counts_of(segmenter, sample, scored)
        small = thumbnail(sample.image)
        if any(np.abs(small - each).mean() < ALIKE for each in learnt):
            alike.append(sample.name)
    return {"frames": len(others)}, {
        "classes": [label.name for label in scored.labels],
        "notes": notes,
        "trained_on": len(numbers),
        "training_minutes": seconds / 60,
        "alike": alike,
        "counts": counts,
    }


def _linked(splits: Mapping[str, Sequence[Pair]], folder: Path) -> Path:
    """Return a data set of links to files, `SPLIT/images` and `SPLIT/labels`."""
    data = folder / "data"
    for split, pairs in splits.items():
        for part, paths in (
            ("images", [pair.image for pair in pairs]),
            ("labels", [pair.label for pair in pairs]),
        ):
            (data / split / part).mkdir(parents=True, exist_ok=True)
            for path in paths:
                link = data / split / part / path.name
                if not link.is_symlink():
                    link.symlink_to(os.path.realpath(path))
    return data


def _train(
    recipe: FinetuneRecipe | Recipe, data: tuple[SetConfig, ...], bench: Bench, run: Path, out: Path
) -> None:
    """Train a model and write it to `out`; what is in `run` resumes."""
    workers = bench.place.workers
    if isinstance(recipe, Recipe):
        train(replace(recipe, data=data), Path(), run, out, workers=workers, export=False)
    else:
        tuned = replace(recipe, data=data)
        run_finetuning(tuned, bench.start, Path(), run, out, workers=workers, export=False)
