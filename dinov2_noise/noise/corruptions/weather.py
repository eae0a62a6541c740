"""Weather: snow, frost, fog.

Defined by Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"
(2019, arXiv 1903.12261), and by the code that made ImageNet-C; parameters are those of that code, in pixels of 224-px
images. The pictures of frost are our own, see :mod:`dinov2_noise.noise.corruptions.frost`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dinov2_noise.noise.corruptions.filters import magnify, motion_trail
from dinov2_noise.noise.corruptions.frost import KINDS, SIDE_PX, frost_picture
from dinov2_noise.noise.models import FloatImage


class _Snow(NamedTuple):
    mean: float
    sigma: float
    magnification: float
    threshold: float
    trail_radius_px: int
    trail_sigma_px: float
    kept: float
    """Share of the image that the whitening leaves."""


_SNOW = (
    _Snow(0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    _Snow(0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    _Snow(0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    _Snow(0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    _Snow(0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
# Per severity: weights of the image and of the frost.
_FROST = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
# Per severity: strength, and by how much the fog's amplitude falls from one octave to the next.
_FOG = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))
_LUMA = np.array([0.299, 0.587, 0.114])


def snow(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Flakes (magnified noise above a threshold, blurred along U(-135, -45) degrees) over a whitened image.

    The flakes are added once as they are and once turned by 180 degrees.
    """
    chosen = _SNOW[severity - 1]
    noise = rng.normal(chosen.mean, chosen.sigma, size=image.shape[:2])
    flakes = magnify(noise[..., None].astype(np.float32), chosen.magnification)[..., 0]
    flakes[flakes < chosen.threshold] = 0
    eight_bit = np.floor(np.clip(flakes, 0, 1) * 255) / 255
    angle_deg = rng.uniform(-135, -45)
    layer = motion_trail(eight_bit, chosen.trail_radius_px, chosen.trail_sigma_px, angle_deg).astype(np.float64)
    whitened = np.maximum(image, (image @ _LUMA)[..., None] * 1.5 + 0.5)
    result: FloatImage = chosen.kept * image + (1 - chosen.kept) * whitened + (layer + layer[::-1, ::-1])[..., None]
    return result


def frost(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """a * image + b * part of a picture of frost, drawn from five kinds and all places."""
    kept, added = _FROST[severity - 1]
    kind, top, left = rng.integers(KINDS), rng.integers(SIDE_PX), rng.integers(SIDE_PX)
    rows, columns = ((start + np.arange(side)) % SIDE_PX for start, side in zip((top, left), image.shape, strict=False))
    result: FloatImage = kept * image + added * frost_picture(int(kind))[rows[:, None], columns]
    return result


def fog(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """(x + strength * plasma) scaled back to the brightest value of x; the plasma is in [0, 1]."""
    strength, decay = _FOG[severity - 1]
    height, width = image.shape[:2]
    side = 1 << (max(height, width, 2) - 1).bit_length()
    layer = plasma(side, decay, rng)[:height, :width, None]
    brightest = image.max()
    result: FloatImage = (image + strength * layer) * (brightest / (brightest + strength))
    return result


def plasma(side: int, decay: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Fractal (side, side) by the diamond-square method on a torus, scaled to [0, 1]; ``side`` is a power of 2.

    Per level, with points ``step`` apart: the middle of each square becomes the mean of its four corners plus
    a^2 U(-1, 1), then the middle of each edge the mean of its four neighbours plus the same; a begins at 100 and is
    divided by ``decay`` per level.
    """
    heights = np.zeros((side, side))
    amplitude, step = 100.0, side
    while step > 1:
        half, count = step // 2, side // step
        shifts = amplitude**2 * rng.uniform(-1, 1, size=(3, count, count))
        corner = heights[::step, ::step]
        below, beside = np.roll(corner, -1, 0), np.roll(corner, -1, 1)
        middle = (corner + below + beside + np.roll(below, -1, 1)) / 4 + shifts[0]
        heights[half::step, half::step] = middle
        heights[::step, half::step] = (corner + beside + middle + np.roll(middle, 1, 0)) / 4 + shifts[1]
        heights[half::step, ::step] = (corner + below + middle + np.roll(middle, 1, 1)) / 4 + shifts[2]
        step, amplitude = half, amplitude / decay
    heights -= heights.min()
    scaled: NDArray[np.float64] = heights / heights.max()
    return scaled
