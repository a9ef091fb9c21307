"""What the graphs of a model are fed when it segments true frames: int8 ranges are found from it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from camseg_core.data.sample import Sample
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime.bound_graph import DeviceArray
from camseg_core.runtime.export.engine_torch import TorchEngine
from camseg_core.runtime.export.parts import Arrays
from camseg_core.runtime.framing import Framing
from camseg_core.runtime.sampling import Sampling
from camseg_core.runtime.segmenter import Segmenter

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.uint8]

FUSED = "fused"
"""Under this name, the inputs of every fused graph."""

SEVERAL_STEPS_EVERY = 8

Recorded = dict[str, list[Arrays]]
"""Inputs by graph, in the order in which the graph takes them."""


def record(model: CamSeg, samples: Sequence[Sample]) -> Recorded:
    """Segment the samples in torch and keep what each part was fed.

    Each is segmented in one step, and one in `SEVERAL_STEPS_EVERY` in ten, so that the ranges hold for all that the denoiser may see. The
    transformer is also told a random half of each frame's own mask, for decoding in several passes.
    """
    engine = _Recorder(model)
    config, random = model.config, np.random.default_rng(0)
    one_step = Segmenter(config, model.labels, engine)
    ten_steps = Segmenter(config, model.labels, engine, Sampling("ddim", 10))
    for index, sample in enumerate(samples):
        if index % SEVERAL_STEPS_EVERY == 0:
            ten_steps.segment(sample.image)
        one_step.segment(sample.image)
        framing = Framing.fit(sample.image.shape[0], sample.image.shape[1], config.network_pixels, config.size_multiple)
        (latents, _), (tokens, *_) = engine.calls["decoder"][-1], engine.calls["denoiser"][-1]
        start = random.standard_normal((1, *tokens.shape), np.float32)
        engine.calls[FUSED].append((framing.to_network(sample.image)[None], start, np.array(1.0, np.float32)))
        if engine.takes_mask:
            known = model.to_tokens(torch.from_numpy(latents[:, 0]))[0].numpy()
            *features, _, _ = engine.calls["transformer"][-1]
            engine.calls["transformer"].append((*features, known, random.random(known.shape[:2]) < 0.5))
    return dict(engine.calls)


class _Recorder(TorchEngine):
    """Keeps the inputs of every call."""

    def __init__(self, model: CamSeg) -> None:
        super().__init__(model)
        self.calls: dict[str, list[Arrays]] = defaultdict(list)
        self._token_channels = model.config.token_channels

    def encode_image(self, image: Ids) -> dict[str, DeviceArray]:
        self.calls["image_encoder"].append((image,))
        return super().encode_image(image)

    def conditions(
        self, features: Mapping[str, DeviceArray], mask: Floats | None = None, hidden: npt.NDArray[np.bool_] | None = None
    ) -> DeviceArray:
        arrays = tuple(each.numpy() for each in features.values())
        if self.takes_mask:
            batch, tokens = arrays[0].shape[0], arrays[0].shape[2] * arrays[0].shape[3]
            arrays += np.zeros((batch, tokens, self._token_channels), np.float32), np.ones((batch, tokens), np.bool_)
        self.calls["transformer"].append(arrays)
        return super().conditions(features, mask, hidden)

    def denoise(self, tokens: Floats, step: int, condition: Floats | DeviceArray) -> Floats:
        rows = condition.numpy() if isinstance(condition, DeviceArray) else condition
        self.calls["denoiser"].append((tokens, np.array([step]), rows.reshape(-1, rows.shape[-1])))
        return super().denoise(tokens, step, condition)

    def decode(self, latents: Floats, sharpness: float = 1.0) -> tuple[Ids, Floats]:
        self.calls["decoder"].append((latents, np.array(sharpness, np.float32)))
        return super().decode(latents, sharpness)
