"""Settings that all trainings share, and checks of their values."""

from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from camseg_core.config.reader import renamed_from
from camseg_core.errors import ConfigError
from camseg_core.model.precision import computes_bf16
from camseg_core.training.distributed import Strategy

MOST_SAMPLES = 65_536
"""The largest batch that is taken: many times that of any published training."""


def check_setting(name: str, found: object, holds: bool, wanted: str) -> None:
    """Raise ConfigError "`name` must be `wanted`, got `found`" unless `holds`."""
    if not holds:
        raise ConfigError(f"{name} must be {wanted}, got {found}")


def check_samples(
    batch: int,
    crop: tuple[int, int],
    stride: int,
    crop_area: tuple[float, float] = (1.0, 1.0),
    most: int = 1,
) -> None:
    """Check the settings of a stream of samples.

    Raises:
        ConfigError: `batch` is below 1 or above `MOST_SAMPLES`, a side of `crop` (height, width in
            pixels) is not a multiple of `stride`, or `crop_area`, the share of a frame that a crop
            takes, is not two rising numbers up to `most`.
    """
    check_setting("batch", batch, batch >= 1, ">= 1")
    check_setting("batch", batch, batch <= MOST_SAMPLES, f"<= {MOST_SAMPLES}")
    fits = all(side > 0 and side % stride == 0 for side in crop)
    check_setting("both sides of crop", list(crop), fits, f"multiples of {stride}")
    rising = 0 < crop_area[0] <= crop_area[1] <= most
    check_setting("crop_area", list(crop_area), rising, f"two rising shares in (0, {most}]")


@dataclass(frozen=True)
class LoopConfig:
    """How a model is optimised: AdamW, linear warm-up, clipped gradients, averaged weights.

    Attributes:
        steps: optimiser steps.
        lr: highest learning rate.
        warmup: steps of linear warm-up.
        schedule: after the warm-up, half a `cosine` down to 1 % of `lr`, or `constant`.
        weight_decay: AdamW's; vectors (biases, norms) never decay.
        clip: largest norm of the whole gradient.
        ema_decay: weight of the past in the average of the weights, which a run returns.
        precision: of matrices and convolutions under autocast: bf16 (fp32 on processors without
            bf16 arithmetic), fp16 (gradients are scaled) or fp32.
        strategy: how several processes share the work, see `distributed.py`.
        seed: of all random numbers.
        save_every: steps between saved states; the last step is always saved.
        validate_every: steps between validations; the last step is always validated.
        epochs: passes over the frames, in place of `steps`, see `in_steps`.
        warmup_epochs: in place of `warmup`.
        betas: AdamW's.
        no_weight_decay: prefixes of the names of modules whose matrices do not decay either.
        grad_accum_steps: parts in which each process takes its share of a batch, in the memory of a
            part; the gradient is that of the whole batch, but batch norms normalise each part by
            itself.

    Raises:
        ConfigError: a value is out of range.
    """

    steps: int
    lr: float
    warmup: int = 50
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.02
    clip: float = 3.0
    ema_decay: float = 0.995
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    strategy: Strategy = "ddp"
    seed: int = 0
    save_every: int = 100
    validate_every: int = 300
    epochs: float | None = None
    warmup_epochs: float | None = None
    betas: tuple[float, float] = (0.9, 0.95)
    no_weight_decay: tuple[str, ...] = field(default=(), metadata=renamed_from("undecayed"))
    grad_accum_steps: int = field(default=1, metadata=renamed_from("accumulate"))

    def __post_init__(self) -> None:
        for name in ("steps", "save_every", "validate_every", "grad_accum_steps"):
            check_setting(name, getattr(self, name), getattr(self, name) >= 1, ">= 1")
        for name in ("lr", "clip"):
            check_setting(name, getattr(self, name), getattr(self, name) > 0, "> 0")
        for name in ("warmup", "weight_decay"):
            check_setting(name, getattr(self, name), getattr(self, name) >= 0, ">= 0")
        check_setting("seed", self.seed, -(2**63) <= self.seed < 2**63, "of 64 bits")
        check_setting("epochs", self.epochs, self.epochs is None or self.epochs > 0, "> 0")
        late = self.warmup_epochs
        check_setting("warmup_epochs", late, late is None or late >= 0, ">= 0")
        in_range = all(0 <= beta < 1 for beta in self.betas)
        check_setting("both betas", list(self.betas), in_range, "in [0, 1)")
        check_setting("ema_decay", self.ema_decay, 0 <= self.ema_decay < 1, "in [0, 1)")

    def in_steps(self, frames: int, batch: int) -> "LoopConfig":
        """Return the same with `epochs` and `warmup_epochs` converted to steps.

        An epoch is as many samples as there are frames; its last batch may reach into the next
        epoch.
        """

        def steps_of(epochs: float | None, otherwise: int) -> int:
            return otherwise if epochs is None else round(epochs * frames / batch)

        steps = max(1, steps_of(self.epochs, self.steps))
        warmup = steps_of(self.warmup_epochs, self.warmup)
        return replace(self, steps=steps, warmup=warmup, epochs=None, warmup_epochs=None)

    @property
    def memory_format(self) -> torch.memory_format:
        """Channels last, the fastest for convolutions; FSDP shards contiguous tensors only."""
        return torch.contiguous_format if self.strategy == "fsdp" else torch.channels_last

    def autocast(self, device: torch.device, emulated: bool = False) -> torch.autocast:
        """Return the context in which a loss calls its networks.

        Without `emulated`, a processor without bf16 arithmetic computes in fp32 instead.
        """
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        slow = dtype == torch.bfloat16 and not emulated and not computes_bf16(device.type)
        return torch.autocast(device.type, dtype, enabled=self.precision != "fp32" and not slow)
