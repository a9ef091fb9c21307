"""The paper's claims as sections of docs/results.md: verdict, figure and table."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from experiment_plan import DRIVE, Autoencoder, Codebook, Head, Model, reference_of
from intervals import (
    Estimate,
    average_precision,
    kept,
    kept_precision,
    mean_iou,
    over_seeds,
    paired_lead,
)
from result_parts import (
    Found,
    decision,
    estimates_table,
    joined,
    lead_text,
    plot_curves,
    plot_leads,
)

from camseg_core.evaluation.robustness_suite import selected

LEAD = "lead of camseg-lite over the head without a latent space"
HEADS: dict[Head, str] = {"latents": "camseg-lite", "pixels": "no latent space"}
FAMILIES = {
    "paper": "the paper's disturbances",
    "weather": "weather on the synthetic drive",
    "pitch": "pitch",
    "roll": "roll",
    "zoom": "longer lens, as in some crops of the training",
    "height": "camera height on the synthetic drive",
}
"""Titles, in the order of the table."""


# KL against VQ


def latents_title(codebook: Codebook) -> str:
    """Return `KL`, `VQ, 256 entries` or `FSQ, 8×6×5`."""
    if isinstance(codebook, tuple):
        return f"FSQ, {'×'.join(map(str, codebook))}"
    return "KL" if codebook is None else f"VQ, {codebook} entries"


def reconstruction(found: Found, images: Path) -> str:
    """Compare continuous and discrete latents by reconstructed masks."""
    plan, of = found.plan.reconstruction, len(found.plan.seeds)
    level = f"{plan.disturbances[len(plan.disturbances) // 2]:g}"
    measures: dict[str, Callable[[dict[str, Any]], float]] = {
        "mean IoU": lambda each: each["mean_iou"],
        "boundary F1": lambda each: each["boundary_f1"],
        "IoU of thin classes": lambda each: each["thin_iou"],
        f"mean IoU, disturbed by {level}": lambda each: each["disturbed"][level],
    }
    rows, curves = list[list[object]](), dict[str, dict[int, Estimate]]()
    for steps in plan.steps:
        for codebook in plan.codebooks:
            runs = after(steps, found, codebook)
            values = [over_seeds([*map(measure, runs.values())]) for measure in measures.values()]
            bits = over_seeds([each["bits"] for each in runs.values()])
            used = [each["perplexity"] for each in runs.values() if each["perplexity"] is not None]
            figures = [f"{bits.mean:.1f}" if bits.n else "not run"]
            figures.append(f"{np.mean(np.log2(used)):.1f}" if used else "–")
            rows.append([latents_title(codebook), steps, *values, *figures])
            if values[0].n:
                curves.setdefault(latents_title(codebook), {})[steps] = values[0]
    verdicts = [_reconstruction_verdict(found, steps) for steps in plan.steps]
    parts = [" ".join([text for text in verdicts if text] + _fewer_seeds(found))]
    if curves:
        parts.append(plot_curves(curves, images / "kl-against-vq.png", "mean IoU of masks"))
    heads = ["latents", "steps", *measures, "bits per cell", "bits used"]
    return joined(*parts, estimates_table(heads, rows, of))


def after(steps: int, found: Found, codebook: Codebook) -> dict[int, dict[str, Any]]:
    """Return the figures of autoencoders after so many steps, by seed."""
    runs = found.figures("reconstruct", Autoencoder(codebook))
    return {seed: each["after"][str(steps)] for seed, each in runs.items()}


def _reconstruction_verdict(found: Found, steps: int) -> str:
    runs = {
        codebook: after(steps, found, codebook) for codebook in found.plan.reconstruction.codebooks
    }
    kl = runs.pop(None, {})
    most = max((len({*kl} & {*of}) for of in runs.values()), default=0)
    if not most:
        return ""
    # of the most seeds, so that one lucky training does not make the best codebook
    full = {codebook: of for codebook, of in runs.items() if len({*kl} & {*of}) == most}

    def leads(codebook: Codebook, measure: str) -> Estimate:
        of = full[codebook]
        return over_seeds([kl[seed][measure] - of[seed][measure] for seed in kl if seed in of])

    best = min(full, key=lambda codebook: leads(codebook, "mean_iou").mean)
    in_measures = (
        f"{lead_text(lead)} in {name} ({decision(lead, len(found.plan.seeds))})"
        for name, measure in (("mean IoU", "mean_iou"), ("boundary F1", "boundary_f1"))
        for lead in [leads(best, measure)]
    )
    seeds = "1 seed" if most == 1 else f"{most} seeds"
    why = f"the best in mean IoU of {len(full)}" if len(full) > 1 else "the only codebook"
    return (
        f"After {steps} steps, KL's lead over {latents_title(best)} ({why} with {seeds}) is "
        f"{' and '.join(in_measures)}."
    )


def _fewer_seeds(found: Found) -> list[str]:
    """Return a sentence that names the codebooks without all seeds, which may be better."""
    plan, seeds = found.plan.reconstruction, len(found.plan.seeds)
    runs = {each: len(after(plan.steps[-1], found, each)) for each in plan.codebooks if each}
    none = [latents_title(each) for each, n in runs.items() if not n]
    some = [latents_title(each) for each, n in runs.items() if 0 < n < seeds]
    parts = [f"as they have fewer seeds: {'; '.join(some)}"] if some else []
    parts += [f"as they were not run: {'; '.join(none)}"] if none else []
    return [f"Left out of this {part}." for part in parts]


# latents against pixels


Read = Callable[[dict[str, Any]], Sequence[Any]]


def pair(
    found: Found, kind: str, models: Sequence[Model], read: Read, score: Callable[..., float]
) -> list[Estimate]:
    """Return both heads' scores over seeds, and the paired lead of the first.

    `read` gives a job's counts `(frames, 3, K)`, one or several, which `score` takes summed.
    """
    runs = [found.figures(kind, model) for model in models]
    counts = [
        {seed: [np.array(each, np.int64) for each in read(figures)] for seed, figures in of.items()}
        for of in runs
    ]
    values = [
        over_seeds([score(*(each.sum(0) for each in parts)) for parts in of.values()])
        for of in counts
    ]
    both = [seed for seed in counts[0] if seed in counts[1]]
    ours, theirs = ([of[seed] for seed in both] for of in counts)
    lead = paired_lead(ours, theirs, score)
    return [*values, lead]


def robustness(found: Found, images: Path) -> str:
    """Compare both heads, with and without disturbed training: clean, and kept when disturbed."""
    rows, drawn, of = list[list[object]](), dict[str, Estimate](), len(found.plan.seeds)
    measured: list[tuple[str, str, Read, Callable[..., float]]] = []
    for name in found.plan.models.left_out:
        for title, score in (("mean IoU", mean_iou), ("AP", average_precision)):
            measured.append((f"{name} val: {title}", "train", _frames_of(name), score))
    for family in (each for each in ("paper", "weather") if each in _families(found)):
        for title, share in (("mean IoU", kept), ("AP", kept_precision)):
            measured.append(
                (f"{FAMILIES[family]}: {title} kept", "shift", _families_of(family), share)
            )
    for disturbed in (False, True):
        models = [Model(head, disturbed) for head in HEADS]
        for title, kind, read, score in measured:
            values = pair(found, kind, models, read, score)
            how = "disturbed" if disturbed else "plain"
            rows.append([title, how, *values])
            if values[2].n:
                drawn[f"{title} ({how})"] = values[2]
    verdicts = [
        f"Trained on {how} samples, the lead of {HEADS['latents']} in mean IoU kept under the "
        f"paper's disturbances is {lead_text(lead)}: {decision(lead, of)}."
        for how in ("plain", "disturbed")
        if (lead := drawn.get(f"{FAMILIES['paper']}: mean IoU kept ({how})")) is not None
    ]
    heads = ["score", "training samples", *HEADS.values(), "lead of camseg-lite"]
    picture = plot_leads(drawn, images / "latents-against-pixels.png", LEAD) if drawn else ""
    return joined(" ".join(verdicts), picture, estimates_table(heads, rows, of, lead=True))


def _frames_of(name: str) -> Read:
    return lambda figures: [figures["sets"][name]["frames"]]


def _families_of(family: str) -> Read:
    return lambda figures: [figures["families"][each] for each in (family, reference_of(family))]


# domain shift


def domain_shift(found: Found, images: Path) -> str:
    """Compare both heads on sets, weather and viewpoints that their training did not have."""
    rows, drawn, of = list[list[object]](), dict[str, Estimate](), len(found.plan.seeds)
    for name in found.plan.models.left_out:
        for title, left_out in (("trained on it too", None), ("never seen", name)):
            models = [Model(head, True, left_out) for head in HEADS]
            values = pair(found, "train", models, _frames_of(name), mean_iou)
            rows.append([f"{name}, {title}: mean IoU", *values])
            if left_out is not None and values[2].n:
                drawn[f"{name}, never seen"] = values[2]
    models = [Model(head, True) for head in HEADS]
    on_drive = pair(found, "shift", models, lambda each: [each["families"][DRIVE]], mean_iou)
    rows.append(["the synthetic drive in clear weather, never seen: mean IoU", *on_drive])
    if on_drive[2].n:
        drawn["the synthetic drive, never seen"] = on_drive[2]
    # the training has the paper's disturbances
    for family in (each for each in _families(found) if each != "paper"):
        values = pair(found, "shift", models, _families_of(family), kept)
        rows.append([f"{FAMILIES[family]}: mean IoU kept", *values])
        if values[2].n:
            drawn[FAMILIES[family]] = values[2]
    won, lost = (
        [name for name, lead in drawn.items() if lead.decided and (lead.mean > 0) == ahead]
        for ahead in (True, False)
    )
    single = [name for name, lead in drawn.items() if lead.n == 1]
    verdict = (
        f"Of {len(drawn)} shifts, {HEADS['latents']} leads in {_named(won)}, trails in "
        f"{_named(lost)}; the others are inconclusive, {_named(single)} of them with one seed."
        if drawn
        else ""
    )
    picture = plot_leads(drawn, images / "domain-shift.png", LEAD) if drawn else ""
    heads = ["shift", *HEADS.values(), "lead of camseg-lite"]
    table = estimates_table(heads, rows, of, lead=True)
    return joined(verdict, picture, table, _levels(found))


def _named(names: Sequence[str]) -> str:
    return f"{len(names)} ({'; '.join(names)})" if names else "none"


def _families(found: Found) -> list[str]:
    """The families that the plan's conditions have."""
    shift = found.plan.shift
    suite = {series.family for series in selected(shift.suite)}
    return [name for name in FAMILIES if name in suite or getattr(shift, name, False)]


def _levels(found: Found) -> str:
    """The mean IoU kept at every level of weather and viewpoint."""
    rows = list[list[object]]()
    runs = [found.figures("shift", Model(head, True)) for head in HEADS]
    first = next((figures for of in runs for figures in of.values()), None)
    if first is None:
        return ""

    def value(figures: dict[str, Any], family: str, level: str) -> float:
        levels = figures["levels"]
        counts, reference = levels[family][level], levels[reference_of(family)][""]
        return kept(np.array(counts), np.array(reference))

    for family in (each for each in _families(found) if each != "paper"):
        for level in first["levels"][family]:
            values = [
                over_seeds([value(each, family, level) for each in of.values()]) for of in runs
            ]
            rows.append([family, level, *values])
    heads = ["mean IoU kept", "level", *HEADS.values()]
    return estimates_table(heads, rows, len(found.plan.seeds))
