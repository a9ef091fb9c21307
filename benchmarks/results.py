"""Make the sections of docs/results.md that rest on experiments, from the files in docs/results/.

    python benchmarks/results.py --write docs/results.md

Each claim has a verdict, a figure, a table and the commands; what was not run says so.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from document import markdown_table, write_or_print
from experiment_plan import PLAN, Job, Model, load_plan
from experiments import RESULTS
from result_adaptation import adaptation
from result_claims import domain_shift, reconstruction, robustness
from result_parts import Found, joined
from result_uncertainty import uncertainty

from camseg_core.errors import CamSegError

IMAGES = Path(__file__).parents[1] / "docs" / "images"


def time_spent(found: Found) -> str:
    """List what was run and not, and the time."""
    rows, total = [], [0, 0, 0.0, 0.0]
    for kind in dict.fromkeys(job.kind for job in found.jobs):
        jobs = [job for job in found.jobs if job.kind == kind]
        done = [found.results[job.name]["seconds"] for job in jobs if job.name in found.results]
        left = sum(job.minutes for job in jobs if job.name not in found.results)
        row = [len(jobs), len(done), sum(done) / 3600, left / 60]
        total = [a + b for a, b in zip(total, row, strict=True)]
        rows.append([kind, *row])
    heads = ["jobs", "all", "run", "hours taken", "hours left, estimated"]
    shown = [
        [name, f"{jobs:.0f}", f"{done:.0f}", f"{hours:.1f}", f"{left:.1f}"]
        for name, jobs, done, hours, left in [*rows, ["together", *total]]
    ]
    listed = not_run(found) if found.results else ""
    return joined(
        markdown_table(heads, shown),
        listed,
        "    python benchmarks/experiments.py --data <data> --list",
    )


def not_run(found: Found) -> str:
    """Name the jobs that were not run, those of the same seeds together; "" if there are none."""
    seeds: dict[str, list[int]] = {}
    for job in found.jobs:
        if job.name not in found.results:
            seeds.setdefault(job.name.removesuffix(f"-s{job.seed}"), []).append(job.seed)
    together: dict[str, list[str]] = {}
    for name, missing in seeds.items():
        of = "seed" if len(missing) == 1 else "seeds"
        title = f"{of} {', '.join(map(str, missing))}"
        if len(missing) == len(found.plan.seeds):
            title = "all seeds"
        together.setdefault(title, []).append(f"`{name}`")
    parts = [f"{title} of {', '.join(names)}" for title, names in together.items()]
    return f"Not run: {'; '.join(parts)}." if parts else ""


def _on_all(job: Job) -> bool:
    """Whether the model is trained on all sets."""
    return isinstance(job.subject, Model) and job.subject.left_out is None


def _disturbed(job: Job) -> bool:
    return isinstance(job.subject, Model) and job.subject.disturbed


class Claim(NamedTuple):
    """What makes a section, and the jobs that it rests on: their kinds, and which of these."""

    make: Callable[[Found, Path], str]
    kinds: tuple[str, ...]
    which: Callable[[Job], bool] = lambda _: True


CLAIMS = {
    "kl-against-vq": Claim(reconstruction, ("reconstruct",)),
    "latents-against-pixels": Claim(robustness, ("train", "shift"), _on_all),
    "domain-shift": Claim(domain_shift, ("train", "shift"), _disturbed),
    "uncertainty": Claim(uncertainty, ("uncertainty",)),
    "adaptation": Claim(adaptation, ("adapt",)),
}
"""By the name of a section's markers in the document."""


def sections(found: Found, images: Path) -> dict[str, str]:
    """Return all sections by name; of a claim of which nothing was run, only what is not run."""
    texts = {}
    for name, claim in CLAIMS.items():
        jobs = [job for job in found.jobs if job.kind in claim.kinds and claim.which(job)]
        text = claim.make(found, images) if any(job.name in found.results for job in jobs) else ""
        texts[name] = joined(text, found.provenance(jobs))
    return texts | {"experiments": time_spent(found)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the sections, or print them; plots go to `docs/images/`."""
    parser = argparse.ArgumentParser(description="Make docs/results.md from docs/results/.")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--plan", type=Path, default=PLAN, help="the experiments")
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder of the plots")
    parser.add_argument("--write", type=Path, metavar="DOCUMENT", help="the document to write into")
    given = parser.parse_args(arguments)
    try:
        found = Found.load(load_plan(given.plan), given.results)
        write_or_print(sections(found, given.images), given.write)
    except CamSegError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
