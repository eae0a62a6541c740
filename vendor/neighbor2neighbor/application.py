"""Denoising whole images of any size with any network that wants sides of a multiple of 32 (or another number).

Source: padding, tiles and rounding as in "Ditch the Denoiser", arXiv 2505.12191, whose denoised images come from
Neighbor2Neighbor (Huang et al., CVPR 2021, arXiv 2101.02824). Differences: see `padding` and `tiles`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neighbor2neighbor.padding import padded_size, reflect_to, side_multiple_px
from neighbor2neighbor.tiles import MAX_PIXELS, plan_tiles, run_tiles, smallest_pass


class DenoiserOutputError(ValueError):
    """A denoiser returned another shape, or values that are not finite.

    Attributes:
        index: of the image in the batch; None where it is the whole batch.
    """

    def __init__(self, message: str, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


def denoise_image(model: nn.Module, image: Tensor, *, padding: str = "sides", max_pixels: int = MAX_PIXELS) -> Tensor:
    """Denoise one image ``(3, H, W)``, float in [0, 1]; see :func:`denoise_batch`."""
    return denoise_batch(model, image[None], padding=padding, max_pixels=max_pixels)[0]


def denoise_batch(model: nn.Module, images: Tensor, *, padding: str = "sides", max_pixels: int = MAX_PIXELS) -> Tensor:
    """Denoise images of equal size, without gradients and without clipping the output.

    Bottom and right are padded by reflection and cut off again; see :func:`denoise_padded` for the rest.

    Args:
        model: maps ``(B, 3, h, w)`` to the same shape, for h and w multiples of its ``side_multiple_px`` (32 where it
            has no such attribute); should be in eval mode.
        images: ``(B, 3, H, W)``, float in [0, 1], on the model's device.
        padding: ``sides`` or ``square``; see :func:`neighbor2neighbor.padded_size`.
        max_pixels: of a pass through the network, padding included.

    Returns:
        ``(B, 3, H, W)``.

    Raises:
        ValueError: an unknown ``padding``, or ``max_pixels`` is below the smallest tile.
        DenoiserOutputError: the model returns another shape, or values that are not finite.
    """
    height, width = images.shape[-2:]
    size = padded_size(height, width, multiple_px=side_multiple_px(model), padding=padding)
    return denoise_padded(model, reflect_to(images, size), max_pixels=max_pixels)[..., :height, :width]


@torch.no_grad()
def denoise_padded(model: nn.Module, images: Tensor, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Denoise images that are padded already.

    Where a batch holds more than ``max_pixels``, fewer images go through the network at a time; where one image does,
    it goes in overlapping tiles (see `neighbor2neighbor.tiles`). How an image is cut depends on its size and on
    ``max_pixels`` alone.

    Args:
        model: as for :func:`denoise_batch`.
        images: ``(B, 3, H, W)``, H and W multiples of what the model wants.
        max_pixels: of a pass.

    Returns:
        ``(B, 3, H, W)``.

    Raises:
        ValueError: ``max_pixels`` is below the smallest tile.
        DenoiserOutputError: the model returns another shape, or values that are not finite.
    """
    multiple_px = side_multiple_px(model)
    if max_pixels < smallest_pass(multiple_px):
        raise ValueError(f"max_pixels must be at least {smallest_pass(multiple_px)}, got {max_pixels}")
    height, width = images.shape[-2:]
    images_per_pass = max_pixels // (height * width)
    if images_per_pass >= len(images):
        output = _run(model, images)
    elif images_per_pass >= 1:
        output = torch.cat([_run(model, part) for part in images.split(images_per_pass)])
    else:
        tiles = plan_tiles(height, width, max_pixels=max_pixels, multiple_px=multiple_px)
        output = torch.cat([run_tiles(lambda tile: _run(model, tile), image, tiles) for image in images.split(1)])
    _require_finite(output)
    return output


def to_uint8(image: Tensor) -> Tensor:
    """Round to 8 bits: ``clip(255 image + 0.5, 0, 255)``, truncated; any shape, values on the [0, 1] scale."""
    return (image * 255 + 0.5).clamp(0, 255).to(torch.uint8)


def _run(model: nn.Module, images: Tensor) -> Tensor:
    output = model(images)
    if not isinstance(output, Tensor) or not output.is_floating_point():
        kind = f"a tensor of {output.dtype}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise DenoiserOutputError(f"the denoiser returned {kind}, not a tensor of floats")
    if output.shape != images.shape:
        raise DenoiserOutputError(f"the denoiser returned shape {tuple(output.shape)} for input {tuple(images.shape)}")
    return output


def _require_finite(output: Tensor) -> None:
    finite = output.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        raise DenoiserOutputError(
            "the denoiser returned values that are not finite: its weights are broken, or fp16 overflowed",
            index=int(finite.logical_not().nonzero()[0]),
        )
