"""Measure flicker and mean IoU of videos, with streams and with the alternative they beat.

    python benchmarks/stability.py --data <CamVid root> --write docs/results.md

Uses synthetic drives with a camera's noise and, with `--data`, CamVid val at 15 Hz. Runs the
shipped runtime with seed 0. Settings are interleaved on every frame, so that drift affects all.
"""

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from document import Outcome, camvid_parser, conclude, markdown_table, provenance

from camseg_core.cli.options import at_least, number
from camseg_core.data import Samples
from camseg_core.data.sets import open_set
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.diffusion.samplers import (
    SAMPLERS,
    Array,
    Denoise,
    Noise,
    SamplerOptions,
    Schedule,
    start_scale,
)
from camseg_core.diffusion.sampling import Sampling
from camseg_core.evaluation.scorer import Scorer
from camseg_core.groups import ScoredLabels
from camseg_core.runtime import Segmenter, Stream
from camseg_core.runtime.geometry import Ids
from camseg_core.runtime.stream import CARRY

NOISE_SIGMA = 10.0
CAMVID_FPS = 15.0


class PartWay:
    """A sampler that starts from the last frame's cells, partly noised (SDEdit, arXiv 2108.01073).

    `skipped` is the share of the schedule left out, 0 to 1. The runtime lacks it: streams win.
    """

    def __init__(self, sampler: str, steps: int, skipped: float) -> None:
        self.name, self._inner, self._skipped = (
            f"{sampler}, last latents, {skipped:g} of the way",
            sampler,
            skipped,
        )
        self.calls = max(1, round(steps * (1 - skipped)))
        self._last: Array | None = None

    def reset(self) -> None:
        """The next frame is the first of a video."""
        self._last = None

    def __call__(
        self,
        denoise: Denoise,
        start: Array,
        schedule: Schedule,
        options: SamplerOptions,
        noise: Noise,
    ) -> Array:
        if self._last is not None:
            top = round((len(schedule.timesteps) - 1) * (1 - self._skipped))
            schedule = replace(
                schedule,
                timesteps=schedule.timesteps[: top + 1],
                alphas_cumprod=schedule.alphas_cumprod[: top + 1],
            )
            alpha_prod = float(schedule.alphas_cumprod[top])
            noised = (
                math.sqrt(alpha_prod) * self._last
                + math.sqrt(1 - alpha_prod) * options.temperature * start
            )
            start = noised / start_scale(self._inner, options)  # which the sampler multiplies by
            options = replace(options, steps=self.calls)
        self._last = SAMPLERS[self._inner](denoise, start, schedule, options, noise)
        return self._last


class OwnSampling(Sampling):
    """Sampling with a sampler that is not one of the product's."""

    def __post_init__(self) -> None:
        """Accept the name, which the product's options do not know."""


@dataclass
class Setting:
    """A row of the table: how each frame is segmented, and what came of it on each video."""

    name: str
    calls: int
    segmenter: Segmenter
    carry: float | None = None
    part_way: PartWay | None = None
    videos: dict[str, dict[str, float]] = field(default_factory=dict)
    milliseconds: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """What goes into JSON."""
        return {
            "setting": self.name,
            "calls": self.calls,
            "ms": round(median(self.milliseconds), 1),
            "videos": self.videos,
        }


@dataclass(frozen=True)
class Video:
    """Labelled frames in order, and what to score: by default the model's classes."""

    name: str
    samples: Samples
    fps: float
    noise: float
    scored: ScoredLabels | None = None

    def image(self, index: int) -> npt.NDArray[np.uint8]:
        """A frame as the camera gives it: with its noise, the same every time."""
        image = self.samples[index].image
        if not self.noise:
            return image
        noise = np.random.default_rng([5, index]).normal(0, self.noise, image.shape)
        return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def settings(arguments: argparse.Namespace) -> list[Setting]:
    """The rows."""
    plain = {
        ("one_step", 1): Segmenter.from_pretrained(arguments.model, streams=True),
        ("ddim", 10): Segmenter.from_pretrained(
            arguments.model, sampler="ddim", steps=10, streams=True
        ),
    }
    rows = []
    for (sampler, steps), segmenter in plain.items():
        name = sampler if steps == 1 else f"{sampler}, {steps} steps"
        rows.append(Setting(name, steps, segmenter))
        for skipped in arguments.skipped:
            way = PartWay(sampler, steps, skipped)
            SAMPLERS[way.name] = way
            rows.append(
                Setting(
                    way.name,
                    way.calls,
                    segmenter.with_sampling(OwnSampling(way.name, steps)),
                    part_way=way,
                )
            )
        carries = arguments.carry if steps == 1 else [CARRY]
        rows += [
            Setting(f"{name}, stream, carry {carry:g}", steps, segmenter, carry)
            for carry in carries
        ]
    return rows


def run(video: Video, rows: Sequence[Setting]) -> None:
    """Segment a video in every setting, and note what came of it."""
    streams = [None if row.carry is None else Stream(row.carry) for row in rows]
    scorers = [Scorer(video.scored or tuple(row.segmenter.labels), None) for row in rows]
    last: list[tuple[Ids, Ids | None] | None] = [None for _ in rows]
    for row in rows:
        if row.part_way is not None:
            row.part_way.reset()
    for index in range(len(video.samples)):
        image, label = video.image(index), video.samples[index].label
        for i, (row, stream, scorer) in enumerate(zip(rows, streams, scorers, strict=True)):
            began = time.perf_counter()
            mask = row.segmenter.segment_batch(
                [image], streams=[stream], times=[index / video.fps]
            )[0].mask
            row.milliseconds.append((time.perf_counter() - began) * 1000)
            scorer.add(label, mask, before=last[i])
            last[i] = mask, label
    for row, stream, scorer in zip(rows, streams, scorers, strict=True):
        row.videos[video.name] = {
            "flicker": round(scorer.flicker.flicker, 5),
            "change_rate": round(scorer.flicker.change_rate, 5),
            "mean_iou": round(scorer.confusion.labelled_mean_iou(), 4),
            "resets": sum(stream.resets.values()) if stream else 0,
        }
        print(video.name, row.name, row.videos[video.name], flush=True)


def table(rows: Sequence[Setting]) -> str:
    """A row for each setting, flicker and mean IoU for each video, in Markdown."""
    videos = list(rows[0].videos)
    heads = [head for name in videos for head in (f"{name}: flicker", "mean IoU")]
    lines = []
    for row in rows:
        cells = [
            cell
            for found in row.videos.values()
            for cell in (f"{100 * found['flicker']:.2f} %", f"{found['mean_iou']:.3f}")
        ]
        lines.append([row.name, *cells, row.calls, f"{median(row.milliseconds):.0f}"])
    return markdown_table(["", *heads, "denoiser calls", "ms"], lines)


def measure(arguments: argparse.Namespace) -> Outcome:
    """Run all videos in all settings."""
    rows = settings(arguments)
    count, size = arguments.frames, {"height": arguments.height, "width": arguments.height * 4 // 3}
    videos = [
        Video(
            f"{weather}, {fps:g} Hz",
            SyntheticDrive(frames=count, fps=fps, weather=weather, **size),
            fps,
            NOISE_SIGMA,
        )
        for weather, fps in (("clear", 10.0), ("clear", 30.0), ("rain", 10.0))
    ]
    if arguments.data is not None:
        val = open_set("camvid", arguments.data, "val")
        videos.insert(0, Video("CamVid val", val.samples, CAMVID_FPS, 0.0, val.scored()))
    for video in videos:
        run(video, rows)
    lengths = ", ".join(f"{video.name}: {len(video.samples)} frames" for video in videos)
    below = provenance(arguments, f"{lengths}; ")
    return Outcome(table(rows), below, [row.figures() for row in rows])


def main() -> None:
    """Print the table; with `--json` the results as the last line."""
    parser = camvid_parser(
        "Flicker and mean IoU of videos, with and without memory of the last frame.", required=False
    )
    help_text = "frames of each synthetic drive"
    parser.add_argument("--frames", type=at_least(2), default=24, help=help_text)
    help_text = "of the synthetic frames, in pixels; they are 4:3"
    parser.add_argument("--height", type=at_least(16), default=360, help=help_text)
    parser.add_argument(
        "--carry",
        type=number(0, 1),
        nargs="+",
        default=[0.5, CARRY, 0.8],
        help="of the streams with one step",
    )
    parser.add_argument(
        "--skipped",
        type=number(0, 1),
        nargs="+",
        default=[0.2, 0.6],
        help="shares of the schedule that starting part-way skips",
    )
    conclude(parser, "stability", measure)


if __name__ == "__main__":
    main()
