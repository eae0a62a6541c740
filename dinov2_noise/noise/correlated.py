"""Gaussian noise that neighbouring pixels share, as demosaicing, resizing, drizzling or a detector's glow leave it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dinov2_noise.noise.models import FloatArray, FloatImage, Gaussian, check_level, clip, shortest

_TOO_LARGE_PX = 100.0
_REACH = 4.0  # radii beyond which the kernel is cut off: it has fallen to 0.0003 there


@dataclass(frozen=True)
class Correlated:
    """Blurred Gaussian noise: y = clip(x + n, 0, 1), n = white noise convolved with a Gaussian kernel, of std sigma.

    Of n, each pixel by itself is N(0, (sigma_255 / 255)^2), up to the image's edge: more noise than pixels is drawn (by
    one call), blurred, cut, and divided by the root of the kernel's sum of squares. At a lag of d pixels (dy, dx) the
    autocorrelation is that of the kernel, close to exp(-(dy^2 + dx^2) / (4 radius_px^2)). Channels are independent.

    Source of the problem: Fruchter, Hook, "Drizzle: a method for the linear reconstruction of undersampled images",
    Publications of the Astronomical Society of the Pacific 114 (2002), arXiv astro-ph/9808087, section 7, on noise that
    neighbouring pixels share. Neighbor2Neighbor cannot remove such noise: see docs/correlated-noise.md.

    Attributes:
        sigma_255: standard deviation of a pixel on the 8-bit scale, > 0.
        radius_px: standard deviation of the kernel, > 0 and below 100.
    """

    sigma_255: float
    radius_px: float

    def __post_init__(self) -> None:
        check_level("correlated", self.sigma_255)
        check_level("correlated", self.radius_px, what="radius", below=_TOO_LARGE_PX)

    @property
    def name(self) -> str:
        return f"correlated{shortest(self.sigma_255)}_{shortest(self.radius_px)}"

    def kernel(self) -> FloatArray:
        """Along one axis, from -reach to reach; its sum of squares is 1."""
        reach = math.ceil(_REACH * self.radius_px)
        weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / self.radius_px) ** 2)
        scaled: FloatArray = weights / np.sqrt((weights**2).sum())
        return scaled

    def sample(self, image: FloatImage, rng: np.random.Generator) -> FloatImage:
        """See `NoiseModel.sample`."""
        from scipy.ndimage import correlate1d

        kernel = self.kernel()
        reach = len(kernel) // 2
        height, width, channels = image.shape
        white = rng.standard_normal((height + 2 * reach, width + 2 * reach, channels))
        # Cut after each axis: what lies beyond the drawn noise is never looked at.
        along = correlate1d(white, kernel, axis=1)[:, reach : reach + width]
        noisy: FloatImage = correlate1d(along, kernel, axis=0)[reach : reach + height]
        noisy *= self.sigma_255 / 255
        noisy += image
        return clip(noisy)

    def exceeds(self, x: FloatArray, threshold: FloatArray) -> FloatArray:
        """See `PixelNoise.exceeds`: of one pixel it is Gaussian noise."""
        return Gaussian(self.sigma_255).exceeds(x, threshold)
