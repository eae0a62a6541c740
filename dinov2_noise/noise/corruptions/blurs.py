"""Blurs: out of focus, frosted glass, moving camera, approaching camera, Gaussian.

Defined by Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"
(2019, arXiv 1903.12261), and by the code that made ImageNet-C; parameters are those of that code, in pixels of 224-px
images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.noise.corruptions.filters import convolve_symmetric, disc, gaussian_blur_px, magnify, motion_trail
from dinov2_noise.noise.models import FloatImage

# Per severity: radius of the disc, standard deviation of its edge.
_DEFOCUS_PX = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
# Per severity: standard deviation of the two blurs, largest distance, rounds.
_GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
# Per severity: radius and standard deviation of the trail.
_MOTION_PX = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
# Per severity: number of magnifications, and the step from one to the next, beginning at 1.
_ZOOM = ((12, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03))
_GAUSSIAN_PX = (1, 2, 3, 4, 6)


def defocus_blur(image: FloatImage, severity: int, _rng: np.random.Generator) -> FloatImage:
    """Convolution with a disc whose edge is smoothed."""
    return convolve_symmetric(image, disc(*_DEFOCUS_PX[severity - 1]))


def motion_blur(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """A trail in a direction drawn from U(-45, 45) degrees; see `motion_trail`."""
    radius, sigma = _MOTION_PX[severity - 1]
    blurred = motion_trail(image.astype(np.float32), radius, sigma, rng.uniform(-45, 45))
    return blurred.astype(np.float64)


def zoom_blur(image: FloatImage, severity: int, _rng: np.random.Generator) -> FloatImage:
    """Mean of the image and of its magnifications 1, 1 + step, …"""
    count, step = _ZOOM[severity - 1]
    source = image.astype(np.float32)
    total = source.copy()
    for number in range(count):
        total += magnify(source, 1 + number * step)
    mean: FloatImage = total.astype(np.float64) / (count + 1)
    return mean


def gaussian_blur(image: FloatImage, severity: int, _rng: np.random.Generator) -> FloatImage:
    """Gaussian blur of standard deviation 1, 2, 3, 4 or 6 px."""
    return gaussian_blur_px(image, _GAUSSIAN_PX[severity - 1])


def glass_blur(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Blur, to 8 bit, pixels displaced within a small square, blur again.

    The pixels are visited from the bottom right to the top left; each takes the present value of a pixel drawn from
    its neighbourhood. (The code that made ImageNet-C is written as a swap of the two, but its assignment overwrites the
    first pixel before reading it, so that the second one stays; the published images are made so.)
    """
    sigma, reach, rounds = _GLASS[severity - 1]
    blurred = np.floor(gaussian_blur_px(image, sigma) * 255 + 1e-4)
    height, width = image.shape[:2]
    for _ in range(rounds):
        offsets = rng.integers(-reach, reach, size=(height - 2 * reach, width - 2 * reach, 2))
        blurred = blurred.reshape(-1, 3)[glass_sources(height, width, reach, offsets)].reshape(image.shape)
    return gaussian_blur_px(blurred / 255, sigma)


def glass_sources(height: int, width: int, reach: int, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each pixel's value comes from after one round of `glass_blur`, (H * W,) flat indices.

    Exactly the sequential result: pixel p takes the value of q = p + offset, which is q's new one if q was visited
    before p, and else its old one. So p points to q's source, or to q; chains of pointers are resolved by doubling,
    as many times as the longest chain has bits.

    Args:
        height, width, reach: visited are rows reach + 1 … H - reach and columns alike.
        offsets: (H - 2 reach, W - 2 reach, 2), down and right, in [-reach, reach), by rising row and column.
    """
    flat = np.arange(height * width).reshape(height, width)
    visited = (slice(reach + 1, height - reach + 1), slice(reach + 1, width - reach + 1))
    partner = flat.copy()
    partner[visited] += offsets[..., 0] * width + offsets[..., 1]
    is_visited = np.zeros((height, width), bool)
    is_visited[visited] = True
    partner, own = partner.ravel(), flat.ravel()
    # A partner that comes later in the raster was visited before.
    follows = is_visited.ravel()[partner] & (partner > own)
    link = np.where(follows, partner, own)
    while True:
        further = link[link]
        if np.array_equal(further, link):
            sources: NDArray[np.int64] = partner[link]
            return sources
        link = further
