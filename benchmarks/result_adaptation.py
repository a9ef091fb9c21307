"""The gain of `camseg adapt`, as a section of docs/results.md."""

from pathlib import Path
from typing import Any

from document import markdown_table
from experiment_plan import Model
from result_parts import Found, joined

Figures = dict[str, Any]


def adaptation(found: Found, _images: Path) -> str:
    """Return the scores on the set that was left out, before and after."""
    rows = []
    for job in found.jobs:
        if job.kind == "adapt" and job.name in found.results:
            assert isinstance(job.subject, Model)
            n, figures = (found.results[job.name][key] for key in ("n", "figures"))
            scores = figures["mean_iou"]
            alone = f"{scores['labelled alone']:.3f}" if "labelled alone" in scores else "–"
            row = [job.subject.left_out, job.seed, n["images"], figures["steps"]]
            row += [f"{scores['before']:.3f}", alone, f"{scores['after']:.3f}"]
            row += [gain_over(figures, "before"), gain_over(figures, "labelled alone")]
            rows.append([*row, "refused" if figures["refused"] else ""])
    heads = ("left out", "seed", "images", "steps", "before", "labelled alone", "adapted")
    note = (
        "Mean IoU on `val` of the set that was left out; intervals by a bootstrap over its frames. "
        "*Labelled alone*: as many more steps on the labelled frames, without the images. Refused: "
        "the model stays as it was."
    )
    table = markdown_table((*heads, "gain", "gain over labelled alone", ""), rows)
    return joined(table, note)


def gain_over(figures: Figures, compared: str) -> str:
    """Return the gain over a model of the comparison, with its interval."""
    if compared not in figures["lead_over"]:
        return "–"
    gain = figures["mean_iou"]["after"] - figures["mean_iou"][compared]
    low, high = figures["lead_over"][compared]
    return f"{gain:+.3f} ({low:+.3f} to {high:+.3f})"
