"""Noises: Gaussian, shot, impulse, speckle, independent per pixel and channel.

Defined by Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"
(2019, arXiv 1903.12261), and by the code that made ImageNet-C, whose parameters these are. Three of the four are the
noise models of :mod:`dinov2_noise.noise.models` at other levels.
"""

from __future__ import annotations

import numpy as np

from dinov2_noise.noise.models import FloatImage, Gaussian, Shot, Speckle

_GAUSSIAN_SIGMA = (0.08, 0.12, 0.18, 0.26, 0.38)
_SHOT_PHOTONS = (60, 25, 12, 5, 3)
_IMPULSE_SHARE = (0.03, 0.06, 0.09, 0.17, 0.27)
_SPECKLE_SIGMA = (0.15, 0.2, 0.35, 0.45, 0.6)


def gaussian_noise(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """x + N(0, sigma^2)."""
    return Gaussian(255 * _GAUSSIAN_SIGMA[severity - 1]).sample(image, rng)


def shot_noise(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Poisson(x * photons) / photons."""
    return Shot(_SHOT_PHOTONS[severity - 1]).sample(image, rng)


def speckle_noise(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """x + x * N(0, sigma^2)."""
    return Speckle(_SPECKLE_SIGMA[severity - 1]).sample(image, rng)


def impulse_noise(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Salt and pepper: a share of all values becomes 0 or 1, each with probability 1/2."""
    struck = rng.random(image.shape) <= _IMPULSE_SHARE[severity - 1]
    salt = rng.random(image.shape) <= 0.5
    return np.where(struck, salt.astype(np.float64), image)
