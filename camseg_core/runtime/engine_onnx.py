"""A model's parts as ONNX Runtime sessions: numpy arrays in and out."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from camseg_core.errors import ConfigError, ModelError

PARTS = ("image_encoder", "transformer", "denoiser", "decoder")
"""The graphs of a checkpoint folder, `onnx/<part>.onnx`, in the order in which a frame passes them."""

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""Execution providers by the name that options use."""

Floats = npt.NDArray[np.float32]


class OnnxEngine:
    """The four parts of a model on one execution provider.

    Args:
        folder: a checkpoint folder with `onnx/<part>.onnx`.
        provider: a key of `PROVIDERS`.
        threads: threads per operator; 0 leaves the choice to ONNX Runtime (one per core).

    Raises:
        ConfigError: the provider is unknown or the installed ONNX Runtime lacks it.
        ModelError: a graph is missing or damaged.
    """

    def __init__(self, folder: Path, provider: str = "cpu", threads: int = 0) -> None:
        self.provider = provider
        onnxruntime = _onnxruntime()
        names = _provider_names(provider, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # threads that spin while they wait burn a core that the camera driver or the middleware needs
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")

        def session(part: str) -> Any:
            return _load(folder / "onnx" / f"{part}.onnx", lambda path: onnxruntime.InferenceSession(path, options, providers=names))

        self._sessions = {part: session(part) for part in PARTS}
        self._feature_names = [output.name for output in self._sessions["image_encoder"].get_outputs()]
        if self._sessions[PARTS[0]].get_providers()[0] != names[0]:
            raise ConfigError(f"{names[0]} did not start: its libraries (CUDA, cuDNN, TensorRT) are missing or do not match it")

    def encode_image(self, image: npt.NDArray[np.uint8]) -> dict[str, Floats]:
        """RGB `(B, H, W, 3)` to feature maps by name; `features` is `(B, C, h, w)` with one cell per token."""
        maps = self._run("image_encoder", {"image": image})
        return dict(zip(self._feature_names, maps, strict=True))

    def conditions(self, features: Mapping[str, Floats]) -> Floats:
        """Feature maps to conditions `(B, N, D)`, the whole mask hidden."""
        return self._run("transformer", features)[0]

    def denoise(self, tokens: Floats, step: int, condition: Floats) -> Floats:
        """Noisy tokens `(N, C)` at a step number, with conditions `(N, D)`, to the denoiser's raw output."""
        return self._run("denoiser", {"tokens": tokens, "step": np.array([step], np.int64), "condition": condition})[0]

    def decode(self, latents: Floats) -> tuple[npt.NDArray[np.uint8], Floats]:
        """Mask latents `(B, C, h, w)` to train ids and confidence, `(B, H, W)` each."""
        mask, confidence = self._run("decoder", {"latents": latents})
        return mask.astype(np.uint8, copy=False), confidence

    def _run(self, part: str, inputs: Mapping[str, npt.NDArray[np.generic]]) -> list[npt.NDArray[np.float32]]:
        outputs: list[npt.NDArray[np.float32]] = self._sessions[part].run(None, dict(inputs))
        return outputs


def _onnxruntime() -> ModuleType:
    """ONNX Runtime, imported late so that a machine without it gets an error that says what to install."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(f"ONNX Runtime cannot be imported ({error}); pip install onnxruntime, or onnxruntime-gpu") from error
    return onnxruntime


def _provider_names(provider: str, available: list[str]) -> list[str]:
    if provider not in PROVIDERS:
        raise ConfigError(f"unknown provider {provider!r}; choose one of {', '.join(PROVIDERS)}")
    wanted = PROVIDERS[provider]
    if wanted not in available:
        raise ConfigError(
            f"provider {provider!r} needs ONNX Runtime's {wanted}, but the installed one has only {', '.join(available)}; "
            f"put onnxruntime-gpu in place of onnxruntime (pip uninstall onnxruntime onnxruntime-gpu, then "
            f"pip install onnxruntime-gpu), or choose provider cpu"
        )
    # ONNX Runtime places operators that a GPU provider lacks on the CPU, so that one is always listed last
    return [wanted] if provider == "cpu" else [wanted, PROVIDERS["cpu"]]


def _load(path: Path, load: Callable[[Path], Any]) -> Any:
    if not path.is_file():
        raise ModelError(f"missing {path}: the checkpoint folder is not exported or not whole")
    try:
        return load(path)
    except Exception as error:  # ONNX Runtime's error types share no base but Exception
        first_line = str(error).strip().splitlines()[0]
        raise ModelError(f"cannot load {path}: {first_line}; the file is damaged, fetch or export it again") from error
