"""How masks are drawn: the one declaration of the sampling options, and fused graphs.

The command line's options, the node's parameters and their JSON schema derive from `OPTIONS`.
"""

import math
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any

from camseg_core.config.model import CamSegConfig
from camseg_core.diffusion.passes import ORDERS, PassOptions
from camseg_core.diffusion.samplers import FUSABLE, SAMPLERS, SamplerOptions, Schedule
from camseg_core.errors import ConfigError


def is_whole(value: object) -> bool:
    """Return whether a value is a whole number, of Python or numpy; a bool does not count."""
    return isinstance(value, Integral) and not isinstance(value, bool)


@dataclass(frozen=True)
class Fused:
    """A graph of the whole network with a sampler and its number of steps built in.

    Raises:
        ConfigError: the sampler cannot be fused, or does not take this number of steps.
    """

    sampler: str
    steps: int

    def __post_init__(self) -> None:
        if self.sampler not in FUSABLE:
            raise ConfigError(
                f"sampler {self.sampler!r} cannot be fused into one graph; "
                f"choose one of {', '.join(FUSABLE)}"
            )
        if self.steps < 1:
            raise ConfigError(f"steps of a fused graph must be >= 1, got {self.steps}")
        if self.sampler == "one_step" and self.steps != 1:
            raise ConfigError(
                f"steps of one_step must be 1, got {self.steps}; choose ddim or dpm_solver for more"
            )

    @property
    def name(self) -> str:
        """The graph's name."""
        return f"fused_{self.sampler}_{self.steps}"

    @staticmethod
    def parse(text: str) -> "Fused":
        """Parse `SAMPLER:STEPS`, or `one_step` alone.

        Raises:
            ConfigError: the text has another form, or no such graph can be made.
        """
        sampler, _, steps = text.partition(":")
        if not (steps or "1").isdecimal():
            raise ConfigError(f"a fused graph must be SAMPLER:STEPS, as in ddim:4, got {text!r}")
        return Fused(sampler, int(steps or 1))


@dataclass(frozen=True)
class Option:
    """One sampling option, as users meet it. All of them may change while a model is loaded.

    Attributes:
        name: the field of `Sampling`.
        kind: `str`, `int` or `float`.
        default: None means the model's own value.
        help: one line.
        choices: the allowed strings.
        minimum, maximum: the allowed range; None is unbounded.
        node_maximum: the largest value the node accepts, so that one frame cannot stall a camera.
    """

    name: str
    kind: type[str] | type[int] | type[float]
    default: str | float | None
    help: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    node_maximum: float | None = None

    def check(self, value: Any) -> None:
        """Check a value against the choices and the range.

        Raises:
            ConfigError: the value is not allowed; names the option and what it takes.
        """
        if self.choices and value not in self.choices:
            choices = ", ".join(self.choices)
            raise ConfigError(f"{self.name} must be one of {choices}, got {value!r}")
        if self.minimum is None or (value is None and self.default is None):
            return
        self.check_type(value)
        most = math.inf if self.maximum is None else self.maximum
        if not (self.minimum <= value <= most and math.isfinite(value)):
            wanted = f">= {self.minimum:g}" + ("" if self.maximum is None else f" and <= {most:g}")
            raise ConfigError(f"{self.name} must be {wanted}, got {value}")

    def check_type(self, value: Any) -> None:
        """Check that a value for a number is a whole number, or a number.

        Raises:
            ConfigError: it is something else, such as 1.5 for `steps`, True or a text.
        """
        if self.kind is int and not is_whole(value):
            raise ConfigError(f"{self.name} must be a whole number, got {value!r}")
        if isinstance(value, bool) or not isinstance(value, Real):
            raise ConfigError(f"{self.name} must be a number, got {value!r}")


def _option(default: str | float | None, help: str, **described: Any) -> Any:
    kind = float if default is None else type(default)
    metadata = {"kind": kind, "default": default, "help": help, **described}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Sampling:
    """How a `Segmenter` draws masks; may change while the model is loaded.

    Attributes:
        sampler: str, a name in `SAMPLERS`; default `one_step`.
        steps: int, 1 to the model's `num_train_timesteps`; default 1. Not used by `one_step`.
        temperature: float >= 0 that scales the noise; default None, the model's own.
        eta: float, 0 to 1, of `ddim`: 0 is deterministic, 1 as noisy as ancestral sampling;
            default 0.
        samples: int >= 1, masks drawn per frame, whose probabilities are averaged; default 1.
        passes: int >= 1, passes of the transformer; default 1.
        order: str, one of `ORDERS`: what a pass reveals first; default `random`.
        seed: int >= 0, of the noise; default 0.
        streams: bool, runs the model in parts instead of a fused graph; needed for a `Stream` and
            for `Segmenter.features`; default False. Not an option of the command line or the node.

    Raises:
        ConfigError: a value suits no model; the message lists the choices.
    """

    sampler: str = _option(
        "one_step",
        "How the mask is denoised: one_step is the fastest, "
        "the others refine it over several steps.",
        choices=tuple(SAMPLERS),
    )
    steps: int = _option(
        1, "Denoising steps; more take longer. one_step has one.", minimum=1, node_maximum=1000
    )
    temperature: float | None = _option(
        None,
        "Scales the noise; below 1, samples stay closer to the likeliest mask.",
        minimum=0,
        node_maximum=10,
    )
    eta: float = _option(
        0.0,
        "DDIM's eta: 0 is deterministic, 1 is as noisy as ancestral sampling.",
        minimum=0,
        maximum=1,
    )
    samples: int = _option(
        1,
        "Masks drawn per frame, whose class probabilities are averaged; more take longer.",
        minimum=1,
        node_maximum=64,
    )
    passes: int = _option(
        1,
        "Transformer passes in which a mask is revealed; more take longer.",
        minimum=1,
        node_maximum=64,
    )
    order: str = _option(
        ORDERS[0],
        "Which part of the mask is revealed first, with more than one pass.",
        choices=ORDERS,
    )
    seed: int = _option(
        0,
        "Seed of the noise: the same seed and image give the same mask.",
        minimum=0,
        node_maximum=2**32 - 1,
    )
    streams: bool = False

    def __post_init__(self) -> None:
        for option in OPTIONS:
            if option.name == "steps":  # its range is the model's schedule, see `check`
                option.check_type(self.steps)
            else:
                option.check(getattr(self, option.name))

    def check(self, config: CamSegConfig) -> None:
        """Check that this model can draw masks so, whichever graphs it has.

        Raises:
            ConfigError: the model's schedule does not have this many steps.
        """
        Schedule.cosine(config.num_train_timesteps).respaced(self.steps)

    @property
    def without_effect(self) -> dict[str, str]:
        """Why an option that differs from its default changes no mask, by name."""
        sampler, found = self.sampler, dict[str, str]()
        if sampler == "one_step":
            *others, last = (name for name in SAMPLERS if name != sampler)
            several = f"{', '.join(others)} or {last}"
            for name in ("steps", "temperature"):
                found[name] = f"{sampler} does not use it; set sampler to {several}"
        if sampler == "ancestral" and self.steps == 1:
            found["temperature"] = "one step of ancestral adds no noise; set steps to 2 or more"
        if sampler != "ddim":
            found["eta"] = f"{sampler} does not use it; set sampler to ddim"
        if self.passes == 1:
            found["order"] = "it needs passes of 2 or more"
        if self.temperature == 0 and self.passes == 1 and sampler in ("ddim", "dpm_solver"):
            found["samples"] = found["seed"] = "with temperature 0 all masks are the same"
        return {
            option.name: found[option.name]
            for option in OPTIONS
            if option.name in found and getattr(self, option.name) != option.default
        }

    def options(self, config: CamSegConfig) -> SamplerOptions:
        """The sampler's options, for this model."""
        temperature = config.temperature if self.temperature is None else self.temperature
        return SamplerOptions(self.steps, temperature, self.eta)

    @property
    def in_passes(self) -> PassOptions:
        """The options of revealing a mask in passes."""
        return PassOptions(self.passes, self.order)

    @property
    def fused(self) -> Fused | None:
        """The fused graph that gives the same masks as the parts; None if there cannot be one."""
        one_draw = self.samples == 1 and self.passes == 1
        added_noise = self.sampler == "ddim" and self.eta > 0
        if self.streams or not one_draw or added_noise or self.sampler not in FUSABLE:
            return None
        return Fused(self.sampler, 1 if self.sampler == "one_step" else self.steps)


OPTIONS: tuple[Option, ...] = tuple(
    Option(each.name, **each.metadata) for each in fields(Sampling) if each.metadata
)
"""The options of `Sampling`, in the order of its fields."""
