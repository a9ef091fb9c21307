"""The torch engine in bf16: masks near those of fp32, from a diffusion head that stays fp32."""

import numpy as np
import numpy.typing as npt
import pytest
import reference
import torch
from lite import tiny_lite

from camseg_core.diffusion.sampling import Sampling
from camseg_core.errors import ConfigError
from camseg_core.export import torch_engine
from camseg_core.export.torch_engine import LatentsEngine, Precision, TorchEngine
from camseg_core.model.precision import computes_bf16
from camseg_core.runtime import Segmenter
from camseg_core.training.settings import LoopConfig

Floats = npt.NDArray[np.float32]
FRAME = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)


def segmented(precision: Precision) -> tuple[Floats, npt.NDArray[np.uint8]]:
    model = reference.model()
    engine = LatentsEngine(model, precision)
    segmenter = Segmenter(model.config, model.labels, engine, Sampling("ddim", 3))
    assert segmenter.precision == precision
    mask = segmenter.segment(FRAME).mask
    return engine.latents, mask


def test_fp32_gives_the_models_own_masks() -> None:
    latents, mask = segmented("fp32")
    own = reference.model().decode_mask(torch.from_numpy(latents[:, 0]))[0].numpy()
    assert mask.shape == (96, 96)
    assert (mask == own).mean() > 0.999


def test_bf16_stays_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_engine, "computes_bf16", lambda device: True)
    (exact, _), (near, _) = segmented("fp32"), segmented("bf16")
    assert near.dtype == np.float32
    assert 0 < np.linalg.norm(near - exact) < 0.05 * np.linalg.norm(exact)


def test_a_processor_without_bf16_computes_in_fp32_instead(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)
    computes_bf16.cache_clear()
    with caplog.at_level("INFO"):
        assert TorchEngine(tiny_lite(), "bf16").precision == "fp32"
        with LoopConfig(steps=1, lr=0.1).autocast(torch.device("cpu")):
            assert not torch.is_autocast_enabled("cpu")
    assert len(caplog.records) == 1
    for native in ("avx512_bf16", "amx_bf16", "bf16"):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=native: {name: True})
        computes_bf16.cache_clear()
        assert TorchEngine(tiny_lite(), "bf16").precision == "bf16"
    computes_bf16.cache_clear()


def test_the_diffusion_head_stays_exact_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_engine, "computes_bf16", lambda device: True)
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
