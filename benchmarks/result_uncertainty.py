"""How well confidences find errors, as a section of docs/results.md."""

from pathlib import Path

import numpy as np
from experiment_plan import Head, Model
from intervals import Estimate, over_seeds
from result_claims import HEADS
from result_parts import Found, decision, estimates_table, joined, lead_text, plot_leads

SEEN, UNSEEN = "the sets of the training", "a set that the training never saw"
COLUMNS = {"error_rate": "share wrong", "auroc": "AUROC", "aurc": "area under risk-coverage"}

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
    sampling = [*found.plan.uncertainty.sampling]
    methods = {title: _detection(found, "latents", title) for title in sampling}
    methods[HEADS["pixels"]] = _detection(found, "pixels", "softmax")
    rows, drawn, of = list[list[object]](), dict[str, Estimate](), len(found.plan.seeds)
    for domain in (SEEN, UNSEEN, *found.plan.uncertainty.domains):
        by_method = {title: scores.get(domain, {}) for title, scores in methods.items()}
        for title, runs in by_method.items():
            values = [over_seeds([each[name] for each in runs.values()]) for name in COLUMNS]
            rows.append([domain, title, *values])
        one, several = (by_method[title] for title in sampling[:2])
        both = [seed for seed in several if seed in one]
        lead = over_seeds([several[seed]["auroc"] - one[seed]["auroc"] for seed in both])
        if lead.n:
            drawn[domain] = lead
    label = f"lead in AUROC of {sampling[1]} over {sampling[0]}"
    decided: dict[str, list[str]] = {}
    for domain, lead in drawn.items():
        decided.setdefault(decision(lead, of), []).append(f"{lead_text(lead)} on {domain}")
    verdict = " ".join(
        f"The {label} is {', '.join(leads)}: {found}." for found, leads in decided.items()
    )
    picture = plot_leads(drawn, images / "uncertainty.png", label) if drawn else ""
    heads = ["domain", "confidence of", *COLUMNS.values()]
    return joined(verdict, picture, estimates_table(heads, rows, of))
