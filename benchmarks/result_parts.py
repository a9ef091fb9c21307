"""What the sections of docs/results.md share: the results found, sentences and plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from document import markdown_table, pyplot
from experiment_plan import Autoencoder, Job, Model, Plan, jobs_of
from experiments import result_of
from intervals import Estimate

COLORS = ("#1b6ca8", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d")


@dataclass(frozen=True)
class Found:
    """The plan's jobs and their results, by name."""

    plan: Plan
    jobs: tuple[Job, ...]
    results: Mapping[str, dict[str, Any]]

    @staticmethod
    def load(plan: Plan, folder: Path) -> "Found":
        """Read the results of all jobs that were run.

        Raises:
            ConfigError: a file is not a result.
        """
        jobs = tuple(jobs_of(plan))
        found = {job.name: result_of(job, folder) for job in jobs}
        return Found(plan, jobs, {name: each for name, each in found.items() if each is not None})

    def figures(self, kind: str, subject: Autoencoder | Model) -> dict[int, dict[str, Any]]:
        """Return the figures of a subject, by seed."""
        return {
            job.seed: self.results[job.name]["figures"]
            for job in self.jobs
            if (job.kind, job.subject) == (kind, subject) and job.name in self.results
        }

    def provenance(self, jobs: Sequence[Job]) -> str:
        """Return what was run and not, its time, commits and machines, n, then the commands."""
        kinds = dict.fromkeys(job.kind for job in jobs)
        done = [self.results[job.name] for job in jobs if job.name in self.results]
        left = sum(job.minutes for job in jobs if job.name not in self.results)
        text = f"{len(done)} of {len(jobs)} jobs were run"
        if done:
            hours = sum(each["seconds"] for each in done) / 3600
            commits = ", ".join(
                sorted({one for each in done for one in each["commit"].split(", ")})
            )
            machines = ", ".join(sorted({each["machine"] for each in done}))
            text += f", in {hours:.1f} h; {machines}; commit {commits}"
        counted = "; ".join(f"`{kind}`: {self._counted(kind, jobs)}" for kind in kinds)
        missing = len(jobs) - len(done)
        time = f"{left / 60:.0f} h" if left >= 60 else f"{left:.0f} min"
        text += f". Not run: {missing}, about {time} on 2 cores." if missing else "."
        text += f" In each result, {counted}." if done else ""
        return (
            f"{text}\n\n"
            f"    python benchmarks/experiments.py --data <data> --only {' '.join(kinds)}\n"
            "    python benchmarks/results.py --write docs/results.md"
        )

    def _counted(self, kind: str, jobs: Sequence[Job]) -> str:
        """Return of how much the results of a kind are."""
        of_kind = [job for job in jobs if job.kind == kind and job.name in self.results]
        counts = [self.results[job.name]["n"] for job in of_kind]
        texts = (", ".join(f"{n} {name}" for name, n in each.items()) for each in counts)
        return " or ".join(dict.fromkeys(texts)) or "nothing"


def joined(*parts: str) -> str:
    """Return the parts that are not empty as paragraphs."""
    return "\n\n".join(part for part in parts if part)


def lead_text(lead: Estimate) -> str:
    """Return a lead with its sign; bold where its interval leaves out 0."""
    text = lead.text(lead.n, sign="+")
    return f"**{text}**" if lead.n and lead.decided else text


def decision(lead: Estimate, of: int) -> str:
    """Return what a lead's interval decides, in words; `of` seeds are planned."""
    if lead.n == 1:
        return "inconclusive with one seed"
    found = "inconclusive"
    if lead.decided:
        found = "it leads" if lead.mean > 0 else "it trails"
    return f"{found} ({lead.n} of {of} seeds)" if lead.n < of else found


def estimates_table(
    heads: Sequence[str], rows: Sequence[Sequence[object]], of: int, lead: bool = False
) -> str:
    """Return rows of texts and estimates as a table; with `lead`, the last column has leads.

    Unless each estimate is over `of` seeds, a column has the numbers of those that were run.
    """
    counts = [
        sorted({each.n for each in row if isinstance(each, Estimate) and each.n}, reverse=True)
        for row in rows
    ]
    complete = all(each == [of] for each in counts)
    shown = []
    for row, run in zip(rows, counts, strict=True):
        cells = [each.text(each.n) if isinstance(each, Estimate) else str(each) for each in row]
        if lead and isinstance(row[-1], Estimate):
            cells[-1] = lead_text(row[-1])
        if not complete:
            cells.append(f"{' and '.join(map(str, run or [0]))} of {of}")
        shown.append(cells)
    return markdown_table([*heads, *(["seeds"] if not complete else [])], shown)


def plot_curves(curves: Mapping[str, Mapping[int, Estimate]], path: Path, label: str) -> str:
    """Plot each curve over the number of steps, with intervals; return the image as Markdown."""
    plt = pyplot(11)
    figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
    for number, (name, points) in enumerate(curves.items()):
        steps, estimates = [*points], [*points.values()]
        means = np.array([each.mean for each in estimates])
        reach = [np.nan_to_num(each.high - each.mean) for each in estimates]
        style = {"KL": "o-", "VQ": "s--"}.get(name[:2], "^:")
        color = COLORS[number % len(COLORS)]
        axes.errorbar(
            steps, means, reach, fmt=style, color=color, capsize=3, label=name, linewidth=1.5
        )
    axes.set_xscale("log")
    ticks = sorted({step for points in curves.values() for step in points})
    axes.set_xticks(ticks, [str(step) for step in ticks])
    axes.minorticks_off()
    axes.set_xlabel("optimiser steps")
    axes.set_ylabel(label)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return _saved(figure, path, f"{label} over the number of optimiser steps")


def plot_leads(leads: Mapping[str, Estimate], path: Path, label: str) -> str:
    """Plot leads with their intervals, one below the other; return the image as Markdown."""
    plt = pyplot(11)
    figure, axes = plt.subplots(figsize=(8, 0.8 + 0.32 * len(leads)), layout="constrained")
    for row, lead in enumerate(leads.values()):
        color = COLORS[0] if lead.decided else "#777777"
        axes.plot([lead.low, lead.high], [row, row], color=color, linewidth=2)
        axes.plot([lead.mean], [row], "o", color=color)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(leads)), [*leads])
    axes.invert_yaxis()
    figure.supxlabel(f"{label}; grey: inconclusive", fontsize=11)
    axes.grid(axis="x", alpha=0.3)
    return _saved(figure, path, f"{label}, with 95 % intervals")


def _saved(figure: Any, path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot().close(figure)
    return f"![{text}](images/{path.name})"
