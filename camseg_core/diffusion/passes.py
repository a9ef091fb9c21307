"""The K-pass order: a mask is revealed over several passes of the transformer, each told what the earlier ones gave.

Sources: arXiv 2202.04200 (cosine shares, most confident first), arXiv 2406.11838 (random order). As the samplers, this needs
no torch: it runs on numpy arrays and on torch tensors.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from camseg_core.errors import ConfigError

Array = Any
"""A torch tensor or a numpy array."""

ORDERS = ("random", "confident")
"""Which tokens are revealed first: a random choice, or those that the decoder is surest of."""


@dataclass(frozen=True)
class PassOptions:
    """`passes` of the transformer (from 1 up; 1 reveals everything at once) and the `order`, one of `ORDERS`."""

    passes: int = 1
    order: str = "random"

    def __post_init__(self) -> None:
        if self.passes < 1:
            raise ConfigError(f"passes must be >= 1, got {self.passes}")
        if self.order not in ORDERS:
            raise ConfigError(f"unknown order {self.order!r}; choose one of {', '.join(ORDERS)}")


@dataclass(frozen=True)
class FrameInPasses:
    """What revealing one frame needs of a model. L tokens of the transformer spread over N cells that the head denoises.

    `cells_of` `(L, N/L)` are the cells of each token. `condition` makes conditions `(N, D)` of the cells so far `(N, C)` and the flags of
    hidden tokens `(L,)`; `sample` clean cells `(M, C)` of the conditions `(M, D)` of the cells with these `(M,)` numbers; `confidence`
    says how sure the decoder is of each token, `(L,)`, given all cells.
    """

    cells_of: npt.NDArray[np.int64]
    condition: Callable[[Array, npt.NDArray[np.bool_]], Array]
    sample: Callable[[Array, npt.NDArray[np.int64]], Array]
    confidence: Callable[[Array], npt.NDArray[np.float32]]


def revealed_in_each(tokens: int, passes: int) -> list[int]:
    """How many of the `tokens` each pass reveals: the hidden share falls as a cosine; at least one in each, all in the end.

    Raises:
        ConfigError: more passes than tokens.
    """
    if passes > tokens:
        raise ConfigError(
            f"passes is {passes}, but this frame has {tokens} tokens: each pass reveals at least one"
        )
    hidden, counts = tokens, []
    for k in range(1, passes + 1):
        left = math.floor(tokens * math.cos(math.pi / 2 * k / passes)) if k < passes else 0
        left = max(
            min(left, hidden - 1), passes - k
        )  # one at least now, and one for each pass to come
        counts.append(hidden - left)
        hidden = left
    return counts


def sample_in_passes(
    frame: FrameInPasses, cells: Array, options: PassOptions, random: np.random.Generator
) -> Array:
    """Reveal a whole frame; `cells` `(N, C)`, of any content, are written to and returned. `random` shuffles the random order.

    In random order only what a pass reveals is denoised. Most confident first, all that is hidden is denoised, and what is not kept is
    drawn again in a later pass.
    """
    tokens = len(frame.cells_of)
    hidden = np.ones(tokens, np.bool_)
    shuffled = random.permutation(tokens)
    for count in revealed_in_each(tokens, options.passes):
        condition = frame.condition(cells, hidden)
        chosen = shuffled[hidden[shuffled]]
        if options.order == "random":
            chosen = chosen[:count]
        index = frame.cells_of[chosen].ravel()
        cells[index] = frame.sample(condition[index], index)
        if options.order == "confident":
            sure = np.where(hidden, frame.confidence(cells), -np.inf)
            chosen = np.argsort(-sure, kind="stable")[:count]
        hidden[chosen] = False
    return cells


def cells_of_tokens(grid: tuple[int, int], times: int) -> npt.NDArray[np.int64]:
    """The cells `(L, times²)` of each token, row-major, where a token of the (rows, columns) `grid` spreads over `times`×`times` cells."""
    rows, columns = grid
    numbers = np.arange(rows * columns * times * times).reshape(rows, times, columns, times)
    return numbers.transpose(0, 2, 1, 3).reshape(rows * columns, times * times)
