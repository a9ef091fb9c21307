"""The public way to segment: a camera frame in, a mask of class ids out."""

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from camseg_core.config.model import CamSegConfig, load_config
from camseg_core.diffusion.sampling import Sampling
from camseg_core.errors import ConfigError, ImageError
from camseg_core.labels import Label, read_labels
from camseg_core.runtime.engine import (
    AUTO,
    KEPT_SIZES,
    Compilations,
    Engine,
    EngineOptions,
)
from camseg_core.runtime.geometry import Fit, Floats, FrameGeometry, Ids, View
from camseg_core.runtime.network import Laps, Network
from camseg_core.runtime.origin import Contents
from camseg_core.runtime.providers import load_engine
from camseg_core.runtime.stream import Stream
from camseg_core.weights import DEFAULT_MODEL, checkpoint_folder


@dataclass(frozen=True)
class Segmentation:
    """A segmented frame.

    Attributes:
        mask: class ids `(H, W)` uint8 (Cityscapes train ids, or those in the model's
            `labels.json`), 255 where unlabelled, at the size that `Fit.output` asks for.
        confidence: of the chosen class, `(H, W)` float32 in 0..1.
        timings: milliseconds per stage, in order: `preprocess`; `network` for one graph, or
            `image_encoder`, `transformer`, `denoiser`, `stream`, `decoder` for the parts;
            `postprocess`. Frames that went through the network together all have the time the batch
            took: each had to wait for it.
        view: where the mask's pixels lie in the frame.
        noise_removed: the frame had so much noise that some was removed before the network; always
            false if the model has no `noise_filter`.
    """

    mask: Ids
    confidence: Floats
    timings: dict[str, float]
    view: View = View()  # noqa: RUF009  # immutable
    noise_removed: bool = False


class Segmenter:
    """A loaded model.

    The same frame always gives the same mask: noise is drawn from the seed anew for each frame.
    Call it from one thread at a time.

    Attributes:
        config: the model's configuration.
        labels: its classes, in the order of its outputs.
        sampling: how masks are drawn.
        folder: the checkpoint folder.
        threads: CPU threads; 0 for all cores.
        compilations: of the model's graphs, including those of `with_sampling`.

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
        self.config, self.labels, self.sampling = config, labels, sampling
        self._engine, self._network = engine, Network(config, engine, sampling)
        self.compilations: Compilations = engine.options.compilations
        self.folder, self.threads = engine.options.folder, engine.options.threads
        self._multiple = config.size_multiple
        self.batches: bool = engine.batches and sampling.passes == 1
        """Whether frames of one size go through the network together, else one after the other.

        They do not on CPUs with OpenVINO, and not in passes, which differ in what is known of each.
        """

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = DEFAULT_MODEL,
        *,
        provider: str | Sequence[str] = AUTO,
        precision: str = AUTO,
        threads: int = 0,
        engine_cache: str | Path | None = None,
        frame_size: tuple[int, int] | None = None,
        kept_sizes: int = KEPT_SIZES,
        **sampling: Any,
    ) -> "Segmenter":
        """Load a bundled model by name or a checkpoint folder by path.

        Runs the fused graph for this precision, sampler and number of steps if the folder has it,
        else the model's parts, as always with `streams=True`.

        Args:
            model: the name or the folder.
            provider: one of `PROVIDERS`; or several to try in turn, as in `"tensorrt,cuda,cpu"` or
                a sequence; auto is the fastest that is installed.
            precision: fp32, bf16, fp16, int8, or auto, the best of the folder's for the provider.
                fp32 and cpu together give the same masks on any machine.
            threads: CPU threads; 0 means all cores.
            engine_cache: folder for what OpenVINO and TensorRT compile; without it they compile at
                every start.
            frame_size: (height, width) in pixels of a grey frame that OpenVINO and CUDA segment
                here, so that an engine that cannot run the model is passed over; by default 3:4
                with the network's area.
            kept_sizes: network sizes for which OpenVINO keeps compiled graphs in memory.
            **sampling: the fields of `Sampling`: sampler, steps, temperature, eta, samples, passes,
                order, seed, streams. `with_sampling` changes them later.

        Raises:
            ModelError: the folder is missing, incomplete or damaged, or lacks the graphs.
            ConfigError: an option is not among its choices, or no provider can be used.
        """
        drawn = Sampling(**sampling)
        folder = checkpoint_folder(model)
        contents = Contents.of(folder)
        config, labels = load_config(folder / "config.json"), read_labels(folder / "labels.json")
        config.check_classes(len(labels))
        drawn.check(config)  # before anything is loaded for it
        cache = None if engine_cache is None else Path(engine_cache)
        side = math.sqrt(config.network_pixels / 12)
        size = frame_size or (round(3 * side), round(4 * side))

        def trial(engine: Engine) -> None:
            cls(config, labels, engine, drawn).warm_up(*size)

        options = EngineOptions(
            folder,
            threads=threads,
            precision=precision,
            cache=cache,
            kept_sizes=kept_sizes,
            contents=contents,
        )
        return cls(config, labels, load_engine(options, provider, drawn.fused, trial), drawn)

    def check_sampling(self, sampling: Sampling) -> None:
        """Refuse what `with_sampling` would, without loading anything; safe from any thread.

        Raises:
            ConfigError: too many steps for the model's schedule, or passes without a graph that
                takes a mask.
            ModelError: the folder lacks the graphs this needs.
        """
        sampling.check(self.config)
        self._engine.check_graphs(sampling.fused)
        takes_mask = self._engine.takes_mask
        if self._engine.fused is not None:  # the parts are not loaded: the configuration decides
            takes_mask = self.config.transformer.fusion == "grid"
        if sampling.passes > 1 and not takes_mask:
            raise _no_passes(sampling, self.config)

    def with_sampling(self, sampling: Sampling) -> "Segmenter":
        """Return the same model with other sampling, exactly as if it had been loaded so.

        Both share an engine and must not segment at the same time, unless other graphs must run,
        fused ones or parts, for which a new engine is loaded.

        Raises:
            ConfigError: as `check_sampling`, or no provider can run the other graphs.
            ModelError: the folder lacks the graphs, or one is damaged.
        """
        self.check_sampling(sampling)
        engine = self._engine.with_fused(sampling.fused)
        return Segmenter(self.config, self.labels, engine, sampling)

    def with_logit_scale(self, logit_scale: float) -> "Segmenter":
        """Return the same model, on the same engine, with its logits scaled before the softmax."""
        config = replace(self.config, logit_scale=logit_scale)
        return Segmenter(config, self.labels, self._engine, self.sampling)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.config.name

    @property
    def temperature(self) -> float:
        """The scale of the noise."""
        return self.sampling.options(self.config).temperature

    @property
    def provider(self) -> str:
        """The provider in use, one of `PROVIDERS`."""
        return self._engine.options.provider

    @property
    def engine(self) -> str:
        """The engine's library and version and its device, as in "OpenVINO 2026.4.0 on CPU"."""
        return self._engine.name

    @property
    def choice(self) -> str:
        """Why provider auto took the one in use; empty if it was asked for by name."""
        return self._engine.options.choice

    @property
    def fallback(self) -> str:
        """Why the provider in use is not the first one asked for; empty if it is."""
        return self._engine.options.fallback

    @property
    def precision(self) -> str:
        """What is computed in: graphs and arithmetic, as in fp32, bf16 or int8+bf16."""
        return self._engine.precision

    @property
    def contents(self) -> Contents | None:
        """What the checkpoint folder held when the model was loaded, if it is from one."""
        return self._engine.options.contents

    @property
    def graph_files(self) -> tuple[Path, ...]:
        """The graphs in use."""
        return tuple(self._engine.options.graphs(self.sampling.fused).paths.values())

    def warm_up(self, height: int, width: int, fit: Fit = Fit(), batch: int = 1) -> float:  # noqa: B008
        """Segment grey frames of the camera's size.

        OpenVINO compiles its graphs at the first frame of a size, in about a second; TensorRT
        builds engines, which takes minutes unless they are cached.

        Args:
            height: of the camera's frames, in pixels.
            width: of the camera's frames, in pixels.
            fit: how they are fitted to the network.
            batch: how many at once.

        Returns:
            The seconds that it took.

        Raises:
            ModelError: the engine cannot compile its graphs for this size.
        """
        began = time.perf_counter()
        self.segment_batch([np.full((height, width, 3), 128, np.uint8)] * batch, [fit] * batch)
        return time.perf_counter() - began

    def features(self, rgb: Ids, fit: Fit = Fit()) -> Floats:  # noqa: B008
        """Return the image encoder's features averaged over a frame, `(D,)` float32.

        Raises:
            ConfigError: the whole network runs as one graph: load with `streams=True`.
            ImageError: the array has another shape or type than RGB `(H, W, 3)` uint8.
        """
        image, _ = self.geometry(rgb, fit).to_network(rgb, self.config.noise_filter)
        return self._network.features(image)

    def segment(self, rgb: Ids, fit: Fit = Fit()) -> Segmentation:  # noqa: B008
        """Segment one RGB frame `(H, W, 3)` uint8 of any size from 1×1 up.

        Returns:
            Mask and confidence at the frame's size, or at the network's as `fit.output` says.

        Raises:
            ImageError: the array has another shape or type.
            ModelError: the engine cannot compile its graphs for this size.
        """
        return self.segment_batch([rgb], [fit])[0]

    def segment_batch(
        self,
        frames: Sequence[Ids],
        fits: Sequence[Fit] | None = None,
        *,
        streams: Sequence[Stream | None] | None = None,
        times: Sequence[float | None] | None = None,
    ) -> list[Segmentation]:
        """Segment RGB frames; those of one size at the network go through it together.

        Each gets what `segment` gives, unless it belongs to a stream: then the stream steadies its
        latents. Frames of one stream must be in order of time.

        Args:
            frames: RGB `(H, W, 3)` uint8 each, of any size.
            fits: how each is fitted to the network; a letterbox by default.
            streams: the stream each belongs to, or None for a frame by itself.
            times: capture times in seconds, so that streams notice gaps.

        Returns:
            A `Segmentation` for each frame, in the order of `frames`.

        Raises:
            ImageError: a frame is not an RGB array.
            ModelError: the engine cannot compile its graphs for the size of a frame.
            ConfigError: streams or times are not as many as frames, or there is a stream and the
                whole network runs as one graph.
        """
        fits = [Fit()] * len(frames) if fits is None else fits
        streams = [None] * len(frames) if streams is None else streams
        times = [None] * len(frames) if times is None else times
        for name, given in (("streams", streams), ("times", times)):
            if len(given) != len(frames):
                raise ConfigError(
                    f"{name} must be one per frame, got {len(given)} for {len(frames)}"
                )
        if self._engine.fused is not None and any(streams):
            raise ConfigError(
                "a stream needs the latents, which the fused graph "
                f"{self._engine.fused.name} does not output: load with streams=True"
            )
        prepared = []
        groups: defaultdict[tuple[tuple[int, int], int], list[int]] = defaultdict(list)
        for index, (rgb, fit) in enumerate(zip(frames, fits, strict=True)):
            began, geometry = time.perf_counter(), self.geometry(rgb, fit)
            image, noisy = geometry.to_network(rgb, self.config.noise_filter)
            prepared.append((geometry, image, noisy, (time.perf_counter() - began) * 1000))
            alone = 0 if self.batches else index
            groups[geometry.padded, alone].append(index)
        results: dict[int, Segmentation] = {}
        for members in groups.values():
            laps: Laps = [("", time.perf_counter())]
            images = np.stack([prepared[index][1] for index in members])
            memories = [(streams[index], times[index]) for index in members]
            masks, confidences = self._network.run(images, memories, laps)
            network: defaultdict[str, float] = defaultdict(float)
            for (_, began), (stage, ended) in pairwise(laps):  # a stage may come again
                network[stage] += (ended - began) * 1000
            for index, mask, confidence in zip(members, masks, confidences, strict=True):
                geometry, _, noisy, preprocess = prepared[index]
                began = time.perf_counter()
                mask, confidence = geometry.from_network(mask, confidence)
                postprocess = (time.perf_counter() - began) * 1000
                timings = {"preprocess": preprocess, **network, "postprocess": postprocess}
                results[index] = Segmentation(mask, confidence, timings, geometry.view, noisy)
        return [results[index] for index in range(len(frames))]

    def geometry(self, rgb: Ids, fit: Fit = Fit()) -> FrameGeometry:  # noqa: B008
        """Return how a frame `(H, W, 3)` is brought to the network's size.

        Raises:
            ImageError: it is not RGB uint8.
        """
        is_array = isinstance(rgb, np.ndarray)
        if not is_array or rgb.dtype != np.uint8 or rgb.shape[2:] != (3,) or not rgb.size:
            found = f"{rgb.shape} {rgb.dtype}" if is_array else type(rgb).__name__
            raise ImageError(
                f"a frame must be an RGB array (H, W, 3) of uint8, at least 1×1, got {found}"
            )
        height, width, _ = rgb.shape
        config = self.config
        return FrameGeometry.fit(
            height, width, config.network_pixels, self._multiple, fit, config.max_upscale
        )


def _no_passes(sampling: Sampling, config: CamSegConfig) -> ConfigError:
    return ConfigError(
        f"passes must be 1, got {sampling.passes}: "
        f"{config.name} has no graph that takes the known part of a mask"
    )
