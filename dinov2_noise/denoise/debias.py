"""Undo the contrast that clipped noise takes away: the mean curve of the noise, inverted after denoising.

A denoiser trained on noisy images converges to m(x) = E[stored value | true value x], see `noise.clipping`, so the
inverse of m brings its output back to x. It enlarges what errors the denoiser makes, by 1 / m'(x). Source: Foi,
"Clipped noisy images: heteroskedastic modeling and practical denoising", Signal Processing 89 (2009), "declipping".
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dinov2_noise.decoding import DTYPE_RANGE, ValueRange
from dinov2_noise.denoise.images import read_rgb
from dinov2_noise.denoise.noise_fit import fit_noise
from dinov2_noise.errors import ImageError
from dinov2_noise.files import MANIFEST_NAME, read_manifest
from dinov2_noise.noise.clipping import stored
from dinov2_noise.noise.models import FloatArray, PixelNoise
from dinov2_noise.noise.registry import parse_pixel_noise

AUTO = "auto"
MAX_IMAGES = 32
_MAX_SIDE_PX = 512  # of what is looked at of each image
_GRID = 4097


class Debias:
    """Denoised values → estimates of the true ones; any shape and device, without gradients.

    Args:
        noise: what the images held that the denoiser was trained on.
    """

    def __init__(self, noise: PixelNoise) -> None:
        self.noise = noise
        truth = np.linspace(0, 1, _GRID)
        # Weak noise, truncated, makes a staircase: of a step the middle is taken. Single precision, as in the look-up.
        means, step = np.unique(stored(noise, truth).mean.astype(np.float32), return_inverse=True)
        self._means = torch.from_numpy(means)
        self._truth = torch.from_numpy((np.bincount(step, truth) / np.bincount(step)).astype(np.float32))

    def identity(self) -> dict[str, str]:
        """What a manifest says of it."""
        return {"debias": self.noise.name}

    @torch.no_grad()
    def __call__(self, denoised: Tensor) -> Tensor:
        """The inverse of the mean curve, interpolated; clamped to [0, 1]."""
        means, truth = self._means.to(denoised.device), self._truth.to(denoised.device)
        values = denoised.float().clamp(means[0], means[-1]).contiguous()
        above = torch.searchsorted(means, values).clamp(1, len(means) - 1)
        share = (values - means[above - 1]) / (means[above] - means[above - 1])
        return torch.lerp(truth[above - 1], truth[above], share).to(denoised.dtype)


def choose_debias(
    spec: str,
    noisy: Path,
    denoise: Callable[[Tensor], Tensor],
    names: Sequence[str],
    *,
    skip_unreadable: bool = False,
    values: ValueRange = DTYPE_RANGE,
) -> Debias:
    """The correction for a folder of noisy images; the same for the same folder and denoiser.

    Args:
        spec: a noise such as ``gauss100``, or ``auto``: the noise named in the manifest of ``add-noise``, in the folder
            or the one above it; without one, the noise is estimated on up to 32 evenly spaced images.
        noisy: the folder.
        denoise: from ``(3, H, W)`` float in [0, 1] on the CPU, of any size, to the same on any device.
        names: relative paths of its images.
        skip_unreadable: estimate the noise without the images that cannot be read.
        values: which stored values are black and white.

    Raises:
        NoiseNameError: ``spec`` is no noise.
        ImageError: an image cannot be read, without ``skip_unreadable``: mended later, it would give another estimate.
        DinoNoiseError: no noise model fits the images.
    """
    if spec != AUTO:
        return Debias(parse_pixel_noise(spec))
    known = _noise_of_manifest(noisy)
    if known is not None:
        print(f"debias: {noisy} holds {known.name}, as its manifest says", file=sys.stderr)
        return Debias(known)

    def run(image: FloatArray) -> FloatArray:
        return denoise(torch.from_numpy(image.astype(np.float32))).float().cpu().numpy()

    places = np.unique(np.linspace(0, len(names) - 1, min(len(names), MAX_IMAGES)).round().astype(int))
    found = fit_noise(_read_all([noisy / names[place] for place in places], skip_unreadable, values), run)
    print(f"debias: the noise of {noisy} is like {found.noise.name} (misfit {found.misfit:.4f})", file=sys.stderr)
    return Debias(found.noise)


def _noise_of_manifest(noisy: Path) -> PixelNoise | None:
    for folder in (noisy.resolve(), noisy.resolve().parent):
        if (folder / MANIFEST_NAME).is_file():
            manifest = read_manifest(folder)
            if manifest.get("command") == "add-noise":
                return parse_pixel_noise(manifest["parameters"]["noise"])
    return None


def _read_all(paths: Sequence[Path], skip_unreadable: bool, values: ValueRange) -> Iterator[FloatArray]:
    for path in paths:
        try:
            image = _read(path, values)
        except ImageError:
            if not skip_unreadable:
                raise
            continue
        yield image


def _read(path: Path, values: ValueRange) -> FloatArray:
    """The middle of an image, ``(3, H, W)`` in [0, 1]."""
    image = read_rgb(path, values).numpy()
    top, left = (max(0, (side - _MAX_SIDE_PX) // 2) for side in image.shape[1:])
    cut: FloatArray = image[:, top : top + _MAX_SIDE_PX, left : left + _MAX_SIDE_PX] / 255
    return cut
