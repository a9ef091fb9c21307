"""What a training step of the published layout computes and keeps, in closed form: operations, and numbers held for the backward pass.

Nothing is run and torch is not needed; tests hold both counts against torch's own counters. Norms, activations, dropout and the loss
are left out of the operations, as they are a small part; the numbers that they keep are counted.
"""

from dataclasses import dataclass

from camseg_core.config.model import CamSegConfig

_STATISTICS = 2  # mean and deviation, which a norm keeps of each token
_LOSS = 18  # numbers for each channel of a token that the loss keeps, nearly all for the variational bound
_SINUSOID = 256  # numbers of a step's embedding


@dataclass(frozen=True)
class Kept:
    """Numbers kept from the forward to the backward pass, by how wide they are.

    `matrix` are inputs and results of matrices, of autocast's type; `norm` what norms of such results keep, for which autocast on CUDA
    makes a copy in fp32; `full` are always fp32; `masks` are a byte each, what dropout keeps.
    """

    matrix: float = 0
    norm: float = 0
    full: float = 0
    masks: float = 0

    def __add__(self, other: "Kept") -> "Kept":
        return Kept(
            self.matrix + other.matrix,
            self.norm + other.norm,
            self.full + other.full,
            self.masks + other.masks,
        )

    def times(self, count: float) -> "Kept":
        """So many of these."""
        return Kept(self.matrix * count, self.norm * count, self.full * count, self.masks * count)

    def bytes(self, matrix: int, norm: int = 4) -> float:
        """With so many bytes for a number of `matrix` and of `norm`."""
        return matrix * self.matrix + norm * self.norm + 4 * self.full + self.masks


@dataclass(frozen=True)
class Load:
    """What one process takes at once: `frames` of `cells` tokens each, of which the share `visible` of the mask's is not hidden; every
    mask token is denoised from `diffusion_batch_mul` noises. With `recompute` the blocks keep their inputs only."""

    frames: int
    cells: int
    visible: float = 0.3
    diffusion_batch_mul: int = 1
    recompute: bool = False

    @property
    def encoded(self) -> float:
        """Tokens that the encoder sees of one frame."""
        return self.cells * (1 + self.visible)

    @property
    def denoised(self) -> float:
        """Tokens that the diffusion head sees of all frames."""
        return self.frames * self.cells * self.diffusion_batch_mul


def step_operations(config: CamSegConfig, load: Load, fused: bool = True) -> float:
    """Floating-point operations of forward and backward pass, a multiply-accumulate being two, for a model of the published layout.

    `fused` attention computes the scores between tokens again in the backward pass, which its plain form keeps.
    """
    return 2 * (_matrices(config, load) + _scores(config, load, fused))


def _matrices(config: CamSegConfig, load: Load) -> float:
    """Multiply-accumulates of linear layers: backward twice those of the forward pass, or once where no one wants the input's gradient."""
    transformer, head = config.transformer, config.denoiser
    width, channels, inner = transformer.width, config.token_channels, head.width
    block = (4 + 2 * transformer.mlp_ratio) * width**2
    again = (
        4 if load.recompute else 3
    )  # forward, for the input, for the weights; and forward once more
    spared = (
        transformer.mlp_ratio * width**2 if load.recompute else 0
    )  # of that, a block's last matrix: nothing needs its result
    encoder = load.encoded * transformer.encoder_depth * (block * again - spared)
    decoder = 2 * load.cells * transformer.decoder_depth * (block * again - spared)
    ends = 2 * (2 * load.cells * channels * width) + 3 * load.encoded * width**2
    residual = head.depth * 5 * inner**2 * again
    first = 2 * (channels * inner + _SINUSOID * inner)
    outputs = config.denoised_channels * (2 if head.learned_variance else 1)
    rest = 3 * (inner**2 + config.condition_width * inner + 2 * inner**2 + inner * outputs)
    return load.frames * (encoder + decoder + ends) + load.denoised * (residual + first + rest)


def _scores(config: CamSegConfig, load: Load, fused: bool) -> float:
    """Multiply-accumulates of attention: two products forward, and backward four, or five where the scores are computed again."""
    transformer = config.transformer
    products = 2 + (5 if fused else 4) + (2 if load.recompute else 0)
    squares = (
        transformer.encoder_depth * load.encoded**2
        + transformer.decoder_depth * (2 * load.cells) ** 2
    )
    return load.frames * squares * transformer.width * products


def kept_for_backward(config: CamSegConfig, load: Load) -> Kept:
    """What a step keeps between the passes, beside weights, for a model of the published layout."""
    transformer, head = config.transformer, config.denoiser
    tokens = load.frames * (
        load.encoded * transformer.encoder_depth + 2 * load.cells * transformer.decoder_depth
    )
    of_token = Kept(full=transformer.width) if load.recompute else _transformer_block(config)
    of_denoised = Kept(matrix=head.width) if load.recompute else _head_block(config)
    return (
        _outside_blocks(config, load)
        + of_token.times(tokens)
        + of_denoised.times(load.denoised * head.depth)
    )


def inside_of_a_block(config: CamSegConfig, load: Load) -> Kept:
    """What the largest block keeps while it is computed again, beside `kept_for_backward`; nothing without `load.recompute`."""
    if not load.recompute:
        return Kept()
    blocks = (
        _transformer_block(config).times(load.frames * 2 * load.cells),
        _head_block(config).times(load.denoised),
    )
    return max(blocks, key=lambda kept: kept.bytes(2))


def _transformer_block(config: CamSegConfig) -> Kept:
    """Of one token: input and middle with their norms' statistics; what goes into the four matrices and out of two, and the logarithm of
    each head's sum of scores. Attention keeps no scores."""
    transformer = config.transformer
    width, mlp = transformer.width, transformer.mlp_ratio * transformer.width
    matrix = (
        width + 3 * width + width + width + 2 * mlp
    )  # queries' input, the three, attended, mlp's input, its inside twice
    full = 2 * (width + _STATISTICS) + transformer.heads
    return Kept(matrix=matrix, full=full, masks=2 * width + mlp if transformer.dropout else 0)


def _head_block(config: CamSegConfig) -> Kept:
    """Of one token: its input and that normalised; the modulation activated, its three parts, 1 + scale, and what passes the matrices."""
    width = config.denoiser.width
    return Kept(matrix=(1 + 3 + 1 + 4) * width, norm=2 * width, full=_STATISTICS)


def _outside_blocks(config: CamSegConfig, load: Load) -> Kept:
    transformer, head = config.transformer, config.denoiser
    width, inner, channels = transformer.width, head.width, config.denoised_channels
    both = 2 * load.cells
    embedded = Kept(
        matrix=2 * load.cells * config.token_channels, full=both * (width + _STATISTICS)
    )
    between = Kept(
        matrix=load.encoded * width, full=load.encoded * (width + _STATISTICS)
    )  # the encoder's norm, and what follows it
    end = Kept(full=both * (width + _STATISTICS))
    # what the head takes in, its step's embedding, the modulation, and behind its blocks: norm, modulation, result
    ends = Kept(
        channels + config.condition_width + _SINUSOID + 2 * inner + inner + 3 * inner,
        norm=2 * inner,
        full=_STATISTICS,
    )
    ends += Kept(full=_LOSS * channels)
    return (embedded + between + end).times(load.frames) + ends.times(load.denoised)
