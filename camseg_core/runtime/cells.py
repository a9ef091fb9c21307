"""How latents, the transformer's tokens and the cells that the diffusion head denoises lie in memory, as `CamSeg` has them."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def cells_to_latents(cells: Floats, batch: int, grid: tuple[int, int], patch: int) -> Floats:
    """Cells `(B·N, c·p²)`, in a grid of (rows, columns) per frame, to latents `(B, c, H, W)`."""
    h, w = grid
    split = cells.reshape(batch, h, w, -1, patch, patch).transpose(0, 3, 1, 4, 2, 5)  # (B, c, h, p, w, p)
    return np.ascontiguousarray(split.reshape(batch, -1, h * patch, w * patch))


def latents_to_tokens(latents: Floats, patch: int) -> Floats:
    """Latents `(B, c, H, W)` to tokens `(B, L, c·p²)`, row-major."""
    batch, channels, height, width = latents.shape
    split = latents.reshape(batch, channels, height // patch, patch, width // patch, patch).transpose(0, 2, 4, 1, 3, 5)
    return np.ascontiguousarray(split.reshape(batch, (height // patch) * (width // patch), -1))


def mean_of_squares(plane: Floats, side: int) -> Floats:
    """A plane `(H, W)` to its mean over squares of `side`×`side` pixels, row-major `(L,)`."""
    height, width = plane.shape
    mean: Floats = plane.reshape(height // side, side, width // side, side).mean((1, 3)).ravel()
    return mean
