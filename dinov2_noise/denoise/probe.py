"""A look at a denoiser before it begins: what it makes of a small crop of a real noisy image."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from dinov2_noise.decoding import DTYPE_RANGE, ValueRange
from dinov2_noise.denoise.images import read_rgb
from dinov2_noise.denoise.network import Network
from dinov2_noise.errors import DinoNoiseError, ImageError
from neighbor2neighbor import DenoiserOutputError

_PROBE_PX = 64
# Of the probe's output; far from what noise adds to [0, 1], and far from 255.
_PLAUSIBLE_RANGE = (-0.5, 1.5)


def probe(network: Network, sources: Sequence[Path], values: ValueRange = DTYPE_RANGE) -> None:
    """Look at what the denoiser makes of a small crop of the first readable image.

    Says so on standard error if it makes something else of it the second time.

    Args:
        network: the denoiser.
        sources: images; those that cannot be read are passed over.
        values: which of their values are black and white.

    Raises:
        DinoNoiseError: it fails, or returns another shape, another range, or values that are not finite.
    """
    found = _first_readable(sources, values)
    if found is None:
        return
    source, image = found
    height, width = (min(side, _PROBE_PX) for side in image.shape[-2:])
    crop = network.pad(image[:, :height, :width]).float() / 255
    label = network.denoiser.label
    try:
        output, again = (network.forward(crop[None].clone().to(network.device)) for _ in range(2))
    except Exception as cause:  # other people's modules may raise anything
        words = "" if isinstance(cause, DenoiserOutputError) else f"{type(cause).__name__}: "
        raise DinoNoiseError(
            f"denoiser {label} cannot denoise {source}: {words}{cause} (on {height}x{width} px of it, padded to "
            f"{tuple(crop.shape[-2:])}, as a tensor (1, 3, h, w) of floats in [0, 1])"
        ) from cause
    if network.denoiser.is_own:
        return
    low, high = (float(value) for value in output[..., :height, :width].aminmax())
    if not _PLAUSIBLE_RANGE[0] <= low <= high <= _PLAUSIBLE_RANGE[1]:
        raise DinoNoiseError(
            f"denoiser {label} returned values from {low:.3g} to {high:.3g} for {source}, whose own are in [0, 1]: it "
            "must map [0, 1] to [0, 1]; if it works on 0 to 255 or on another scale, convert in its forward, or in a "
            "module around it"
        )
    if not torch.allclose(output, again, rtol=0, atol=1e-4):
        print(
            f"denoise apply: denoiser {label} makes something else of the same image the second time (it draws random "
            "numbers, or remembers): interrupted and continued, or in shards, a run will not give the same images",
            file=sys.stderr,
        )


def _first_readable(sources: Sequence[Path], values: ValueRange) -> tuple[Path, Tensor] | None:
    for source in sources:
        with suppress(ImageError):
            return source, read_rgb(source, values)
    return None
