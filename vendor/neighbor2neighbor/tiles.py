"""Images too large for one pass: overlapping tiles, blended without a seam.

An output pixel of the `UNet` depends on no input pixel further away than 157 px (two 3x3 convolutions on each of six
scales on the way down and up, and the cells of the poolings). So tiles that read 160 px beyond what is kept of them,
and begin where the whole image's poolings do, give the whole image's values: the blend is between equals. That holds
from about a million pixels per pass on; smaller tiles, and networks that look further, differ a little, and the blend
hides where.

Source: "Ditch the Denoiser", arXiv 2505.12191, cuts images with a side above 2048 px into tiles of 1024 px. Difference:
those neither overlap nor are blended, so that their borders show.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MAX_PIXELS = 2048 * 2048
"""Of one pass: in fp32 and channels-last, the published network (48 features) takes about 1.4 kB for each, so 6 GB."""

_EXACT_CONTEXT = 5  # multiples of 32 px: 160, the first beyond the reach of 157
_SMALLEST_SIDE = 6  # of a tile, in the same unit: one that is kept, two read on both sides, one blended


class Tiles(NamedTuple):
    """How an image is cut.

    Attributes:
        height: of each tile, in pixels.
        width: of each tile, in pixels.
        tops: first rows of the tiles, rising.
        lefts: first columns of the tiles, rising.
        blend_px: over so many pixels one tile gives way to the next, in the middle of what they share.
    """

    height: int
    width: int
    tops: Sequence[int]
    lefts: Sequence[int]
    blend_px: int


def smallest_pass(multiple_px: int) -> int:
    """Pixels of the smallest tile, for a network that wants sides of a multiple of ``multiple_px``."""
    return (_SMALLEST_SIDE * multiple_px) ** 2


def plan_tiles(height: int, width: int, *, max_pixels: int, multiple_px: int) -> Tiles:
    """The equal tiles that cost the least, of at most ``max_pixels`` each.

    All sides and places are multiples of ``multiple_px``, so that poolings see the cells of the whole image.

    Args:
        height: of the padded image, a multiple of ``multiple_px``.
        width: of the padded image, a multiple of ``multiple_px``.
        max_pixels: of a tile.
        multiple_px: of the network.

    Raises:
        ValueError: ``max_pixels`` is below `smallest_pass`.
    """
    if max_pixels < smallest_pass(multiple_px):
        raise ValueError(f"max_pixels must be at least {smallest_pass(multiple_px)}, got {max_pixels}")
    context = min(_EXACT_CONTEXT, math.isqrt(max_pixels) // (_SMALLEST_SIDE * multiple_px)) * multiple_px
    shared = 2 * context + multiple_px
    plans = []
    for rows in range(1, height // multiple_px + 1):
        tile_height = _tile_side(height, rows, shared, multiple_px)
        widest = min(width, max_pixels // tile_height // multiple_px * multiple_px)
        if widest < width and widest <= shared:
            continue
        columns = 1 if widest == width else math.ceil((width - shared) / (widest - shared))
        tile_width = _tile_side(width, columns, shared, multiple_px)
        tops, lefts = _starts(height, tile_height, shared), _starts(width, tile_width, shared)
        plans.append(Tiles(tile_height, tile_width, tops, lefts, blend_px=multiple_px))
    return min(plans, key=lambda tiles: len(tiles.tops) * len(tiles.lefts) * tiles.height * tiles.width)


def run_tiles(run: Callable[[Tensor], Tensor], images: Tensor, tiles: Tiles) -> Tensor:
    """Apply ``run`` to each tile, and blend.

    Args:
        run: maps ``(B, C, h, w)`` to the same shape.
        images: ``(B, C, H, W)``.
        tiles: of `plan_tiles` for H and W.

    Returns:
        ``(B, C, H, W)``, of the type that ``run`` returns.
    """
    output = images.new_empty(0)
    for row, top in enumerate(tiles.tops):
        strip = images.new_empty(0)
        for column, left in enumerate(tiles.lefts):
            # A copy: a network that works in place would spoil what the next tile reads.
            tile = run(images[..., top : top + tiles.height, left : left + tiles.width].clone())
            if column == 0:
                strip = tile.new_empty(*tile.shape[:-1], images.shape[-1])
            _paste(strip, tile, column, tiles.lefts, tiles.blend_px, axis=-1)
        if row == 0:
            output = strip.new_empty(*strip.shape[:-2], *images.shape[-2:])
        _paste(output, strip, row, tiles.tops, tiles.blend_px, axis=-2)
    return output


def _tile_side(side: int, count: int, shared: int, multiple_px: int) -> int:
    """Of ``count`` tiles of which neighbours share at least so much."""
    return min(side, math.ceil((side + (count - 1) * shared) / count / multiple_px) * multiple_px)


def _starts(side: int, tile: int, shared: int) -> list[int]:
    if tile >= side:
        return [0]
    step = tile - shared
    return [*range(0, side - tile, step), side - tile]


def _paste(canvas: Tensor, tile: Tensor, number: int, starts: Sequence[int], blend_px: int, *, axis: int) -> None:
    """Write tile ``number`` over what stands there already; their weights are w and 1 - w."""
    start, length = starts[number], tile.shape[axis]
    if number == 0:
        canvas.narrow(axis, start, length).copy_(tile)
        return
    shared = starts[number - 1] + length - start
    first = (shared - blend_px) // 2
    after = first + blend_px
    blended = canvas.narrow(axis, start + first, blend_px)
    # lerp returns what is equal on both sides as it is, to the bit
    blended.copy_(torch.lerp(blended, tile.narrow(axis, first, blend_px), _rising(blended, blend_px, axis)))
    canvas.narrow(axis, start + after, length - after).copy_(tile.narrow(axis, after, length - after))


def _rising(like: Tensor, count: int, axis: int) -> Tensor:
    """Weights from 0 to 1 along ``axis``: half a period of a raised cosine."""
    phase = (torch.arange(count, dtype=torch.float64) + 0.5) * (math.pi / count)
    weights = (0.5 - 0.5 * phase.cos()).to(like)
    return weights if axis == -1 else weights[:, None]
