"""Runs a model on images at the network's size: features, conditions, denoising, decoding."""

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from camseg_core.config.model import CamSegConfig
from camseg_core.diffusion.passes import FrameInPasses, cells_of_tokens, sample_in_passes
from camseg_core.diffusion.samplers import Schedule, sampler_named, start_scale
from camseg_core.diffusion.sampling import Sampling
from camseg_core.errors import ConfigError
from camseg_core.runtime.engine import Array, Engine
from camseg_core.runtime.geometry import MAX_CACHED_SIZES, Floats, Ids
from camseg_core.runtime.stream import Stream

Laps = list[tuple[str, float]]
"""Stages in order, and when each ended (`time.perf_counter`); the first entry is the start."""


class Network:
    """A model on an engine, with its sampling: the only path from an image to a mask."""

    def __init__(self, config: CamSegConfig, engine: Engine, sampling: Sampling) -> None:
        self._config, self._engine, self._sampling = config, engine, sampling
        self._sampler, self._options = sampler_named(sampling.sampler), sampling.options(config)
        self._schedule = Schedule.cosine(
            config.num_train_timesteps, config.denoiser.prediction_type
        )
        # the head denoises cells of `_patch`² latents, `_stride`² pixels of the mask
        self._patch, self._channels = config.denoised_patch, config.denoised_channels
        self._stride = config.mask_codec.stride * self._patch
        self._fused = None if engine.fused is None else engine.fused.name
        self._start_scale = np.float32(start_scale(sampling.sampler, self._options))

    def run(
        self, images: Ids, memories: Sequence[tuple[Stream | None, float | None]], laps: Laps
    ) -> tuple[Ids, Floats]:
        """Segment images `(B, H, W, 3)`, each with its stream and time.

        Returns masks of class ids, `(B, H, W)` uint8, and confidences, `(B, H, W)` float32. Every
        stage appends its end to `laps`.
        """
        batch, height, width, _ = images.shape
        grid = height // self._stride, width // self._stride
        shape = grid[0] * grid[1], self._channels
        noise = noise_draws(self._sampling.seed, batch, shape)
        scale = np.array(self._config.logit_scale, np.float32)
        if self._fused is not None:
            start = (self._start_scale * next(noise)).reshape(batch, *shape)
            inputs = {"image": images, "start": start, "sharpness": scale}
            mask, confidence = self._engine.run(self._fused, inputs).values()
            laps.append(("network", time.perf_counter()))
            return mask, confidence
        features = self._engine.run("image_encoder", {"image": images})
        laps.append(("image_encoder", time.perf_counter()))
        if self._sampling.passes == 1:
            condition = self._engine.run("transformer", features)["condition"]
            laps.append(("transformer", time.perf_counter()))
            rows = condition.reshape(-1, condition.shape[-1])  # (B·N, D)
            drawn = [self._sample(rows, noise) for _ in range(self._sampling.samples)]
            laps.append(("denoiser", time.perf_counter()))
        else:
            drawn = [
                self._sample_in_passes(features, (height, width), number, noise, laps)
                for number in range(self._sampling.samples)
            ]
        samples = [cells_to_latents(cells, batch, grid, self._patch) for cells in drawn]
        latents = np.stack(samples, axis=1)  # (B, S, c, h, w)
        for place, (stream, moment) in enumerate(memories):
            if stream is not None:
                latents[place] = stream.steady(latents[place], images[place], moment)
                laps.append(("stream", time.perf_counter()))
        decoded = self._engine.run("decoder", {"latents": latents, "sharpness": scale})
        mask, confidence = decoded.values()
        laps.append(("decoder", time.perf_counter()))
        return mask, confidence

    def features(self, image: Ids) -> Floats:
        """Return the image encoder's features of an image `(H, W, 3)`, averaged over it, `(D,)`.

        Raises:
            ConfigError: the whole network runs as one graph.
        """
        if self._engine.fused is not None:
            raise ConfigError("features need the model in parts: load with streams=True")
        found = np.asarray(self._engine.run("image_encoder", {"image": image[None]})["features"])
        grid = (1,) if found.ndim == 3 else (2, 3)  # tokens (1, N, D), or a map (1, D, h, w)
        return np.asarray(found.mean(grid)[0], np.float32)

    def _sample(self, condition: Array, noise: Iterator[Floats]) -> Floats:
        """Draw the clean cells `(M, C)` that the head denoises, given conditions `(M, D)`."""

        def denoise(cells: Floats, step: int) -> Floats:
            cells = cells.astype(np.float32, copy=False)
            inputs = {"tokens": cells, "step": np.array([step]), "condition": condition}
            output: Floats = self._engine.run("denoiser", inputs)["output"]
            return output

        cells = self._sampler(
            denoise, next(noise), self._schedule, self._options, lambda _: next(noise)
        )
        return np.asarray(cells, np.float32)

    def _sample_in_passes(
        self,
        features: Mapping[str, Array],
        size: tuple[int, int],
        number: int,
        noise: Iterator[Floats],
        laps: Laps,
    ) -> Floats:
        """Draw the cells `(N, C)` of one frame, sample `number`, revealed in several passes."""
        stride = self._config.token_stride
        tokens, times = (size[0] // stride, size[1] // stride), stride // self._stride
        grid = tokens[0] * times, tokens[1] * times

        def condition(cells: Floats, hidden: npt.NDArray[np.bool_]) -> Floats:
            latents = cells_to_latents(cells, 1, grid, self._patch)
            known = latents_to_tokens(latents, self._config.patch_size)
            inputs = {**features, "mask": known, "hidden": hidden[None]}
            conditions = np.asarray(self._engine.run("transformer", inputs)["condition"])[0]
            laps.append(("transformer", time.perf_counter()))
            return conditions

        def sample(condition: Floats, index: npt.NDArray[np.int64]) -> Floats:
            cells = self._sample(condition, (draw[index] for draw in noise))
            laps.append(("denoiser", time.perf_counter()))
            return cells

        def confidence(cells: Floats) -> Floats:
            latents = cells_to_latents(cells, 1, grid, self._patch)[:, None]
            scale = np.array(self._config.logit_scale, np.float32)
            decoded = self._engine.run("decoder", {"latents": latents, "sharpness": scale})
            laps.append(("decoder", time.perf_counter()))
            return mean_of_squares(decoded["confidence"][0], stride)

        cells_of = cells_of_tokens(tokens, times)
        frame = FrameInPasses(cells_of, condition, sample, confidence)
        # a frame of a few pixels has fewer tokens than there are passes
        fewer = min(self._sampling.passes, len(cells_of))
        passes = replace(self._sampling.in_passes, passes=fewer)
        order = np.random.default_rng([self._sampling.seed, number])
        start = np.zeros((cells_of.size, self._channels), np.float32)
        cells: Floats = sample_in_passes(frame, start, passes, order)
        return cells


@functools.lru_cache(maxsize=MAX_CACHED_SIZES)
def first_noise(seed: int, shape: tuple[int, int]) -> Floats:
    """Return a frame's first draw of normal noise `(N, C)`."""
    noise = np.random.default_rng(seed).standard_normal(shape, np.float32)
    noise.setflags(write=False)
    return noise


def noise_draws(seed: int, batch: int, shape: tuple[int, int]) -> Iterator[Floats]:
    """Yield normal noise `(B·N, C)` for a batch; every frame gets the noise it would get alone."""
    yield np.tile(first_noise(seed, shape), (batch, 1))
    random = np.random.default_rng(seed)
    random.standard_normal(shape, np.float32)  # the first draw
    while True:
        yield np.tile(random.standard_normal(shape, np.float32), (batch, 1))


def cells_to_latents(cells: Floats, batch: int, grid: tuple[int, int], patch: int) -> Floats:
    """Arrange cells `(B·N, c·p²)`, in a grid of (rows, columns) per frame, as `(B, c, H, W)`."""
    h, w = grid
    split = cells.reshape(batch, h, w, -1, patch, patch)
    planes = split.transpose(0, 3, 1, 4, 2, 5)  # (B, c, h, p, w, p)
    return np.ascontiguousarray(planes.reshape(batch, -1, h * patch, w * patch))


def latents_to_tokens(latents: Floats, patch: int) -> Floats:
    """Split latents `(B, c, H, W)` into tokens `(B, L, c·p²)`, row-major."""
    batch, channels, height, width = latents.shape
    h, w = height // patch, width // patch
    split = latents.reshape(batch, channels, h, patch, w, patch).transpose(0, 2, 4, 1, 3, 5)
    return np.ascontiguousarray(split.reshape(batch, h * w, -1))


def mean_of_squares(plane: Floats, side: int) -> Floats:
    """Average a plane `(H, W)` over squares of `side`×`side` pixels, row-major `(L,)`."""
    height, width = plane.shape
    mean: Floats = plane.reshape(height // side, side, width // side, side).mean((1, 3)).ravel()
    return mean
