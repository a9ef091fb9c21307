"""Tables and charts of `latents_against_pixels.py`: what each contender keeps when disturbed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from document import pyplot

from camseg_core.evaluation.metrics import GROUPS, mean
from camseg_core.evaluation.report.charts import MEASURES
from camseg_core.evaluation.robustness_suite import FAMILIES

ONE_STEP, TEN_STEPS, PEER = "camseg-lite", "camseg-lite, ten steps", "no latent space"
TIE = 0.01
"""Shares kept that differ by less count as equal."""

Content = Mapping[str, Any]
"""What `robustness.json` holds."""


@dataclass(frozen=True)
class Line:
    """How a contender is drawn."""

    color: str
    marker: str


LINES = {
    ONE_STEP: Line("#1f6fb4", "o"),
    TEN_STEPS: Line("#7fb8e0", "^"),
    PEER: Line("#d1651a", "s"),
}


def clean_table(content: Content) -> list[str]:
    """The contenders on the references."""
    lines = [
        "| undisturbed | AP | " + " | ".join(GROUPS) + " | mean IoU |",
        "| --- |" + " --- |" * (len(GROUPS) + 2),
    ]
    for reference in content["references"].values():
        for name, scores in reference["contenders"].items():
            groups = [scores["average_precision_by_group"][group] for group in GROUPS]
            values = [scores["average_precision"], *groups, scores["mean_iou"]]
            lines.append(
                f"| {reference['is']}: {name} | "
                + " | ".join(_value(value) for value in values)
                + " |"
            )
    return lines


def family_table(content: Content) -> list[str]:
    """What is kept, mean over the conditions of a family: AP, its groups, mean IoU."""
    lines = [
        "| kept of the undisturbed score, % | AP | "
        + " | ".join(f"AP, {group}" for group in GROUPS)
        + " | mean IoU |",
        "| --- |" + " --- |" * (len(GROUPS) + 2),
    ]
    for family, title in FAMILIES.items():
        conditions = [
            each
            for series in content["series"]
            if series["family"] == family
            for each in series["levels"]
        ]
        for name in content["contenders"] if conditions else ():
            measures = ("average_precision", *GROUPS, "mean_iou")
            means = [
                mean(np.array([_kept(condition, name, measure) for condition in conditions]))
                for measure in measures
            ]
            lines.append(
                f"| {title}, {len(conditions)} conditions: {name} | "
                + " | ".join(f"{100 * value:.1f}" for value in means)
                + " |"
            )
    return lines


def series_table(content: Content) -> list[str]:
    """List the mean IoU kept in every series, in the mean and by level, and camseg-lite's lead."""
    names = content["contenders"]
    lines = [
        "| mean IoU kept, % | levels | " + " | ".join(names) + " | lead of camseg-lite |",
        "| --- | --- |" + " --- |" * (len(names) + 1),
    ]
    for series in content["series"]:
        by_level = {name: [_kept(each, name) for each in series["levels"]] for name in names}
        means = {name: 100 * mean(np.array(values)) for name, values in by_level.items()}
        cells = [
            f"**{means[name]:.1f}** ({' '.join(f'{100 * value:.0f}' for value in by_level[name])})"
            for name in names
        ]
        levels = " ".join(f"{each['level']:g}" for each in series["levels"])
        lines.append(
            f"| {series['name']} | {levels} | "
            + " | ".join(cells)
            + f" | {means[ONE_STEP] - means[PEER]:+.1f} |"
        )
    return lines


def tally(content: Content) -> str:
    """Count the conditions in which each of the two keeps more of its mean IoU, in words."""
    leads = [
        _kept(condition, ONE_STEP) - _kept(condition, PEER)
        for series in content["series"]
        for condition in series["levels"]
    ]
    more, less = sum(lead >= TIE for lead in leads), sum(lead <= -TIE for lead in leads)
    return (
        f"Of {len(leads)} conditions, {ONE_STEP} keeps at least {100 * TIE:g} % more of its mean "
        f"IoU than the peer in {more}, at least as much less in {less}, and about the same in "
        f"{len(leads) - more - less}; its mean lead is {100 * mean(np.array(leads)):+.1f} %."
    )


def _kept(condition: Content, name: str, measure: str = "mean_iou") -> float:
    """What a contender keeps; NaN where it has no undisturbed score."""
    kept = condition["contenders"][name]["kept"][measure]
    return float("nan") if kept is None else float(kept)


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def plot(content: Content, families: Sequence[str], path: Path) -> None:
    """Plot what is kept over the levels by series: AP, mean IoU dashed, and the published AP."""
    plt = pyplot(10)
    drawn = [series for series in content["series"] if series["family"] in families]
    columns = min(4, len(drawn))
    rows = -(-len(drawn) // columns)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(3.1 * columns, 2.3 * rows + 0.5),
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    for axes, series in zip(grid.flat, drawn, strict=False):
        levels = sorted({series["clean_level"], *(each["level"] for each in series["levels"])})
        places = {level: place for place, level in enumerate(levels)}
        for name in content["contenders"]:
            for measure, style in (("average_precision", "-"), ("mean_iou", "--")):
                kept = {each["level"]: _kept(each, name, measure) for each in series["levels"]} | {
                    series["clean_level"]: 1.0
                }
                line = LINES[name]
                axes.plot(
                    range(len(levels)),
                    [100 * kept[level] for level in levels],
                    style,
                    color=line.color,
                    marker=line.marker,
                    markersize=4,
                    linewidth=1.6,
                    label=f"{name}: {MEASURES[measure]}",
                )
        published = [
            (places[each["level"]], 100 * each["published_kept"])
            for each in series["levels"]
            if each["published_kept"]
        ]
        if published:
            axes.plot(
                *zip(*published, strict=True),
                "D",
                color="#7b2d9b",
                fillstyle="none",
                markersize=6,
                label="published: AP, other data",
            )
        axes.set_title(series["title"], fontsize=10)
        axes.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
        axes.set_xlabel(series["unit"], fontsize=9)
        axes.grid(axis="y", alpha=0.3)
        axes.set_ylim(0, 115)
    for axes in list(grid.flat)[len(drawn) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("% kept")
    legend = {
        label: handle
        for axes in grid.flat
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        legend.values(), legend.keys(), loc="outside lower center", ncols=3, frameon=False
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)
