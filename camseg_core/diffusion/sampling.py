"""How the mask of a frame is drawn: the sampler and all that goes with it."""

from dataclasses import dataclass

from camseg_core.config.model import CamSegConfig
from camseg_core.diffusion.passes import PassOptions
from camseg_core.diffusion.samplers import FUSABLE, SamplerOptions, sampler_named
from camseg_core.diffusion.schedule import Schedule
from camseg_core.errors import ConfigError


@dataclass(frozen=True)
class Fused:
    """A graph of the whole network, with a sampler and its number of steps laid down.

    Raises:
        ConfigError: the sampler draws noise on the way, or the number of steps does not suit it; the message lists the choices.
    """

    sampler: str
    steps: int

    def __post_init__(self) -> None:
        if self.sampler not in FUSABLE:
            raise ConfigError(
                f"sampler {self.sampler!r} cannot be fused into one graph; choose one of {', '.join(FUSABLE)}"
            )
        if self.steps < 1:
            raise ConfigError(f"steps is {self.steps}; a fused graph has at least 1")
        if self.sampler == "one_step" and self.steps != 1:
            raise ConfigError(
                f"one_step has one step, not {self.steps}; choose ddim or dpm_solver for more"
            )

    @property
    def name(self) -> str:
        """The graph's name."""
        return f"fused_{self.sampler}_{self.steps}"

    @staticmethod
    def parse(text: str) -> "Fused":
        """A fused graph from `SAMPLER:STEPS`, or `one_step` alone.

        Raises:
            ConfigError: it is not of that form, or names no graph that can be.
        """
        sampler, _, steps = text.partition(":")
        if not (steps or "1").isdecimal():
            raise ConfigError(f"fused graph {text!r} is not SAMPLER:STEPS, as in ddim:4")
        return Fused(sampler, int(steps or 1))


@dataclass(frozen=True)
class Sampling:
    """What a `Segmenter` draws masks with, and may be told anew while it is loaded.

    Attributes:
        sampler: one_step, ddim, dpm_solver or ancestral.
        steps: how often the latter three call the denoiser, from 1 to what the model's schedule has.
        temperature: scales the noise, see `SamplerOptions`; None is the model's own.
        eta: DDIM's share of noise on the way, 0 to 1.
        samples: how many masks are drawn of a frame, each from other noise; their class probabilities are averaged.
        passes: of the transformer, each revealing a part of the mask and told what is known of it.
        order: which part is revealed first, random or confident, see `PassOptions`.
        seed: of the noise, 0 or more.
        streams: frames belong to streams, which need the latents that a graph of the whole network keeps inside.

    Raises:
        ConfigError: a value suits no model; the message lists the choices.
    """

    sampler: str = "one_step"
    steps: int = 1
    temperature: float | None = None
    eta: float = 0.0
    samples: int = 1
    passes: int = 1
    order: str = "random"
    seed: int = 0
    streams: bool = False

    def __post_init__(self) -> None:
        sampler_named(self.sampler)
        SamplerOptions(self.steps, 1.0 if self.temperature is None else self.temperature, self.eta)
        PassOptions(self.passes, self.order)
        if self.samples < 1:
            raise ConfigError(f"samples is {self.samples}; it is 1 or more")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it is 0 or more")

    def check(self, config: CamSegConfig) -> None:
        """Refuse what does not suit this model, whichever graphs it has.

        Raises:
            ConfigError: the model's schedule does not have so many steps.
        """
        Schedule.cosine(config.num_train_timesteps).respaced(self.steps)

    def options(self, config: CamSegConfig) -> SamplerOptions:
        """What the sampler takes, for this model."""
        return SamplerOptions(
            self.steps,
            config.temperature if self.temperature is None else self.temperature,
            self.eta,
        )

    @property
    def in_passes(self) -> PassOptions:
        """What revealing a mask in passes takes."""
        return PassOptions(self.passes, self.order)

    @property
    def fused(self) -> Fused | None:
        """The graph of the whole network that would give what the parts give, if there can be one."""
        if (
            self.streams
            or self.samples > 1
            or self.passes > 1
            or self.eta > 0
            or self.sampler not in FUSABLE
        ):
            return None
        return Fused(self.sampler, 1 if self.sampler == "one_step" else self.steps)
