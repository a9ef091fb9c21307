"""The torch engine in bf16: masks near those of fp32, from a diffusion head that stays fp32."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import reference
import torch
from lite import tiny_lite

from camseg_core.diffusion.sampling import Sampling
from camseg_core.errors import ConfigError
from camseg_core.export.torch_engine import Precision, TorchEngine
from camseg_core.runtime import Segmenter

Floats = npt.NDArray[np.float32]
FRAME = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)


class Recorder(TorchEngine):
    """Keeps the latents of the last mask."""

    latents: Floats

    def run(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if graph == "decoder":
            self.latents = inputs["latents"]
        return super().run(graph, inputs)


def segmented(precision: Precision) -> tuple[Floats, npt.NDArray[np.uint8]]:
    model = reference.model()
    engine = Recorder(model, precision)
    segmenter = Segmenter(model.config, model.labels, engine, Sampling("ddim", 3))
    assert segmenter.precision == precision
    mask = segmenter.segment(FRAME).mask
    return engine.latents, mask


def test_fp32_gives_the_models_own_masks() -> None:
    latents, mask = segmented("fp32")
    own = reference.model().decode_mask(torch.from_numpy(latents[:, 0]))[0].numpy()
    assert mask.shape == (96, 96)
    assert (mask == own).mean() > 0.999


def test_bf16_stays_near() -> None:
    (exact, _), (near, _) = segmented("fp32"), segmented("bf16")
    assert near.dtype == np.float32
    assert 0 < np.linalg.norm(near - exact) < 0.05 * np.linalg.norm(exact)


def test_the_diffusion_head_stays_exact_in_bf16() -> None:
    model = tiny_lite()
    cells, conditions = (
        np.random.default_rng(seed).standard_normal((8, width), np.float32)
        for seed, width in enumerate((model.config.denoised_channels, model.config.condition_width))
    )
    inputs = {"tokens": cells, "step": np.array([500]), "condition": conditions}
    exact, found = (
        TorchEngine(model, precision).run("denoiser", inputs)["output"]
        for precision in ("fp32", "bf16")
    )
    assert np.array_equal(exact, found)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="precision must be fp32 or bf16, got 'int4'"):
        TorchEngine(tiny_lite(), "int4")  # type: ignore[arg-type]
