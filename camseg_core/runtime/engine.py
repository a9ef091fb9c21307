"""The interface between `Segmenter` and what computes: ONNX Runtime, torch, or another engine."""

from collections.abc import Mapping
from typing import Any, Protocol

from camseg_core.diffusion.sampling import Fused

Array = Any
"""A numpy array, or an engine's own with `shape`, `reshape` and support for `numpy.asarray`."""


class Engine(Protocol):
    """Runs the graphs of one model on arrays by name.

    | graph | inputs | outputs |
    | --- | --- | --- |
    | `image_encoder` | `image` RGB `(B, H, W, 3)` uint8 | maps, `features` `(B, C, h, w)` first |
    | `transformer` | maps; `mask` `(B, L, c)`, `hidden` `(B, L)` | `condition` `(B, N, D)` |
    | `denoiser` | noisy `tokens` `(M, C)`, `step` `(1,)` int64, `condition` `(M, D)` | `output` |
    | `decoder` | `latents` `(B, S, C, h, w)`, `sharpness` `()` | `mask`, `confidence` `(B, H, W)` |
    | a `Fused.name` | `image`, noise `start` `(B, N, C)`, `sharpness` `()` | `mask`, `confidence` |

    Inputs come in this order. `mask` and `hidden` (bool) give the transformer the known part of the
    mask; without them everything is hidden. `sharpness` is the logit scale, S the samples that are
    averaged as probabilities. Floats are float32; `mask` of the last two holds uint8 train ids.
    What the first two graphs return may be the engine's own arrays; the rest is numpy.

    Attributes:
        provider: where it computes.
        fallback: why this is not the first provider asked for; empty if it is.
        precision: what it computes in.
        fused: the graph of the whole network, if that runs in place of the parts.
        takes_mask: whether `run` takes `mask` and `hidden`.
    """

    @property
    def provider(self) -> str: ...
    @property
    def fallback(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def fused(self) -> Fused | None: ...
    @property
    def takes_mask(self) -> bool: ...

    def run(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a graph; returns its outputs by name, in the graph's order."""

    def check_graphs(self, fused: Fused | None) -> None:
        """Check that `with_fused` finds its graphs, without loading any.

        Raises:
            ModelError: a graph is missing.
        """

    def with_fused(self, fused: Fused | None) -> "Engine":
        """Return an engine of the same model that runs this fused graph if there is one, else the
        parts: this engine if it does so already.

        Raises:
            ConfigError, ModelError: as for a new engine.
        """
