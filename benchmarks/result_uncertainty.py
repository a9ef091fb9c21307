"""How well confidences find errors, as a section of docs/results.md."""

from pathlib import Path

import numpy as np
from document import markdown_table
from experiment_plan import Head, Model
from intervals import Estimate, over_seeds
from result_claims import HEADS
from result_parts import Found, estimates_table, joined, lead_text, plot_leads

SEEN, UNSEEN = "the sets of the training", "a set that the training never saw"
COLUMNS = {"error_rate": "share wrong", "auroc": "AUROC", "aurc": "AURC"}

Detection = dict[str, dict[int, dict[str, float]]]
"""By domain and seed: the columns."""


def _detection(found: Found, head: Head, method: str) -> Detection:
    """Return how well a method's confidences find errors.

    A seed counts for `UNSEEN` only once every set was left out: one set's errors are easier to find
    than another's.
    """
    names, domains = found.plan.models.left_out, found.plan.uncertainty.domains
    gathered: dict[str, dict[int, list[dict[str, float]]]] = {}
    for left_out in (None, *names):
        seen = {SEEN: names} | {domain: (domain,) for domain in domains}
        places = seen if left_out is None else {UNSEEN: (left_out,)}
        runs = found.figures("uncertainty", Model(head, True, left_out))
        for seed, figures in runs.items():
            for place, members in places.items():
                gathered.setdefault(place, {}).setdefault(seed, []).extend(
                    figures["domains"][member][method] for member in members
                )
    gathered[UNSEEN] = {
        seed: parts for seed, parts in gathered.get(UNSEEN, {}).items() if len(parts) == len(names)
    }
    return {
        place: {
            seed: {name: float(np.mean([each[name] for each in parts])) for name in COLUMNS}
            for seed, parts in by_seed.items()
        }
        for place, by_seed in gathered.items()
    }


def uncertainty(found: Found, images: Path) -> str:
    """Compare how well confidences find errors: of one step, sampled masks, the pixel head."""
    sampling, of = [*found.plan.uncertainty.sampling], len(found.plan.seeds)
    methods = {title: _detection(found, "latents", title) for title in sampling}
    methods[HEADS["pixels"]] = _detection(found, "pixels", "softmax")
    several = sampling[1]
    rows, leads, drawn = list[list[object]](), list[list[object]](), dict[str, Estimate]()
    decided: dict[str, list[str]] = {}
    for domain in (SEEN, UNSEEN, *found.plan.uncertainty.domains):
        by_method = {title: scores.get(domain, {}) for title, scores in methods.items()}
        for title, runs in by_method.items():
            values = [over_seeds([each[name] for each in runs.values()]) for name in COLUMNS]
            rows.append([domain, title, *values])
        for other in (each for each in methods if each != several):
            both = [seed for seed in by_method[several] if seed in by_method[other]]
            lead = {
                # a smaller area is better
                name: over_seeds(
                    [
                        sign * (by_method[several][seed][name] - by_method[other][seed][name])
                        for seed in both
                    ]
                )
                for name, sign in (("auroc", 1), ("aurc", -1))
            }
            leads.append([domain, other, *(lead_text(each) for each in lead.values())])
            if not both:
                continue
            drawn[f"{domain}, over {other}"] = lead["auroc"]
            for name, each in lead.items():
                if each.decided:
                    how = "ahead" if each.mean > 0 else "behind"
                    where = f"in {COLUMNS[name]} on {domain}"
                    decided.setdefault(f"{how} of {other}", []).append(where)
    verdict = "; ".join(f"{how} {' and '.join(where)}" for how, where in decided.items())
    verdict = f"{several}: {verdict or 'inconclusive everywhere'}. " if drawn else ""
    if drawn:
        several_seeds = sum(lead.n > 1 for lead in drawn.values())
        verdict += (
            f"These are {2 * several_seeds} comparisons at 95 %, those with one seed left out: "
            "about one in twenty intervals excludes 0 by chance. Intervals are over seeds; the "
            "frames are the same, and few."
        )
    picture = plot_leads(drawn, images / "uncertainty.png", f"lead in AUROC of {several}")
    heads = ["domain", "confidence of", *COLUMNS.values()]
    over = ["domain", f"{several} over", "lead in AUROC", "lead in AURC (less is better)"]
    return joined(
        verdict,
        picture if drawn else "",
        estimates_table(heads, rows, of),
        markdown_table(over, leads),
    )
