"""Measure `camseg train --from` on frames of one drive, and `camseg bag mine` against chance.

    python benchmarks/own_camera.py --data FOLDER --list
    python benchmarks/own_camera.py --data FOLDER --run runs/own-camera --write docs/results.md

All frames are of `val`, which no bundled model was trained on. Fine-tuning: on the first frames of
a drive, from the bundled model and from scratch, scored on the later ones. Mining: on frames that
`camseg bag mine` would choose, and on as many random ones, scored on those that neither has. A job
with a result in `docs/results/` is not run again; a killed one resumes.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from document import command_of, markdown_table, write_or_print
from experiment_models import Place
from experiments import RESULTS, chosen, listing, result_of, run_all
from intervals import Counts, mean_iou, over_seeds, paired_lead
from own_camera_work import Bench, Choice, Job, jobs_of, work

from camseg_core.config.yaml_file import load_yaml
from camseg_core.errors import CamSegError
from camseg_core.training.finetune import FinetuneRecipe
from camseg_core.training.recipes import Recipe
from camseg_core.weights import DEFAULT_MODEL, checkpoint_folder

CONFIGS = Path(__file__).parents[1] / "config" / "train"


class Found(NamedTuple):
    """The jobs and the results of those that were run, by name."""

    jobs: Sequence[Job]
    results: Mapping[str, dict[str, Any]]

    def figures(self, pool: str, choice: Choice, from_model: bool = True) -> dict[int, Any]:
        """Return the figures of one kind of job, by seed."""
        wanted = pool, choice, from_model
        return {
            job.seed: self.results[job.name]["figures"]
            for job in self.jobs
            if (job.pool, job.choice, job.from_model) == wanted and job.name in self.results
        }

    def seeds(self, pool: str, choice: Choice) -> int:
        """Return how many seeds were asked for."""
        return len({job.seed for job in self.jobs if (job.pool, job.choice) == (pool, choice)})

    def provenance(self) -> str:
        """Return what was run and not, where and how."""
        done = [*self.results.values()]
        left = sum(job.minutes for job in self.jobs if job.name not in self.results) / 60
        text = f"{len(done)} of {len(self.jobs)} jobs were run"
        if done:
            commits, machines = (
                ", ".join(sorted({each[key] for each in done})) for key in ("commit", "machine")
            )
            hours = sum(each["seconds"] for each in done) / 3600
            text += f", in {hours:.1f} h; {machines}; commit {commits}"
        missing = len(self.jobs) - len(done)
        return text + (f". Not run: {missing}, about {left:.1f} h on 2 cores." if missing else ".")


def _counts(figures: Mapping[str, Any], names: Iterable[str]) -> Counts:
    """Return the counts `(frames, 3, K)` of the frames with these names."""
    return np.array([figures["counts"][name] for name in names], np.int64)


def tuning_table(found: Found, drive: str) -> str:
    """Return the scores of the model, of those fine-tuned from it and of those from scratch.

    Near-duplicates of frames that were trained on are not scored.
    """
    before, seeds = found.figures(drive, "none"), found.seeds(drive, "first")
    sides = {
        "from it": found.figures(drive, "first"),
        "from scratch": found.figures(drive, "first", from_model=False),
    }
    if not before or not sides["from it"]:
        return ""
    first = next(iter(sides["from it"].values()))
    names = [name for name in first["counts"] if name not in first["alike"]]
    tuned = {seed: _counts(each, names) for seed, each in sides["from it"].items()}
    rows = []
    for name, figures in {"the model as it is": dict.fromkeys(tuned, before[0]), **sides}.items():
        side = {seed: _counts(each, names) for seed, each in figures.items()}
        both = [seed for seed in tuned if seed in side]
        score = over_seeds([mean_iou(each.sum(0)) for each in side.values()])
        lead = paired_lead([[tuned[i]] for i in both], [[side[i]] for i in both], mean_iou)
        minutes = [each["training_minutes"] for each in figures.values()]
        rows.append(
            (
                name,
                f"{np.mean(minutes):.1f}" if any(minutes) else "–",
                score.text(seeds) if name != "the model as it is" else f"{score.mean:.3f}",
                lead.text(seeds, sign="+") if figures is not sides["from it"] else "–",
            )
        )
    heads = ("trained", "minutes", "mean IoU", "training from the model leads by")
    count = f"{len(names)} frames scored, {len(first['classes'])} classes"
    return f"{markdown_table(heads, rows)}\n\n{count}."


def mining_table(found: Found, pools: Iterable[str]) -> str:
    """Return the scores after fine-tuning on mined and on random frames, on those that neither has.

    Near-duplicates of frames that were trained on are not scored.
    """
    rows: list[tuple[object, ...]] = []
    for pool in pools:
        before, seeds = found.figures(pool, "none"), found.seeds(pool, "mined")
        mined, random = found.figures(pool, "mined"), found.figures(pool, "random")
        leads = []
        for seed in (each for each in mined if each in random and before):
            sides = before[0], random[seed], mined[seed]
            alike = {*sides[1]["alike"], *sides[2]["alike"]}
            names = [
                name
                for name in sides[1]["counts"]
                if name in sides[2]["counts"] and name not in alike
            ]
            # what neither side scores was trained on by both
            same = len({*before[0]["counts"]} - {*sides[1]["counts"]} - {*sides[2]["counts"]})
            counts = [_counts(each, names) for each in sides]
            scores = [mean_iou(each.sum(0)) for each in counts]
            lead = paired_lead([[counts[2]]], [[counts[1]]], mean_iou)
            leads.append(lead.mean)
            shown = (f"{score:.3f}" for score in scores)
            of, classes = mined[seed]["trained_on"], len(mined[seed]["classes"])
            row = (pool, seed, of, same, len(names), classes, *shown)
            rows.append((*row, lead.text(1, sign="+")))
        if len(leads) > 1:
            mean = over_seeds(leads).text(seeds, sign="+")
            rows.append((pool, "mean", *["" for _ in range(7)], mean))
    facts = ("val of", "seed", "trained on", "in both", "scored", "classes")
    heads = (*facts, "before", "random", "mined", "mined leads by")
    return markdown_table(heads, rows) if rows else ""


def sections(found: Found, drive: str, pools: Sequence[str], command: str) -> dict[str, str]:
    """Return the sections of the document by name, with `command` below."""
    texts = {"own-camera": tuning_table(found, drive), "mining": mining_table(found, pools)}
    below = f"{found.provenance()}\n\n{command}"
    return {name: f"{text}\n\n{below}" if text else below for name, text in texts.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what was asked for; the exit code is 1 if a job failed."""
    parser = argparse.ArgumentParser(
        description="Measure fine-tuning to your own camera, and mining."
    )
    option = parser.add_argument
    help_text = "folder of the recipe's data sets"
    option("--data", type=Path, required=True, metavar="<data>", help=help_text)
    option("--run", type=Path, default=Path("runs/own-camera"), help="working files")
    option("--results", type=Path, default=RESULTS, help="folder of the results")
    option("--model", default=DEFAULT_MODEL, help="to fine-tune")
    option("--recipe", type=Path, default=CONFIGS / "camseg-lite.yaml", help="names the sets")
    option("--config", type=Path, default=CONFIGS / "finetune.yaml", help="of the fine-tuning")
    option("--scratch", type=Path, default=CONFIGS / "camseg-lite-camvid.yaml", help="of the other")
    option("--drive", default="camvid", metavar="NAME", help="set whose val is one drive, in order")
    option("--pools", nargs="+", default=["camvid", "cityscapes-small"], metavar="NAME")
    option("--frames", type=int, default=40, help="to train on")
    option("--steps", type=int, default=300, help="of fine-tuning; 10 min at 2 s each")
    option("--mining-steps", type=int, default=90, help="of fine-tuning on mined and random frames")
    option("--seeds", nargs="+", type=int, default=[0, 1, 2])
    option("--only", nargs="+", default=[], metavar="NAME", help="beginnings of jobs' names")
    option("--list", action="store_true", help="say what is done, and run nothing")
    option("--workers", type=int, default=0, help="processes that prepare samples")
    option("--write", type=Path, metavar="DOCUMENT", help="replace its sections")
    given = parser.parse_args(arguments)
    try:
        bench = Bench(
            Place(given.data, given.run, given.recipe, given.workers),
            checkpoint_folder(given.model),
            load_yaml(given.config, FinetuneRecipe),
            load_yaml(given.scratch, Recipe),
            given.frames,
            given.drive,
        )
        for name in (given.drive, *given.pools):
            bench.open(name)  # refuse before the work
        everything = jobs_of(bench, given.pools, given.seeds, given.steps, given.mining_steps)
        jobs, failed = chosen(everything, given.only), 0
        command = command_of("own-camera", parser, given)
        if not given.list:
            failed = run_all(jobs, lambda job: work(job, bench), command, given.run, given.results)
        print("\n".join(listing(jobs, given.results)))
        results = {job.name: result_of(job, given.results) for job in everything}
        found = Found(everything, {name: each for name, each in results.items() if each})
        texts = sections(found, given.drive, given.pools, f"    {command}")
        write_or_print(texts, given.write)
    except CamSegError as error:
        sys.exit(str(error))
    if failed:
        sys.exit(f"{failed} of {len(jobs)} jobs failed")


if __name__ == "__main__":
    main()
