"""Revealing a mask over several passes of the transformer, each given what earlier passes drew.

Sources: arXiv 2202.04200 (cosine shares, most confident first), arXiv 2406.11838 (random order).
Runs on numpy arrays and torch tensors, like the samplers.
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
"""Which tokens are revealed first: random ones, or those with the highest confidence."""


@dataclass(frozen=True)
class PassOptions:
    """Number of passes of the transformer (1 reveals everything at once), and their order."""

    passes: int = 1
    order: str = "random"

    def __post_init__(self) -> None:
        if self.passes < 1:
            raise ConfigError(f"passes must be >= 1, got {self.passes}")
        if self.order not in ORDERS:
            raise ConfigError(f"order must be one of {', '.join(ORDERS)}, got {self.order!r}")


@dataclass(frozen=True)
class FrameInPasses:
    """One frame of a model, whose L tokens cover N cells that the head denoises.

    Attributes:
        cells_of: the numbers of each token's cells, `(L, N/L)`.
        condition: from the cells so far `(N, C)` and the hidden tokens' flags `(L,)` to conditions
            `(N, D)`.
        sample: from the conditions `(M, D)` and numbers `(M,)` of some cells to clean `(M, C)`.
        confidence: from all cells to the decoder's confidence in each token `(L,)`.
    """

    cells_of: npt.NDArray[np.int64]
    condition: Callable[[Array, npt.NDArray[np.bool_]], Array]
    sample: Callable[[Array, npt.NDArray[np.int64]], Array]
    confidence: Callable[[Array], npt.NDArray[np.float32]]


def revealed_in_each(tokens: int, passes: int) -> list[int]:
    """Return how many tokens each pass reveals: the hidden share falls as a cosine.

    Every pass reveals at least one; together they reveal all.

    Raises:
        ConfigError: more passes than tokens.
    """
    if passes > tokens:
        raise ConfigError(
            f"passes must be <= {tokens}, the tokens of this frame, got {passes}: "
            "each pass reveals at least one"
        )
    hidden, counts = tokens, []
    for k in range(1, passes + 1):
        left = math.floor(tokens * math.cos(math.pi / 2 * k / passes)) if k < passes else 0
        # at least one now, and one for each later pass
        left = max(min(left, hidden - 1), passes - k)
        counts.append(hidden - left)
        hidden = left
    return counts


def sample_in_passes(
    frame: FrameInPasses, cells: Array, options: PassOptions, random: np.random.Generator
) -> Array:
    """Reveal a whole frame, writing to `cells` `(N, C)`, which are returned.

    In random order, shuffled by `random`, a pass denoises only what it reveals. In confident order
    it denoises all that is hidden; what it does not keep is drawn again in a later pass.
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
    """Return the numbers `(L, times²)` of each token's `times`×`times` cells, all row-major.

    `grid` is (rows, columns) of the tokens.
    """
    rows, columns = grid
    numbers = np.arange(rows * columns * times * times).reshape(rows, times, columns, times)
    return numbers.transpose(0, 2, 1, 3).reshape(rows * columns, times * times)
