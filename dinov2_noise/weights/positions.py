"""The position grid for another image size."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def grid_side(positions: Tensor) -> int | None:
    """Side of the square patch grid in positions (1, 1 + side², D); None if it is not square."""
    side = math.isqrt(positions.shape[1] - 1)
    return side if side**2 == positions.shape[1] - 1 else None


def resize_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Positions (1, 1 + N, D) of a square grid → (1, 1 + rows * columns, D), float32.

    Bicubic without antialiasing, as upstream resizes for images of another size at each forward pass, but to the exact
    ``grid`` (upstream's scale factors carry an offset of 0.1). The CLS position is kept. The same grid comes back as
    it is.
    """
    side = grid_side(positions)
    if side is None:
        raise ValueError(f"{positions.shape[1] - 1} patch positions are no square grid")
    positions = positions.float()
    if grid == (side, side):
        return positions
    cls, patches = positions[:, :1], positions[:, 1:]
    square = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=grid, mode="bicubic", align_corners=False, antialias=False)
    return torch.cat((cls, resized.permute(0, 2, 3, 1).reshape(1, grid[0] * grid[1], -1)), dim=1)
