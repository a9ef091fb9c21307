"""The experiments of `experiments.yaml`, and the jobs that they are."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml  # type: ignore[import-untyped]

from camseg_core.config.yaml_file import load_yaml
from camseg_core.errors import ConfigError
from camseg_core.evaluation.robustness_suite import selected
from camseg_core.runtime import Sampling
from camseg_core.training.adaptation import AdaptationRecipe

PLAN = Path(__file__).with_name("experiments.yaml")
ADAPT = Path(__file__).parents[1] / "config" / "train" / "adapt.yaml"

Head = Literal["latents", "pixels"]
Codebook = int | tuple[int, ...] | None

DRIVE = "clear"
"""Family of the undisturbed synthetic drive."""


def reference_of(family: str) -> str:
    """Return the family that another is compared with."""
    return DRIVE if family in ("weather", "height") else "clean"


@dataclass(frozen=True)
class Reconstruction:
    """Autoencoders to train: one for each codebook and seed, scored after each budget of steps.

    Scores are of `every` so many frames of `val`.
    """

    steps: tuple[int, ...]
    batch: int
    codebooks: tuple[Codebook, ...]
    disturbances: tuple[float, ...]
    every: int
    minutes: float


@dataclass(frozen=True)
class Models:
    """Models to train: heads, with and without disturbed samples, and with each set left out."""

    heads: tuple[Head, ...]
    steps: int
    autoencoder_steps: int
    left_out: tuple[str, ...]
    frames: int
    minutes: float


@dataclass(frozen=True)
class Shift:
    """Conditions to score the models under."""

    frames: int
    suite: tuple[str, ...]
    pitch: tuple[float, ...]
    roll: tuple[float, ...]
    zoom: tuple[float, ...]
    height: tuple[float, ...]
    minutes: float

    def __post_init__(self) -> None:
        selected(self.suite)


@dataclass(frozen=True)
class Uncertainty:
    """Domains in which confidences are to find errors, and the samplings to compare."""

    frames: int
    domains: tuple[str, ...]
    sampling: Mapping[str, Sampling]
    minutes: float

    def __post_init__(self) -> None:
        selected(self.domains)
        if len(self.sampling) < 2:
            raise ConfigError(
                f"uncertainty.sampling must have two samplings to compare, got {len(self.sampling)}"
            )


@dataclass(frozen=True)
class Adaptation:
    """Sets to adapt to with `camseg adapt`; `changed` overrides entries of its configuration."""

    left_out: tuple[str, ...]
    changed: tuple[str, ...]
    minutes: float

    def recipe(self, seed: int) -> AdaptationRecipe:
        """Return the configuration with a seed; its data are named by the plan.

        Raises:
            ConfigError: an entry of `changed` cannot be used.
        """
        recipe = load_yaml(ADAPT, AdaptationRecipe, self.changed)
        loop = replace(recipe.training.loop, seed=seed)
        return replace(recipe, training=replace(recipe.training, loop=loop))


@dataclass(frozen=True)
class Plan:
    """What `experiments.yaml` holds; `recipe` is relative to it, absolute once it is loaded."""

    recipe: str
    seeds: tuple[int, ...]
    reconstruction: Reconstruction
    models: Models
    shift: Shift
    uncertainty: Uncertainty
    adaptation: Adaptation

    @cached_property
    def recipe_digest(self) -> str:
        """A digest of the entries of the recipe; not of the mapping files that it names.

        Raises:
            ConfigError: the recipe cannot be read.
        """
        try:
            entries = yaml.safe_load(Path(self.recipe).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            why = " ".join(str(error).split())
            raise ConfigError(f"recipe must be a recipe in YAML: {self.recipe}: {why}") from error
        text = json.dumps(entries, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Autoencoder:
    """An autoencoder to train, with this codebook: see `MaskAutoencoderConfig`."""

    codebook: Codebook


@dataclass(frozen=True)
class Model:
    """A model to train: its head, whether samples are disturbed, and the set that it never sees."""

    head: Head
    disturbed: bool = True
    left_out: str | None = None


@dataclass(frozen=True)
class Job:
    """An experiment that gives one result.

    Attributes:
        kind: what is done, a function of `experiment_work.WORK`.
        subject: what it is done with.
        seed: of the training.
        settings: what decides the result, beside the recipe: the section of the plan, or of an
            adaptation its configuration.
        minutes: the time it is expected to take on 2 cores.
        recipe: `Plan.recipe_digest`.
        steps: of the training of the model that is scored, and of its autoencoder, if `settings`
            do not have them.
    """

    kind: Literal["reconstruct", "train", "shift", "uncertainty", "adapt"]
    subject: Autoencoder | Model
    seed: int
    settings: Any
    minutes: float
    recipe: str
    steps: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """A unique name, also of its result's file."""
        return f"{self.kind}-{name_of(self.subject)}-s{self.seed}"

    @property
    def trained_in(self) -> str | None:
        """The folder of the model that this job scores; None if it trains one itself."""
        if self.kind in ("train", "reconstruct"):
            return None
        return f"train-{name_of(self.subject)}-s{self.seed}"

    def identity(self) -> dict[str, Any]:
        """Return what decides the result, for JSON."""
        content: dict[str, Any] = {
            "kind": self.kind,
            "subject": asdict(self.subject),
            "seed": self.seed,
        }
        content |= {"recipe": self.recipe}
        if self.steps is not None:
            content |= {"model": dict(zip(("steps", "autoencoder_steps"), self.steps, strict=True))}
        settings = {
            name: value for name, value in asdict(self.settings).items() if "minutes" not in name
        }
        for varied in ("codebooks", "heads", "left_out"):
            if isinstance(settings.get(varied), tuple):  # the subject has its own
                del settings[varied]
        found: dict[str, Any] = json.loads(json.dumps(content | {"settings": settings}))
        return found


def name_of(subject: Autoencoder | Model) -> str:
    """Return a name for files: `vq-256`, or `latents-disturbed-without-camvid`."""
    if isinstance(subject, Model):
        disturbed = "-disturbed" * subject.disturbed
        return subject.head + disturbed + (f"-without-{subject.left_out}" * bool(subject.left_out))
    codebook = subject.codebook
    if isinstance(codebook, tuple):
        return f"fsq-{'x'.join(map(str, codebook))}"
    return "kl" if codebook is None else f"vq-{codebook}"


def load_plan(path: Path = PLAN) -> Plan:
    """Read a plan.

    Raises:
        ConfigError: the file or an entry cannot be used.
    """
    plan = load_yaml(path, Plan)
    return replace(plan, recipe=str(path.parent / plan.recipe))


def jobs_of(plan: Plan) -> list[Job]:
    """Return all jobs, seed by seed: of the models, first those that train what others score."""
    reconstruction, models, adaptation = plan.reconstruction, plan.models, plan.adaptation
    recipe, steps = plan.recipe_digest, (models.steps, models.autoencoder_steps)
    on_all = [Model(head, disturbed) for disturbed in (True, False) for head in models.heads]
    held_out = [Model(head, True, name) for name in models.left_out for head in models.heads]
    jobs = []
    for seed in plan.seeds:
        jobs += [
            Job("train", model, seed, models, models.minutes, recipe)
            for model in (*on_all, *held_out)
        ]
        jobs += [
            Job("shift", model, seed, plan.shift, plan.shift.minutes, recipe, steps)
            for model in on_all
        ]
        jobs += [
            Job(
                "uncertainty",
                model,
                seed,
                plan.uncertainty,
                plan.uncertainty.minutes,
                recipe,
                steps,
            )
            for model in (*on_all, *held_out)
            if model.disturbed
        ]
        jobs += [
            Job(
                "reconstruct",
                Autoencoder(codebook),
                seed,
                reconstruction,
                reconstruction.minutes,
                recipe,
            )
            for codebook in reconstruction.codebooks
        ]
        jobs += [
            Job(
                "adapt",
                Model("latents", True, name),
                seed,
                adaptation.recipe(seed),
                adaptation.minutes,
                recipe,
                steps,
            )
            for name in adaptation.left_out
        ]
    return jobs
