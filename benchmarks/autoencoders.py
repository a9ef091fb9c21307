"""Compare continuous (KL) and quantised (VQ) latents by CamVid val masks reconstructed from them.

    python benchmarks/autoencoders.py --data <CamVid root> --run RUN --write docs/results.md

All autoencoders share steps, batches, samples and initial weights. The same `--run` resumes, and
reads finished results back.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from document import (
    Outcome,
    add_document_options,
    camvid_frames,
    conclude,
    current_commit,
    log_training,
    machine_and_torch,
    markdown_table,
    picture,
    pyplot,
    training_parser,
)

from camseg_core.config.model import MaskAutoencoderConfig
from camseg_core.errors import ConfigError
from camseg_core.training.callbacks import Display
from camseg_core.training.frames import Frames
from camseg_core.training.mask_autoencoder import (
    AutoencoderTraining,
    latent_rate,
    reconstruction_confusion,
    train_autoencoder,
)
from camseg_core.training.settings import LoopConfig
from camseg_core.training.trainer import Run

DISTURBANCE = 0.5  # in deviations of the latents

# latents of 8×8 pixels, harder to decode than camseg-lite's 4×4: a loss by quantisation shows
NETWORK = MaskAutoencoderConfig(
    encoder_widths=(48, 96, 128), decoder_widths=(24, 48, 64), decoder_blocks=(1, 1, 2)
)

Result = dict[str, Any]


def training(codebook_size: int | None, steps: int) -> AutoencoderTraining:
    """The budget, the same for all; one run takes some two minutes on two cores."""
    loop = LoopConfig(
        steps=steps, lr=2e-3, warmup=max(1, steps // 6), ema_decay=0.95, weight_decay=1e-4
    )
    return AutoencoderTraining(
        replace(NETWORK, codebook_size=codebook_size), loop, batch=8, crop=(160, 224)
    )


def result_of(config: AutoencoderTraining, train: Frames, val: Frames, folder: Path) -> Result:
    """Train and score, or read back what was.

    Raises:
        ConfigError: the folder holds a run with other settings.
    """
    settings = json.loads(json.dumps(asdict(config)))
    settings_path, path = folder / "settings.json", folder / "result.json"
    if (
        settings_path.is_file()
        and json.loads(settings_path.read_text(encoding="utf-8")) != settings
    ):
        raise ConfigError(
            f"{settings_path} differs from the settings asked for: use those, or another --run"
        )
    if path.is_file():
        finished: Result = json.loads(path.read_text(encoding="utf-8"))
        return finished
    folder.mkdir(parents=True, exist_ok=True)
    settings_path.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    commit = current_commit("camseg_core", "benchmarks/autoencoders.py")
    model = train_autoencoder(config, train, Run(folder, (Display(every=50),)))
    confusion = reconstruction_confusion(model, val)
    result: Result = {
        "codebook": config.model.codebook_size,
        "mean_iou": round(confusion.mean_iou(), 4),
        "pixel_accuracy": round(confusion.accuracy(), 4),
        "mean_iou_disturbed": round(
            reconstruction_confusion(model, val, DISTURBANCE).mean_iou(), 4
        ),
        **{
            name: value and round(value, 4)
            for name, value in asdict(latent_rate(model, val)).items()
        },
        "commit": commit,
        "machine": machine_and_torch(),
    }
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def table(results: list[Result]) -> str:
    """The results as a table in Markdown."""
    heads = ["latents", "mIoU", "pixel accuracy", f"mIoU, disturbed by {DISTURBANCE}"]
    rows = []
    for r in results:
        name, usage = "KL", ["–", "–"]
        if r["codebook"] is not None:
            name = f"VQ, {r['codebook']} entries"
            usage = [f"{r['used_share']:.0%}", f"{r['perplexity']:.0f}"]
        scores = (f"{r[n]:.3f}" for n in ("mean_iou", "pixel_accuracy", "mean_iou_disturbed"))
        rows.append([name, *scores, f"{r['bits']:.1f}", *usage])
    return markdown_table([*heads, "bits per cell", "entries used", "perplexity"], rows)


def plot(results: list[Result], path: Path) -> None:
    """Mean IoU over codebook size as a PNG; KL is a horizontal line."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    quantised = sorted((r["codebook"], r["mean_iou"]) for r in results if r["codebook"] is not None)
    sizes = [size for size, _ in quantised]
    axes.plot(
        sizes,
        [score for _, score in quantised],
        "o-",
        color="#d95f02",
        linewidth=2,
        markersize=7,
        label="VQ (quantised)",
    )
    for r in results:
        if r["codebook"] is None:
            axes.axhline(r["mean_iou"], color="#1b6ca8", linewidth=2, label="KL (continuous)")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("entries in the codebook")
    axes.set_ylabel("mIoU of reconstructed masks")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def measure(arguments: argparse.Namespace) -> Outcome:
    """Train and score every autoencoder that is not finished yet, and plot the results."""
    train, val = camvid_frames(arguments.data)
    results = []
    for size in (None, *arguments.codebooks):
        name = "kl" if size is None else f"vq-{size}"
        results.append(result_of(training(size, arguments.steps), train, val, arguments.run / name))
        print(table(results[-1:]).splitlines()[-1], flush=True)
    plot(results, arguments.plot)
    codebooks = " ".join(map(str, arguments.codebooks))
    options = f"--run {arguments.run} --steps {arguments.steps} --codebooks {codebooks}"
    commits, machines = (
        ", ".join(sorted({r[name] for r in results})) for name in ("commit", "machine")
    )
    below = [
        picture(arguments, "mIoU of reconstructed masks over codebook size, and with KL latents"),
        f"    python benchmarks/autoencoders.py --data <CamVid root> {options} "
        f"--write {arguments.write}",
        f"{machines}; commit {commits}.",
    ]
    return Outcome(table(results), below, results)


def main() -> None:
    """Print the table; with `--json` the results as the last line."""
    parser = training_parser(
        "Mask reconstruction on CamVid val with continuous and with quantised latents."
    )
    parser.add_argument(
        "--steps", type=int, default=300, help="optimiser steps of each autoencoder"
    )
    parser.add_argument(
        "--codebooks", type=int, nargs="+", default=[16, 64, 256, 1024, 4096], metavar="ENTRIES"
    )
    parser.add_argument(
        "--plot",
        type=Path,
        default=Path("docs/images/autoencoders.png"),
        help="the picture to write",
    )
    add_document_options(parser)
    arguments = parser.parse_args()
    log_training()
    conclude(arguments, "autoencoders", measure)


if __name__ == "__main__":
    main()
