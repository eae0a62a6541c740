"""The random neighbour sub-sampler: one noisy image becomes two half-size images of nearly the same scene.

Source: Huang, Li, Jia, Lu, Liu, "Neighbor2Neighbor: Self-Supervised Denoising from Single Noisy Images", CVPR 2021,
arXiv 2101.02824, "Generation of Training Image Pairs".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Pixels of a cell are numbered 0 1 / 2 3. Diagonal neighbours are left out: they lie further apart.
ORDERED_PAIRS: tuple[tuple[int, int], ...] = ((0, 1), (0, 2), (1, 3), (2, 3), (1, 0), (2, 0), (3, 1), (3, 2))


def draw_pairs(
    image_shape: Sequence[int], generator: torch.Generator, device: torch.device | str | None = None
) -> Tensor:
    """Draw, for every 2x2 cell of an image, which two adjacent pixels represent it.

    Args:
        image_shape: ``(B, C, H, W)`` with H and W even.
        generator: source of the random numbers; numbers are drawn on its device, so that a CPU generator gives the same
            pairs for every ``device``.
        device: where the result is needed; default: the generator's.

    Returns:
        Indices into ``ORDERED_PAIRS``, ``(B, H/2, W/2)``, int64, each of the 8 equally likely.

    Raises:
        ValueError: the shape is not ``(B, C, H, W)`` with even sides.
    """
    if len(image_shape) != 4 or image_shape[2] % 2 or image_shape[3] % 2:
        raise ValueError(f"image shape must be (B, C, H, W) with even H and W, got {tuple(image_shape)}")
    batch, _, height, width = image_shape
    size = (batch, height // 2, width // 2)
    pairs = torch.randint(len(ORDERED_PAIRS), size, generator=generator, device=generator.device)
    return pairs if device is None else pairs.to(device)


def subsample(image: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """The two neighbour images ``g1(image)`` and ``g2(image)``.

    Args:
        image: ``(B, C, H, W)``.
        pairs: ``(B, H/2, W/2)`` from :func:`draw_pairs`; the same pair serves all channels of a cell.

    Returns:
        ``g1``, ``g2``, each ``(B, C, H/2, W/2)``: per cell the first and the second pixel of its pair.

    Raises:
        ValueError: ``pairs`` were drawn for another shape.
    """
    batch, channels, height, width = image.shape
    if pairs.shape != (batch, height // 2, width // 2) or height % 2 or width % 2:
        raise ValueError(f"pairs of shape {tuple(pairs.shape)} do not fit an image of shape {tuple(image.shape)}")
    # Places in the flattened image: of each cell's first pixel, then of the pixels 0..3 relative to it.
    rows = torch.arange(0, height, 2, device=image.device) * width
    corners = rows[:, None] + torch.arange(0, width, 2, device=image.device)
    offsets = torch.tensor([0, 1, width, width + 1])
    # Made on the CPU and sent without waiting: a tensor made of Python numbers on a GPU waits for all its work.
    table = offsets[torch.tensor(ORDERED_PAIRS)].to(image.device, non_blocking=True)
    flat = image.flatten(2)

    def pick(member: int) -> Tensor:
        places = (corners + table[:, member][pairs]).flatten(1)
        picked = flat.gather(2, places[:, None].expand(-1, channels, -1))
        return picked.view(batch, channels, height // 2, width // 2)

    return pick(0), pick(1)
