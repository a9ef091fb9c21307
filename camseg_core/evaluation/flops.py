"""Counts each stage's arithmetic and memory traffic with torch's FLOP counter."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from camseg_core.config.model import CamSegConfig
from camseg_core.evaluation.roofline import FrameWork, Work
from camseg_core.labels import Label
from camseg_core.model.camseg import CamSeg

STAGES = ("image_encoder", "transformer", "denoiser", "decoder")
"""A model's stages in order; `denoiser` is one step, `transformer` includes the refiner."""


def frame_work(
    config: CamSegConfig,
    labels: tuple[Label, ...],
    height: int,
    width: int,
    as_published: bool = False,
) -> FrameWork:
    """Count the work of one frame for a model of these sizes, from shapes alone.

    Arguments are those of `CamSeg` and `work_by_stage`.
    """
    with FakeTensorMode():
        model = CamSeg(config, labels).eval()
        return FrameWork(
            vehicle_parameters(model), work_by_stage(model, height, width, as_published)
        )


@torch.no_grad()
def work_by_stage(
    model: CamSeg, height: int, width: int, as_published: bool = False
) -> dict[str, Work]:
    """Count the work of one frame of `height`×`width` pixels, multiples of `size_multiple`.

    This counts convolutions, matrix products and attention, and the numbers that they read and
    write, but not norms, activations and resizing, which cost little. Attention reads its three
    inputs and writes its result: the scores between tokens stay on the chip.

    Args:
        as_published: count the denoiser as the published code runs it, on the image's tokens too
            and with the step embedded for every token, and the mask decoded as a picture.
    """
    counts: dict[str, Work] = {}

    def counted(stage: str, call: Callable[[], object]) -> object:
        # unfused attention: torch's counter does not know the CPU's fused kernel
        with (
            _Moved() as moved,
            FlopCounterMode(display=False) as counter,
            sdpa_kernel(SDPBackend.MATH),
        ):
            result = call()
        counts[stage] = Work(counter.get_total_flops() // 2, moved.weights, moved.activations)
        return result

    features = counted(
        "image_encoder", lambda: model.image_features(torch.zeros(1, 3, height, width))
    )
    assert isinstance(features, tuple)
    condition = counted("transformer", lambda: model.conditions(features))
    assert isinstance(condition, Tensor)
    cells = torch.zeros(condition.shape[1], model.config.denoised_channels)
    latents = model.to_latents(cells.unsqueeze(0), model.denoised_grid(features))
    condition, last_step = condition[0], len(model.schedule.timesteps) - 1
    if as_published:
        cells, condition = cells.repeat(2, 1), condition.repeat(2, 1)
    counted(
        "denoiser",
        lambda: model.denoiser(
            cells, torch.full((len(cells) if as_published else 1,), last_step), condition
        ),
    )
    pictures = model.autoencoder if as_published or model.light_decoder is None else None
    counted(
        "decoder",
        lambda: model.logit_blocks(latents) if pictures is None else pictures.decode(latents),
    )
    return counts


class _Moved(TorchFunctionMode):
    """Sums how many numbers the operations counted by `work_by_stage` read and write."""

    _OPERATIONS = (F.conv2d, F.linear, F.scaled_dot_product_attention)

    def __init__(self) -> None:
        super().__init__()
        self.weights = 0
        self.activations = 0

    def __torch_function__(
        self,
        function: Any,
        types: Sequence[type],
        arguments: Sequence[Any] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        options = options or {}
        result = function(*arguments, **options)
        if function in self._OPERATIONS:
            for each in (*arguments, *options.values(), result):
                if isinstance(each, nn.Parameter):
                    self.weights += each.numel()
                elif isinstance(each, Tensor):
                    self.activations += each.numel()
        return result


def vehicle_parameters(model: CamSeg) -> int:
    """Return how many parameters run on the vehicle: all except the mask encoder's."""
    every = sum(parameter.numel() for parameter in model.parameters())
    return every - mask_encoder_parameters(model)


def mask_encoder_parameters(model: CamSeg) -> int:
    """Return how many parameters the mask autoencoder's encoder has; 0 without one."""
    if model.mask_autoencoder is None:
        return 0
    return sum(parameter.numel() for parameter in model.mask_autoencoder.encoder.parameters())
