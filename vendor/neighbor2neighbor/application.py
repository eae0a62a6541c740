"""Denoising whole images of any size with any network that wants sides of a multiple of 32.

Source: tiling and rounding as in "Ditch the Denoiser", arXiv 2505.12191, whose denoised images come from
Neighbor2Neighbor (Huang et al., CVPR 2021, arXiv 2101.02824). Difference: tiles overlap, so that no seams show.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neighbor2neighbor.unet import SIDE_MULTIPLE_PX

MAX_WHOLE_PX = 2048
TILE_PX = 1024
TILE_CONTEXT_PX = 64  # read around each tile's own part; a multiple of 32 keeps the poolings aligned with the image's


def denoise_image(model: nn.Module, image: Tensor) -> Tensor:
    """Denoise one image ``(3, H, W)``, float in [0, 1]; see :func:`denoise_batch`."""
    return denoise_batch(model, image[None])[0]


@torch.no_grad()
def denoise_batch(model: nn.Module, images: Tensor) -> Tensor:
    """Denoise images of equal size, without gradients and without clipping the output.

    Bottom and right are padded by reflection to multiples of 32 px (by repeating the border where an image is too small
    to be reflected) and cut off again. Images with a side above 2048 px are processed in tiles of 1024 px.

    Args:
        model: maps ``(B, 3, h, w)`` to the same shape, for h and w multiples of 32; should be in eval mode.
        images: ``(B, 3, H, W)``, float in [0, 1], on the model's device.

    Returns:
        ``(B, 3, H, W)``.

    Raises:
        ValueError: the model returns another shape, or values that are not finite.
    """
    height, width = images.shape[-2:]
    padded = _pad(images)
    output = _run(model, padded) if max(padded.shape[-2:]) <= MAX_WHOLE_PX else _run_tiles(model, padded)
    if not output.isfinite().all():
        raise ValueError("the denoiser returned values that are not finite: its weights are broken")
    return output[..., :height, :width]


def to_uint8(image: Tensor) -> Tensor:
    """Round to 8 bits: ``clip(255 image + 0.5, 0, 255)``, truncated; any shape, values on the [0, 1] scale."""
    return (image * 255 + 0.5).clamp(0, 255).to(torch.uint8)


def _pad(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    bottom, right = -height % SIDE_MULTIPLE_PX, -width % SIDE_MULTIPLE_PX
    # Reflection does not repeat the border, so it can add at most side - 1 pixels.
    images = F.pad(images, (0, right, 0, 0), mode="reflect" if right < width else "replicate")
    return F.pad(images, (0, 0, 0, bottom), mode="reflect" if bottom < height else "replicate")


def _run(model: nn.Module, images: Tensor) -> Tensor:
    output: Tensor = model(images)
    if output.shape != images.shape:
        raise ValueError(f"the denoiser returned shape {tuple(output.shape)} for input {tuple(images.shape)}")
    return output


def _run_tiles(model: nn.Module, images: Tensor) -> Tensor:
    output = torch.empty_like(images)
    for read_top, read_bottom, top, bottom in _spans(images.shape[-2]):
        for read_left, read_right, left, right in _spans(images.shape[-1]):
            tile = _run(model, images[..., read_top:read_bottom, read_left:read_right])
            own = tile[..., top - read_top : bottom - read_top, left - read_left : right - read_left]
            output[..., top:bottom, left:right] = own
    return output


def _spans(side: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut one side into tiles: (start and end of what is read, start and end of what is kept)."""
    kept = TILE_PX - 2 * TILE_CONTEXT_PX
    for start in range(0, side, kept):
        end = min(start + kept, side)
        yield max(0, start - TILE_CONTEXT_PX), min(side, end + TILE_CONTEXT_PX), start, end
