"""Time the published size on this CPU: inference as published, and this project's, in one run.

python benchmarks/published_size.py --size 256 --write docs/results.md --json

The weights are random, so the masks have no quality to compare. `as_published` is fp32: 100
ancestral steps on the tokens of image and mask, and a picture decoded by its colours. The others
denoise the mask's tokens alone: in torch, in bf16 except for the diffusion head, and the same in
fp32; and exported to the CPU engines. Settings are interleaved, so that all see the same load of
the machine.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from as_published import (
    STEPS,
    frame_as_published,
    seeded_noise,
    seeded_pixels,
)
from document import (
    Outcome,
    add_document_options,
    conclude,
    machine_and_torch,
    markdown_table,
    provenance,
)
from peak_memory import peak_bytes
from published_engines import PROVIDERS, OnEngine
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from camseg_core.cli.options import at_least
from camseg_core.config.model import CamSegConfig, LightDecoderConfig
from camseg_core.diffusion.samplers import SamplerOptions
from camseg_core.errors import ConfigError
from camseg_core.export import export_onnx
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime import Sampling
from camseg_core.weights import CAM_SEG_BASE_768

PUBLISHED = replace(CAM_SEG_BASE_768, light_decoder=LightDecoderConfig())
AS_PUBLISHED = "as_published"
TURNS = 3
"""Runs of each of the project's settings, which are short, per run of the published one."""


@dataclass(frozen=True)
class TorchMask:
    """`train_ids` `(B, H, W)` uint8, decoded from the fp32 `latents` `(B, C, h, w)`."""

    latents: Tensor
    train_ids: Tensor


Segment = Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """A setting of this project's inference."""

    name: str
    sampler: str
    steps: int
    exact: bool

    def exported(self, config: CamSegConfig) -> CamSegConfig:
        """Return the configuration whose graphs have this setting's decoder."""
        return replace(config, light_decoder=None) if self.exact else config

    def on(self, engine: str, folder: Path, config: CamSegConfig, size: int) -> OnEngine:
        """Return the setting on an engine of `PROVIDERS`, see `OnEngine`."""
        sampling = Sampling(sampler=self.sampler, steps=self.steps)
        return OnEngine(engine, folder / self.name, self.exported(config), sampling, size)


OURS = (
    Setting("exact_decoder_4_steps", "dpm_solver", 4, exact=True),
    Setting("light_decoder_1_step", "one_step", 1, exact=False),
)


def random_model(config: CamSegConfig) -> CamSeg:
    """A model with random weights, the same in every process."""
    torch.manual_seed(0)
    model = CamSeg(config).eval().requires_grad_(False)
    for parameter in model.denoiser.parameters():
        parameter.normal_(std=0.02)  # a fresh one returns zeros
    return model


def store_in_bf16(model: CamSeg) -> CamSeg:
    """Store matrices and kernels of everything but the diffusion head in bf16, in place.

    Autocast alone would hold these weights twice. The head stays fp32, see `TorchEngine`.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and not name.startswith("denoiser."):
            module.weight.data = module.weight.data.to(torch.bfloat16)
    return model


def model_in(precision: str, config: CamSegConfig) -> CamSeg:
    """The random model, stored in fp32 or bf16."""
    model = random_model(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return store_in_bf16(model) if precision == "bf16" else model


def ours(model: CamSeg, setting: Setting, size: int) -> Callable[[], TorchMask]:
    """Return a function that segments the frame in a setting, in the precision of the weights.

    It uses torch alone, not a `Segmenter`, so that nothing else is timed.
    """
    pixels, cells = seeded_pixels(size), (size // model.config.token_stride) ** 2
    options, bf16 = SamplerOptions(setting.steps), torch.bfloat16
    stored = model.transformer.z_proj1.weight.dtype

    @torch.no_grad()
    def segment() -> TorchMask:
        noise = seeded_noise(cells, model.config.denoised_channels)
        with torch.autocast("cpu", bf16, enabled=stored == bf16):
            features = model.image_features(pixels)
            condition = model.conditions(features)
        clean = model.sample(condition.float(), setting.sampler, options, noise(-1), noise)
        latents = model.to_latents(clean, model.denoised_grid(features))
        with torch.autocast("cpu", bf16, enabled=stored == bf16):
            return TorchMask(latents, model.decode_mask(latents, setting.exact))

    return segment


def setting_of(name: str) -> Setting:
    """One of this project's settings by its name."""
    return next(setting for setting in OURS if setting.name == name)


def multiply_accumulates(name: str, config: CamSegConfig, size: int, steps: int) -> int:
    """Count a frame's multiply-accumulates by shapes alone; `steps` are the published setting's.

    Attention runs in its plain form, which torch can count.
    """
    with FakeTensorMode(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model = random_model(config)
        if name == AS_PUBLISHED:
            frame_as_published(model, size, steps)()
        else:
            ours(model, setting_of(name), size)()
    return counter.get_total_flops() // 2


def in_torch(name: str, config: CamSegConfig, size: int) -> Segment:
    """Return a setting in torch, whose memory peaks as in a whole frame."""
    if name == AS_PUBLISHED:  # needs as much for two steps as for a hundred
        return frame_as_published(random_model(config), size, steps=2)
    return ours(model_in("bf16", config), setting_of(name), size)


def seconds(segments: Mapping[str, Segment], repeats: int) -> dict[str, float]:
    """The median time of each setting over `repeats` interleaved rounds."""
    times: dict[str, list[float]] = {name: [] for name in segments}
    for _ in range(repeats):
        for turn in range(TURNS):
            for name, segment in segments.items():
                if turn == 0 or name != AS_PUBLISHED:
                    began = time.perf_counter()
                    segment()
                    times[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken) for name, taken in times.items()}


def measure_all(
    config: CamSegConfig, size: int, repeats: int, steps: int = STEPS
) -> dict[str, Any]:
    """Measure every setting: figures by kind, then by setting; speed-ups by setting's name.

    Raises:
        ConfigError: the size does not fit the model, or memory cannot be measured.
    """
    if size < 1 or size % config.token_stride:
        raise ConfigError(
            f"size must be a multiple of {config.token_stride} for {config.name}, got {size}"
        )
    with tempfile.TemporaryDirectory(prefix="camseg-") as folder:
        for setting in OURS:
            export_onnx(random_model(setting.exported(config)), Path(folder) / setting.name)
        return _measured(config, size, repeats, steps, Path(folder))


def _measured(
    config: CamSegConfig, size: int, repeats: int, steps: int, folder: Path
) -> dict[str, Any]:
    names = [AS_PUBLISHED, *(setting.name for setting in OURS)]
    tmac = {name: multiply_accumulates(name, config, size, steps) / 1e12 for name in names}
    exported = {
        f"{setting.name} on {engine}": partial(setting.on, engine, folder, config, size)
        for setting in OURS
        for engine in PROVIDERS
    }
    every = {name: partial(in_torch, name, config, size) for name in names} | exported
    peak = {name: peak_bytes(made) / 2**20 for name, made in every.items()}

    models = {precision: model_in(precision, config) for precision in ("bf16", "fp32")}
    own = {
        precision: {setting.name: ours(model, setting, size) for setting in OURS}
        for precision, model in models.items()
    }
    published = random_model(config)
    frame_as_published(published, size, 2)()  # warms up what a hundred steps need as well
    masks = {
        precision: {name: segment() for name, segment in segments.items()}
        for precision, segments in own.items()
    }
    in_fp32 = {f"{name} fp32": segment for name, segment in own["fp32"].items()}
    on_engines = {name: made() for name, made in exported.items()}
    as_published = frame_as_published(published, size, steps)
    taken = seconds({AS_PUBLISHED: as_published, **own["bf16"], **in_fp32, **on_engines}, repeats)
    base, faster = taken[AS_PUBLISHED], [name for name in every if name != AS_PUBLISHED]
    figures: dict[str, Any] = {name: round(base / taken[name], 2) for name in faster}
    figures["size"], figures["repeats"] = size, repeats
    figures["engines"] = sorted({each.name for each in on_engines.values()})
    figures["seconds"] = {name: round(taken[name], 3) for name in every}
    figures["tmac"] = {name: round(value, 4) for name, value in tmac.items()}
    figures["peak_mib"] = {name: round(value) for name, value in peak.items()}
    figures["fp32_ratio"] = {name: round(base / taken[f"{name} fp32"], 2) for name in own["fp32"]}
    pairs = {name: (masks["bf16"][name], masks["fp32"][name]) for name in own["fp32"]}
    figures["bf16_latent_error"] = {
        name: _relative_error(low.latents, high.latents) for name, (low, high) in pairs.items()
    }
    figures["bf16_same_ids"] = {
        n: round(float((low.train_ids == high.train_ids).float().mean()), 4)
        for n, (low, high) in pairs.items()
    }
    return figures


def _relative_error(found: Tensor, expected: Tensor) -> float:
    return float(f"{float((found - expected).norm() / expected.norm()):.2g}")


def table(figures: Mapping[str, Any]) -> str:
    """The figures as a table in Markdown."""
    heads = ["setting", "s a frame", "times as fast", "the same in fp32", "TMAC", "peak MiB"]
    heads += ["latents, bf16 to fp32", "same ids"]
    rows = []
    for name, taken in figures["seconds"].items():
        faster = 1 if name == AS_PUBLISHED else f"{figures[name]:.1f}"
        arithmetic = figures["tmac"][name.partition(" on ")[0]]
        in_fp32 = figures["fp32_ratio"].get(name)
        row = [name, f"{taken:.2f}", faster, "–" if in_fp32 is None else f"{in_fp32:.1f}"]
        row += [f"{arithmetic:.3f}", figures["peak_mib"][name]]
        errors = (figures["bf16_latent_error"], figures["bf16_same_ids"])
        rows.append(row + [f"{error[name]:.1%}" if name in error else "–" for error in errors])
    return markdown_table(heads, rows)


def measure(arguments: argparse.Namespace) -> Outcome:
    """Measure the published size with these options."""
    figures = measure_all(PUBLISHED, arguments.size, arguments.repeats)
    on = f"{machine_and_torch()}, {torch.get_num_threads()} threads"
    below = provenance(arguments, f"{'; '.join(figures['engines'])}; ", on)
    return Outcome(table(figures), below, figures)


def main() -> None:
    """Print the table; with `--json` the figures as the last line."""
    parser = argparse.ArgumentParser(
        description="Inference as published and this project's, at the published size, on the CPU.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    positive = at_least(1)
    parser.add_argument("--size", type=positive, default=256, help="side of the frame in pixels")
    help_text = "rounds; one takes a minute or more"
    parser.add_argument("--repeats", type=positive, default=3, help=help_text)
    add_document_options(parser)
    conclude(parser, "published-size", measure)


if __name__ == "__main__":
    main()
