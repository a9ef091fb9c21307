"""The public way to segment: a camera frame in, train ids out."""

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from camseg_core.config.model import CamSegConfig, load_config
from camseg_core.diffusion.passes import FrameInPasses, cells_of_tokens, sample_in_passes
from camseg_core.diffusion.samplers import Noise, sampler_named, start_scale
from camseg_core.diffusion.sampling import Sampling
from camseg_core.diffusion.schedule import Schedule
from camseg_core.errors import ConfigError, ImageError
from camseg_core.labels import Label, read_labels
from camseg_core.runtime.bound_graph import DeviceArray
from camseg_core.runtime.engine import Engine, Floats, Ids
from camseg_core.runtime.frame import (
    Frame,
    FrameNoise,
    Segmentation,
    Stages,
    cells_to_latents,
    latents_to_tokens,
    mean_of_squares,
)
from camseg_core.runtime.framing import Fit, Framing
from camseg_core.runtime.graphs import AUTO
from camseg_core.runtime.onnx_engine import OnnxEngine
from camseg_core.runtime.stream import Stream
from camseg_core.weights import DEFAULT_MODEL, checkpoint_folder


class Segmenter:
    """A loaded model. The same frame gives the same mask, every time: the noise is drawn from `seed` anew for each frame.

    Raises:
        ConfigError: the sampling does not suit the model, see `check_sampling`.
    """

    def __init__(
        self,
        config: CamSegConfig,
        labels: tuple[Label, ...],
        engine: Engine,
        sampling: Sampling = Sampling(),  # noqa: B008
    ) -> None:
        sampling.check(config)
        if sampling.passes > 1 and not engine.takes_mask:
            raise _no_passes(sampling, config)
        self.config = config
        self.labels = labels
        self.sampling = sampling
        self._engine = engine
        self._samples, self._passes, self._seed = (
            sampling.samples,
            sampling.in_passes,
            sampling.seed,
        )
        self._sampler, self._options = sampler_named(sampling.sampler), sampling.options(config)
        self._start_scale = start_scale(sampling.sampler, self._options)
        self._schedule = Schedule.cosine(config.num_train_timesteps)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = DEFAULT_MODEL,
        *,
        provider: str | Sequence[str] = "cpu",
        precision: str = AUTO,
        threads: int = 0,
        engine_cache: str | Path | None = None,
        **sampling: Any,
    ) -> "Segmenter":
        """Load a bundled model by name or a checkpoint folder by path.

        Runs the fused graph for this precision, sampler and number of steps if the folder has it,
        else the model's parts, as always with `streams=True`.

        Args:
            model: the name or the folder.
            provider: cpu, cuda or tensorrt, or several in the order to try them, as in
                `"tensorrt,cuda,cpu"` or a sequence.
            precision: fp32, fp16, int8, or auto, the best of the folder's for the provider.
            threads: CPU threads; 0 means all cores.
            engine_cache: folder for the engines TensorRT builds; without it they are built at
                every start.
            **sampling: the fields of `Sampling`: sampler, steps, temperature, eta, samples, passes,
                order, seed, streams. `with_sampling` changes them later.

        Raises:
            ModelError: the folder is missing, incomplete or damaged, or lacks the graphs.
            ConfigError: an option is not among its choices, or no provider can be used.
        """
        drawn = Sampling(**sampling)
        folder = checkpoint_folder(model)
        config, labels = load_config(folder / "config.json"), read_labels(folder / "labels.json")
        drawn.check(config)  # before anything is loaded for it
        cache = None if engine_cache is None else Path(engine_cache)
        engine = OnnxEngine(
            folder, provider, threads, precision=precision, fused=drawn.fused, engine_cache=cache
        )
        return cls(config, labels, engine, drawn)

    def check_sampling(self, sampling: Sampling) -> None:
        """Refuse what `with_sampling` would, without loading anything; while frames are segmented in another thread, too.

        Raises:
            ConfigError: the model's schedule does not have so many steps, or no graph that can be told a part of the mask.
            ModelError: the folder lacks the graphs that it needs.
        """
        sampling.check(self.config)
        self._engine.check(sampling.fused)
        # of the parts that are not loaded, the configuration has to tell
        takes_mask = (
            self._engine.takes_mask
            if self._engine.fused is None
            else self.config.transformer.fusion == "grid"
        )
        if sampling.passes > 1 and not takes_mask:
            raise _no_passes(sampling, self.config)

    def with_sampling(self, sampling: Sampling) -> "Segmenter":
        """The same model, drawing masks in another way, exactly as if it were loaded so.

        It is on the same engine, and the two must not segment at the same time, unless there are other graphs to run: where a graph of
        the whole network is loaded, or the folder has one for this sampler and its number of steps. Then another engine is loaded.

        Raises:
            ConfigError: as `check_sampling`, or no provider can be used for the other graphs.
            ModelError: the folder lacks the graphs that it needs, or one is damaged.
        """
        self.check_sampling(sampling)
        return Segmenter(self.config, self.labels, self._engine.running(sampling.fused), sampling)

    def with_logit_scale(self, logit_scale: float) -> "Segmenter":
        """The same model, on the same engine, with logits multiplied by `logit_scale` before they become probabilities."""
        other = copy.copy(self)
        other.config = replace(self.config, logit_scale=logit_scale)
        return other

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

    @property
    def fallback(self) -> str:
        """Why the provider in use is not the first that was asked for; empty if it is."""
        return self._engine.fallback

    @property
    def precision(self) -> str:
        """What the graphs compute in: fp32, fp16 or int8."""
        return self._engine.precision

    def warm_up(self, height: int, width: int, fit: Fit = Fit()) -> float:  # noqa: B008
        """Segment a grey frame of the camera's size, so that the first true one need not wait; returns the seconds it took.

        ONNX Runtime plans its memory at the first frame of a size, and TensorRT builds its engines, for minutes, unless they are cached.
        """
        began = time.perf_counter()
        self.segment(np.full((height, width, 3), 128, np.uint8), fit)
        return time.perf_counter() - began

    def segment(self, rgb: Ids, fit: Fit = Fit()) -> Segmentation:  # noqa: B008
        """Segment one RGB frame `(H, W, 3)` uint8 of any size from 1×1 up, brought to the network's size as `fit` says.

        Raises:
            ImageError: the array has another shape or type.
        """
        return self.segment_batch([rgb], [fit])[0]

    def segment_batch(
        self,
        frames: Sequence[Ids],
        fits: Sequence[Fit] | None = None,
        *,
        streams: Sequence[Stream | None] | None = None,
        times: Sequence[float] | None = None,
    ) -> list[Segmentation]:
        """Segment RGB frames, such as those of several cameras; those of one size at the network go through it together.

        Each gives what `segment` gives it, unless it belongs to a stream: then its latents are steadied by those of the stream's last
        frame. Frames of one stream in a batch come in order of time. That the noise is the same for every frame steadies a video too.

        Args:
            frames: RGB `(H, W, 3)` uint8 each, of any size.
            fits: for each frame how it is fitted to the network; without them, as a letterbox.
            streams: for each frame the stream that it belongs to, or None for a frame by itself.
            times: when each was taken, in seconds, so that streams notice gaps.

        Raises:
            ImageError: a frame is no RGB frame.
            ConfigError: not as many streams or times as frames, or a stream where the whole network runs as one graph.
        """
        memories = self._memories(len(frames), streams, times)
        fits = [Fit()] * len(frames) if fits is None else fits
        prepared = [self._prepare(rgb, fit) for rgb, fit in zip(frames, fits, strict=True)]
        groups: dict[tuple[tuple[int, int], int], list[int]] = {}
        for index, frame in enumerate(prepared):
            # frames that are revealed in passes go one by one: which of their tokens are known differs
            alone = index if self._passes.passes > 1 else 0
            groups.setdefault((frame.framing.padded, alone), []).append(index)
        results: dict[int, Segmentation] = {}
        for (padded, _), members in groups.items():
            network = Stages()
            images = np.stack([prepared[index].image for index in members])
            mask, confidence = self._network(
                images, padded, network, [memories[index] for index in members]
            )
            for place, index in enumerate(members):
                results[index] = prepared[index].finish(mask[place], confidence[place], network)
        return [results[index] for index in range(len(prepared))]

    def _prepare(self, rgb: Ids, fit: Fit) -> Frame:
        if (
            not isinstance(rgb, np.ndarray)
            or rgb.dtype != np.uint8
            or rgb.ndim != 3
            or rgb.shape[2] != 3
            or rgb.size == 0
        ):
            found = (
                f"{rgb.shape} {rgb.dtype}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
            )
            raise ImageError(
                f"cannot segment {found}: a frame is an RGB array (H, W, 3) of uint8, at least 1×1"
            )
        stages = Stages()
        with stages("preprocess"):
            framing = Framing.fit(
                rgb.shape[0],
                rgb.shape[1],
                self.config.network_pixels,
                self.config.size_multiple,
                fit,
            )
            image = framing.to_network(rgb)
        return Frame(framing, image, stages)

    def _memories(
        self, frames: int, streams: Sequence[Stream | None] | None, times: Sequence[float] | None
    ) -> list[tuple[Stream | None, float | None]]:
        """Each frame's stream and time, where they are given."""
        for name, given in (("streams", streams), ("times", times)):
            if given is not None and len(given) != frames:
                raise ConfigError(
                    f"{len(given)} {name} are given for {frames} frames; one is needed for each"
                )
        if self._engine.fused is not None and any(streams or ()):
            raise ConfigError(
                f"a stream needs the latents, which the graph {self._engine.fused.name} keeps inside: load with streams=True"
            )
        nothing = [None] * frames
        return list(
            zip(
                nothing if streams is None else streams,
                nothing if times is None else times,
                strict=True,
            )
        )

    def _network(
        self,
        images: Ids,
        padded: tuple[int, int],
        stages: Stages,
        memories: Sequence[tuple[Stream | None, float | None]],
    ) -> tuple[Ids, Floats]:
        """Frames of one size `(B, H, W, 3)`, each with its stream and time, to masks and confidences `(B, H, W)`."""
        stride = self.config.mask_codec.stride * self.config.denoised_patch
        grid = padded[0] // stride, padded[1] // stride
        noise = FrameNoise(
            self._seed, len(images), (grid[0] * grid[1], self.config.denoised_channels)
        )
        if self._engine.fused is not None:
            with stages("network"):
                start = np.float32(self._start_scale) * noise(-1).reshape(len(images), *noise.shape)
                return self._engine.run_fused(images, start, self.config.logit_scale)
        with stages("image_encoder"):
            features = self._engine.encode_image(images)
        if self._passes.passes > 1:
            orders = [
                np.random.default_rng([self._seed, number]) for number in range(self._samples)
            ]
            sampled = [
                self._in_passes(features, padded, grid, noise, order, stages) for order in orders
            ]
        else:
            with stages("transformer"):
                condition = self._engine.conditions(features)
            with stages("denoiser"):
                sampled = [self._sample(condition, noise) for _ in range(self._samples)]
        latents = np.stack(
            [
                cells_to_latents(cells, len(images), grid, self.config.denoised_patch)
                for cells in sampled
            ],
            axis=1,
        )
        for place, (stream, moment) in enumerate(memories):
            if stream is not None:
                with stages("stream"):
                    latents[place] = stream.steady(latents[place], images[place], moment)
        with stages("decoder"):
            return self._engine.decode(latents, self.config.logit_scale)

    def _sample(self, condition: Floats | DeviceArray, noise: Noise) -> Floats:
        """Conditions, M in all, to the cells that the head denoises, `(M, C)`, clean."""

        def denoise(cells: Floats, step: int) -> Floats:
            return self._engine.denoise(cells.astype(np.float32, copy=False), step, condition)

        cells = self._sampler(
            denoise,
            noise(-1),
            self._schedule,
            self._options,
            noise,
            self.config.denoiser.prediction_type,
        )
        return np.asarray(cells, np.float32)

    def _in_passes(
        self,
        features: Mapping[str, DeviceArray],
        padded: tuple[int, int],
        grid: tuple[int, int],
        noise: FrameNoise,
        order: np.random.Generator,
        stages: Stages,
    ) -> Floats:
        """The cells `(N, C)` of one frame, revealed in several passes."""
        patch, stride = self.config.denoised_patch, self.config.token_stride
        tokens = padded[0] // stride, padded[1] // stride

        def condition(cells: Floats, hidden: npt.NDArray[np.bool_]) -> Floats:
            with stages("transformer"):
                known = latents_to_tokens(
                    cells_to_latents(cells, 1, grid, patch), self.config.patch_size
                )
                conditions: Floats = self._engine.conditions(features, known, hidden[None]).numpy()[
                    0
                ]
                return conditions

        def sample(condition: Floats, index: npt.NDArray[np.int64]) -> Floats:
            with stages("denoiser"):
                return self._sample(condition, lambda k: noise(k)[index])

        def confidence(cells: Floats) -> Floats:
            with stages("decoder"):
                _, sure = self._engine.decode(
                    cells_to_latents(cells, 1, grid, patch)[:, None], self.config.logit_scale
                )
                return mean_of_squares(sure[0], stride)

        frame = FrameInPasses(
            cells_of_tokens(tokens, grid[0] // tokens[0]), condition, sample, confidence
        )
        # a frame of a few pixels has fewer tokens than there are passes
        passes = replace(self._passes, passes=min(self._passes.passes, len(frame.cells_of)))
        cells: Floats = sample_in_passes(frame, np.zeros(noise.shape, np.float32), passes, order)
        return cells


def _no_passes(sampling: Sampling, config: CamSegConfig) -> ConfigError:
    return ConfigError(
        f"passes is {sampling.passes}, but {config.name} has no graph that can be told a part of the mask: passes must be 1"
    )
