"""The cost of one training step, counted by torch from shapes: nothing is computed."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from camseg_core.config.model import CamSegConfig
from camseg_core.labels import Label
from camseg_core.model.camseg import CamSeg
from camseg_core.training.distributed import enable_gradient_checkpointing, repeated_blocks
from camseg_core.training.draws import Cut
from camseg_core.training.losses import published_loss
from camseg_core.training.transformer import TransformerTraining

_LARGEST_VISIBLE = 0.3
"""Largest share of the mask's tokens that the encoder sees: at least 0.7 are hidden."""


def _attention(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(
    gradient: Any, query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any
) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))


_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Formulas for the CPU's fused attention, which torch's counter lacks."""


def mean_visible(cut: Cut) -> float:
    """Return the mean share of mask tokens that the encoder sees in steps that do not hide all.

    `cut` is how the drawn share is brought into 0.7..1.
    """
    ends = 0.3 / 0.25  # in deviations of 0.25 below 1
    within = 0.5 * math.erf(ends / math.sqrt(2))
    below = 0.25 * (1 - math.exp(-(ends**2) / 2)) / math.sqrt(2 * math.pi)
    return below / within if cut == "truncate" else below + 0.3 * (0.5 - within)


@dataclass(frozen=True)
class StepCost:
    """Floating-point operations per frame, and bytes of activations per step."""

    operations: float
    activations: float


def count_step(
    model: CamSegConfig,
    labels: tuple[Label, ...],
    training: TransformerTraining,
    frames: int,
    checkpointing: bool,
) -> StepCost:
    """Count one training step of `frames` frames on one device, from shapes alone.

    `checkpointing` replaces `training.gradient_checkpointing`.
    """
    with FakeTensorMode():
        network = CamSeg(model, labels).train()
        training.freeze(network)
        if checkpointing:
            enable_gradient_checkpointing(network)
        for block in (*network.transformer.encoder_blocks, *network.transformer.decoder_blocks):
            # the CPU has no fused attention with dropout; those of GPUs keep no scores either
            block.attn.attention_dropout = 0.0
        if network.mask_autoencoder is not None:
            operations = _operations(lambda: _task_loss(network, training, frames)) / frames
            return StepCost(
                operations, _saved_bytes(lambda: _task_loss(network, training, frames), network)
            )
        height, width = (side // model.token_stride for side in training.crop)
        cells = height * width
        mean = (1 - training.all_hidden) * mean_visible(training.hidden_cut)
        most = _LARGEST_VISIBLE if training.all_hidden < 1 else 0.0
        operations = _operations(
            lambda: _latents_loss(network, training, (height, width), 1, round(mean * cells))
        )
        visible = round(most * cells)
        activations = _saved_bytes(
            lambda: _latents_loss(network, training, (height, width), frames, visible), network
        )
        if checkpointing:
            rows = frames * cells * training.diffusion_batch_mul
            width_of = (model.transformer.width, model.denoiser.width)
            blocks = network.transformer.decoder_blocks, network.denoiser.res_blocks
            tokens = torch.zeros(frames, 2 * cells, width_of[0])
            denoised = torch.zeros(rows, width_of[1])
            activations += max(
                _inside_block(blocks[0][0], training, tokens),
                _inside_block(blocks[1][0], training, denoised, denoised),
            )
        return StepCost(operations, activations)


def _task_loss(network: CamSeg, training: TransformerTraining, frames: int) -> Tensor:
    """Run the networks that `objectives.task_objective` calls, on zeros."""
    own = round(training.task.late_own_share * frames)
    with training.loop.autocast(torch.device("cpu"), emulated=True):
        features = network.image_features(torch.zeros(frames, 3, *training.crop))
        condition = network.conditions(features).flatten(0, 1)
        cells = torch.zeros(len(condition), network.config.denoised_channels)
        timesteps = torch.zeros(len(condition), dtype=torch.long)
        first, later = (
            network.denoiser(cells, timesteps, condition).unflatten(0, (frames, -1))
            for _ in range(2)
        )
        # the true latents of as many frames are decoded too
        decoded = torch.cat([first, later[:own], later[:own]])
        latents = network.to_latents(decoded, network.denoised_grid(features))
        half = network.logit_blocks(latents)[:, :, [0, 3]]  # of the pixels, as the loss
        return half.float().sum()


def _latents_loss(
    network: CamSeg,
    training: TransformerTraining,
    grid: tuple[int, int],
    frames: int,
    visible: int,
) -> Tensor:
    """Run the networks that `objectives.published_objective` calls, on zeros.

    Which tokens the encoder sees is drawn at random in training; here it sees the first `visible`
    of each mask, like the image's tokens.
    """
    transformer, cells = network.transformer, grid[0] * grid[1]
    with training.loop.autocast(torch.device("cpu"), emulated=True):
        seen = torch.zeros(frames, cells + visible, network.config.token_channels)
        embedded = transformer.decoder_embed(transformer.encode_visible(seen, grid, None, None))
        masked = transformer.mask_token.expand(frames, cells - visible, -1)
        conditions = transformer.decode(torch.cat([embedded, masked], dim=1), grid)[:, cells:]
        condition = conditions.flatten(0, 1).repeat(training.diffusion_batch_mul, 1)
        noise = torch.zeros(len(condition), network.config.denoised_channels)
        timesteps = torch.zeros(len(condition), dtype=torch.long)
        output = network.denoiser(noise, timesteps, condition).float()
    error, bound = published_loss(output, noise, noise, timesteps, network.schedule)
    return error.mean() + bound.mean()


def _operations(loss: Callable[[], Tensor]) -> float:
    """Floating-point operations of a forward and a backward pass, as torch counts them."""
    with FlopCounterMode(display=False, custom_mapping=_ATTENTION) as counter:
        loss().backward()
    return counter.get_total_flops()


def _saved_bytes(
    loss: Callable[[], Tensor], network: nn.Module, inputs: tuple[Tensor, ...] = ()
) -> float:
    """Bytes kept for the backward pass, besides weights and `inputs`; each storage counts once.

    Of a checkpointed block these are its inputs.
    """
    left_out = {each.untyped_storage()._cdata for each in (*network.parameters(), *inputs)}
    # autocast's copies of the matrices are counted elsewhere, as "matrices in bf16"
    matrices = {tuple(sorted(each.shape)) for each in network.parameters() if each.ndim > 1}
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        is_copy = tensor.dtype != torch.float32 and tuple(sorted(tensor.shape)) in matrices
        if not is_copy:
            saved[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    def keep_inputs(block: nn.Module, tensors: tuple[Tensor, ...]) -> None:
        if block.gradient_checkpointing:
            for tensor in tensors:
                keep(tensor)

    hooks = [block.register_forward_pre_hook(keep_inputs) for block in repeated_blocks(network)]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss()
    for hook in hooks:
        hook.remove()
    return float(sum(each.nbytes() for place, each in saved.items() if place not in left_out))


def _inside_block(block: nn.Module, training: TransformerTraining, *inputs: Tensor) -> float:
    """Return the bytes that a checkpointed block keeps while it is recomputed."""
    block.gradient_checkpointing = False  # type: ignore[assignment]  # a flag, not a module
    try:

        def forward() -> Tensor:
            with training.loop.autocast(torch.device("cpu"), emulated=True):
                result: Tensor = block(*inputs)
            return result

        return _saved_bytes(forward, block, inputs)
    finally:
        block.gradient_checkpointing = True  # type: ignore[assignment]
