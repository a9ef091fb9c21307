"""Estimate the least time of models on other devices, as `camseg bench --roofline` does.

    python benchmarks/roofline.py --write docs/results.md

The work is counted by shapes alone; no network runs.
"""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from document import Outcome, add_document_options, conclude

from camseg_core.config.model import CamSegConfig
from camseg_core.evaluation.flops import frame_work
from camseg_core.evaluation.roofline import CAVEAT, Work, estimates, roofline_table
from camseg_core.labels import CITYSCAPES, Label
from camseg_core.weights import CAM_SEG_BASE_768, CAMSEG_LITE


@dataclass(frozen=True)
class Case:
    """A model at its network's (width, height); `as_published` as in `work_by_stage`."""

    title: str
    config: CamSegConfig
    labels: tuple[Label, ...]
    size: tuple[int, int]
    steps: int
    as_published: bool = False

    def stages(self) -> dict[str, Work]:
        """The work of a frame."""
        width, height = self.size
        return frame_work(self.config, self.labels, height, width, self.as_published).with_steps(
            self.steps
        )


CASES = (
    Case(
        "camseg-lite, 480×384, one step",
        CAMSEG_LITE,
        CITYSCAPES,
        (480, 384),
        1,
    ),
    Case(
        "cam-seg-base-768, 768×768, as published: 100 steps on the tokens of image and mask",
        CAM_SEG_BASE_768,
        CITYSCAPES,
        (768, 768),
        100,
        as_published=True,
    ),
    Case(
        "cam-seg-base-768, 768×768, one step on the tokens of the mask",
        CAM_SEG_BASE_768,
        CITYSCAPES,
        (768, 768),
        1,
    ),
)


def section(title: str, stages: Mapping[str, Work]) -> str:
    """The work and the estimates of one case, in Markdown."""
    work = [
        "| | " + " | ".join([*(stage.replace("_", " ") for stage in stages), "frame"]) + " |",
        "| --- |" + " --- |" * (len(stages) + 1),
    ]
    for name, unit, scale in (
        ("multiply_accumulates", "GMAC", 1e9),
        ("weights", "million weights read", 1e6),
    ):
        counts = [getattr(each, name) / scale for each in stages.values()]
        work.append(
            f"| {unit} | " + " | ".join(f"{count:,.2f}" for count in [*counts, sum(counts)]) + " |"
        )
    counts = [each.activations / 1e6 for each in stages.values()]
    work.append(
        "| million activations moved | "
        + " | ".join(f"{count:,.2f}" for count in [*counts, sum(counts)])
        + " |"
    )
    rows = ["| " + " | ".join(row) + " |" for row in roofline_table(estimates(stages))]
    rows.insert(1, "|" + " --- |" * (len(stages) + 4))
    return "\n\n".join([f"**{title}**", "\n".join(work), "\n".join(rows)])


def measure(arguments: argparse.Namespace) -> Outcome:
    """The estimates of all cases."""
    cases = {case.title: case.stages() for case in CASES}
    below = [
        "Times in ms; `*` marks stages that the memory bounds, the others are bound by arithmetic.",
        f"    {arguments.command}",
        f"Commit {arguments.commit}.",
    ]
    figures = {
        title: [asdict(each) | {"ms": each.ms} for each in estimates(stages)]
        for title, stages in cases.items()
    }
    return Outcome(
        "\n\n".join([CAVEAT, *(section(title, stages) for title, stages in cases.items())]),
        below,
        figures,
    )


def main() -> None:
    """Print the tables; with `--json` the same as the last line."""
    parser = argparse.ArgumentParser(
        description="Estimated least times on AGX Orin, Orin NX, RTX 4090 and H100."
    )
    add_document_options(parser)
    conclude(parser, "roofline", measure)


if __name__ == "__main__":
    main()
