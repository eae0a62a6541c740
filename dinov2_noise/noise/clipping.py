"""What clipping and truncation do to noise: mean and spread of a stored 8-bit value, given the true one.

A denoiser trained on noisy images alone converges to the mean of what is stored, E[y | x], not to x. Source of the
question: Foi, "Clipped noisy images: heteroskedastic modeling and practical denoising", Signal Processing 89 (2009).
Difference: no normal approximation, but exact sums over the 255 steps of the stored value, for any noise model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from dinov2_noise.noise.models import FloatArray, FloatImage, PixelNoise, clipped_above, normal_above

_TOP = 255


class Stored(NamedTuple):
    """Of the stored value s / 255 of pixels with given true values: each an array of the true values' shape.

    mean and std are on the [0, 1] scale; black and white are P(s = 0) and P(s = 255).
    """

    mean: FloatArray
    std: FloatArray
    black: FloatArray
    white: FloatArray


def stored(noise: PixelNoise, x: FloatArray) -> Stored:
    """What `noisy_uint8` stores of true values ``x`` in [0, 1], any shape: s = floor(255 y), y the clipped noisy value.

    .. math::
        E[s] = \\sum_{j=1}^{255} P(s \\ge j), \\qquad E[s^2] = \\sum_{j=1}^{255} (2j - 1) P(s \\ge j)
    """
    reaches = noise.exceeds(x[..., None], _steps())
    mean = reaches.sum(axis=-1)
    square = (reaches * (2 * np.arange(1, _TOP + 1) - 1)).sum(axis=-1)
    std = np.sqrt(np.maximum(square - mean**2, 0))  # rounding can leave a negative zero
    return Stored(mean / _TOP, std / _TOP, 1 - reaches[..., 0], reaches[..., -1])


@dataclass(frozen=True)
class PoissonGaussian:
    """Noise of an image sensor: y = clip(x + sqrt(a x + b) N(0, 1), 0, 1).

    Source: Foi, Trimeche, Katkovnik, Egiazarian, "Practical Poissonian-Gaussian noise modeling and fitting for
    single-image raw-data", IEEE Transactions on Image Processing 17 (2008).

    Attributes:
        a: variance per signal, of photon counting, >= 0.
        b: variance in the dark, of the electronics, >= 0.
    """

    a: float
    b: float

    @property
    def name(self) -> str:
        return f"poisson-gaussian(a={self.a!r}, b={self.b!r})"

    def sample(self, image: FloatImage, rng: np.random.Generator) -> FloatImage:
        """See `NoiseModel.sample`."""
        return np.clip(image + np.sqrt(self.a * image + self.b) * rng.normal(size=image.shape), 0.0, 1.0)

    def exceeds(self, x: FloatArray, threshold: FloatArray) -> FloatArray:
        """See `PixelNoise.exceeds`."""
        return clipped_above(threshold, normal_above(threshold - x, np.sqrt(self.a * x + self.b)))


@cache
def _steps() -> FloatArray:
    """For j = 1 to 255 the smallest float y with 255 y >= j in floating point: j / 255 or one of its neighbours."""
    level = np.arange(1, _TOP + 1, dtype=np.float64)
    nearest = level / _TOP
    candidates = np.stack([np.nextafter(nearest, 0), nearest, np.nextafter(nearest, 2)])
    first = (candidates * _TOP >= level).argmax(axis=0)
    steps: FloatArray = candidates[first, np.arange(_TOP)]
    return steps
