"""Measure `camseg adapt`: on a set that the model never saw, with its labels only for the score.

    python benchmarks/adaptation.py --data FOLDER --run runs/experiments --write docs/results.md

A model is trained without a set, as the experiments of `experiments.yaml` do (theirs in `--run` are
used), adapted to the set's training images without their labels, and scored on the set's `val`
before and after. The other sets are the labelled frames. For comparison, the model is also trained
for as many steps on these alone, without the images. Each result is a file in `docs/results/`. The
same `--run` resumes.
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
from experiments import RESULTS

from camseg_core.config.yaml_file import load_yaml
from camseg_core.data.frame_source import Unlabelled
from camseg_core.errors import ConfigError
from camseg_core.evaluation.comparison import Contender, Footage, compare
from camseg_core.evaluation.report.comparison import write_comparison
from camseg_core.long_runs import atomic_write
from camseg_core.training.adaptation import AdaptationRecipe, run_adaptation
from camseg_core.training.adaptation_result import Images, NotAdapted
from camseg_core.training.finetune import OF_THE_START, FinetuneRecipe, run_finetuning

CONFIG = Path(__file__).parents[1] / "config" / "train" / "adapt.yaml"

Result = dict[str, Any]


def name_for(left_out: str, seed: int) -> str:
    """Return the name of an adaptation's result and folder."""
    return f"adapt-{name_of(Model('latents', True, left_out))}-s{seed}"


def seeded(recipe: AdaptationRecipe, seed: int) -> AdaptationRecipe:
    """Return the recipe with a seed."""
    loop = replace(recipe.training.loop, seed=seed)
    return replace(recipe, training=replace(recipe.training, loop=loop))


def settings_of(recipe: AdaptationRecipe) -> dict[str, Any]:
    """Return the recipe for JSON without its sets: the plan's, in paths of this machine."""
    settings: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    del settings["data"]
    return settings


def result_of(left_out: str, seed: int, recipe: AdaptationRecipe, results: Path) -> Result | None:
    """Read the result of an adaptation; None if it was not run.

    Raises:
        ConfigError: the result is of other settings.
    """
    path = results / f"{name_for(left_out, seed)}.json"
    if not path.is_file():
        return None
    known: Result = json.loads(path.read_text(encoding="utf-8"))
    if known["settings"] != settings_of(seeded(recipe, seed)):
        raise ConfigError(f"{path} has other settings: use those, or remove it")
    return known


def adapt(
    left_out: str, seed: int, plan: Plan, place: Place, recipe: AdaptationRecipe, results: Path
) -> None:
    """Train without the set, adapt to it, score on it, and write the result into `results`."""
    model = Model("latents", True, left_out)
    sets = place.sets()
    others = tuple(each for name, each in sets.items() if name != left_out)
    recipe = replace(seeded(recipe, seed), data=others)
    folder = place.run / name_for(left_out, seed)
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
    footage, scored = Footage.of(f"val of {left_out}", opened.samples), opened.scored()
    after = Contender("after", in_torch(start if refused else out), scored)
    compared = {"before": start}
    if not refused:
        compared["labelled alone"] = labelled_alone(recipe, steps, start, folder, place)
    scores, leads = {}, {}
    for name, model_folder in compared.items():
        found = compare(Contender(name, in_torch(model_folder), scored), after, footage)
        content = write_comparison([found], folder / f"comparison-{name.replace(' ', '-')}", {})
        scores[name], scores["after"] = content["parts"][0]["mean_iou"]["iou"]
        leads[name] = [found.mean_iou.low, found.mean_iou.high]
    result = {
        "left_out": left_out,
        "seed": seed,
        "images": len(learnt),
        "frames": len(opened.samples),
        "steps": steps,
        "refused": refused,
        "mean_iou": scores,
        "lead_over": leads,
        "validations": [{key: each[key] for key in ("step", "agreement")} for each in measured],
        "settings": settings_of(recipe),
        "commit": current_commit("camseg_core", "benchmarks", "config"),
        "machine": machine_and_torch(),
    }
    results.mkdir(parents=True, exist_ok=True)
    with atomic_write(results / f"{folder.name}.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def labelled_alone(
    recipe: AdaptationRecipe, steps: int, start: Path, folder: Path, place: Place
) -> Path:
    """Train as many steps on the labelled frames alone; return the model's folder."""
    run, out = folder / "labelled-alone", folder / "labelled-alone" / "model"
    if not (out / "MODEL_CARD.md").is_file():
        loop = replace(recipe.training.loop, steps=steps, validate_every=steps)
        tuning = FinetuneRecipe(
            data=recipe.data,
            classes=OF_THE_START,
            training=replace(recipe.training, loop=loop),
        )
        run_finetuning(tuning, start, place.data, run, out, workers=place.workers, export=False)
    return out


def table(results: Sequence[Result]) -> str:
    """Return the scores on the set that was left out, before and after."""
    rows = []
    for each in results:
        scores = each["mean_iou"]
        alone = f"{scores['labelled alone']:.3f}" if "labelled alone" in scores else "–"
        row = [each["left_out"], each["seed"], each["images"], each["steps"]]
        row += [f"{scores['before']:.3f}", alone, f"{scores['after']:.3f}"]
        row += [gain_over(each, "before"), gain_over(each, "labelled alone")]
        rows.append([*row, "refused" if each["refused"] else ""])
    heads = ("left out", "seed", "images", "steps", "before", "labelled alone", "adapted")
    return markdown_table((*heads, "gain", "gain over labelled alone", ""), rows)


def gain_over(result: Result, compared: str) -> str:
    """Return the gain over a model of the comparison, with its interval."""
    if compared not in result["lead_over"]:
        return "–"
    gain = result["mean_iou"]["after"] - result["mean_iou"][compared]
    low, high = result["lead_over"][compared]
    return f"{gain:+.3f} ({low:+.3f} to {high:+.3f})"


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
    waiting = [job for job in jobs if result_of(*job, recipe, given.results) is None]
    if waiting:
        print(
            f"{len(waiting)} times: train {plan.models.steps} steps without a set (about "
            f"{plan.models.minutes:g} min on 2 cores, unless it is in {place.run}), adapt at most "
            f"{recipe.training.loop.steps} steps (the log says how long), as many without the "
            "images, score",
            flush=True,
        )
    log_training()
    for job in waiting:
        adapt(*job, plan, place, recipe, given.results)
    planned = [(name, seed) for seed in plan.seeds for name in given.left_out]
    found = {
        (name, seed): result_of(name, seed, recipe, given.results)
        for name, seed in dict.fromkeys([*planned, *jobs])
    }
    results = [each for each in found.values() if each is not None]
    missing = [f"`{name_for(*job)}`" for job, each in found.items() if each is None]
    commits, machines = (
        ", ".join(sorted({each[name] for each in results})) for name in ("commit", "machine")
    )
    note = (
        "Mean IoU on `val` of the set that was left out; intervals by a bootstrap over its frames. "
        "*Labelled alone*: as many more steps on the labelled frames, without the images. "
        f"Refused: the model stays as it was. {machines}; commit {commits}."
    )
    if missing:
        note += f" Not run: {', '.join(missing)}."
    command = documented("adaptation", "--data <data>", given.write)
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
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    add_document_options(parser)
    conclude(parser.parse_args(arguments), "adaptation", measure)


if __name__ == "__main__":
    main()
