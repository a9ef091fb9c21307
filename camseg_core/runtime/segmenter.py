"""The public way to segment: a camera frame in, train ids out."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from camseg_core.errors import ImageError
from camseg_core.labels import Label, read_labels
from camseg_core.model.config import CamSegConfig, load_config
from camseg_core.model.samplers import SamplerOptions, sampler_named
from camseg_core.model.schedule import Schedule
from camseg_core.runtime.engine_onnx import OnnxEngine
from camseg_core.runtime.framing import Framing
from camseg_core.weights import DEFAULT_MODEL, checkpoint_folder


@dataclass(frozen=True)
class Segmentation:
    """A segmented frame.

    `mask` is `(H, W)` uint8 Cityscapes train ids (255 = unlabelled) and `confidence` `(H, W)` float32 in 0..1, both at the
    frame's own size; `timings` are milliseconds per stage, in order.
    """

    mask: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.float32]
    timings: dict[str, float]


class Segmenter:
    """A loaded model. The same frame gives the same mask, every time: the noise is drawn from `seed` anew for each frame."""

    def __init__(
        self, config: CamSegConfig, labels: tuple[Label, ...], engine: OnnxEngine, sampler: str, options: SamplerOptions, seed: int
    ) -> None:
        self.config = config
        self.labels = labels
        self._engine = engine
        self._sampler = sampler_named(sampler)
        self._options = options
        self._schedule = Schedule.cosine(config.noise_steps)
        self._schedule.respaced(options.steps)  # an impossible number of steps is refused now, not at the first frame
        self._seed = seed

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = DEFAULT_MODEL,
        *,
        provider: str = "cpu",
        threads: int = 0,
        sampler: str = "one_step",
        steps: int = 1,
        seed: int = 0,
        temperature: float | None = None,
    ) -> "Segmenter":
        """Load a bundled model by name or a checkpoint folder by path.

        `provider` is cpu, cuda or tensorrt; `threads` 0 means all cores; `sampler` is one_step, ddim, dpm_solver or
        ancestral, and `steps` (1 to 1000) how often the latter three call the denoiser. `temperature` scales the noise, see
        `SamplerOptions`; without it, the model's own is used.

        Raises:
            ModelError: the folder is missing, incomplete or damaged.
            ConfigError: an option is not among its choices, or the provider is not installed; the message lists them.
        """
        folder = checkpoint_folder(model)
        config, labels = load_config(folder / "config.json"), read_labels(folder / "labels.json")
        options = SamplerOptions(steps, config.temperature if temperature is None else temperature)
        return cls(config, labels, OnnxEngine(folder, provider, threads), sampler, options, seed)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.config.name

    @property
    def temperature(self) -> float:
        """What the noise is scaled by."""
        return self._options.temperature

    @property
    def provider(self) -> str:
        """The execution provider in use: cpu, cuda or tensorrt."""
        return self._engine.provider

    def segment(self, rgb: npt.NDArray[np.uint8]) -> Segmentation:
        """Segment one RGB frame `(H, W, 3)` uint8 of any size from 1×1 up.

        Raises:
            ImageError: the array has another shape or type.
        """
        if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
            found = f"{rgb.shape} {rgb.dtype}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
            raise ImageError(f"cannot segment {found}: a frame is an RGB array (H, W, 3) of uint8, at least 1×1")
        stages = _Stages()
        with stages("preprocess"):
            framing = Framing.fit(rgb.shape[0], rgb.shape[1], self.config.network_pixels, self.config.size_multiple)
            image = framing.to_network(rgb)[None]
        with stages("image_encoder"):
            features = self._engine.encode_image(image)
        with stages("transformer"):
            condition = self._engine.conditions(features)[0]
        with stages("denoiser"):
            tokens = self._sample(condition)
        with stages("decoder"):
            mask, confidence = self._engine.decode(self._to_latents(tokens, features["features"].shape[2:]))
        with stages("postprocess"):
            result = framing.mask_to_camera(mask[0]), framing.confidence_to_camera(confidence[0])
        return Segmentation(*result, stages.milliseconds)

    def _sample(self, condition: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Conditions `(N, D)` to what the head denoises, `(N, C)`, clean."""
        random = np.random.default_rng(self._seed)
        shape = (condition.shape[0], self.config.denoised_channels)

        def noise(_: int) -> npt.NDArray[np.float32]:
            return random.standard_normal(shape, np.float32)

        def denoise(tokens: npt.NDArray[np.float32], step: int) -> npt.NDArray[np.float32]:
            return self._engine.denoise(tokens.astype(np.float32, copy=False), step, condition)

        tokens = self._sampler(denoise, noise(-1), self._schedule, self._options, noise, self.config.denoiser.prediction)
        return np.asarray(tokens, np.float32)

    def _to_latents(self, denoised: npt.NDArray[np.float32], tokens: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """What the head denoised, `(N, c·p²)`, to latents `(1, c, H, W)`; `tokens` is the transformer's (rows, columns)."""
        p = self.config.denoised_patch
        h, w = (side * self.config.patch_size // p for side in tokens)
        cells = denoised.reshape(h, w, -1, p, p).transpose(2, 0, 3, 1, 4)  # (c, h, p, w, p)
        return np.ascontiguousarray(cells.reshape(1, -1, h * p, w * p))


class _Stages:
    """Times the stages of one frame."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.milliseconds[stage] = (time.perf_counter() - start) * 1000
