"""Passes: cosine shares, each token once, random or confident order, equal on torch and numpy."""

import numpy as np
import pytest
import torch

from camseg_core.diffusion.passes import (
    ORDERS,
    FrameInPasses,
    PassOptions,
    cells_of_tokens,
    revealed_in_each,
    sample_in_passes,
)
from camseg_core.errors import ConfigError


def test_shares_follow_the_cosine() -> None:
    assert revealed_in_each(100, 1) == [100]
    assert revealed_in_each(100, 4) == [8, 22, 32, 38]  # hidden after each: 92, 70, 38, 0
    assert revealed_in_each(4, 4) == [1, 1, 1, 1]
    for tokens, passes in ((7, 5), (720, 64), (3, 2)):
        counts = revealed_in_each(tokens, passes)
        assert len(counts) == passes
        assert sum(counts) == tokens
        assert min(counts) >= 1


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="passes must be >= 1, got 0"):
        PassOptions(0)
    with pytest.raises(ConfigError, match="order must be one of random, confident, got 'best'"):
        PassOptions(2, "best")
    with pytest.raises(ConfigError, match="passes must be <= 4, the tokens of this frame, got 5"):
        revealed_in_each(4, 5)


def test_a_token_spreads_over_its_square_of_cells() -> None:
    assert cells_of_tokens((2, 2), 2).tolist() == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
        [8, 9, 12, 13],
        [10, 11, 14, 15],
    ]
    assert cells_of_tokens((2, 3), 1).ravel().tolist() == list(range(6))


class Recorder:
    """Conditions are the cells' numbers, samples ten times that; the last is surest."""

    def __init__(self, like) -> None:
        self.like, self.passes, self.drawn = like, [], []

    def frame(self, grid: tuple[int, int], times: int) -> FrameInPasses:
        return FrameInPasses(
            cells_of_tokens(grid, times),
            self.condition,
            self.sample,
            lambda cells: np.arange(grid[0] * grid[1], dtype=np.float32),
        )

    def condition(self, cells, hidden):
        self.passes.append(hidden.copy())
        return self.like(np.arange(len(cells), dtype=np.float32)[:, None])

    def sample(self, condition, index):
        self.drawn.append(index)
        return 10 * condition


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("like", [np.asarray, torch.from_numpy])
def test_every_token_is_revealed_once_and_its_cells_filled(order: str, like) -> None:
    recorder = Recorder(like)
    cells = like(np.full((24, 1), np.nan, np.float32))
    found = sample_in_passes(
        recorder.frame((2, 3), 2), cells, PassOptions(3, order), np.random.default_rng(0)
    )
    np.testing.assert_array_equal(np.asarray(found)[:, 0], 10 * np.arange(24))
    assert [int(hidden.sum()) for hidden in recorder.passes] == [6, 5, 3]
    for before, after in zip(recorder.passes, recorder.passes[1:], strict=False):
        assert not (after & ~before).any()  # what was revealed stays so


def test_random_order_denoises_only_what_it_reveals_and_depends_on_the_seed() -> None:
    orders = []
    for seed in (0, 0, 1):
        recorder = Recorder(np.asarray)
        sample_in_passes(
            recorder.frame((4, 6), 1),
            np.zeros((24, 1)),
            PassOptions(4),
            np.random.default_rng(seed),
        )
        orders.append([index.tolist() for index in recorder.drawn])
        assert sorted(number for numbers in orders[-1] for number in numbers) == list(range(24))
    assert orders[0] == orders[1] != orders[2]


def test_confident_order_keeps_the_surest_and_draws_the_rest_again() -> None:
    recorder = Recorder(np.asarray)
    sample_in_passes(
        recorder.frame((1, 6), 1),
        np.zeros((6, 1)),
        PassOptions(3, "confident"),
        np.random.default_rng(0),
    )
    assert [np.flatnonzero(hidden).tolist() for hidden in recorder.passes] == [
        [0, 1, 2, 3, 4, 5],
        [0, 1, 2, 3, 4],
        [0, 1, 2],
    ]
    assert [len(index) for index in recorder.drawn] == [6, 5, 3]
