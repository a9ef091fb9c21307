"""Measure `camseg adapt`: on a set that the model never saw, with its labels only for the score.

    python benchmarks/adaptation.py --data FOLDER --run runs/experiments --write docs/results.md

A model is trained without a set, as the experiments of `experiments.yaml` do (theirs in `--run` are
used), adapted to the set's training images without their labels, and scored on the set's `val`
before and after. The other sets are the labelled frames. The same `--run` resumes.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from document import (
    Outcome,
    add_document_options,
    conclude,
    current_commit,
    documented,
    log_training,
    machine_and_torch,
    markdown_table,
)
from experiment_models import Place, check, in_torch, trained
from experiment_plan import PLAN, Model, Plan, load_plan, name_of

from camseg_core.config.yaml_file import load_yaml
from camseg_core.data.frame_source import Unlabelled
from camseg_core.errors import ConfigError
from camseg_core.evaluation.comparison import Contender, Footage, compare
from camseg_core.evaluation.report.comparison import write_comparison
from camseg_core.long_runs import atomic_write
from camseg_core.training.adaptation import AdaptationRecipe, run_adaptation
from camseg_core.training.adaptation_result import Images, NotAdapted

CONFIG = Path(__file__).parents[1] / "config" / "train" / "adapt.yaml"

Result = dict[str, Any]


def result_of(
    left_out: str, seed: int, plan: Plan, place: Place, recipe: AdaptationRecipe
) -> Result:
    """Train without the set, adapt to it, and score both models on it; or read the result back.

    Raises:
        ConfigError: the folder holds a run with other settings.
    """
    model = Model("latents", True, left_out)
    sets = place.sets()
    others = tuple(each for name, each in sets.items() if name != left_out)
    loop = replace(recipe.training.loop, seed=seed)
    recipe = replace(recipe, data=others, training=replace(recipe.training, loop=loop))
    folder = place.run / f"adapt-{name_of(model)}-s{seed}"
    path, settings = folder / "benchmark.json", json.loads(json.dumps(asdict(recipe)))
    if path.is_file():
        known: Result = json.loads(path.read_text(encoding="utf-8"))
        if known["settings"] != settings:
            raise ConfigError(f"{path} has other settings: use those, or another --run")
        return known
    trained(model, seed, plan, place)
    start, out = place.run / f"train-{name_of(model)}-s{seed}" / "model", folder / "model"
    learnt = sets[left_out].open(place.data, "train").samples
    refused, steps = "", 0
    if not (out / "MODEL_CARD.md").is_file():
        images = Images(Unlabelled(learnt), f"{left_out}'s train")
        try:
            run_adaptation(
                recipe,
                start,
                lambda: images,
                place.data,
                folder,
                out,
                workers=place.workers,
                export=False,
            )
        except NotAdapted as error:  # then the model stays as it was: this is a result too
            refused = str(error)
    measured = json.loads((folder / "transformer" / "agreement.json").read_text(encoding="utf-8"))
    if not refused:
        steps = json.loads((folder / "result.json").read_text(encoding="utf-8"))["steps"]
    opened = sets[left_out].open(place.data, "val")
    found = compare(
        Contender("before", in_torch(start), opened.scored()),
        Contender("after", in_torch(start if refused else out), opened.scored()),
        Footage.of(f"val of {left_out}", opened.samples),
    )
    content = write_comparison([found], folder / "comparison-left-out", {})
    before, after = content["parts"][0]["mean_iou"]["iou"]
    result = {
        "left_out": left_out,
        "seed": seed,
        "images": len(learnt),
        "frames": len(opened.samples),
        "steps": steps,
        "refused": refused,
        "mean_iou": {
            "before": before,
            "after": after,
            "low": found.mean_iou.low,
            "high": found.mean_iou.high,
        },
        "validations": [{key: each[key] for key in ("step", "agreement")} for each in measured],
        "settings": settings,
        "commit": current_commit("camseg_core", "benchmarks", "config"),
        "machine": machine_and_torch(),
    }
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def table(results: Sequence[Result]) -> str:
    """Return the scores on the set that was left out, before and after."""
    heads = ("left out", "seed", "images", "steps", "before", "after", "difference (95 %)", "")
    return markdown_table(
        heads,
        [
            (
                each["left_out"],
                each["seed"],
                each["images"],
                each["steps"],
                f"{each['mean_iou']['before']:.3f}",
                f"{each['mean_iou']['after']:.3f}",
                f"{each['mean_iou']['after'] - each['mean_iou']['before']:+.3f} "
                f"({each['mean_iou']['low']:+.3f} to {each['mean_iou']['high']:+.3f})",
                "refused" if each["refused"] else "",
            )
            for each in results
        ],
    )


def measure(given: argparse.Namespace) -> Outcome:
    """Run what is missing, one after the other."""
    plan = load_plan(given.plan)
    place = Place(given.data, given.run, given.plan.parent / plan.recipe, given.workers)
    check(plan, place)
    for name in given.left_out:
        if name not in place.sets():
            raise ConfigError(
                f"--left-out must name sets of {place.recipe.name} ({', '.join(place.sets())}), "
                f"got {name!r}"
            )
    recipe = load_yaml(given.config, AdaptationRecipe, given.set)
    seeds = plan.seeds if given.seeds is None else given.seeds
    jobs = [(name, seed) for seed in seeds for name in given.left_out]
    print(
        f"{len(jobs)} times: train {plan.models.steps} steps without a set (about "
        f"{plan.models.minutes:g} min on 2 cores, unless it is in {place.run}), adapt at most "
        f"{recipe.training.loop.steps} steps (the log says how long), score",
        flush=True,
    )
    log_training()
    results = [result_of(name, seed, plan, place, recipe) for name, seed in jobs]
    commits = ", ".join(sorted({each["commit"] for each in results}))
    command = documented("adaptation", "--data <data>", given.write)
    note = (
        "Mean IoU on `val` of the set that was left out; intervals by a bootstrap over its frames. "
        f"Refused: the model stays as it was. {results[0]['machine']}; commit {commits}."
    )
    return Outcome(table(results), [command, note], results)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description="Measure the gain of camseg adapt.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the recipe's data sets")
    parser.add_argument("--run", type=Path, default=Path("runs/experiments"), help="working files")
    parser.add_argument("--plan", type=Path, default=PLAN, help="how models are trained")
    parser.add_argument("--config", type=Path, default=CONFIG, help="of camseg adapt")
    parser.add_argument(
        "--left-out", nargs="+", default=["idd-lite", "camvid"], metavar="NAME", help="sets"
    )
    parser.add_argument("--seeds", nargs="+", type=int, help="of the trainings (default: plan's)")
    parser.add_argument("--set", action="append", default=[], metavar="ENTRY=VALUE", help="of it")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare samples")
    add_document_options(parser)
    conclude(parser.parse_args(arguments), "adaptation", measure)


if __name__ == "__main__":
    main()
