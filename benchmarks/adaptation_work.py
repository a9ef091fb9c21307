"""Jobs that adapt a model to a set that it never saw, with the set's labels only for the score."""

import json
from dataclasses import replace
from pathlib import Path

from experiment_models import Outcome, Place, in_torch, trained
from experiment_plan import Job, Model, Plan, name_of

from camseg_core.data.frame_source import Unlabelled
from camseg_core.evaluation.comparison import ComparedModel, Footage, compare
from camseg_core.evaluation.report.comparison import write_comparison
from camseg_core.training.adaptation import AdaptationRecipe, run_adaptation
from camseg_core.training.adaptation_result import Images, NotAdapted
from camseg_core.training.finetune import OF_THE_START, FinetuneRecipe, run_finetuning


def adapt(job: Job, plan: Plan, place: Place) -> Outcome:
    """Train without the set, adapt to its training images, and score on its `val`.

    The other sets are the labelled frames. For comparison, the model is also trained for as many
    steps on these alone, without the images.
    """
    assert isinstance(job.subject, Model)
    left_out = job.subject.left_out
    assert left_out is not None
    source, folder = place.sets()[left_out], place.run / job.name
    others = tuple(each for name, each in place.sets().items() if name != left_out)
    recipe = replace(job.settings, data=others)
    trained(job.subject, job.seed, plan, place)
    start = place.run / f"train-{name_of(job.subject)}-s{job.seed}" / "model"
    out, learnt = folder / "model", source.open(place.data, "train").samples
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
    opened = source.open(place.data, "val")
    footage, scored = Footage.of(f"val of {left_out}", opened.samples), opened.scored()
    after = ComparedModel("after", in_torch(start if refused else out), scored)
    compared = {"before": start}
    if not refused:
        compared["labelled alone"] = labelled_alone(recipe, steps, start, folder, place)
    scores, leads = {}, {}
    for name, model in compared.items():
        found = compare(ComparedModel(name, in_torch(model), scored), after, footage)
        content = write_comparison([found], folder / f"comparison-{name.replace(' ', '-')}", {})
        scores[name], scores["after"] = content["parts"][0]["mean_iou"]["iou"]
        leads[name] = [found.mean_iou.low, found.mean_iou.high]
    return {"images": len(learnt), "frames": len(opened.samples)}, {
        "steps": steps,
        "refused": refused,
        "mean_iou": scores,
        "lead_over": leads,
        "validations": [{key: each[key] for key in ("step", "agreement")} for each in measured],
    }


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
